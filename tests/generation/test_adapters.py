"""Networks that a prompt names, through the whole engine: applied, exact, and gone when the tag is."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from safetensors.torch import load_file, save_file

from tests.adapter_files import attention_of, modules_of, write_adapter
from tests.conftest import CPU
from tests.generation.additions import Added, Step
from tests.models import write_checkpoint
from webui.errors import AdapterMismatch, OutOfDeviceMemory, UnsupportedModel
from webui.generation.events import ImageReady, Note
from webui.generation.postprocess import PostprocessContext, PostprocessStep, Processed
from webui.generation.request import GenerationRequest, Img2Img, Inpaint, MaskSpec, Sampling
from webui.generation.run import Generator
from webui.images.store import ImageStore
from webui.jobs.cancel import CancelToken, JobInterrupted
from webui.jobs.events import JobEvent, Progress
from webui.library.catalog import Library
from webui.library.hashes import hash_file
from webui.pipeline.adapters.patches import PatchedWeights
from webui.pipeline.manager import PipelineManager
from webui.pipeline.model import Model
from webui.settings import CHECKOUT

FIRST_USER = (
    "<lora:plump_control_v1.0:0.3>, <lora:Fat:0.2>, <lora:add_detail:0.3>, ultra detailed, obesity, photo of a person, "
    "looking into camera, realistic, <lora:Fat_lora_v1:0.7>"
)
FIRST_USERS = ("plump_control_v1.0", "Fat", "add_detail", "Fat_lora_v1")
VECTORS = torch.randn(3, 32, generator=torch.Generator().manual_seed(4))


class Studio:
    """A models folder of its own, and the engine on it."""

    def __init__(self, folder: Path) -> None:
        self.models = folder / "models"
        write_checkpoint(self.models / "checkpoints" / "tiny")
        write_checkpoint(self.models / "checkpoints" / "other", seed=1)
        self.library = Library([self.models], folder / "cache")
        self.manager = PipelineManager(self.library, CPU)
        self.generator = Generator(self.manager, ImageStore(folder / "outputs"))
        for seed, name in enumerate((*FIRST_USERS, "a", "b", "c")):
            self.write_lora(name, seed=seed)
        self.write_lora("loha", variant="loha", seed=20)
        self.write_lora("bundle", seed=21, extra={"bundle_emb.inside.string_to_param.*": VECTORS[:1] * 3})
        (self.models / "embeddings").mkdir()
        save_file({"emb_params": VECTORS}, self.models / "embeddings" / "EasyNegative.safetensors")
        save_file({"emb_params": torch.zeros(2, 768)}, self.models / "embeddings" / "for-sd15.safetensors")

    @property
    def model(self) -> Model:
        return self.manager.load("tiny")

    def write_lora(self, name: str, **options: object) -> None:
        model = self.model
        networks = {"unet": model.components["unet"].module, "text_encoder": model.components["text_encoder"].module}
        modules = modules_of(networks, attention_of)
        write_adapter(self.models / "loras" / f"{name}.safetensors", modules, **options)  # type: ignore[arg-type]

    def make(
        self,
        prompt: str,
        *,
        events: list[JobEvent] | None = None,
        cancel: CancelToken | None = None,
        steps: int = 4,
        sampler: str = "Euler a",
        **changes: object,
    ) -> list[ImageReady]:
        values: dict[str, object] = {
            "checkpoint": "tiny",
            "prompt": prompt,
            "width": 64,
            "height": 64,
            "seed": 7,
            "sampling": Sampling(num_inference_steps=steps, sampler=sampler),
        }
        report = events.append if events is not None else lambda event: None
        return self.generator.generate(
            GenerationRequest(**(values | changes)),  # type: ignore[arg-type]
            report=report,
            cancel=cancel or CancelToken(),
            previews=False,
        )

    def pixels(self, prompt: str, **changes: object) -> np.ndarray:
        return pixels(self.make(prompt, **changes)[0])  # type: ignore[arg-type]

    def notes(self, prompt: str, **changes: object) -> list[str]:
        events: list[JobEvent] = []
        self.make(prompt, events=events, **changes)  # type: ignore[arg-type]
        return [event.message for event in events if isinstance(event, Note)]

    def know_hashes(self) -> None:
        """As after the library has hashed its files in the background."""
        self.library.refresh()
        for file in (*self.library.adapters(), *self.library.embeddings()):
            self.library._index.learn_hashes(file.stamp, hash_file(file.path))

    def num_writes(self) -> int:
        return sum(self.model.components[name].patches.num_writes for name in ("unet", "text_encoder"))

    def is_pristine(self) -> bool:
        return all(
            torch.equal(value, component.source.tensor(name))
            for component in (self.model.components[name] for name in ("unet", "text_encoder"))
            for name, value in component.module.state_dict().items()
            if "position_ids" not in name
        )


def pixels(ready: ImageReady) -> np.ndarray:
    with Image.open(ready.path) as image:
        return np.array(image)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    made = Studio(tmp_path_factory.mktemp("studio"))
    yield made
    made.library.close()


@pytest.fixture
def photo() -> Image.Image:
    rng = np.random.default_rng(3)
    return Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))


@pytest.fixture
def mask() -> Image.Image:
    image = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(image).rectangle((16, 16, 47, 47), fill=255)
    return image


@pytest.mark.parametrize("weight", ["1", "0.6", "-0.5"])
def test_a_lora_changes_the_picture_and_its_removal_brings_the_base_back(studio: Studio, weight: str) -> None:
    base = studio.pixels("a red cat")
    assert not np.array_equal(studio.pixels(f"a red cat<lora:a:{weight}>"), base)
    assert np.array_equal(studio.pixels("a red cat"), base)
    assert studio.is_pristine()


def test_a_random_adapter_changes_the_starters_picture_and_leaves_no_trace(tmp_path: Path) -> None:
    library = Library([tmp_path, CHECKOUT / "models"], tmp_path / "cache")
    manager = PipelineManager(library, CPU)
    components = manager.load("starter").components
    networks = {name: components[name].module for name in ("unet", "text_encoder")}
    write_adapter(tmp_path / "loras" / "random.safetensors", modules_of(networks, attention_of), rank=4, seed=1)
    generator = Generator(manager, ImageStore(tmp_path / "outputs"))

    def picture(prompt: str) -> np.ndarray:
        sampling = Sampling(num_inference_steps=4, guidance_scale=4.0)
        asked = GenerationRequest(
            checkpoint="starter", prompt=prompt, width=128, height=128, seed=21, sampling=sampling
        )
        made = generator.generate(asked, report=lambda event: None, cancel=CancelToken(), previews=False)
        return pixels(made[0])

    base = picture("a red apple")
    changed = picture("a red apple<lora:random:0.1>")
    assert np.abs(changed.astype(int) - base).mean() > 1
    assert np.array_equal(picture("a red apple<lora:random:0>"), base)
    assert np.array_equal(picture("a red apple<lora:random:0.1>"), changed)
    assert np.array_equal(picture("a red apple"), base)
    library.close()


def test_weight_zero_is_the_base(studio: Studio) -> None:
    base = studio.pixels("a red cat")
    for tag in ("<lora:a:0>", "<lora:a:1:lbw=NONE>", "<lora:a:1:stop=0>", "<lora:a:1:start=9>"):
        assert np.array_equal(studio.pixels(f"a red cat{tag}"), base), tag


def test_text_encoder_and_u_net_are_weighted_apart(studio: Studio) -> None:
    base, whole = studio.pixels("a red cat"), studio.pixels("a red cat<lora:a:1>")
    text, image = studio.pixels("a red cat<lora:a:1:0>"), studio.pixels("a red cat<lora:a:0:1>")
    assert len({entry.tobytes() for entry in (base, whole, text, image)}) == 4
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:lbw=BASE>"), text)
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:lbw=NOT BASE>"), image)


def test_the_first_users_prompt_works_as_typed(studio: Studio) -> None:
    events: list[JobEvent] = []
    studio.know_hashes()
    ready = studio.make(FIRST_USER, events=events, negative_prompt="(worst quality:1.5), grainy")
    assert [event for event in events if isinstance(event, Note)] == []
    assert 'Lora hashes: "plump_control_v1.0: ' in ready[0].infotext
    counts = ", ".join(f"{name} 66/66" for name in FIRST_USERS)
    assert f'Lora layers: "{counts}"' in ready[0].infotext
    assert ready[0].infotext.startswith(FIRST_USER), "the tags stay in the prompt"
    without_one = FIRST_USER.replace("<lora:Fat:0.2>", "")
    assert not np.array_equal(
        studio.pixels(without_one, negative_prompt="(worst quality:1.5), grainy"), pixels(ready[0])
    )


def test_the_same_lora_twice_adds(studio: Studio) -> None:
    twice = studio.pixels("a red cat<lora:a:0.25><lora:a:0.25>").astype(int)
    once = studio.pixels("a red cat<lora:a:0.5>").astype(int)
    assert np.abs(twice - once).max() <= 1


def test_the_same_stack_again_is_no_work_and_another_touches_what_differs(studio: Studio) -> None:
    studio.make("a red cat<lora:a:1><lora:b:0.5>")
    writes = studio.num_writes()
    studio.make("a blue dog<lora:a:1><lora:b:0.5>", seed=9)
    assert studio.num_writes() == writes
    studio.make("a red cat<lora:a:1><lora:b:0.5:lbw=1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1>")
    assert studio.num_writes() == writes, "all blocks with weight 1"
    studio.make("a red cat<lora:a:1><lora:b:0.5:0.4>")
    unet_layers = sum("attentions" in path for path in dict(studio.model.unet.named_modules()) if path.endswith(
        ("to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "net.0.proj", "net.2")))  # fmt: skip
    assert studio.num_writes() == writes + unet_layers


def test_a_text_encoder_that_two_checkpoints_share_has_each_ones_stack(studio: Studio, tmp_path: Path) -> None:
    twin = studio.models / "checkpoints" / "twin"
    write_checkpoint(twin)
    (twin / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(
        (studio.models / "checkpoints" / "other" / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    )
    studio.library.refresh()
    base, twin_base = studio.pixels("a red cat"), studio.pixels("a red cat", checkpoint="twin")
    with_lora = studio.pixels("a red cat<lora:a:1>")
    twins, own = studio.manager.load("twin").components, studio.model.components
    assert twins["text_encoder"] is own["text_encoder"]
    assert twins["unet"] is not own["unet"]
    assert np.array_equal(studio.pixels("a red cat", checkpoint="twin"), twin_base)
    assert np.array_equal(studio.pixels("a red cat<lora:a:1>"), with_lora)
    assert np.array_equal(studio.pixels("a red cat"), base)


def test_a_lora_that_is_not_there_is_named_with_what_there_is(studio: Studio) -> None:
    base = studio.pixels("a red cat")
    (note,) = studio.notes("a red cat<lora:Fat_lora:1>")
    assert "no LoRA named 'Fat_lora'" in note
    assert "Fat_lora_v1" in note
    assert "made without it" in note
    assert np.array_equal(studio.pixels("a red cat<lora:Fat_lora:1>"), base)


def test_tags_in_the_negative_prompt_are_left_out_with_a_note(studio: Studio) -> None:
    base = studio.pixels("a red cat", negative_prompt="grainy")
    (note,) = studio.notes("a red cat", negative_prompt="grainy<lora:a:1>")
    assert "'a' in the negative prompt was left out" in note
    assert np.array_equal(studio.pixels("a red cat", negative_prompt="grainy<lora:a:1>"), base)


def test_an_adapter_that_is_made_for_other_settings_says_so_and_changes_none(studio: Studio) -> None:
    base = studio.pixels("a red cat<lora:a:1>")
    notes = studio.models / "loras" / "a.json"
    notes.write_text('{"recommended settings": "Steps: 4-8, Sampler: LCM"}')
    studio.library.refresh()
    (note,) = studio.notes("a red cat<lora:a:1>")
    assert note == "'a' is made for LCM, 4 to 8 steps; here it is used with Euler a, 4 steps."
    assert studio.notes("a red cat<lora:a:1>", sampling=Sampling(num_inference_steps=4, sampler="LCM")) == []
    assert np.array_equal(studio.pixels("a red cat<lora:a:1>"), base)
    notes.unlink()
    studio.library.refresh()


def test_an_adapter_for_another_model_is_refused_before_anything_is_touched(studio: Studio) -> None:
    modules = {("unet", "down_blocks.0.attentions.0.proj_in"): (320, 320, 1, 1)}
    write_adapter(studio.models / "loras" / "wrong-size.safetensors", modules)
    write_adapter(
        studio.models / "loras" / "unknown.safetensors", {("unet", "down_blocks.9.attentions.0.proj_in"): (8, 8)}
    )
    studio.make("a red cat<lora:a:1>")
    writes = studio.num_writes()
    with pytest.raises(AdapterMismatch, match=r"LoRA 'wrong-size' does not fit .* 'lora_unet_down_blocks_0_attentions"):
        studio.make("a red cat<lora:b:1><lora:wrong-size:1>")
    with pytest.raises(AdapterMismatch, match=r"LoRA 'unknown' does not fit .* none of the 1 layers"):
        studio.make("a red cat<lora:b:1><lora:unknown:1>")
    (studio.models / "loras" / "damaged.safetensors").write_bytes(b"\0" * 30)
    with pytest.raises(UnsupportedModel, match="damaged"):
        studio.make("a red cat<lora:b:1><lora:damaged:1>")
    assert studio.num_writes() == writes


def test_layers_that_find_no_place_are_counted(studio: Studio) -> None:
    model = studio.model
    modules = modules_of({"unet": model.unet}, attention_of) | {("unet", "down_blocks.7.attentions.0.proj_in"): (8, 8)}
    write_adapter(studio.models / "loras" / "partly.safetensors", modules)
    events: list[JobEvent] = []
    ready = studio.make("a red cat<lora:partly:1>", events=events)
    (note,) = (event.message for event in events if isinstance(event, Note))
    assert f"{len(modules) - 1} of {len(modules)} layers matched" in note
    assert f"Lora layers: partly {len(modules) - 1}/{len(modules)}" in ready[0].infotext


def test_a_picture_made_before_a_hash_is_known_does_without_it(studio: Studio) -> None:
    studio.write_lora("new", seed=60)
    before = studio.make("a red cat<lora:new:1>")[0].infotext
    assert "Lora layers: new" in before and "hash" not in before
    studio.know_hashes()
    assert "Lora hashes: new: " in studio.make("a red cat<lora:new:1>")[0].infotext.replace('"', "")


def test_a_damaged_layer_is_told_and_the_sound_ones_work(studio: Studio) -> None:
    studio.write_lora("hurt", seed=61)
    path = studio.models / "loras" / "hurt.safetensors"
    tensors = load_file(path)
    key = next(key for key in tensors if key.endswith("lora_down.weight"))
    tensors[key] = torch.zeros(2, 7)
    save_file(tensors, path)
    notes = studio.notes("a red cat<lora:hurt:1>")
    assert any(key.removesuffix(".lora_down.weight") in note and "'hurt'" in note for note in notes)
    assert not np.array_equal(studio.pixels("a red cat<lora:hurt:1>"), studio.pixels("a red cat"))


@pytest.mark.parametrize("component", ["te", "unet"])
def test_a_lora_with_nan_is_named_with_its_layer_and_leaves_no_trace(studio: Studio, component: str) -> None:
    base = studio.pixels("a red cat")
    studio.write_lora("nan", seed=62)
    path = studio.models / "loras" / "nan.safetensors"
    tensors = load_file(path)
    key = [key for key in tensors if key.startswith(f"lora_{component}") and key.endswith("lora_up.weight")][-1]
    tensors[key][0, 0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(UnsupportedModel, match=rf"'nan\.safetensors' .*{re.escape(key)}"):
        studio.make("a red cat<lora:nan:1>")
    assert np.array_equal(studio.pixels("a red cat"), base)
    assert studio.is_pristine()


def test_weights_that_were_merged_ahead_go_when_there_was_no_memory_for_all(
    studio: Studio, photo: Image.Image, mask: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    patches = studio.model.components["unet"].patches
    merge, merged = PatchedWeights._merge_into, []

    def merge_some(self: PatchedWeights, destination: torch.Tensor, *more: object) -> torch.Tensor:
        merged.append(destination)
        if len(merged) == 5:
            raise MemoryError
        return merge(self, destination, *more)  # type: ignore[arg-type]

    init = Inpaint(image=photo, mask=MaskSpec(image=mask, blur_px=12), strength=1.0)
    prompt = "a red cat<lora:b:1:1><lora:a:0:1:area=mask>"
    studio.make("a red cat<lora:b:1:0>")  # what the text encoder needs is there already
    monkeypatch.setattr(PatchedWeights, "_merge_into", merge_some)
    with pytest.raises(OutOfDeviceMemory, match="applying adapters"):
        studio.make(prompt, init=init)
    assert patches._prepared == {}


def test_a_file_that_was_changed_is_read_again(studio: Studio) -> None:
    studio.write_lora("changing", seed=50)
    first = studio.pixels("a red cat<lora:changing:1>")
    studio.write_lora("changing", seed=51)
    second = studio.pixels("a red cat<lora:changing:1>")
    assert not np.array_equal(first, second)


def test_a_rank_limit_uses_the_first_rows(studio: Studio) -> None:
    whole, cut = studio.pixels("a red cat<lora:a:1>"), studio.pixels("a red cat<lora:a:1:dyn=1>")
    assert not np.array_equal(whole, cut)
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:dyn=4>"), whole)
    assert any("without a rank" in note for note in studio.notes("a red cat<lora:loha:1:dyn=1>"))


@pytest.mark.parametrize("sampler", ["Euler a", "Heun", "DPM++ 2M", "UniPC"])
def test_a_lora_that_starts_late_leaves_the_first_steps_as_they_were(studio: Studio, sampler: str) -> None:
    whole = studio.pixels("a red cat<lora:a:1>", sampler=sampler)
    base = studio.pixels("a red cat", sampler=sampler)
    early = studio.pixels("a red cat<lora:a:1:stop=2>", sampler=sampler)
    late = studio.pixels("a red cat<lora:a:1:start=2>", sampler=sampler)
    assert len({entry.tobytes() for entry in (whole, base, early, late)}) == 4
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:stop=0.5>", sampler=sampler), early)
    both = studio.pixels("a red cat<lora:a:1:stop=2><lora:a:1:start=2>", sampler=sampler)
    assert np.array_equal(both, whole), "one takes over where the other stops"


def test_pictures_of_a_batch_go_through_the_same_phases(studio: Studio) -> None:
    prompt = "a red cat<lora:a:1:stop=2><lora:b:0.7:start=1>"
    together = studio.make(prompt, num_batches=3)
    assert np.array_equal(pixels(together[2]), studio.pixels(prompt, seed=9))


class InterruptAt(list[JobEvent]):
    """Interrupts after a number of model calls."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.cancel = CancelToken()
        self._step = step

    def append(self, event: JobEvent) -> None:
        if isinstance(event, Progress) and event.step == self._step:
            self.cancel.interrupt()


@pytest.mark.parametrize("step", [1, 2, 3])
def test_an_interrupt_between_phases_is_no_matter_for_the_next_job(studio: Studio, step: int) -> None:
    base = studio.pixels("a red cat")
    with_lora = studio.pixels("a red cat<lora:a:1:stop=2>")
    events = InterruptAt(step)
    with pytest.raises(JobInterrupted):
        studio.make("a red cat<lora:a:1:stop=2>", events=events, cancel=events.cancel)
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:stop=2>"), with_lora)
    assert np.array_equal(studio.pixels("a red cat"), base)
    assert studio.is_pristine()


def inpaint(studio: Studio, prompt: str, photo: Image.Image, mask: Image.Image, *, blur_px: int) -> np.ndarray:
    init = Inpaint(image=photo, mask=MaskSpec(image=mask, blur_px=blur_px), strength=1.0)
    return studio.pixels(prompt, init=init)


def test_a_lora_in_the_mask_fades_out_with_it(studio: Studio, photo: Image.Image, mask: Image.Image) -> None:
    whole = inpaint(studio, "a red cat<lora:a:1>", photo, mask, blur_px=12)
    limited = inpaint(studio, "a red cat<lora:a:1:area=mask>", photo, mask, blur_px=12)
    base = inpaint(studio, "a red cat", photo, mask, blur_px=12)
    assert len({entry.tobytes() for entry in (whole, limited, base)}) == 3


def test_a_lora_in_a_hard_mask_needs_no_second_guess(studio: Studio, photo: Image.Image, mask: Image.Image) -> None:
    whole = inpaint(studio, "a red cat<lora:a:1>", photo, mask, blur_px=0)
    limited = inpaint(studio, "a red cat<lora:a:1:area=mask>", photo, mask, blur_px=0)
    assert np.array_equal(whole, limited), "outside, the picture stays as it is in any case"


def test_regional_stacks_switch_prepared_weights_and_let_them_go(
    studio: Studio, photo: Image.Image, mask: Image.Image
) -> None:
    init = Inpaint(image=photo, mask=MaskSpec(image=mask, blur_px=12), strength=1.0)
    studio.make("a red cat<lora:b:1><lora:a:1:area=mask>", init=init)
    studio.make("a red cat", init=init)
    assert studio.is_pristine()
    assert studio.model.components["unet"].patches._prepared == {}


def test_a_region_without_a_mask_is_the_whole_picture_with_a_note(studio: Studio, photo: Image.Image) -> None:
    whole = studio.pixels("a red cat<lora:a:1>")
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:area=mask>"), whole)
    for init in (None, Img2Img(image=photo)):
        (note,) = studio.notes("a red cat<lora:a:1:area=mask>", init=init)
        assert "applied to the whole picture" in note


def test_a_textual_inversion_counts_in_either_prompt(studio: Studio) -> None:
    base = studio.pixels("a red cat", negative_prompt="grainy")
    events: list[JobEvent] = []
    studio.know_hashes()
    ready = studio.make("a red cat", negative_prompt="grainy, easynegative", events=events)
    assert not np.array_equal(pixels(ready[0]), base)
    assert 'TI hashes: "EasyNegative: ' in ready[0].infotext
    assert [event for event in events if isinstance(event, Note)] == []
    positive = studio.pixels("a red cat (EasyNegative:1.2)", negative_prompt="grainy")
    assert not np.array_equal(positive, base)
    assert np.array_equal(studio.pixels("a red cat", negative_prompt="grainy"), base)


def test_a_textual_inversion_replaces_the_words_by_its_vectors(studio: Studio) -> None:
    """Vectors that are a word's own give that word's picture."""
    model = studio.model
    tokenizer = model.text_encoder.encoders[0].tokenizer
    ids = tokenizer.encode("red cat")
    rows = model.components["text_encoder"].module.get_input_embeddings().weight[ids].clone()
    save_file({"emb_params": rows.contiguous()}, studio.models / "embeddings" / "redcat.safetensors")
    studio.library.refresh()
    assert np.array_equal(studio.pixels("a redcat here"), studio.pixels("a red cat here"))


def test_a_textual_inversion_for_another_model_stays_text(studio: Studio) -> None:
    (note,) = studio.notes("a cat, for-sd15")
    assert "'for-sd15' was left as text" in note
    assert "width 768, and this checkpoint takes 32" in note


def test_a_bundled_textual_inversion_is_there_with_its_lora_alone(studio: Studio) -> None:
    assert np.array_equal(studio.pixels("inside<lora:a:0>"), studio.pixels("inside"))
    with_bundle = studio.pixels("inside<lora:bundle:0>")
    assert not np.array_equal(with_bundle, studio.pixels("inside"))
    save_file({"emb_params": VECTORS[1:2] * 2}, studio.models / "embeddings" / "inside.safetensors")
    studio.library.refresh()
    assert not np.array_equal(studio.pixels("inside<lora:bundle:0>"), with_bundle), "the file goes before"
    (studio.models / "embeddings" / "inside.safetensors").unlink()
    studio.library.refresh()


def write_hypernetwork(studio: Studio, name: str) -> Path:
    """For attentions of width 32, which the tiny model has. Returns its folder."""
    generator = torch.Generator().manual_seed(2)
    state = {
        f"linear.{index}.{name}": torch.randn(shape, generator=generator) * 0.2
        for index, sizes in ((0, (64, 32)), (1, (32, 64)))
        for name, shape in (("weight", sizes), ("bias", sizes[:1]))
    }
    folder = studio.models / "hypernetworks"
    folder.mkdir(exist_ok=True)
    torch.save({32: (state, state), "name": "h"}, folder / f"{name}.pt")
    return folder


def test_a_hypernetwork_changes_the_picture_and_is_gone_without_its_tag(studio: Studio) -> None:
    folder = write_hypernetwork(studio, "hyper")
    torch.save({768: ({"linear.0.weight": torch.eye(768), "linear.0.bias": torch.zeros(768)},) * 2}, folder / "big.pt")
    base = studio.pixels("a red cat")
    changed = studio.pixels("a red cat<hypernet:hyper:0.8>")
    assert not np.array_equal(changed, base)
    assert np.array_equal(studio.pixels("a red cat<hypernet:hyper:0>"), base)
    assert np.array_equal(studio.pixels("a red cat"), base)
    assert "no hypernetwork named 'hyperr'" in studio.notes("a red cat<hypernet:hyperr:1>")[0]
    with pytest.raises(AdapterMismatch, match=r"'big' does not fit this checkpoint: .* width 768"):
        studio.make("a red cat<hypernet:big:1>")


@pytest.mark.parametrize("own_prompt", [None, "a blue dog<lora:b:0.9><hypernet:changed:0.5>"])
def test_a_redraw_between_two_pictures_has_its_own_networks_and_leaves_theirs_alone(
    studio: Studio, photo: Image.Image, mask: Image.Image, own_prompt: str | None
) -> None:
    def redraw(image: Image.Image, params: object, context: PostprocessContext) -> Processed:
        again = context.redraw(image, mask, strength=1.0, prompt=own_prompt, blur_px=0, padding_px=0)
        return Processed(image=again)

    write_hypernetwork(studio, "changed")
    prompt = "a red cat<lora:a:1:stop=2><lora:b:0.7:area=mask><hypernet:changed:0.8>"
    init = Inpaint(image=photo, mask=MaskSpec(image=mask, blur_px=12), strength=1.0)
    plain = studio.make(prompt, num_batches=2, init=init)
    expected = [
        studio.pixels(
            own_prompt or prompt,
            seed=ready.seed,
            init=Inpaint(
                image=Image.fromarray(pixels(ready)),
                mask=MaskSpec(image=mask, blur_px=0, area="masked", padding_px=0),
                strength=1.0,
            ),
        )
        for ready in plain
    ]
    generator = studio.generator
    studio.generator = Generator(studio.manager, ImageStore(studio.models / "redrawn"), Added([Step(run=redraw)]))
    steps = (PostprocessStep(id="brighten"),)
    redrawn = studio.make(prompt, num_batches=2, init=init, postprocess=steps)
    studio.generator = generator
    for ready, pixels_expected in zip(redrawn, expected, strict=True):
        assert np.array_equal(pixels(ready), pixels_expected)
    studio.make("a red cat")
    assert studio.is_pristine()
    assert studio.model.components["unet"].patches._prepared == {}


def test_block_weights_for_another_network_are_named(studio: Studio) -> None:
    base = studio.pixels("a red cat")
    (note,) = studio.notes("a red cat<lora:a:1:lbw=1,1,1,1,1,1,1,1,1,1,1,1>")
    assert "block weights are for another network" in note
    assert "17 or 26" in note
    assert np.array_equal(studio.pixels("a red cat<lora:a:1:lbw=1,1,1,1,1,1,1,1,1,1,1,1>"), base)


PEFT_STACK = (("a", 1.0), ("b", 0.6), ("c", -0.5))


def test_a_stack_gives_what_peft_gives(studio: Studio) -> None:
    model = studio.model
    generator = torch.Generator().manual_seed(8)
    x = torch.randn(2, 4, 8, 8, generator=generator)
    context = torch.randn(2, 77, 32, generator=generator)
    run: Callable[[], torch.Tensor] = lambda: model.unet(x, 500, encoder_hidden_states=context).sample  # noqa: E731
    studio.make("a red cat" + "".join(f"<lora:{name}:{weight}>" for name, weight in PEFT_STACK))
    ours = run()
    expected = peft_output(studio, x, context)
    assert (ours - expected).norm() / expected.norm() < 1e-5
    studio.make("a red cat")
    assert (run() - expected).norm() / expected.norm() > 1e-3


def peft_output(studio: Studio, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """A U-Net of the same weights with the same three adapters, applied by diffusers and peft, not merged."""
    from diffusers import UNet2DConditionModel
    from safetensors.torch import load_file

    unet = UNet2DConditionModel.from_pretrained(studio.models / "checkpoints" / "tiny" / "unet").eval()
    paths = {path.replace(".", "_"): path for path, _ in unet.named_modules()}
    for name, _ in PEFT_STACK:
        tensors = load_file(studio.models / "loras" / f"{name}.safetensors")
        state, alphas = {}, {}
        for key, value in tensors.items():
            prefix, _, end = key.partition(".")
            if not prefix.startswith("lora_unet_"):
                continue
            path = paths[prefix.removeprefix("lora_unet_")]
            if end == "alpha":
                alphas[f"unet.{path}.alpha"] = value.item()
            else:
                state[f"unet.{path}.lora_{'B' if 'up' in end else 'A'}.weight"] = value
        unet.load_lora_adapter(state, network_alphas=alphas, adapter_name=name, prefix="unet")
    unet.set_adapters([name for name, _ in PEFT_STACK], [weight for _, weight in PEFT_STACK])
    with torch.no_grad():
        output: torch.Tensor = unet(x, 500, encoder_hidden_states=context).sample
    return output
