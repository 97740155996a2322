"""The face mesh by parts: which points are the outline, the brows, the eyes, the lips, and which triangles join them.

Numbers are indices of MediaPipe's 468 points; "right" is the person's right, the picture's left. Never looks at pixels.
"""

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Triangles = NDArray[np.int32]
"""(n, 3) indices of points."""

NUM_POINTS = 468

# fmt: off
OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
        152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)
"""The mesh's edge, clockwise as seen from the middle of the forehead: left temple, chin, right temple."""
OVAL_BELOW_BROWS = (389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
                    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162)
RIGHT_BROW = (70, 63, 105, 66, 107, 55, 65, 52, 53, 46)
LEFT_BROW = (300, 293, 334, 296, 336, 285, 295, 282, 283, 276)
BROW_TOPS = (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)
"""From the right temple to the left."""
RIGHT_EYE = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
LEFT_EYE = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
LIPS = (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185)
INNER_LIPS = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191)
NOSE = (168, 122, 196, 236, 198, 48, 64, 98, 2, 327, 294, 278, 420, 456, 419, 351)
RIGHT_CHEEK = (117, 118, 101, 36, 205, 187, 123)
LEFT_CHEEK = (346, 347, 330, 266, 425, 411, 352)
# fmt: on
FOREHEAD_TOP, CHIN = 10, 152
RIGHT_SIDE, LEFT_SIDE = 234, 454
RIGHT_JAW, LEFT_JAW = 172, 397


@cache
def mesh_triangles() -> Triangles:
    """(898, 3), read only. Seen from the front, in a picture's axes, every triangle has a positive area."""
    text = (Path(__file__).parent / "mesh_triangles.txt").read_text(encoding="utf-8")
    rows = " ".join(line for line in text.splitlines() if not line.startswith("#")).replace(",", " ")
    triangles = np.array(rows.split(), np.int32).reshape(-1, 3)[:, ::-1].copy()
    triangles.flags.writeable = False
    return triangles
