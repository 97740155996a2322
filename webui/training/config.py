"""Everything that a training run is told, as one value: the file `config.toml`, the form of the Training tab, a job.

Frozen pydantic models; ranges are checked here, units and reasons are in the descriptions, which the page and the
commented file show too. Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Method = Literal["lora", "locon", "dora", "loha", "lokr", "ia3", "oft", "full", "embedding", "pivotal"]
"""`full` is DreamBooth's fine-tuning of the whole model; `pivotal` learns an embedding first and a LoRA with it."""
NETWORK_METHODS: tuple[Method, ...] = ("lora", "locon", "dora", "loha", "lokr", "ia3", "oft", "pivotal")
Subject = Literal["person", "object", "style"]
Layers = Literal["attention", "attention and mlp", "all"]
OptimizerName = Literal["adamw", "adamw8bit", "prodigy", "adafactor", "lion", "schedule-free adamw"]
RateSchedule = Literal["constant", "cosine", "linear", "cosine with restarts"]
LossWeighting = Literal["none", "min-snr", "debiased"]
LossKind = Literal["mse", "huber", "smooth l1"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
CacheWhere = Literal["memory", "disk", "off"]

OPTIMIZER_PACKAGES: Mapping[OptimizerName, str] = MappingProxyType(
    {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt", "schedule-free adamw": "schedulefree"}
)
"""What has to be installed for some."""
FINDS_RATE: frozenset[OptimizerName] = frozenset({"prodigy"})
"""Their learning rates are factors of one that they find."""

FREE_TO_CHANGE: Mapping[str, frozenset[str] | None] = MappingProxyType(
    {
        "name": None,
        "subject": None,
        "validation": None,
        "resources": None,
        "schedule": frozenset({"num_steps", "save_every", "state_every_s"}),
        "data": frozenset({"cache", "photos", "prior_photos", "num_prior_images"}),
        "optimizer": frozenset({"rate", "text_rate", "embedding_rate", "schedule", "warmup", "num_restarts"}),
    }
)
"""Parts of a configuration, whole (None) or single fields, that a run may go on without. Photos count by content."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Data(_Part):
    """The photos and what is said of them."""

    photos: Path = Field(
        description="Folder or zip of photos, with captions as .txt; or a list: OneTrainer's, kohya's, or JSONL."
    )
    trigger: str = Field(default="", max_length=64, description="Word that calls the subject up; put into captions.")
    class_word: str = Field(default="", max_length=64, description='What the subject is: "person", "dog", "style".')
    caption: str = Field(
        default="", description="Caption of photos without a .txt; {trigger} and {class} are filled in."
    )
    resolution: int = Field(
        default=512, ge=64, le=2048, multiple_of=8, description="Side of the square with a bucket's area, px."
    )
    buckets: bool = Field(default=True, description="Keep each photo's shape, in groups of equal sizes.")
    bucket_step: int = Field(
        default=64, ge=8, le=256, multiple_of=8, description="Sides of buckets are multiples of this, px."
    )
    upscale: bool = Field(default=False, description="Enlarge photos that are smaller than their bucket.")
    flip: bool = Field(default=False, description="Mirror every other time; faces are not symmetric.")
    repeats: int = Field(default=1, ge=1, le=1000, description="How often an epoch shows each photo.")
    shuffle_tags: bool = Field(default=False, description="Another order of the comma-separated tags each time.")
    keep_tags: int = Field(default=1, ge=0, le=75, description="That many tags stay first when shuffling.")
    caption_dropout: Share = Field(default=0.05, description="Share of steps with an empty caption.")
    tag_dropout: Share = Field(default=0.0, description="Share of tags left out each time; kept tags stay.")
    masks: bool = Field(
        default=False, description="Learn from what NAME-masklabel.png or the photo's alpha leaves white."
    )
    unmasked_weight: Share = Field(default=0.1, description="Weight of the loss outside the mask.")
    holdout: int | None = Field(
        default=None, ge=0, description="Photos kept back to measure with; left out: by the set's size."
    )
    prior_photos: Path | None = Field(default=None, description="Folder of pictures of the class, against forgetting.")
    num_prior_images: int = Field(
        default=0, ge=0, le=2000, description="Class pictures that are made when there are fewer; 0: none."
    )
    prior_prediction: bool = Field(
        default=False, description="Instead of class pictures, hold on to the base's own predictions."
    )
    prior_weight: float = Field(default=1.0, ge=0.0, le=10.0, description="Weight of the loss on class pictures.")
    cache: CacheWhere = Field(default="memory", description="Where encoded photos and captions are kept.")


class Network(_Part):
    """What is trained."""

    method: Method = Field(default="lora", description="What is trained, and what kind of file comes out.")
    rank: int = Field(default=16, ge=1, le=1024, description="How much can be learnt; the file grows with it.")
    alpha: float = Field(default=16.0, gt=0.0, description="The change is scaled by alpha / rank.")
    conv_rank: int = Field(
        default=8, ge=1, le=1024, description="Rank of 3 x 3 convolutions: locon, and others on all layers."
    )
    conv_alpha: float = Field(default=8.0, gt=0.0, description="Their change is scaled by conv_alpha / conv_rank.")
    lokr_factor: int = Field(
        default=-1, ge=-1, le=1024, description="Size of the smaller half; -1: as square as possible."
    )
    oft_block: int = Field(default=8, ge=2, le=1024, description="Rows that turn together.")
    layers: Layers = Field(
        default="attention", description="Which layers learn: attention is enough for a subject, a style wants more."
    )
    text_encoder: bool = Field(default=True, description="Train the text encoder too.")
    dropout: Share = Field(default=0.0, description="Share of a layer's change that is left out of a pass.")
    rank_dropout: Share = Field(default=0.0, description="Share of the ranks that are left out of a pass.")
    module_dropout: Share = Field(default=0.0, description="Share of the layers that are left out of a pass.")
    max_norm: float = Field(default=0.0, ge=0.0, description="Largest norm of a layer's change; 0: no limit.")
    num_vectors: int = Field(default=4, ge=1, le=32, description="Vectors of an embedding.")
    embedding_start: str = Field(
        default="", description="Word whose vectors an embedding starts from; empty: the class."
    )
    pivotal_share: Share = Field(default=0.5, description="Share of the steps that train the embedding of `pivotal`.")


class Optimizer(_Part):
    """How weights move."""

    name: OptimizerName = Field(default="adamw", description="The rule that weights are moved by.")
    rate: float = Field(default=1e-4, gt=0.0, le=10.0, description="Learning rate of the U-Net's part.")
    text_rate: float | None = Field(
        default=None, gt=0.0, le=10.0, description="Of the text encoder's; left out: half the rate."
    )
    embedding_rate: float = Field(default=5e-3, gt=0.0, le=10.0, description="Of a new word's vectors.")
    schedule: RateSchedule = Field(default="cosine", description="How the rates fall from the warm-up to the end.")
    warmup: Share = Field(default=0.05, description="Share of the steps in which the rate rises.")
    num_restarts: int = Field(default=1, ge=1, le=100, description="How often they begin again from the top.")
    weight_decay: float = Field(default=0.01, ge=0.0, le=1.0, description="Pull of all weights towards zero.")
    max_gradient_norm: float = Field(default=1.0, ge=0.0, description="Gradients are scaled down to this; 0: never.")
    ema_decay: float = Field(default=0.0, ge=0.0, lt=1.0, description="Average of the weights that is kept; 0: none.")


class Loss(_Part):
    """What counts as an error, and how pictures are noised."""

    kind: LossKind = Field(default="mse", description="How a wrong prediction counts; huber forgives what stands out.")
    huber_c: float = Field(default=0.1, gt=0.0, le=10.0, description="Errors above this count in proportion only.")
    weighting: LossWeighting = Field(default="min-snr", description="How much each noise level counts.")
    gamma: float = Field(default=5.0, gt=0.0, le=100.0, description="Of min-SNR; 5 in the paper.")
    noise_offset: float = Field(default=0.0, ge=0.0, le=1.0, description="For very dark and bright pictures; 0: none.")
    multires_iterations: int = Field(default=0, ge=0, le=10, description="Coarser noise that is added; 0: none.")
    multires_discount: float = Field(default=0.3, ge=0.0, le=1.0, description="Each coarser noise is weaker by this.")
    zero_terminal_snr: bool = Field(default=False, description="The last step is pure noise; only with v-prediction.")


class Schedule(_Part):
    """How long, and what comes out on the way."""

    num_steps: int = Field(default=1500, ge=1, le=1_000_000, description="Updates of the weights.")
    batch_size: int = Field(default=1, ge=1, le=256, description="Photos per pass, per process.")
    accumulation: int = Field(default=1, ge=1, le=256, description="Passes per update.")
    seed: int = Field(default=0, ge=0, le=2**32 - 1, description="The same seed draws the same noise and order.")
    save_every: int = Field(default=0, ge=0, description="Steps between candidates that are measured; 0: ten of them.")
    state_every_s: float = Field(default=300.0, gt=0.0, description="Seconds between states that a run resumes from.")
    clip_skip: int = Field(default=0, ge=0, le=11, description="Last layers of the text encoder that are left out.")


class Validation(_Part):
    """How the best step and weight are found."""

    num_timesteps: int = Field(default=8, ge=1, le=64, description="Noise levels per photo, spread evenly.")
    num_train_photos: int = Field(default=8, ge=1, le=64, description="Trained photos measured beside those kept back.")
    prompts: tuple[str, ...] = Field(default=(), description="Sample prompts; {trigger} and {class} are filled in.")
    negative_prompt: str = Field(default="", description="What samples should not show.")
    num_inference_steps: int = Field(default=20, ge=1, le=150, description="Sampling steps of a sample.")
    guidance_scale: float = Field(default=7.0, ge=0.0, le=50.0, description="CFG scale of a sample.")
    weights: tuple[float, ...] = Field(
        default=(0.6, 0.8, 1.0), min_length=1, description="Adapter weights that are tried."
    )
    samples: bool = Field(default=True, description="Draw samples; without them steps are judged by the loss alone.")


class Resources(_Part):
    """What the machine gives."""

    precision: Precision = Field(default="auto", description="What is computed in; auto: bf16 on GPUs that have it.")
    gradient_checkpointing: bool = Field(default=False, description="Less memory, a quarter slower.")
    ladder: bool = Field(
        default=True, description="Take the memory-saving steps by itself where the plan does not fit."
    )


class TrainingConfig(_Part):
    """A whole run. `base` is a checkpoint's name in the library."""

    name: str = Field(pattern=r"^[\w][\w .-]{0,63}$", description="File name of what comes out.")
    base: str = Field(default="starter", description="Checkpoint that is trained on.")
    subject: Subject = Field(default="person", description="What the photos show.")
    data: Data
    network: Network = Network()
    optimizer: Optimizer = Optimizer()
    loss: Loss = Loss()
    schedule: Schedule = Schedule()
    validation: Validation = Validation()
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _fits_together(self) -> "TrainingConfig":
        if self.network.method in ("embedding", "pivotal") and not self.data.trigger:
            raise ValueError("An embedding needs data.trigger: the word that it will be called by.")
        if self.data.prior_prediction and self.data.num_prior_images:
            raise ValueError("Choose data.prior_prediction or data.num_prior_images, not both.")
        return self
