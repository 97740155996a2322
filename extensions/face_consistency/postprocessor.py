"""Both postprocessors as the program knows them: what is refused before a job waits, and a picture's way through.

Importing this imports no network and no OpenCV: that happens with the first picture, or the first thing to check.
"""

from PIL import Image

from webui.hooks import (
    ExtensionContext,
    Extras,
    GenerationRequest,
    InvalidRequest,
    PostprocessContext,
    Processed,
)

from .consent import NOT_GIVEN, TERMS
from .params import DetailerParams, FaceParams


class FaceConsistency:
    """The person's own face, back in the picture."""

    id = "face_consistency"
    title = "Face consistency"
    params_model = FaceParams

    def __init__(self, context: ExtensionContext) -> None:
        self._context = context

    def check(self, params: FaceParams, request: GenerationRequest) -> None:
        from .checking import check_faces  # noqa: PLC0415
        from .engine import engine_of  # noqa: PLC0415

        if not params.consent:
            raise InvalidRequest("consent", NOT_GIVEN, hint=f"Tick 'I agree': {TERMS}")
        has_init = request.init is not None and not isinstance(request.init, Extras)
        engine = engine_of(self._context)
        can_refine = not isinstance(request.init, Extras) or bool(request.checkpoint)
        check_faces(params, engine, has_init=has_init, can_refine=can_refine)
        engine.consent.give()

    def __call__(self, image: Image.Image, params: FaceParams, context: PostprocessContext) -> Processed:
        from .engine import engine_of  # noqa: PLC0415
        from .process import improve_faces  # noqa: PLC0415
        from .report import processed_of  # noqa: PLC0415
        from .sources import Given  # noqa: PLC0415

        engine = engine_of(self._context)
        is_finished = isinstance(context.request.init, Extras)
        outcome = improve_faces(
            image,
            params,
            given=Given(
                photos=tuple(context.picture(name) for name in params.photos),
                saved=engine.saved.read(params.saved_face) if params.saved_face else None,
                init=None if is_finished else context.source,
                resize_mode=getattr(context.request.init, "resize_mode", "stretch"),
                reference=context.picture(params.reference) if params.reference else None,
            ),
            engine=engine,
            redraw=context.redraw,
            report=context.report,
            check=context.check,
        )
        return processed_of(outcome.image, outcome.faces, outcome.reason, outcome.notes)


class Detailer:
    """Faces, hands or other things, each found and repainted in its own crop."""

    id = "detailer"
    title = "Detailer"
    params_model = DetailerParams

    def __init__(self, context: ExtensionContext) -> None:
        self._context = context

    def check(self, params: DetailerParams, request: GenerationRequest) -> None:
        from .detailer import check_detailer  # noqa: PLC0415
        from .engine import engine_of  # noqa: PLC0415

        if isinstance(request.init, Extras) and not request.checkpoint:
            raise InvalidRequest("target", "The detailer repaints with a checkpoint, and none is chosen.")
        check_detailer(params, engine_of(self._context))

    def __call__(self, image: Image.Image, params: DetailerParams, context: PostprocessContext) -> Processed:
        from .detailer import improve_details  # noqa: PLC0415
        from .engine import engine_of  # noqa: PLC0415

        return improve_details(image, params, context, engine_of(self._context))
