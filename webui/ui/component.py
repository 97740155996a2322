"""What our own HTML components share."""

from abc import ABCMeta
from typing import Any

import gradio as gr
from gradio.component_meta import updateable


class WithoutStub(type(gr.HTML)):  # type: ignore[misc]
    """Gradio writes a .pyi file next to each component's source, which would replace our types. This one does not."""

    def __new__(cls, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> Any:
        attributes["__init__"] = updateable(attributes["__init__"])
        return ABCMeta.__new__(cls, name, bases, attributes)


class JsonHtml(gr.HTML, metaclass=WithoutStub):  # type: ignore[misc]
    """HTML that our script fills from a JSON `value`. Each gets a script of its own as `js_on_load`."""

    def __init__(self, value: Any = None, *, html_template: str, js_on_load: str, **options: Any) -> None:
        super().__init__(
            value,
            html_template=html_template,
            js_on_load=js_on_load,
            apply_default_css=False,
            elem_classes="at-flush",
            **options,
        )

    def postprocess(self, value: Any) -> Any:
        return value

    def api_info(self) -> dict[str, Any]:
        return {"type": "object"}
