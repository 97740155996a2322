"""Networks in transformers' layout that say in a sentence what a picture shows. torch is imported when one is opened.

The same picture gives the same sentence: the likeliest of three beams, nothing is drawn by chance.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import transformers
from PIL import Image

from webui.errors import UnsupportedModel
from webui.images.reading import flatten
from webui.training.assistants.network import HINT

BEAMS = 3
MAX_TOKENS = 50
LOCAL: Mapping[str, Any] = MappingProxyType({"local_files_only": True, "trust_remote_code": False})


class SentenceWriter:
    """The network in `folder`, on the processor in float32."""

    def __init__(self, folder: Path) -> None:
        """Raises UnsupportedModel, also where a weight is missing: it would be random."""
        self._folder = folder
        try:
            architecture = json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0]
            transformers.logging.disable_progress_bar()  # its own, among the lines of the command
            self._processor: Any = transformers.AutoProcessor.from_pretrained(folder, **LOCAL)
            model, told = getattr(transformers, architecture).from_pretrained(
                folder, dtype=torch.float32, output_loading_info=True, **LOCAL
            )
        except Exception as error:
            line = (str(error).splitlines() or [type(error).__name__])[0].replace(str(folder), folder.name)
            raise UnsupportedModel(folder, f"transformers cannot open it ({line[:200]})", hint=HINT) from error
        lost = [*told["missing_keys"], *(key[0] for key in told["mismatched_keys"])]
        if lost:
            reason = f"{len(lost)} of its weights are missing or of another shape, such as {sorted(lost)[0]}"
            raise UnsupportedModel(folder, reason, hint=HINT)
        self._model: Any = model.eval()

    def caption(self, image: Image.Image) -> str:
        """One sentence without its end; "" where the network says nothing. Raises UnsupportedModel."""
        try:
            with torch.inference_mode():
                inputs = self._processor(images=flatten(image), return_tensors="pt")
                tokens = self._model.generate(**inputs, num_beams=BEAMS, do_sample=False, max_new_tokens=MAX_TOKENS)
            text = self._processor.decode(tokens[0], skip_special_tokens=True)
        except (RuntimeError, ValueError, IndexError, TypeError, KeyError) as error:
            line = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnsupportedModel(self._folder, f"it failed while it ran ({line[:200]})", hint=HINT) from error
        return " ".join(text.split()).rstrip(" .,")
