"""The browser of models on the pages: where its panel appears, and how a click on it reaches the form.

The panel is built by `assets/models.js` and filled from our own routes. A page has one; it moves to the tab in front.
"""

from typing import Any

from webui.ui.component import JsonHtml

SLOT = '<div class="at-models-slot"></div>'
FOLDED = f"""<div class="at-models-row">
<button type="button" class="at-tool at-models-toggle" aria-expanded="false">Models</button>
<div class="at-offers" role="status"></div></div>{SLOT}"""


class ModelsSlot(JsonHtml):
    """A place for the panel, folded away behind a button; beside it, settings that models in the prompt are made for.

    A click on such an offer is a "pick", and `value` then {"set": {control: value}, ...} for the script that sets the
    controls of `task`. Without a `task` the panel is always open, and nothing is offered.
    """

    def __init__(self, task: str = "", **options: Any) -> None:
        offers = f"atelierOffers.line({{element, props, trigger, task: '{task}', event: 'pick'}})"
        slot = f"atelierModels.slot({{element, always: {str(not task).lower()}}})"
        super().__init__(
            value={},
            html_template=FOLDED if task else SLOT,
            js_on_load=f"{slot}; {offers}" if task else slot,
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
