"""The Extensions tab, and the tabs that extensions bring. `assets/extensions.js` builds what the first one shows."""

import html
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from webui.plugins.host import ExtensionTab
from webui.ui.component import JsonHtml


class Extensions(JsonHtml):
    """Its content comes from our own routes."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            value={},
            html_template='<section class="at-extensions" aria-label="Extensions"></section>',
            js_on_load="atelierExtensions.panel({element})",
            **options,
        )


def build_extensions() -> None:
    with gr.Column(elem_classes="at-extensions-tab"):
        Extensions(elem_id="extensions")


def build_extension_tabs(tabs: Sequence[ExtensionTab], remember: Callable[[str, Any], None]) -> None:
    """One tab for each; `remember` gets its id and the tab. One that fails says so in its place."""
    for tab in tabs:
        with gr.Tab(tab.label, id=tab.id) as shown:
            problem = tab.build()
            if problem:
                told = f'<p class="at-error">This tab could not be made. {html.escape(problem)}</p>'
                gr.HTML(told, js_on_load=None, elem_classes="at-flush")
        remember(tab.id, shown)
