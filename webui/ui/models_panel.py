"""The browser of models on the pages: where its panel appears, and how a click on a checkpoint reaches the form.

The panel is built by `assets/models.js` and filled from our own routes. A page has one; it moves to the tab in front.
"""

from typing import Any

from webui.ui.component import JsonHtml

SLOT = '<div class="at-models-slot"></div>'
TOGGLE = '<button type="button" class="at-tool at-models-toggle" aria-expanded="false">Models</button>'


class ModelsSlot(JsonHtml):
    """A place for the panel. Folded away behind a button unless it is `always` open."""

    def __init__(self, *, always: bool = False, **options: Any) -> None:
        super().__init__(
            value={},
            html_template=SLOT if always else TOGGLE + SLOT,
            js_on_load=f"atelierModels.slot({{element, always: {str(always).lower()}}})",
            **options,
        )


class ModelsLink(JsonHtml):
    """Between panel and form. `value` is {"chosen": checkpoint} from here; from a click it is {"checkpoint": name} or
    {"vae": name, "task": task}.

    A click is a "pick": "change" also comes when the server writes the value.
    """

    def __init__(self, chosen: str, **options: Any) -> None:
        super().__init__(
            value={"chosen": chosen},
            html_template="<span hidden></span>",
            js_on_load="atelierModels.connect({props, trigger, watch, event: 'pick'})",
            **options,
        )
