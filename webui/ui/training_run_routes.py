"""The Training tab's routes to runs: settings, start, follow, pause, go on, pick, remove. Who may open the page may."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from webui.errors import ModelNotFound
from webui.services import Services
from webui.training.config import Method
from webui.training.config_file import config_of_text
from webui.ui.guard import owner_of
from webui.ui.refusing import RefusingRoute
from webui.ui.training_form import form, missing_packages
from webui.ui.training_runs import list_runs, page_config, run_json, run_log
from webui.ui.training_settings import checked_json, numbers_of_presets, toml_to_take_home

MAX_TOML_CHARS = 200_000
NO_STORE = {"Cache-Control": "no-store"}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}


class Draft(BaseModel):
    """`photos` is a set of the page, or "" before one is chosen."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    preset: str = "person-small"
    base: str = "starter"
    method: Method = "lora"
    photos: str = Field(default="", alias="set", max_length=300)
    trigger: str = Field(default="", max_length=64)
    class_word: str = Field(default="", max_length=64)
    name: str = Field(default="", max_length=64)


class Wish(BaseModel):
    """Settings as the page has them, and the set of photos."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    config: dict[str, Any]
    photos: str = Field(default="", alias="set", max_length=300)


class Picked(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    step: int = Field(ge=1)
    weight: float = Field(gt=0.0, le=2.0)


class Resumed(BaseModel):
    """New values by dotted name: {"schedule.num_steps": 2000}."""

    model_config = ConfigDict(extra="forbid")

    changes: dict[str, Any] = {}


def build_training_run_router(services: Services) -> APIRouter:
    router = APIRouter(route_class=RefusingRoute)
    _add_settings(router, services)
    _add_runs(router, services)
    _add_changes(router, services)
    return router


def _add_settings(router: APIRouter, services: Services) -> None:
    trainings = services.trainings

    @router.get("/training/form")
    def settings_form() -> dict[str, Any]:
        return {"enabled": services.settings.training, **form(services.checkpoints())}

    @router.post("/training/draft")
    def draft(wish: Draft) -> dict[str, Any]:
        config = trainings.draft(
            wish.preset,
            base=wish.base,
            method=wish.method,
            photos=wish.photos,
            trigger=wish.trigger,
            class_word=wish.class_word,
            name=wish.name,
        )
        return {
            "config": page_config(config, wish.photos, ""),
            "missing": missing_packages(),
            "presets": numbers_of_presets(services, wish.base, wish.method),
        }

    @router.post("/training/check")
    def check(wish: Wish) -> dict[str, Any]:
        return checked_json(trainings.check(wish.config, wish.photos), services, wish.config)

    @router.post("/training/config")
    def config_as_toml(wish: Wish) -> dict[str, str]:
        return {"text": toml_to_take_home(trainings.config_of(wish.config, wish.photos))}

    @router.post("/training/config/read")
    def config_of_toml(text: Annotated[str, Body(embed=True, max_length=MAX_TOML_CHARS)]) -> dict[str, Any]:
        return {"config": page_config(config_of_text(text), "", "")}


def _add_runs(router: APIRouter, services: Services) -> None:
    trainings = services.trainings

    @router.get("/training/runs")
    def runs() -> JSONResponse:
        return JSONResponse({"runs": list_runs(trainings)}, headers=NO_STORE)

    @router.post("/training/runs")
    def start(request: Request, wish: Wish) -> dict[str, Any]:
        run, job = trainings.start(wish.config, wish.photos, owner=owner_of(request))
        return {"run": run, "job": job.id}

    @router.get("/training/runs/{run}")
    def read(run: str, known: str = "") -> JSONResponse:
        return JSONResponse(run_json(trainings, run, known), headers=NO_STORE)

    @router.get("/training/runs/{run}/samples/{name}")
    def sample(run: str, name: str) -> FileResponse:
        path = trainings.folder(run).path / "samples" / name
        if "/" in name or "\\" in name or path.suffix != ".png" or not path.is_file():
            raise ModelNotFound("sample", name, [])
        return FileResponse(path, headers=NO_STORE)

    @router.get("/training/runs/{run}/config.toml")
    def config_toml(run: str) -> PlainTextResponse:
        found = trainings.run(run)
        text = toml_to_take_home(found.config)
        return PlainTextResponse(text, headers={"Content-Disposition": f'attachment; filename="{_ascii(run)}.toml"'})

    @router.get("/training/runs/{run}/log")
    def log(run: str) -> PlainTextResponse:
        return PlainTextResponse(run_log(trainings, run, services.settings.data_dir), headers=NO_STORE)

    @router.get("/training/runs/{run}/adapter")
    def adapter(run: str) -> FileResponse:
        path = trainings.result(run)
        return FileResponse(path, filename=path.name, headers=NO_STORE)


def _add_changes(router: APIRouter, services: Services) -> None:
    trainings = services.trainings

    @router.post("/training/runs/{run}/pause")
    def pause(run: str) -> dict[str, bool]:
        trainings.pause(run)
        return {"done": True}

    @router.post("/training/runs/{run}/stop")
    def stop(run: str) -> dict[str, bool]:
        trainings.stop(run)
        return {"done": True}

    @router.post("/training/runs/{run}/resume")
    def resume(request: Request, run: str, wish: Resumed | None = None) -> dict[str, str]:
        changes = {} if wish is None else wish.changes
        return {"run": run, "job": trainings.resume(run, changes, owner=owner_of(request)).id}

    @router.post("/training/runs/{run}/pick")
    def pick(request: Request, run: str, wish: Picked) -> dict[str, str]:
        return {"job": trainings.pick(run, wish.step, wish.weight, owner=owner_of(request)).id}

    @router.delete("/training/runs/{run}")
    def delete(run: str) -> dict[str, bool]:
        trainings.delete(run)
        return {"done": True}


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace('"', "").replace("?", "_")
