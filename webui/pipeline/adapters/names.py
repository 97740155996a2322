"""From the name a trainer gave to a module to the module itself.

Nothing is guessed: all spellings of every module that exists are written down once per model, in one form in which dots
are underscores, and a name is found or not. Spellings come from kohya-ss/sd-scripts, LyCORIS, diffusers (PEFT and
older), OneTrainer, and the original LDM/SGM module paths.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from webui.pipeline.adapters.targets import ADAPTED_COMPONENTS, AdaptedComponent, Target
from webui.pipeline.layouts import Config, modules_by_original, unet_weights

UNET, TEXT, TEXT_2 = ((component,) for component in ADAPTED_COMPONENTS)


@dataclass(frozen=True, slots=True)
class NamePrefix:
    """`text` in underscored form, and the components that the name after it may lie in."""

    text: str
    components: tuple[AdaptedComponent, ...]


PREFIXES = tuple(
    sorted(
        (
            NamePrefix("lora_unet_", UNET),
            NamePrefix("oft_unet_", UNET),
            NamePrefix("lycoris_unet_", UNET),
            NamePrefix("unet_", UNET),
            NamePrefix("diffusion_model_", UNET),
            NamePrefix("model_diffusion_model_", UNET),
            NamePrefix("lora_unet_diffusion_model_", UNET),
            NamePrefix("lora_te_", TEXT),
            NamePrefix("lora_te1_", TEXT),
            NamePrefix("lora_te2_", TEXT_2),
            NamePrefix("oft_te_", TEXT),
            NamePrefix("oft_te1_", TEXT),
            NamePrefix("oft_te2_", TEXT_2),
            NamePrefix("text_encoder_", TEXT),
            NamePrefix("text_encoder_2_", TEXT_2),
            NamePrefix("clip_l_", TEXT),
            NamePrefix("clip_l_transformer_", TEXT),
            NamePrefix("clip_g_", TEXT_2),
            NamePrefix("clip_g_transformer_", TEXT_2),
            NamePrefix("text_encoders_clip_l_transformer_", TEXT),
            NamePrefix("text_encoders_clip_g_transformer_", TEXT_2),
            NamePrefix("cond_stage_model_transformer_", TEXT),
            NamePrefix("conditioner_embedders_0_transformer_", TEXT),
            NamePrefix("lycoris_", ADAPTED_COMPONENTS),
            NamePrefix("base_model_model_", ADAPTED_COMPONENTS),
            NamePrefix("", ADAPTED_COMPONENTS),
        ),
        key=lambda prefix: -len(prefix.text),
    )
)
"""Longest first: what a longer prefix leaves is the better reading."""

OLD_PROCESSORS = (("to_q", "processor_to_q_lora"), ("to_k", "processor_to_k_lora"), ("to_v", "processor_to_v_lora"),
                  ("to_out.0", "processor_to_out_lora"), ("to_out.0", "to_out"))  # fmt: skip
"""diffusers before PEFT put the factors into attention processors of their own."""

OLD_TEXT_ATTENTION = (("q_proj", "to_q_lora"), ("k_proj", "to_k_lora"), ("v_proj", "to_v_lora"),
                      ("out_proj", "to_out_lora"))  # fmt: skip


class TargetNames:
    """All spellings of the modules of one model.

    `modules` are module paths by component, as `module_paths` gives them; only such of `ADAPTED_COMPONENTS` count.
    `unet_config` is the U-Net's config, from which its original names follow.
    """

    def __init__(self, modules: Mapping[str, Iterable[str]], unet_config: Config) -> None:
        self._modules: dict[AdaptedComponent, dict[str, str]] = {}
        for component in ADAPTED_COMPONENTS:
            paths = tuple(modules.get(component, ()))
            spell = unet_spellings(paths, unet_config) if component == "unet" else text_spellings(paths)
            self._modules[component] = _unambiguous(spell)

    def find(self, prefix: str) -> Target | None:
        """The module that the part `prefix` of an adapter's key means, dotted or underscored.

        None if there is no such module, and if it could be in either of two text encoders.
        """
        name = prefix.replace(".", "_")
        for known in PREFIXES:
            if name.startswith(known.text):
                found = self._find_below(name[len(known.text) :], known.components)
                if found:
                    return found[0] if len(found) == 1 else None
        return None

    def _find_below(self, name: str, components: Iterable[AdaptedComponent]) -> list[Target]:
        paths = ((component, self._modules[component].get(name)) for component in components)
        return [Target(component, path) for component, path in paths if path is not None]


def module_paths(parameter_names: Iterable[str]) -> tuple[str, ...]:
    """The modules that have a weight, from the names in a state dict."""
    return tuple(name.removesuffix(".weight") for name in parameter_names if name.endswith(".weight"))


def unet_spellings(paths: Iterable[str], config: Config) -> Iterator[tuple[str, str]]:
    """(spelling, path) of a U-Net's modules: diffusers' names, the original ones, and old attention processors'."""
    present = set(paths)
    for path in present:
        yield path, path
    for original, path in modules_by_original(unet_weights(config)).items():
        if path in present:
            yield original, path
    yield from _old_spellings(present, OLD_PROCESSORS)


def text_spellings(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(spelling, path) of a text encoder's modules, with and without "text_model" in front."""
    present = set(paths)
    for spelling, path in (*((path, path) for path in present), *_old_spellings(present, OLD_TEXT_ATTENTION)):
        bare = spelling.removeprefix("text_model.")
        yield bare, path
        yield f"text_model.{bare}", path


def _old_spellings(paths: Iterable[str], table: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    rows = tuple(table)
    for path in paths:
        for ours, theirs in rows:
            if path.endswith("." + ours):
                yield f"{path.removesuffix(ours)}{theirs}", path


def _unambiguous(spellings: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Underscored spelling -> path. A spelling that could mean two modules means none."""
    found: dict[str, str] = {}
    doubtful: set[str] = set()
    for spelling, path in spellings:
        name = spelling.replace(".", "_")
        if found.setdefault(name, path) != path:
            doubtful.add(name)
    return {name: path for name, path in found.items() if name not in doubtful}
