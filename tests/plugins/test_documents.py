"""docs/extensions.md names all that an extension can do, and nothing that it cannot."""

import inspect
import re
import tomllib
from dataclasses import fields

import pytest

from webui import hooks
from webui.generation.postprocess import STAGES
from webui.hooks import Badge, Command, CommandContext, ExtensionContext, Moment, PostprocessContext, Processed, Tab
from webui.plugins.manifest import Manifest, ModelFile
from webui.settings import CHECKOUT, Settings

PAGE = (CHECKOUT / "docs" / "extensions.md").read_text("utf-8")
DESCRIBED = (ExtensionContext, Tab, Command, CommandContext, PostprocessContext, Processed, Badge, Moment)


def section(title: str) -> str:
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    assert rest, f"no section {title}"
    return rest.partition("\n## ")[0]


def first_column(text: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.+?) \|", text, re.MULTILINE) for name in re.findall(r"`([^`]+)`", row)}


def test_every_hook_has_its_section_with_its_arguments() -> None:
    described = re.findall(r"^### `(.+)`$", section("Hooks"), re.MULTILINE)
    offered = []
    for name, function in vars(hooks.Hooks).items():
        if inspect.isfunction(function):
            arguments = [argument for argument in inspect.signature(function).parameters if argument != "self"]
            offered.append(f"{name}({', '.join(arguments)})")
    assert described == offered


def test_every_key_of_the_manifest_is_in_its_tables() -> None:
    keys = {info.alias or name for name, info in Manifest.model_fields.items()}
    assert first_column(section("`extension.toml`")) == keys | set(ModelFile.model_fields)


def test_every_field_of_the_context_is_in_its_table() -> None:
    assert first_column(section("The context")) == {field.name for field in fields(ExtensionContext)}


@pytest.mark.parametrize("kind", DESCRIBED, ids=lambda kind: kind.__name__)
def test_every_field_that_an_extension_meets_is_named(kind: type) -> None:
    missing = [field.name for field in fields(kind) if not re.search(rf"`(\w+\.)?{field.name}`", PAGE)]
    assert missing == []


JSON_SCHEMA = {"anyOf", "const", "default", "description", "enum", "exclusiveMaximum", "exclusiveMinimum", "items",
               "maximum", "minimum", "multipleOf", "properties", "title", "type"}  # fmt: skip


def test_all_that_a_field_can_say_of_how_it_is_drawn_is_in_its_table() -> None:
    source = (CHECKOUT / "webui" / "ui" / "forms.py").read_text("utf-8")
    read = set(re.findall(r"""(?:schema|part|source|items|raw)(?:\.get\(|\[)"([a-zA-Z_]+)\"""", source))
    _, _, table = section("How fields are drawn").partition("json_schema_extra")
    assert read - JSON_SCHEMA == first_column(table)


def test_every_stage_and_every_setting_is_named() -> None:
    settings = {name for name in Settings.model_fields if name.startswith("extension")}
    assert settings == first_column(section("When something goes wrong")) - {"Setting"}
    assert set(STAGES) <= first_column(section("Hooks"))


def test_the_manifest_of_the_page_is_one() -> None:
    (text,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    manifest = Manifest.model_validate(tomllib.loads(text))
    assert manifest.id == "film_grain"


def test_all_that_the_hooks_module_offers_is_there() -> None:
    assert sorted(hooks.__all__) == sorted(set(hooks.__all__))
    assert all(hasattr(hooks, name) for name in hooks.__all__)
