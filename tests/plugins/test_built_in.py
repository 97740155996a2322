"""Extensions that come with the program load as strangers' do, quickly."""

import subprocess
import sys
from pathlib import Path

from webui.plugins.discovery import BUILT_IN
from webui.settings import CHECKOUT

HEAVY = {"torch", "diffusers", "transformers", "gradio", "cv2", "onnxruntime", "insightface"}


def test_they_load_without_problems_and_import_nothing_that_takes_long(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from webui.plugins.host import PluginHost; from webui.settings import load_settings\n"
        f"host = PluginHost(load_settings(data_dir=Path({str(tmp_path)!r}))); host.load()\n"
        f"print(sorted({HEAVY} & set(sys.modules)))\n"
        f"print([(each.id, each.state, each.problems) for each in host.extensions() if each.id in {set(BUILT_IN)}])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heavy, states = done.stdout.splitlines()
    assert states == str([(id, "on", ()) for id in sorted(BUILT_IN)])
    assert heavy == "[]"


def test_the_folders_of_the_program_are_those_it_names() -> None:
    folders = {manifest.parent.name for manifest in (CHECKOUT / "extensions").glob("*/extension.toml")}
    assert folders >= BUILT_IN
