"""Model files that are something else than what this program runs, by a name that only they have.

Each is called by its name, so that nobody wonders why a sound file is not in the list.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from webui.library.facts import Kind
from webui.library.header import TensorInfo


@dataclass(frozen=True, slots=True)
class Stranger:
    """`label` completes "it is ..."; `keys`: any of them is proof. `kind` where we have a word for it."""

    label: str
    keys: tuple[str, ...]
    kind: Kind = "unknown"


PREFIXES = ("", "model.diffusion_model.", "diffusion_model.", "net.")
"""Where the same network lies in files of different makers."""

STRANGERS = (
    Stranger("a ControlNet", ("control_model.time_embed.0.weight", "controlnet_cond_embedding.conv_in.weight",
                              "input_hint_block.0.weight", "lora_controlnet"), "controlnet"),
    Stranger("a T2I-Adapter", ("adapter.body.0.in_conv.weight", "body.0.in_conv.weight",
                              "body.0.resnets.0.block1.weight"), "controlnet"),
    Stranger("an IP-Adapter", ("ip_adapter.1.to_k_ip.weight", "image_proj.proj.weight", "image_proj.latents",
                               "image_proj.norm.weight")),
    Stranger("a motion module of AnimateDiff", ("down_blocks.0.motion_modules.0.temporal_transformer.norm.weight",)),
    Stranger("Stable Video Diffusion", ("input_blocks.1.0.time_stack.in_layers.0.weight",)),
    Stranger("Stable Diffusion 3", ("joint_blocks.0.context_block.adaLN_modulation.1.bias",
                                    "transformer_blocks.0.norm1_context.linear.weight")),
    Stranger("Chroma", ("distilled_guidance_layer.in_proj.bias",)),
    Stranger("Flux 2", ("single_stream_modulation.lin.weight",)),
    Stranger("Flux", ("double_blocks.0.img_attn.norm.key_norm.scale", "double_blocks.0.img_attn.qkv.weight",
                      "single_transformer_blocks.0.attn.to_q.weight")),
    Stranger("AuraFlow", ("double_layers.0.attn.w1q.weight",)),
    Stranger("Hunyuan Video", ("txt_in.individual_token_refiner.blocks.0.adaLN_modulation.1.bias",)),
    Stranger("HiDream", ("double_stream_blocks.0.block.adaLN_modulation.1.bias",)),
    Stranger("Qwen-Image", ("transformer_blocks.0.img_mod.1.weight",)),
    Stranger("Z-Image", ("layers.0.adaLN_modulation.0.weight",)),
    Stranger("Lumina", ("cap_embedder.0.weight",)),
    Stranger("LTX-Video", ("patchify_proj.weight",)),
    Stranger("Wan", ("head.modulation",)),
    Stranger("Mochi", ("blocks.0.attn.qkv_x.weight",)),
    Stranger("Sana", ("blocks.0.cross_attn.q_linear.weight",)),
    Stranger("PixArt", ("y_embedder.y_proj.fc1.weight",)),
    Stranger("Cosmos", ("x_embedder.proj.1.weight",)),
    Stranger("Stable Cascade", ("clip_txt_mapper.weight", "down_blocks.1.0.channelwise.0.weight")),
    Stranger("the SD x4 upscaler", ("label_emb.weight", "class_embedding.weight")),
    Stranger("a T5 text encoder, which SD 3 and Flux use", ("encoder.block.0.layer.0.SelfAttention.q.weight",)),
    Stranger("a picture encoder", ("vision_model.embeddings.patch_embedding.weight", "visual.conv1.weight")),
    Stranger("a VQ autoencoder", ("quantize.embedding.weight", "first_stage_model.quantize.embedding.weight")),
    Stranger("Playground 2.5, an SDXL with other noise levels (EDM)", ("edm_mean",)),
    Stranger("CosXL, an SDXL with other noise levels (EDM)", ("edm_vpred.sigma_max",)),
)  # fmt: skip
"""In order: a motion module has U-Net names too, Chroma has Flux's."""

_ROW_OF_KEY: Mapping[str, int] = {
    prefix + key: number for number, row in enumerate(STRANGERS) for key in row.keys for prefix in PREFIXES
}


def stranger(tensors: Mapping[str, TensorInfo]) -> Stranger | None:
    """The row that the names belong to, or None."""
    found = [number for key, number in _ROW_OF_KEY.items() if key in tensors]
    return STRANGERS[min(found)] if found else None
