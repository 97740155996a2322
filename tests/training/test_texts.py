"""Encoded captions: what is kept of them and where, and that they are the same wherever they come from."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.model_files import write_original_layout
from tests.training.networks.parts import few_blocks
from tests.training.run_helpers import make_photos, own_library, run, settings
from webui.errors import StorageError
from webui.jobs.cancel import JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import Library
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.pipeline.text_encoding import ClipEncoder, EncodedPrompt
from webui.training.caching import TensorCache
from webui.training.config import CacheWhere
from webui.training.folders import RunFolder
from webui.training.texts import Captions, plain

LONG = ", ".join(["a very long caption of a red thing"] * 12)
"""More than one chunk."""
CAPTIONS = ("", "a red thing", LONG)


@pytest.fixture(scope="module", params=["tiny", "sdxl"])
def model(request: pytest.FixtureRequest, manager: PipelineManager, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """With one text encoder, and with two of which one has a projection."""
    if request.param == "tiny":
        return manager.load("tiny")
    models = tmp_path_factory.mktemp("bases")
    (models / "checkpoints").mkdir()
    write_original_layout(models / "checkpoints" / "sdxl.safetensors", "sdxl", sizes=few_blocks("sdxl"))
    return PipelineManager(Library([models], models / "cache"), manager.device).load("sdxl")


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many chunks went through a text encoder, pass by pass."""
    passes: list[int] = []
    real = ClipEncoder.encode_all

    def counted(self: ClipEncoder, chunks: Sequence[object], *args: object, **more: object) -> EncodedPrompt:
        passes.append(len(chunks))
        return real(self, chunks, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(ClipEncoder, "encode_all", counted)
    return passes


def captions_for(
    model: Model, folder: Path, where: CacheWhere, *, most: int | None = None, lasting: Sequence[str] = CAPTIONS
) -> Captions:
    cache = TensorCache(where, folder, most=most)
    return Captions(model.text_encoder, cache, clip_skip=0, live=False, lasting=lasting)


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def same(one: EncodedPrompt, other: EncodedPrompt) -> bool:
    pooled = one.pooled is other.pooled is None
    if one.pooled is not None and other.pooled is not None:
        pooled = torch.equal(one.pooled, other.pooled)
    return torch.equal(one.context, other.context) and pooled


def test_captions_are_the_same_to_the_bit_wherever_they_are_kept(model: Model, tmp_path: Path) -> None:
    expected = captions_for(model, tmp_path, "off")(CAPTIONS)
    assert expected.context.shape[0] == 3 and expected.context.shape[1] > 77
    for where in ("memory", "disk", "disk"):
        captions = captions_for(model, tmp_path, where)  # type: ignore[arg-type]
        assert same(captions(CAPTIONS), expected) and same(captions(CAPTIONS), expected)
    with torch.no_grad():
        at_once = model.text_encoder.encode_batch([plain(caption) for caption in CAPTIONS], clip_skip=0)
    assert torch.allclose(expected.context, at_once.context, atol=1e-5), "empty chunks fill up the shorter ones"
    assert (expected.pooled is None) == (at_once.pooled is None)


def test_what_is_on_disk_is_not_encoded_again(model: Model, tmp_path: Path, encodings: list[int]) -> None:
    captions_for(model, tmp_path, "disk")(CAPTIONS)
    num = len(model.text_encoder.encoders)
    assert len(encodings) == 3 * num
    captions_for(model, tmp_path, "disk")(CAPTIONS)
    assert len(encodings) == 3 * num
    assert len(files(tmp_path)) == 3
    captions = captions_for(model, tmp_path / "memory", "memory")
    captions(CAPTIONS)
    captions(CAPTIONS)
    assert len(encodings) == 6 * num
    assert files(tmp_path / "memory") == []
    captions = captions_for(model, tmp_path / "off", "off")
    captions(CAPTIONS[:2])
    captions(CAPTIONS[:2])
    assert len(encodings) == 10 * num


def test_a_damaged_file_of_a_caption_is_made_again(model: Model, tmp_path: Path, encodings: list[int]) -> None:
    expected = captions_for(model, tmp_path, "disk")(CAPTIONS[1:2])
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    before = len(encodings)
    assert same(captions_for(model, tmp_path, "disk")(CAPTIONS[1:2]), expected)
    assert same(captions_for(model, tmp_path, "disk")(CAPTIONS[1:2]), expected)
    assert len(encodings) == before + len(model.text_encoder.encoders), "once"


def test_of_captions_that_never_come_to_an_end_none_goes_to_disk(
    model: Model, tmp_path: Path, encodings: list[int]
) -> None:
    captions = captions_for(model, tmp_path, "disk", most=2, lasting=("whole",))
    captions(["whole", "one", "two"])
    num = len(encodings)
    assert len(files(tmp_path)) == 1
    captions(["two", "one", "whole"])
    assert len(encodings) == num, "the two that were used last are in memory"
    captions(["three"])
    captions(["one"])
    assert len(encodings) == num + len(model.text_encoder.encoders)
    captions(["two"])
    assert len(encodings) == num + 2 * len(model.text_encoder.encoders), "it had to make room"
    assert len(files(tmp_path)) == 1


def test_encodings_at_another_clip_skip_precision_or_weight_are_others(model: Model, tmp_path: Path) -> None:
    cache, lasting = TensorCache("disk", tmp_path), ("a red thing",)
    encoder = model.text_encoder
    told = [
        Captions(encoder, cache, clip_skip=0, live=False, lasting=lasting)(lasting),
        Captions(encoder, cache, clip_skip=0, live=False, lasting=lasting, autocast=torch.bfloat16)(lasting),
    ]
    Captions(encoder, cache, clip_skip=1, live=False, lasting=lasting)(lasting)  # SDXL takes the same layer
    weight = next(encoder.encoders[0].model.parameters())
    before = weight.detach().clone()
    try:
        with torch.no_grad():
            weight.mul_(1.5)
        told.append(Captions(encoder, cache, clip_skip=0, live=False, lasting=lasting)(lasting))
    finally:
        with torch.no_grad():
            weight.copy_(before)
    assert len(files(tmp_path)) == 4
    assert len({part.context.float().numpy().tobytes() for part in told}) == 3


def test_a_disk_that_is_full_is_told_before_the_first_step(model: Model, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    captions = captions_for(model, tmp_path / "file", "disk")
    with pytest.raises(StorageError, match=r"data\.cache to memory"):
        captions.encode_lasting(report=lambda done, total: None, check=lambda: None)


def test_nothing_is_kept_of_what_is_trained(model: Model, tmp_path: Path, encodings: list[int]) -> None:
    weight = next(model.text_encoder.encoders[0].model.parameters()).requires_grad_(True)
    try:
        captions = Captions(model.text_encoder, TensorCache("disk", tmp_path), clip_skip=0, live=True, lasting=CAPTIONS)
        assert captions(CAPTIONS[:2]).context.requires_grad
        captions(CAPTIONS[:2])
    finally:
        weight.requires_grad_(False)
    assert len(encodings) == 2 * len(model.text_encoder.encoders)
    assert files(tmp_path) == []


@pytest.fixture
def photos(tmp_path: Path) -> Iterator[Path]:
    folder = make_photos(tmp_path / "photos")
    (folder / "1.txt").write_text(LONG)
    yield folder


def test_a_run_that_finds_its_captions_on_disk_encodes_none_and_ends_with_the_same_bits(
    tmp_path: Path, photos: Path, tiny_models_dir: Path, encodings: list[int]
) -> None:
    library = own_library(tmp_path, tiny_models_dir)
    parts = {"network": {"text_encoder": False}, "schedule": {"batch_size": 2, "num_steps": 4, "save_every": 2}}
    data = {"caption_dropout": 0.3, "prior_prediction": True, "class_word": "thing"}

    def config(where: str) -> dict[str, dict[str, object]]:
        return {**parts, "data": {**data, "cache": where}}

    def weights(name: str) -> dict[str, torch.Tensor]:
        return dict(load_file(RunFolder(tmp_path / name).candidate(4)))

    ends = []
    for where in ("off", "memory", "disk"):
        run(tmp_path / where, settings(photos, **config(where)), library)
        ends.append(weights(where))
    shutil.copytree(RunFolder(tmp_path / "disk").encoded, RunFolder(tmp_path / "second").encoded)
    encodings.clear()
    events: list[JobEvent] = []

    def check() -> None:
        if RunFolder(tmp_path / "second").candidate(2).is_file():
            raise JobInterrupted

    with pytest.raises(JobInterrupted):
        run(tmp_path / "second", settings(photos, **config("disk")), library, events=events, check=check)
    run(tmp_path / "second", settings(photos, **config("disk")), library)
    assert encodings == []
    assert any(isinstance(event, Progress) and event.label == "encoding captions" for event in events)
    ends.append(weights("second"))
    for end in ends[1:]:
        assert end.keys() == ends[0].keys()
        assert all(torch.equal(end[name], ends[0][name]) for name in end)


def test_a_run_with_shuffled_captions_keeps_files_of_the_whole_ones_alone(
    tmp_path: Path, tiny_models_dir: Path
) -> None:
    photos = make_photos(tmp_path / "photos", 2)
    for i in range(2):
        (photos / f"{i}.txt").write_text(f"red, one {i}, two, three, four, five")
    library = own_library(tmp_path, tiny_models_dir)
    data = {"shuffle_tags": True, "tag_dropout": 0.3, "cache": "disk", "holdout": 0}
    schedule = {"num_steps": 12, "save_every": 12}
    config = settings(photos, data=data, network={"text_encoder": False}, schedule=schedule)
    run(tmp_path / "run", config, library)
    kept = [load_file(path) for path in files(RunFolder(tmp_path / "run").encoded)]
    assert sum("context" in tensors for tensors in kept) == 3, "two captions, and none at all"
