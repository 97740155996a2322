"""The Training tab's routes to automatic captions and masks: which assistants there are, and one set to a photo set."""

from typing import Any

from fastapi import APIRouter, Request

from webui.assisting import WORDS, Assistance, assistance_of
from webui.errors import InvalidRequest
from webui.jobs.queue import JobQueue
from webui.jobs.record import JobRecord, JobState
from webui.services import Services
from webui.training.assistants.assist import AssistRequest
from webui.training.assistants.catalog import HOW_TO_GET, Assistant
from webui.ui.extensions_page import comes_from_here
from webui.ui.guard import owner_of
from webui.ui.refusing import RefusingRoute
from webui.ui.training_sets import why_no_folders


def build_training_assist_router(services: Services) -> APIRouter:
    router = APIRouter(route_class=RefusingRoute, prefix="/training")
    assisting = services.assisting

    def checked_id(request: Request, id: str) -> str:
        """Raises InvalidRequest for sets that are not there, or not for who asks."""
        info = services.photo_sets.info(id)
        client = "" if request.client is None else request.client.host
        from_here = comes_from_here(client, request.headers)
        if not info.own and (reason := why_no_folders(services.settings, from_here=from_here)):
            raise InvalidRequest("set", reason)
        return info.id

    @router.get("/assistants")
    def assistants() -> dict[str, Any]:
        return {
            "captioners": [_assistant_json(one) for one in assisting.assistants.all("captions")],
            "maskers": [_assistant_json(one) for one in assisting.assistants.all("masks")],
            "how_to_get": HOW_TO_GET,
        }

    @router.post("/sets/{id}/assist")
    def start(request: Request, id: str, wish: AssistRequest) -> dict[str, str]:
        return {"job": assisting.start(checked_id(request, id), wish, owner=owner_of(request)).id}

    @router.get("/sets/{id}/assist")
    def latest(request: Request, id: str) -> dict[str, Any]:
        seen = assisting.latest(checked_id(request, id))
        return {"assist": None if seen is None else assistance_json(seen)}

    return router


def brief_assist(queue: JobQueue, job: JobRecord) -> dict[str, Any]:
    """A line of the side bar's list of jobs."""
    seen = assistance_of(queue, job)
    left = f", {seen.seconds_left:.0f} s left" if seen.seconds_left is not None else ""
    running = f"{seen.done} of {seen.total} photos{left}" if seen.total else "Opening the network"
    return {
        "id": job.id,
        "task": job.kind,
        "state": str(job.state),
        "prompt": f"{WORDS[seen.kind]} of {job.payload['title']}",
        "status": running if job.state == JobState.RUNNING else f"Place {(job.position or 0) + 1} among the tools",
        "place": (job.position or 0) + 1,
        "step": seen.done,
        "num_steps": seen.total,
    }


def _assistant_json(assistant: Assistant) -> dict[str, str]:
    return {
        "id": assistant.id,
        "name": assistant.name,
        "about": assistant.about,
        "makes": assistant.makes,
        "problem": f"'{assistant.name}' cannot be used: {assistant.problem}." if assistant.problem else "",
    }


def assistance_json(seen: Assistance) -> dict[str, Any]:
    outcome, failed = seen.outcome, seen.failed
    return {
        "job": seen.job,
        "kind": seen.kind,
        "state": seen.state.value,
        "done": seen.done,
        "total": seen.total,
        "seconds_left": seen.seconds_left,
        "changed": outcome.changed if outcome else 0,
        "kept": outcome.kept if outcome else 0,
        "problems": [{"name": name, "sentence": sentence} for name, sentence in (outcome.problems if outcome else ())],
        "error": {"message": failed.message, "hint": failed.hint} if failed else None,
    }
