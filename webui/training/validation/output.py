"""What a trained file says of itself: kohya's and ModelSpec's words, which all programs read, and what was measured.

Imports no torch.
"""

import base64
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from PIL import Image

import webui
from webui.library.catalog import CheckpointInfo
from webui.library.families import AdapterBase
from webui.training.config import Method, TrainingConfig
from webui.training.validation.choosing import Choice

WITHOUT_WEIGHT: tuple[Method, ...] = ("full", "embedding")
"""Methods whose file is used as it is."""
VALIDATION = "atelier.validation"
WEIGHT = "atelier.recommended_weight"
THUMBNAIL_PX = 256
THUMBNAIL_QUALITY = 85

LYCORIS: Mapping[Method, str] = MappingProxyType(
    {"locon": "locon", "loha": "loha", "lokr": "lokr", "ia3": "ia3", "oft": "diag-oft"}
)
"""Methods that kohya's trainer has from LyCORIS, by the name they have there. The others are its own LoRA."""
ARCHITECTURES: Mapping[tuple[AdapterBase, bool], tuple[str, str]] = MappingProxyType(
    {
        ("sd1", False): ("sd_v1", "stable-diffusion-v1"),
        ("sd1", True): ("sd_v1", "stable-diffusion-v1"),
        ("sd2", False): ("sd_v2", "stable-diffusion-v2-512"),
        ("sd2", True): ("sd_v2_v", "stable-diffusion-v2-768-v"),
        ("sdxl", False): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
        ("sdxl", True): ("sdxl_base_v1-0", "stable-diffusion-xl-v1-base"),
        ("sdxl-refiner", False): ("sdxl_refiner_v1-0", "stable-diffusion-xl-v1-refiner"),
    }
)
"""By family and whether it predicts v: kohya's and ModelSpec's words. A model of its own size has none."""
SUFFIXES: Mapping[Method, str] = MappingProxyType({"embedding": "/textual-inversion", "full": ""})
OPTIMIZERS = MappingProxyType(
    {
        "adamw": "torch.optim.adamw.AdamW",
        "adamw8bit": "bitsandbytes.optim.adamw.AdamW8bit",
        "prodigy": "prodigyopt.prodigy.Prodigy",
        "adafactor": "transformers.optimization.Adafactor",
        "lion": "lion_pytorch.lion_pytorch.Lion",
        "schedule-free adamw": "schedulefree.adamw_schedulefree.AdamWScheduleFree",
    }
)
SCHEDULES = MappingProxyType({"cosine with restarts": "cosine_with_restarts"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A run that has come to its end. `captions` of the trained photos, by the name of their folder.

    `started_at` and `finished_at` are Unix times; `thumbnail` is a data URL, or "".
    """

    config: TrainingConfig
    base: CheckpointInfo
    adapter_base: AdapterBase
    num_photos: int
    num_held_out: int
    num_prior: int
    started_at: float
    finished_at: float
    captions: Mapping[str, Sequence[str]]
    choice: Choice
    base_sha256: str = ""
    thumbnail: str = ""


def metadata_of(made: Made) -> dict[str, str]:
    """All of it, for `Trainable.write`. Every value is text, as safetensors wants it."""
    said: dict[str, Any] = {
        **_network(made),
        **_training(made),
        **_dataset(made),
        **_modelspec(made),
        VALIDATION: json.dumps(made.choice.as_json(), ensure_ascii=False),
        WEIGHT: f"{made.choice.weight:g}",
    }
    return {key: value if isinstance(value, str) else _text(value) for key, value in said.items() if value is not None}


def notes_of(made: Made) -> dict[str, Any]:
    """Fields of `NAME.json` beside the file: what this page and A1111's put into a prompt by themselves."""
    return {
        "activation_text": made.config.data.trigger,
        "preferred_weight": made.choice.weight,
        "notes": " ".join(filter(None, [made.choice.reason, made.choice.warning])),
    }


def thumbnail(picture: Image.Image) -> str:
    """A small copy as a data URL, with nothing else in it."""
    small = picture.convert("RGB")
    small.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    small.info.clear()
    data = io.BytesIO()
    small.save(data, "JPEG", quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, Mapping | list) else str(value)


def _network(made: Made) -> dict[str, Any]:
    network, method = made.config.network, made.config.network.method
    known = ARCHITECTURES.get((made.adapter_base, made.base.prediction_type == "v_prediction"))
    said: dict[str, Any] = {
        "ss_base_model_version": known[0] if known else None,
        "ss_v2": made.adapter_base == "sd2" if known else None,
    }
    if method in WITHOUT_WEIGHT:
        return said
    arguments: dict[str, Any] = {}
    if method in LYCORIS:
        arguments = {"algo": LYCORIS[method], "conv_dim": network.conv_rank, "conv_alpha": network.conv_alpha}
        arguments |= {"factor": network.lokr_factor} if method == "lokr" else {}
    if method == "dora":
        arguments["dora_wd"] = True
    arguments |= {name: value for name in ("rank_dropout", "module_dropout") if (value := getattr(network, name))}
    return said | {
        "ss_network_module": "lycoris.kohya" if method in LYCORIS else "networks.lora",
        "ss_network_dim": network.rank,
        "ss_network_alpha": network.alpha,
        "ss_network_dropout": network.dropout or None,
        "ss_scale_weight_norms": network.max_norm or None,
        "ss_network_args": arguments or None,
    }


def _training(made: Made) -> dict[str, Any]:
    config = made.config
    optimizer, loss, schedule = config.optimizer, config.loss, config.schedule
    text_rate = optimizer.rate / 2 if optimizer.text_rate is None else optimizer.text_rate
    return {
        "ss_output_name": config.name,
        "ss_sd_model_name": made.base.path.name,
        "ss_sd_model_hash": made.base_sha256[:8] or None,
        "ss_new_sd_model_hash": made.base_sha256 or None,
        "ss_training_started_at": made.started_at,
        "ss_training_finished_at": made.finished_at,
        "ss_steps": made.choice.step,
        "ss_max_train_steps": schedule.num_steps,
        "ss_learning_rate": optimizer.rate,
        "ss_unet_lr": optimizer.rate,
        "ss_text_encoder_lr": text_rate if config.network.text_encoder else None,
        "ss_lr_scheduler": SCHEDULES.get(optimizer.schedule, optimizer.schedule),
        "ss_lr_warmup_steps": round(optimizer.warmup * schedule.num_steps),
        "ss_optimizer": f"{OPTIMIZERS[optimizer.name]}(weight_decay={optimizer.weight_decay})",
        "ss_max_grad_norm": optimizer.max_gradient_norm,
        "ss_gradient_checkpointing": config.resources.gradient_checkpointing,
        "ss_gradient_accumulation_steps": schedule.accumulation,
        "ss_clip_skip": schedule.clip_skip + 1 if schedule.clip_skip else None,
        "ss_seed": schedule.seed,
        "ss_noise_offset": loss.noise_offset or None,
        "ss_multires_noise_iterations": loss.multires_iterations or None,
        "ss_multires_noise_discount": loss.multires_discount if loss.multires_iterations else None,
        "ss_zero_terminal_snr": loss.zero_terminal_snr,
        "ss_min_snr_gamma": loss.gamma if loss.weighting == "min-snr" else None,
        "ss_debiased_estimation": loss.weighting == "debiased",
        "ss_loss_type": {"mse": "l2", "huber": "huber", "smooth l1": "smooth_l1"}[loss.kind],
        "ss_huber_c": None if loss.kind == "mse" else loss.huber_c,
        "ss_prior_loss_weight": config.data.prior_weight if made.num_prior else None,
        "ss_training_comment": made.choice.reason,
    }


def _dataset(made: Made) -> dict[str, Any]:
    data, schedule = made.config.data, made.config.schedule
    tags = {folder: dict(Counter(_tags(captions))) for folder, captions in made.captions.items()}
    return {
        "ss_num_train_images": made.num_photos * data.repeats,
        "ss_num_validation_images": made.num_held_out,
        "ss_num_reg_images": made.num_prior,
        "ss_batch_size_per_device": schedule.batch_size,
        "ss_resolution": f"{data.resolution},{data.resolution}",
        "ss_enable_bucket": data.buckets,
        "ss_bucket_no_upscale": not data.upscale,
        "ss_flip_aug": data.flip,
        "ss_shuffle_caption": data.shuffle_tags,
        "ss_keep_tokens": data.keep_tags,
        "ss_caption_dropout_rate": data.caption_dropout,
        "ss_caption_tag_dropout_rate": data.tag_dropout,
        "ss_tag_frequency": tags,
        "ss_dataset_dirs": {
            folder: {"n_repeats": data.repeats, "img_count": len(captions)}
            for folder, captions in made.captions.items()
        },
    }


def _tags(captions: Sequence[str]) -> list[str]:
    return [tag.strip() for caption in captions for tag in caption.split(",") if tag.strip()]


def _modelspec(made: Made) -> dict[str, Any]:
    """ModelSpec 1.0.1."""
    config, method = made.config, made.config.network.method
    known = ARCHITECTURES.get((made.adapter_base, made.base.prediction_type == "v_prediction"))
    how = f"Weight {made.choice.weight:g}" if method not in WITHOUT_WEIGHT else ""
    word = f"with '{config.data.trigger}' in the prompt" if config.data.trigger else ""
    return {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": known[1] + SUFFIXES.get(method, "/lora") if known else None,
        "modelspec.implementation": "diffusers" if made.adapter_base in ("sd1", "sd-custom") else (
            "https://github.com/Stability-AI/generative-models"
        ),
        "modelspec.implementation_version": f"atelier/{webui.__version__}",
        "modelspec.title": config.name,
        "modelspec.resolution": f"{config.data.resolution}x{config.data.resolution}",
        "modelspec.date": datetime.fromtimestamp(made.finished_at, UTC).isoformat(timespec="seconds"),
        "modelspec.prediction_type": "v" if made.base.prediction_type == "v_prediction" else "epsilon",
        "modelspec.encoder_layer": config.schedule.clip_skip + 1,
        "modelspec.trigger_phrase": config.data.trigger or None,
        "modelspec.usage_hint": " ".join(filter(None, [how, word])) or None,
        "modelspec.thumbnail": made.thumbnail or None,
    }  # fmt: skip
