"""The box that gets models: a source, the list to begin with, and the downloads. `assets/downloads.js` builds it."""

from dataclasses import asdict
from typing import Any

from webui.library.downloads.amounts import amount
from webui.library.downloads.assistants import FOLDERS as ASSISTANTS
from webui.library.downloads.placing import FOLDERS
from webui.library.downloads.starter_list import LICENCE_PAGES, STARTERS
from webui.library.scan import ROOMS
from webui.ui.component import JsonHtml


class GetModels(JsonHtml):
    """`value` is what never changes: the starter list and the kinds that a model can be put among."""

    def __init__(self, **options: Any) -> None:
        starters = [
            {**asdict(starter), "amount": amount(starter.size, None), "licence_page": LICENCE_PAGES[starter.licence]}
            for starter in STARTERS
        ]
        words: dict[str, str] = {kind: f"{room.word} ({room.folder})" for kind, room in ROOMS.items()}
        words["tiny_decoder"] = f"Tiny decoder ({FOLDERS['tiny_decoder']})"
        words |= {kind: f"{kind.capitalize()} for training photos ({folder})" for kind, folder in ASSISTANTS.items()}
        super().__init__(
            value={"starters": starters, "kinds": words},
            html_template='<section class="at-get" aria-label="Get models"></section>',
            js_on_load="atelierDownloads.panel({element, props})",
            **options,
        )
