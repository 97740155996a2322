"""A face repainted a little by the checkpoint, in its own crop, so that light, pores and edges are of one piece."""

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from webui.hooks import Redraw

from . import topology
from .face import Face, Pixels
from .params import FaceParams

GROW = 0.06
"""Of the face's width: how far beyond the mesh's outline is repainted, so that the warp's edge is inside."""
BLUR = 0.04
"""Of the face's width; the blur's sigma."""
MAX_BLUR_PX = 64


def repainted(pixels: Pixels, face: Face, params: FaceParams, redraw: Redraw) -> tuple[Pixels, NDArray[np.float32]]:
    """The new picture, and where it differs."""
    mask = face_outline(pixels, face)
    image = redraw(
        Image.fromarray(pixels),
        Image.fromarray(mask),
        strength=params.refine_strength,
        width=params.refine_size,
        height=params.refine_size,
        prompt=params.refine_prompt or None,
        negative_prompt=params.refine_negative or None,
        num_inference_steps=params.refine_steps,
        padding_px=params.refine_padding,
        blur_px=min(MAX_BLUR_PX, max(1, round(BLUR * face.width_px))),
    )
    made = np.array(image.convert("RGB"), np.uint8)
    return made, (made != pixels).any(axis=2).astype(np.float32)


def face_outline(pixels: Pixels, face: Face) -> NDArray[np.uint8]:
    """(height, width): 255 in the mesh's outline, grown a little."""
    mask = np.zeros(pixels.shape[:2], np.uint8)
    outline = face.points[list(topology.OVAL), :2]
    middle = outline.mean(axis=0)
    wider = middle + (outline - middle) * (1 + 2 * GROW)
    cv2.fillPoly(mask, [np.round(np.clip(wider, -1e4, 1e4)).astype(np.int32)], 255)
    return mask
