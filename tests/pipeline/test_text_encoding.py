"""How each family reads its prompts: layers, norms, padding, pooled text, many chunks."""

import pytest
import torch
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.models import write_tokenizer
from webui.errors import InvalidRequest
from webui.pipeline.text_encoding import CLIP_RULES, ClipEncoder, TextEncoder
from webui.prompt.chunks import Chunk
from webui.prompt.grammar import parse_prompt
from webui.prompt.tokenizer import ClipTokenizer

LAYERS = 4
WIDTHS = (16, 24)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> ClipTokenizer:
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder)
    return ClipTokenizer(folder)


@pytest.fixture
def encoders(tokenizer: ClipTokenizer) -> dict[str, TextEncoder]:
    """A text encoder of every family, all of the same two models."""
    torch.manual_seed(0)
    first, second = (
        kind(
            CLIPTextConfig(
                vocab_size=tokenizer.end_id + 1,
                hidden_size=width,
                intermediate_size=2 * width,
                num_hidden_layers=LAYERS,
                num_attention_heads=2,
                projection_dim=20,
                bos_token_id=tokenizer.start_id,
                eos_token_id=tokenizer.end_id,
            )
        ).eval()
        for kind, width in zip((CLIPTextModel, CLIPTextModelWithProjection), WIDTHS, strict=True)
    )
    models = {"sd1": [first], "sd-custom": [first], "sd2": [first], "sdxl": [first, second], "sdxl-refiner": [second]}
    return {
        base: TextEncoder(
            [
                ClipEncoder(model, tokenizer, pads_with_end=pads)
                for model, pads in zip(models[base], CLIP_RULES[base].pads_with_end, strict=True)
            ],
            CLIP_RULES[base],
        )
        for base in CLIP_RULES
    }


def hidden_states(encoder: ClipEncoder, tokens: list[int], pad_id: int) -> tuple[Tensor, ...]:
    ids = [encoder.tokenizer.start_id, *tokens, encoder.tokenizer.end_id]
    ids += [pad_id] * (77 - len(ids))
    states: tuple[Tensor, ...] = encoder.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    return states


@pytest.mark.parametrize(
    ("base", "clip_skip", "layer"),
    [
        ("sd1", 0, 4), ("sd1", 1, 3), ("sd1", 3, 1),
        ("sd2", 0, 4), ("sd2", 1, 4), ("sd2", 2, 3),
        ("sdxl", 0, 3), ("sdxl", 1, 3), ("sdxl", 2, 2),
        ("sdxl-refiner", 0, 3), ("sdxl-refiner", 1, 3), ("sdxl-refiner", 2, 2),
    ],
)  # fmt: skip
def test_clip_skip_counts_layers_as_users_of_the_family_do(
    encoders: dict[str, TextEncoder], tokenizer: ClipTokenizer, base: str, clip_skip: int, layer: int
) -> None:
    tokens = tokenizer.encode("a red cat")
    expected = []
    with torch.inference_mode():
        for encoder, pads_with_end in zip(encoders[base].encoders, CLIP_RULES[base].pads_with_end, strict=True):
            state = hidden_states(encoder, tokens, tokenizer.end_id if pads_with_end else 0)[layer]
            expected.append(encoder.model.final_layer_norm(state) if base.startswith("sd1") or base == "sd2" else state)
        found = encoders[base].encode(parse_prompt("a red cat"), clip_skip=clip_skip).context
    assert torch.equal(found, torch.cat(expected, dim=-1))


@pytest.mark.parametrize("base", ["sd1", "sd2", "sdxl"])
def test_a_clip_skip_that_leaves_nothing_is_refused(encoders: dict[str, TextEncoder], base: str) -> None:
    with pytest.raises(InvalidRequest, match="4 layers") as caught, torch.inference_mode():
        encoders[base].encode(parse_prompt("a red cat"), clip_skip=11)
    assert caught.value.field == "clip_skip"


def test_the_pooled_text_is_that_of_the_first_chunk(encoders: dict[str, TextEncoder]) -> None:
    with torch.inference_mode():
        short = encoders["sdxl"].encode(parse_prompt("a red cat"), clip_skip=0)
        long = encoders["sdxl"].encode(parse_prompt("a red cat BREAK and more BREAK and more"), clip_skip=0)
    assert short.pooled is not None
    assert long.pooled is not None
    assert long.context.shape == (1, 3 * 77, sum(WIDTHS))
    assert torch.equal(short.pooled, long.pooled)
    assert torch.equal(short.context, long.context[:, :77])


def test_families_without_a_projection_have_no_pooled_text(encoders: dict[str, TextEncoder]) -> None:
    with torch.inference_mode():
        assert encoders["sd1"].encode(parse_prompt("a"), clip_skip=0).pooled is None
        assert encoders["sd2"].encode(parse_prompt("a"), clip_skip=0).pooled is None


@pytest.mark.parametrize(("base", "zeros"), [("sd1", False), ("sd2", False), ("sdxl", True), ("sdxl-refiner", False)])
def test_an_empty_negative_prompt_is_what_the_family_was_trained_with(
    encoders: dict[str, TextEncoder], base: str, zeros: bool
) -> None:
    with torch.inference_mode():
        nothing = encoders[base].encode_negative(parse_prompt(""), clip_skip=0)
        something = encoders[base].encode_negative(parse_prompt("a dog"), clip_skip=0)
    assert bool((nothing.context == 0).all()) is zeros
    assert nothing.pooled is None or bool((nothing.pooled == 0).all()) is zeros
    assert not (something.context == 0).any()


def test_emphasis_works_on_each_encoder_by_itself(encoders: dict[str, TextEncoder]) -> None:
    with torch.inference_mode():
        both = encoders["sdxl"].encode(parse_prompt("a (red:1.4) cat"), clip_skip=0)
        second = encoders["sdxl-refiner"].encode(parse_prompt("a (red:1.4) cat"), clip_skip=0)
        plain = encoders["sdxl"].encode(parse_prompt("a red cat"), clip_skip=0)
    assert torch.equal(both.context[..., WIDTHS[0] :], second.context)
    assert not torch.equal(both.context, plain.context)
    assert torch.equal(both.pooled, plain.pooled)  # type: ignore[arg-type]


@pytest.mark.parametrize("base", ["sd1", "sdxl"])
def test_what_enters_an_encoder_can_be_changed_and_put_back(encoders: dict[str, TextEncoder], base: str) -> None:
    encoder = encoders[base]
    seen: list[Chunk] = []

    def embed(chunk: Chunk, embedded: Tensor) -> Tensor:
        seen.append(chunk)
        changed = embedded.clone()
        changed[0, 1] = 1.0
        return changed

    with torch.inference_mode():
        before = encoder.encode(parse_prompt("a cat"), clip_skip=0).context
        encoder.encoders[-1].embed = embed
        encoder._cache.clear()
        during = encoder.encode(parse_prompt("a cat"), clip_skip=0).context
        encoder.encoders[-1].embed = None
        encoder._cache.clear()
        after = encoder.encode(parse_prompt("a cat"), clip_skip=0).context
    assert len(seen) == 1
    assert torch.equal(before, after)
    assert torch.equal(before[0, 0], during[0, 0])  # the start mark comes first and attends to itself alone
    assert not torch.equal(before[0, 1], during[0, 1])
