"""Small extensions for tests, written as their authors would."""

from collections.abc import Mapping
from pathlib import Path

from webui.plugins.host import PluginHost
from webui.settings import Settings, load_settings

HEAD = """\
from webui.hooks import *
from pydantic import BaseModel, ConfigDict, Field
"""

BRIGHTEN = """\
class Params(BaseModel):
    model_config = ConfigDict(frozen=True)
    amount: int = Field(default=50, ge=0, le=255, title="Amount")


class Brighten:
    id = "brighten"
    title = "Brighten"
    params_model = Params

    def check(self, params, request):
        if params.amount == 13:
            raise InvalidRequest("amount", "13 brings bad luck.")

    def __call__(self, image, params, context):
        context.report("brightening")
        context.check()
        made = image.point(lambda level: min(level + params.amount, 255))
        return Processed(image=made, fields={"Brighten by": str(params.amount)}, badge=Badge(text="bright"))


@hookimpl
def postprocessors():
    return [Brighten()]
"""
"""A postprocessor that adds `amount` to every level."""


def write_extension(
    folder: Path,
    id: str = "brighten",
    code: str = BRIGHTEN,
    *,
    toml: str = "",
    files: Mapping[str, str] | None = None,
    requires: str = ">=0",
) -> Path:
    """Makes `folder`/`id`: `code` behind the usual imports, `toml` behind the usual keys, and other `files`."""
    extension = folder / id
    extension.mkdir(parents=True, exist_ok=True)
    title = id.replace("_", " ").capitalize()
    keys = f'id = "{id}"\ntitle = "{title}"\nversion = "1.0"\nrequires-atelier = "{requires}"\n'
    (extension / "extension.toml").write_text(keys + toml)
    (extension / "__init__.py").write_text(HEAD + code)
    for name, text in (files or {}).items():
        (extension / name).write_text(text)
    return extension


def load_host(data_dir: Path, **settings: object) -> PluginHost:
    """A host of the extensions in `data_dir`/extensions alone, loaded."""
    host = PluginHost(settings_for(data_dir, **settings), folders=[data_dir / "extensions"])
    host.load()
    return host


def settings_for(data_dir: Path, **settings: object) -> Settings:
    return load_settings(data_dir=data_dir, device="cpu", dtype="fp32", **settings)
