"""Which networks are kept: shared, bounded, never stale, and gone to the last byte."""

import ctypes
import gc
import shutil
import weakref
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import CPU
from tests.fake_device import FakeDevice, Ledger
from tests.model_files import write_diffusers_file, write_original_layout
from tests.models import write_checkpoint
from webui.errors import ModelNotFound, UnsupportedModel
from webui.library.catalog import Library
from webui.pipeline import manager as manager_module
from webui.pipeline.components import Component, ComponentCache, default_budget_bytes
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.pipeline.offload import Placement


@pytest.fixture(scope="module")
def another(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with other random weights."""
    return write_checkpoint(tmp_path_factory.mktemp("another") / "checkpoint", seed=7)


@pytest.fixture
def models(tiny_models_dir: Path, another: Path, tmp_path: Path) -> Path:
    """Checkpoints "a", "b" (of another seed) and "c" (a's, with b's U-Net)."""
    checkpoints = tmp_path / "checkpoints"
    shutil.copytree(tiny_models_dir / "checkpoints" / "tiny", checkpoints / "a")
    shutil.copytree(another, checkpoints / "b")
    shutil.copytree(checkpoints / "a", checkpoints / "c")
    shutil.copytree(checkpoints / "b" / "unet", checkpoints / "c" / "unet", dirs_exist_ok=True)
    return tmp_path


def manager_of(models: Path, *, cache_bytes: int = 0) -> PipelineManager:
    return PipelineManager(Library([models], models / "cache"), CPU, cache_bytes=cache_bytes)


def mapped(models: Path) -> list[str]:
    """Model files that are mapped into this process (Linux)."""
    return [line for line in Path("/proc/self/maps").read_text().splitlines() if str(models / "checkpoints") in line]


def test_a_checkpoint_that_is_kept_is_not_read_again(models: Path) -> None:
    manager = manager_of(models)
    first = manager.load("a")
    manager.load("b")
    assert not manager.is_loaded("a")
    assert manager.load("a") is first
    assert manager.is_loaded("a")


def test_checkpoints_share_the_networks_that_are_equal(models: Path) -> None:
    manager = manager_of(models)
    a, b, c = manager.load("a"), manager.load("b"), manager.load("c")
    assert c.codec.vae is a.codec.vae
    assert c.text_encoder.encoders[0].model is a.text_encoder.encoders[0].model
    assert c.unet is b.unet
    assert c.unet is not a.unet
    assert b.codec.vae is not a.codec.vae


def test_sharing_looks_at_every_value(models: Path) -> None:
    path = models / "checkpoints" / "c" / "vae" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    tensors["decoder.conv_in.weight"][3, 1, 0, 0] += 0.5
    save_file(tensors, path)
    manager = manager_of(models)
    assert manager.load("a").codec.vae is not manager.load("c").codec.vae


def size_of(manager: PipelineManager, name: str) -> int:
    manager.load(name)
    return manager.cache.used_bytes


def test_the_least_recently_used_goes_first_and_what_is_in_use_stays(models: Path) -> None:
    size = size_of(manager_of(models), "a")
    write_checkpoint(models / "checkpoints" / "d", seed=8)
    manager = manager_of(models, cache_bytes=2 * size)
    a, b = manager.load("a"), manager.load("b")
    assert manager.load("a") is a
    manager.load("d")
    assert manager.cache.used_bytes <= 2 * size
    assert manager.load("a") is a
    assert manager.load("b") is not b


def test_a_checkpoint_larger_than_the_budget_still_runs_alone(models: Path) -> None:
    manager = manager_of(models, cache_bytes=1)
    size = size_of(manager, "a")
    manager.load("b")
    assert manager.cache.used_bytes == size


def test_switching_fifty_times_leaves_nothing_behind(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manager_module, "choose_layout", lambda *arguments: torch.contiguous_format)
    manager = manager_of(models, cache_bytes=1)
    round_trip = ("a", "c", "a", "c", "b")
    for name in round_trip:
        manager.load(name)
    gc.collect()
    ghosts: list[weakref.ref[Model]] = []
    tensors, resident = count_tensors(), resident_bytes()
    for name in round_trip * 10:
        ghosts.append(weakref.ref(manager.load(name).unet))
    gc.collect()
    assert {id(network) for ghost in ghosts if (network := ghost()) is not None} == {id(manager.load("b").unet)}
    assert count_tensors() == tensors
    assert resident_bytes() - resident < 30e6
    assert not [line for line in mapped(models) if "/a/" in line]


def test_what_is_unloaded_is_gone_to_the_last_byte(models: Path) -> None:
    manager = manager_of(models)
    gc.collect()
    before = count_tensors()
    weights = [weakref.ref(weight) for weight in manager.load("a").unet.parameters()]
    manager.load("c")
    manager.unload()
    gc.collect()
    assert all(weight() is None for weight in weights)
    assert count_tensors() == before
    assert manager.cache.used_bytes == 0
    assert mapped(models) == []


def count_tensors() -> int:
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


def resident_bytes() -> int:
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


@pytest.mark.parametrize("replaced", ["in place", "by another file", "removed"])
def test_a_shared_network_does_not_follow_the_other_checkpoints_file(replaced: str, models: Path) -> None:
    manager = manager_of(models)
    manager.load("b")
    before = manager.load("c").unet.conv_in.weight.clone()
    path = models / "checkpoints" / "b" / "unet" / "diffusion_pytorch_model.safetensors"
    content = path.read_bytes()
    if replaced != "in place":
        path.unlink()
    if replaced != "removed":
        path.touch()
        with path.open("r+b") as file:
            file.write(content[:-4000] + bytes(4000))
    after = manager.load("c")
    assert torch.equal(after.unet.conv_in.weight, before)
    source = after.components["unet"].source
    assert all(torch.equal(source.tensor(name), weight) for name, weight in after.unet.state_dict().items())


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_the_faster_memory_layout_is_measured_once_on_a_machine(
    layout: torch.memory_format, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def choose(unet: torch.nn.Module, *more: object) -> torch.memory_format:
        measured.append(unet)
        unet.to(memory_format=layout)  # type: ignore[call-overload]
        return layout

    monkeypatch.setattr(manager_module, "choose_layout", choose)
    library = Library([models], models / "cache")
    weights = [
        PipelineManager(library, CPU, cache_dir=models / "cache").load(name).unet.conv_in.weight for name in ("a", "b")
    ]
    assert len(measured) == 1
    assert all(weight.is_contiguous(memory_format=layout) for weight in weights)


def test_a_damaged_note_of_the_layout_is_measured_again(models: Path) -> None:
    (models / "cache").mkdir()
    (models / "cache" / "memory_layouts.json").write_text("[not json")
    PipelineManager(Library([models], models / "cache"), CPU, cache_dir=models / "cache").load("a")
    assert "torch" in (models / "cache" / "memory_layouts.json").read_text()


@pytest.mark.parametrize("cache_bytes", [0, 1])
def test_a_load_that_fails_leaves_the_old_model_in_place(models: Path, cache_bytes: int) -> None:
    manager = manager_of(models, cache_bytes=cache_bytes)
    old = manager.load("a")
    config = models / "checkpoints" / "b" / "unet" / "config.json"
    config.write_text(config.read_text().replace('"cross_attention_dim": 32', '"cross_attention_dim": 48'))
    with pytest.raises(UnsupportedModel, match="another shape"):
        manager.load("b")
    assert manager.is_loaded("a")
    assert manager.load("a") is old


def test_what_the_user_notes_of_a_folders_prediction_counts(models: Path) -> None:
    manager = manager_of(models)
    assert manager.load("a").prediction_type == "epsilon"
    (file,) = [file for file in manager.library.files("checkpoint") if file.name == "a"]
    manager.library.write_notes(file, {"prediction_type": "v_prediction"})
    assert manager.load("a").prediction_type == "v_prediction"


@pytest.fixture
def single_files(tmp_path: Path) -> Path:
    """Checkpoint "one" as a single file, "bare" without its VAE, and the VAE "other"."""
    for folder in ("checkpoints", "vae"):
        (tmp_path / folder).mkdir()
    write_original_layout(tmp_path / "checkpoints" / "one.safetensors")
    write_original_layout(tmp_path / "checkpoints" / "bare.safetensors", vae=False)
    write_diffusers_file(tmp_path / "vae" / "other.safetensors", components=("vae",), bare=True, seed=1)
    return tmp_path


def test_the_vae_beside_a_checkpoint_is_taken_unless_its_own_is_asked_for(single_files: Path) -> None:
    manager = manager_of(single_files)
    own, other = manager.load("one").codec.vae, manager.load("one", vae="other").codec.vae
    shutil.copy(single_files / "vae" / "other.safetensors", single_files / "checkpoints" / "one.vae.safetensors")
    assert manager.load("one").codec.vae is other
    assert manager.load("one", vae="None").codec.vae is own


def test_a_vae_can_be_chosen_by_name(single_files: Path) -> None:
    manager = manager_of(single_files)
    own, other = manager.load("one").codec.vae, manager.load("one", vae="other").codec.vae
    assert not torch.equal(own.decoder.conv_in.weight, other.decoder.conv_in.weight)
    assert manager.load("bare", vae="other").codec.vae is other
    assert manager.load("one").codec.vae is own
    with pytest.raises(ModelNotFound, match="VAE"):
        manager.load("one", vae="nothing")


def test_a_checkpoint_without_a_vae_says_what_to_do(single_files: Path) -> None:
    with pytest.raises(UnsupportedModel, match=r"VAE.*Choose a VAE for it"):
        manager_of(single_files).load("bare")


def test_the_vae_beside_a_folder_with_a_dot_in_its_name_is_taken(models: Path) -> None:
    (models / "checkpoints" / "a").rename(models / "checkpoints" / "sd-v1.5")
    beside = models / "checkpoints" / "sd-v1.5.vae.safetensors"
    write_diffusers_file(beside, components=("vae",), bare=True, seed=1)
    assert manager_of(models).load("sd-v1.5").vae_path == beside


def test_an_autoencoder_that_was_put_into_float32_counts_as_it_is_now(models: Path) -> None:
    manager = manager_of(models)
    vae = manager.load("a").components["vae"]
    before = manager.cache.used_bytes
    vae.module.to(torch.float64)
    assert manager.cache.used_bytes == before + vae.size_bytes / 2


def test_the_old_model_goes_before_the_new_one_is_read_where_both_do_not_fit(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = manager_of(models, cache_bytes=1)
    ledger = Ledger()
    manager._placement = Placement(FakeDevice(2**40, ledger), transfers=ledger)  # type: ignore[arg-type]
    old = [weakref.ref(component.module) for component in manager.load("a").components.values()]
    found_at_reading = []

    def filled(*arguments: object, **options: object) -> torch.nn.Module:
        gc.collect()
        found_at_reading.append([network() is not None for network in old])
        return read(*arguments, **options)  # type: ignore[arg-type]

    read = manager_module.loading.filled
    monkeypatch.setattr(manager_module.loading, "filled", filled)
    manager.load("b")
    assert found_at_reading[0] == [False] * len(old)


def test_the_budget_is_a_share_of_the_machine() -> None:
    assert 0 < default_budget_bytes() <= psutil.virtual_memory().total / 2


def component(size_bytes: int) -> Component:
    source = type("Source", (), {"close": lambda self: None, "is_current": lambda self: True})()
    module = torch.nn.Module()
    module.register_buffer("weight", torch.zeros(size_bytes, dtype=torch.uint8))
    return Component(name="vae", module=module, source=source, dtype=torch.float32)


def test_room_is_made_only_as_far_as_it_is_needed() -> None:
    cache = ComponentCache(100)
    parts = [component(30) for _ in range(3)]
    for part in parts:
        cache.add(part)
    cache.pin([parts[0]])
    cache.make_room(20)
    assert [part in cache for part in parts] == [True, False, True]
    cache.make_room(1000)
    assert [part in cache for part in parts] == [True, False, False]
