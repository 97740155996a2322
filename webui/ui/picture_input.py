"""Upload field for one or several pictures: small previews, each with a button that takes it out again.

Here arrive paths in the upload cache, which Gradio has checked. Nothing is decoded in this module.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, GradioModel
from pydantic import Field

from webui.ui.component import WithoutStub


class PicturesValue(GradioModel):  # type: ignore[misc]
    """What travels between browser and server; FileData makes Gradio check that paths are uploads."""

    files: list[FileData] = Field(default_factory=list)


class PictureInput(gr.HTML, metaclass=WithoutStub):  # type: ignore[misc]
    """Its value is a list of paths in the upload cache, unopened; set from Python, of paths anywhere on this machine.

    Without `multiple` a second picture takes the place of the first. Event: `change`.
    """

    data_model = PicturesValue

    def __init__(
        self,
        value: Sequence[Path] | None = None,
        *,
        label: str,
        info: str = "",
        multiple: bool = False,
        **options: Any,
    ) -> None:
        # Gradio would take a parameter that is no attribute for an event, and copy it with each page.
        self.info, self.multiple = info, multiple
        words = json.dumps({"label": label, "info": info, "multiple": multiple})
        super().__init__(
            value,
            label=label,
            html_template='<div class="at-pictures" role="group"></div>',
            js_on_load=f"atelierPictures.mount({{element, props, trigger, upload, watch, ...{words}}})",
            apply_default_css=False,
            **options,
        )

    def preprocess(self, payload: PicturesValue | None) -> list[Path]:
        return [] if payload is None else [Path(file.path) for file in payload.files]

    def postprocess(self, value: Sequence[Path] | None) -> PicturesValue:
        return PicturesValue(files=[self._cached(path) for path in value or ()])

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}

    def example_payload(self) -> None:
        return None

    def example_value(self) -> None:
        return None

    def _cached(self, file: Path) -> FileData:
        """A byte-for-byte copy in the cache; never re-encoded."""
        return FileData(path=self.move_resource_to_block_cache(file), orig_name=file.name)
