"""Models that can be trained: pictures are made in inference mode, and what is loaded there stays without gradients."""

import pytest
import torch

from webui.library.catalog import Library
from webui.pipeline.device import Device
from webui.pipeline.manager import PipelineManager


@pytest.fixture(scope="session")
def manager(library: Library) -> PipelineManager:
    """Not the one that the tests of pictures share."""
    return PipelineManager(library, Device(torch_device=torch.device("cpu"), dtype=torch.float32, images_at_once=False))
