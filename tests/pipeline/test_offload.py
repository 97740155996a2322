"""Small devices: the plan fits, the numbers stay, and what is used lies on the device."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tests.fake_device import FakeDevice, Ledger
from tests.model_files import load_network, write_original_layout
from webui.library.catalog import CheckpointInfo
from webui.pipeline import offload
from webui.pipeline.components import Component
from webui.pipeline.loading import checked_network, size_bytes
from webui.pipeline.offload import Placement, Transfers, plan_placement, size_of, streamed_blocks
from webui.pipeline.sources import open_checkpoint
from webui.pipeline.strips import Strips

GIB = 2**30


class Recorder(Ledger):
    """Copies that are under way until the device is waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.on_the_way: set[int] = set()
        self.num_started = 0

    def start(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self.on_the_way |= {tensor.data_ptr() for tensor in tensors}
        self.num_started += 1
        return super().start(tensors)

    def settle(self) -> None:
        self.on_the_way.clear()


class Full(Ledger):
    """Moves run out of memory from the `num_moves`th on."""

    num_moves = 10**9

    def _count(self) -> None:
        self.num_moves -= 1
        if self.num_moves < 0:
            raise RuntimeError("out of memory")

    def to_device(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self._count()
        return super().to_device(tensors)

    def pinned(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        self._count()
        return super().pinned(tensors)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_original_layout(tmp_path_factory.mktemp("offload") / "a.safetensors")


def components_of(path: Path) -> dict[str, Component]:
    source = open_checkpoint(CheckpointInfo(name="a", title="a", path=path))
    parts = {name: source.component(name) for name in source.names()}
    return {
        name: Component(
            name=name,
            module=load_network(part, torch.float32),
            source=part,
            dtype=torch.float32,
        )
        for name, part in parts.items()
        if part is not None
    }


def run_all(components: dict[str, Component]) -> list[Tensor]:
    """Text, two steps and both ways through the autoencoder, whole and in strips."""
    unet, vae, text = (components[name].module for name in ("unet", "vae", "text_encoder"))
    generator = torch.Generator().manual_seed(3)
    with torch.inference_mode():
        context = text(torch.tensor([[49406, 5, 49407]])).last_hidden_state
        x = torch.randn(1, 4, 8, 8, generator=generator)
        for timestep in (800, 300):
            x = unet(x, timestep, context, return_dict=False)[0]
        pixels = vae.decode(x).sample
        strips = Strips(device=torch.device("cpu"), storage=torch.device("cpu"), strip_pixels=256)
        return [context, x, pixels, vae.encode(pixels).latent_dist.mean, strips.decode(vae, x)]


@pytest.fixture
def small_reserve(monkeypatch: pytest.MonkeyPatch) -> None:
    """These networks are so small that a real picture's memory would hide them."""
    monkeypatch.setattr(offload, "reserve_bytes", lambda native_size: 0)


def capacity_for(components: dict[str, Component], mode: str) -> int:
    sizes = {name: size_of(component.module) for name, component in components.items()}
    blocks = [size_of(block) for block in streamed_blocks(components["unet"].module)]
    least = max(sizes["unet"] - sum(blocks) + 2 * max(blocks), sizes["vae"], sizes["text_encoder"])
    return {"resident": sum(sizes.values()), "in turn": max(sizes.values()), "streamed": least}[mode]


@pytest.mark.usefixtures("small_reserve")
@pytest.mark.parametrize("mode", ["resident", "in turn", "streamed"])
def test_results_are_the_same_on_a_device_of_any_size(mode: str, path: Path) -> None:
    components = components_of(path)
    expected = run_all(components)
    ledger = Ledger()
    capacity = capacity_for(components, mode)
    placement = Placement(FakeDevice(capacity, ledger), transfers=ledger)
    assert placement.use(components, native_size=64).mode == mode
    watch_layers(components, ledger)
    for _ in range(2):
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(run_all(components), expected, strict=True))
    assert 0 < ledger.peak <= capacity


def watch_layers(components: dict[str, Component], ledger: Ledger) -> None:
    """Every layer that runs must have its weights on the device."""

    def check(layer: nn.Module, args: object) -> None:
        assert all(ledger.holds(weight) for weight in layer.parameters(recurse=False))

    for component in components.values():
        for layer in component.module.modules():
            layer.register_forward_pre_hook(check)


def passing_block(components: dict[str, Component], ledger: Ledger) -> nn.Module:
    """A residual block that is not on the device although the U-Net ran last."""
    unet = components["unet"].module
    with torch.inference_mode():
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 32))
    blocks = [block for block in streamed_blocks(unet) if hasattr(block, "conv2")]
    return next(block for block in blocks if not any(ledger.holds(weight) for weight in block.parameters()))


@pytest.mark.usefixtures("small_reserve")
def test_weights_changed_between_passes_are_the_ones_that_run(path: Path) -> None:
    components = components_of(path)
    ledger = Ledger()
    Placement(FakeDevice(capacity_for(components, "streamed"), ledger), transfers=ledger).use(
        components, native_size=64
    )
    before = run_all(components)[1]
    weight = passing_block(components, ledger).get_parameter("conv2.weight")
    with torch.inference_mode():
        weight.mul_(-1)
        changed = run_all(components)[1]
        weight.mul_(-1)
    assert not torch.equal(before, changed)
    assert torch.equal(before, run_all(components)[1])


@pytest.mark.usefixtures("small_reserve")
def test_a_pass_that_breaks_off_leaves_nothing_on_the_device(path: Path) -> None:
    components = components_of(path)
    expected = run_all(components)
    ledger = Ledger()
    Placement(FakeDevice(capacity_for(components, "streamed"), ledger), transfers=ledger).use(
        components, native_size=64
    )
    run_all(components)
    last = passing_block(components, ledger).get_submodule("conv2")

    handle = last.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        run_all(components)
    handle.remove()
    assert not any(ledger.holds(weight) for weight in last.parameters())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(run_all(components), expected, strict=True))


@pytest.mark.usefixtures("small_reserve")
@pytest.mark.parametrize("breaks_off", [False, True])
def test_weights_are_written_only_when_no_copy_of_them_is_under_way(breaks_off: bool, path: Path) -> None:
    components = components_of(path)
    recorder = Recorder()
    device = FakeDevice(capacity_for(components, "streamed"), recorder)
    Placement(device, transfers=recorder).use(components, native_size=64)
    unet = components["unet"].module
    with torch.inference_mode():
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 32))
        started = recorder.num_started
        assert started > 1
        if breaks_off:
            middle = unet.get_submodule("mid_block").register_forward_pre_hook(fail)
            with pytest.raises(RuntimeError, match="out of memory"):
                unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 32))
            middle.remove()
            assert recorder.num_started > started
        assert recorder.on_the_way == set()


def fail(layer: nn.Module, args: object) -> None:
    raise RuntimeError("out of memory")


@pytest.mark.usefixtures("small_reserve")
@pytest.mark.parametrize("mode", ["resident", "streamed"])
def test_a_model_that_does_not_fit_after_all_goes_and_leaves_no_hooks(mode: str, path: Path) -> None:
    first, second = components_of(path), components_of(path)
    expected = run_all(first)
    ledger = Full()
    placement = Placement(FakeDevice(capacity_for(first, mode), ledger), transfers=ledger)
    placement.use(first, native_size=64)
    ledger.num_moves = 2
    with pytest.raises(RuntimeError, match="out of memory"):
        placement.use(second, native_size=64)
    ledger.num_moves = 10**9
    assert not any(hooks_of(layer) for component in second.values() for layer in component.module.modules())
    placement.use(first, native_size=64)
    assert not any(ledger.holds(weight) for component in second.values() for weight in component.module.parameters())
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(run_all(first), expected, strict=True))


def hooks_of(layer: nn.Module) -> list[object]:
    return [*layer._forward_pre_hooks.values(), *layer._forward_hooks.values()]


@pytest.mark.usefixtures("small_reserve")
def test_another_model_takes_the_place_of_the_last_one(path: Path) -> None:
    first, second = components_of(path), components_of(path)
    expected = run_all(first)
    ledger = Ledger()
    capacity = capacity_for(first, "resident")
    placement = Placement(FakeDevice(capacity, ledger), transfers=ledger)
    for components in (first, second, first):
        assert placement.use(components, native_size=64).mode == "resident"
        assert torch.equal(run_all(components)[1], expected[1])
    assert ledger.peak <= capacity
    placement.release()
    assert not any(hooks_of(layer) for component in first.values() for layer in component.module.modules())


@pytest.mark.usefixtures("small_reserve")
def test_a_limit_holds_where_more_is_free(path: Path) -> None:
    components = components_of(path)
    ledger = Ledger()
    limit = capacity_for(components, "in turn")
    placement = Placement(FakeDevice(100 * GIB, ledger), transfers=ledger, limit_bytes=limit)
    assert placement.use(components, native_size=64).mode == "in turn"
    run_all(components)
    assert ledger.peak <= limit


@given(
    blocks=st.lists(st.integers(1, 100), min_size=1, max_size=20),
    rest=st.integers(0, 100),
    others=st.lists(st.integers(1, 300), min_size=1, max_size=3),
    free_bytes=st.integers(0, 3000),
    reserve=st.integers(0, 200),
)
def test_the_plan_fits_wherever_anything_fits(
    blocks: list[int], rest: int, others: list[int], free_bytes: int, reserve: int
) -> None:
    sizes = {"unet": rest + sum(blocks)} | {f"other{i}": size for i, size in enumerate(others)}
    plan = plan_placement(sizes, blocks, free_bytes=free_bytes, reserve_bytes=reserve)
    room = free_bytes - reserve
    if plan.mode == "resident":
        assert sum(sizes.values()) <= room
    elif plan.mode == "in turn":
        assert sum(sizes.values()) > room >= max(sizes.values())
    else:
        assert max(sizes.values()) > room
        least = rest + 2 * max(blocks)
        assert rest + plan.kept_bytes + 2 * max(blocks) <= max(room, least)


def test_sdxl_in_half_precision_runs_on_a_card_of_4_gib(tmp_path: Path) -> None:
    path = write_original_layout(tmp_path / "xl.safetensors", "sdxl", small=False)
    source = open_checkpoint(CheckpointInfo(name="xl", title="xl", path=path, family="sdxl"))
    parts = {name: part for name in source.names() if (part := source.component(name)) is not None}
    sizes = {name: size_bytes(part, torch.float16) for name, part in parts.items()}
    blocks = [size_of(block) // 2 for block in streamed_blocks(checked_network(parts["unet"]))]
    reserve = offload.reserve_bytes(1024)
    free_bytes = int(3.5 * GIB)
    plan = plan_placement(sizes, blocks, free_bytes=free_bytes, reserve_bytes=reserve)
    assert plan.mode == "streamed"
    assert max(size for name, size in sizes.items() if name != "unet") + reserve <= free_bytes
    assert sizes["unet"] - sum(blocks) + plan.kept_bytes + 2 * max(blocks) + reserve <= free_bytes
    assert plan.kept_bytes > 0.2 * sizes["unet"]


def test_a_copy_waits_until_what_was_dropped_has_been_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[str] = []
    event = SimpleNamespace(synchronize=lambda: happened.append("waited"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: SimpleNamespace(record_event=lambda: event))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(happened.append("copied")))
    transfers = Transfers(torch.device("cpu"))
    monkeypatch.setattr(transfers, "_stream", object())
    weights = [torch.zeros(2)]
    copies = transfers.start(weights)
    transfers.dropped(copies)
    transfers.start(weights)
    assert happened == ["copied", "waited", "copied"]


@pytest.mark.usefixtures("small_reserve")
def test_a_block_lets_go_of_its_copies_before_they_count_as_dropped(path: Path) -> None:
    components = components_of(path)
    ledger = Ledger()
    device = FakeDevice(capacity_for(components, "streamed"), ledger)
    Placement(device, transfers=ledger).use(components, native_size=64)
    unet = components["unet"].module
    held: list[bool] = []
    drop = ledger.dropped

    def dropped(copies: Sequence[Tensor]) -> None:
        inside = {weight.data_ptr() for weight in unet.parameters()}
        held.extend(copy.data_ptr() in inside for copy in copies)
        drop(copies)

    ledger.dropped = dropped  # type: ignore[method-assign]
    with torch.inference_mode():
        unet(torch.zeros(1, 4, 8, 8), 1, torch.zeros(1, 3, 32))
    assert held and not any(held)
