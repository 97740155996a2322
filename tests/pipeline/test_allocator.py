import subprocess
import sys

import pytest

PROGRAM = """
import resource, torch
from webui.pipeline.allocator import keep_freed_memory
assert keep_freed_memory()
def faults_of_a_round():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16, 1024, 1024)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults_of_a_round(), sum(faults_of_a_round() for _ in range(30)))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc gives memory back at once")
def test_memory_that_was_freed_is_not_mapped_again() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    pages, faults_of_30_rounds = 64 * 2**20 // 4096, int(ran.stdout.split()[1])
    assert faults_of_30_rounds < 15 * pages  # 30 times as many if every round maps its memory anew
