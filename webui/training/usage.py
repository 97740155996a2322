"""Which settings count for nothing beside others, and why: the page shows them as not used. Imports no torch.

A table: a rule names settings, when they count, and what is said where they do not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from webui.training.config import FINDS_RATE, NETWORK_METHODS, Method, TrainingConfig

RANKED: tuple[Method, ...] = ("lora", "locon", "dora", "loha", "lokr", "pivotal")
WITH_KERNELS: tuple[Method, ...] = ("dora", "loha", "lokr")
"""Methods that take 3 x 3 convolutions where all layers are wanted; `locon` always takes them."""
WORDS: tuple[Method, ...] = ("embedding", "pivotal")
WHOLE: tuple[Method, ...] = ("full", "embedding")
"""Methods whose file has no weight to choose."""

Counts = Callable[[TrainingConfig], bool]


@dataclass(frozen=True, slots=True)
class Rule:
    """`settings` ("network.rank") count where `counts` says so; elsewhere `reason` is why not."""

    settings: tuple[str, ...]
    counts: Counts
    reason: str


def unused(config: TrainingConfig) -> dict[str, str]:
    """Settings of `config` that change nothing, each with a sentence: {"network.oft_block": "Only OFT has blocks."}."""
    return {name: rule.reason for rule in reversed(RULES) if not rule.counts(config) for name in rule.settings}


def _of(*methods: Method) -> Counts:
    return lambda config: config.network.method in methods


def _takes_kernels(config: TrainingConfig) -> bool:
    method = config.network.method
    return method == "locon" or (method in WITH_KERNELS and config.network.layers == "all")


def _trains_text(config: TrainingConfig) -> bool:
    return config.network.text_encoder and config.network.method != "embedding"


RULES: Sequence[Rule] = (
    Rule(("network.rank", "network.alpha"), _of(*RANKED), "This method has no rank."),
    Rule(("network.conv_rank", "network.conv_alpha"), _takes_kernels, "No 3 x 3 convolutions are trained: that is what"
         " locon does, and dora, loha and lokr on all layers."),
    Rule(("network.lokr_factor",), _of("lokr"), "Only lokr splits layers into halves."),
    Rule(("network.oft_block",), _of("oft"), "Only oft turns rows in blocks."),
    Rule(("network.layers",), _of(*NETWORK_METHODS), "This method has no layers to choose from."),
    Rule(("network.text_encoder",), lambda config: config.network.method != "embedding", "An embedding changes no"
         " text encoder: it is a word for the one that there is."),
    Rule(("network.dropout", "network.rank_dropout", "network.module_dropout", "network.max_norm"),
         _of(*NETWORK_METHODS), "There is no adapter that could be left out or limited."),
    Rule(("network.num_vectors", "network.embedding_start"), _of(*WORDS), "No word is learnt: that is what embedding"
         " and pivotal do."),
    Rule(("network.pivotal_share",), _of("pivotal"), "Only pivotal learns a word first and a LoRA then."),
    Rule(("optimizer.rate", "optimizer.weight_decay"), lambda config: config.network.method != "embedding",
         "Only the word is trained, which has a rate of its own."),
    Rule(("optimizer.text_rate",), _trains_text, "The text encoder is not trained."),
    Rule(("optimizer.text_rate", "optimizer.embedding_rate"), lambda config: config.optimizer.name not in FINDS_RATE,
         "prodigy has one rate for all parts."),
    Rule(("optimizer.embedding_rate",), _of(*WORDS), "No word is learnt: that is what embedding and pivotal do."),
    Rule(("optimizer.num_restarts",), lambda config: config.optimizer.schedule == "cosine with restarts",
         "This schedule does not begin again."),
    Rule(("data.keep_tags",), lambda config: config.data.shuffle_tags or config.data.tag_dropout > 0,
         "Tags are neither shuffled nor left out."),
    Rule(("data.unmasked_weight",), lambda config: config.data.masks, "Masks are not used."),
    Rule(("loss.huber_c",), lambda config: config.loss.kind != "mse", "mse has no limit."),
    Rule(("loss.gamma",), lambda config: config.loss.weighting == "min-snr", "Only min-snr has a gamma."),
    Rule(("loss.multires_discount",), lambda config: config.loss.multires_iterations > 0, "No coarser noise is added."),
    Rule(("validation.weights",), lambda config: config.network.method not in WHOLE, "What comes out has no weight: it"
         " is used as it is."),
    Rule(("validation.prompts", "validation.negative_prompt", "validation.num_inference_steps",
          "validation.guidance_scale"), lambda config: config.validation.samples, "No samples are drawn."),
)  # fmt: skip
"""The first one that speaks of a setting is heard."""
