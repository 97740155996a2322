"""The tab where saved faces are made, seen and deleted. A face is saved here and by HTTP, and nowhere else."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from webui.hooks import ExtensionContext, WebUIError, flatten, open_image

from .consent import TERMS
from .engine import Engine, engine_of
from .face_models import SavedFace
from .params import MAX_PHOTOS
from .saving import save_person

HEADERS = ["Name", "Photos", "Saved", "Can be"]
INTRO = (
    "A saved face holds numbers that describe it, no pixels. They are biometric data: they lie in this program's data "
    "folder until you delete them, and nothing is saved unless you do it here. Name one under **Face consistency** to "
    "measure against it, or to swap it in."
)


def build_tab(context: ExtensionContext) -> None:
    """Inside the tab. Raises nothing of its own."""
    engine = engine_of(context)
    gr.Markdown(INTRO)
    table = gr.Dataframe(
        lambda: rows(engine), headers=HEADERS, interactive=False, elem_id="faces_table", label="Saved faces"
    )
    with gr.Row():
        with gr.Column():
            photos = gr.File(
                label="Photos of one person", file_count="multiple", file_types=["image"], elem_id="faces_photos"
            )
            name = gr.Textbox(label="Name", max_lines=1, elem_id="faces_name")
            consent = gr.Checkbox(label="I agree", info=TERMS, elem_id="faces_consent")
            save = gr.Button("Save face", variant="primary", elem_id="faces_save")
        with gr.Column():
            chosen = gr.Textbox(
                label="Name of the face to delete", info="Click it in the list.", max_lines=1, elem_id="faces_chosen"
            )
            delete = gr.Button("Delete face", variant="stop", elem_id="faces_delete")

    def save_face(paths: Sequence[str] | None, name: str, consent: bool) -> list[list[Any]]:
        try:
            _save(paths or (), name, consent, engine, context)
        except WebUIError as error:
            raise gr.Error(str(error), print_exception=False) from error
        gr.Info(f"'{name}' was saved.")
        return rows(engine)

    def delete_face(name: str) -> list[list[Any]]:
        try:
            engine.saved.delete(name)
        except WebUIError as error:
            raise gr.Error(str(error), print_exception=False) from error
        gr.Info(f"'{name}' was deleted.")
        return rows(engine)

    def pick(cell: gr.SelectData) -> str:
        return str(cell.row_value[0])

    table.select(pick, None, chosen, api_visibility="private")
    save.click(save_face, [photos, name, consent], table, api_visibility="private")
    delete.click(delete_face, chosen, table, api_visibility="private")


def rows(engine: Engine) -> list[list[Any]]:
    """Of the table."""
    return [[face.name, face.num_photos, face.created[:10], uses(face)] for face in engine.saved.list()]


def uses(face: SavedFace) -> str:
    if face.problem:
        return f"not used: {face.problem}"
    can = ["compared"] if not face.cannot_compare_message else []
    can += ["swapped in"] if not face.cannot_swap_message else []
    return ", ".join(can)


def _save(paths: Sequence[str], name: str, consent: bool, engine: Engine, context: ExtensionContext) -> None:
    if not consent:
        raise WebUIError("A face is saved only if you agree to the terms.", hint="Tick 'I agree'.")
    if not 0 < len(paths) <= MAX_PHOTOS:
        raise WebUIError(f"{len(paths)} photos were chosen.", hint=f"Choose 1 to {MAX_PHOTOS} of one person.")
    photos = [flatten(open_image(Path(path), max_pixels=context.max_image_pixels)) for path in paths]
    save_person(name, photos, engine)
    engine.consent.give()
