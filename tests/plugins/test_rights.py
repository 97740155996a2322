"""Extensions are installed only where nobody else can open the page."""

from pathlib import Path

import pytest

from tests.extension_files import settings_for
from webui.plugins.rights import why_no_installs


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LocalHost", "::1"])
def test_on_the_machine_itself_extensions_can_be_installed(tmp_path: Path, host: str) -> None:
    assert why_no_installs(settings_for(tmp_path, host=host)) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.5", "studio.local", "localhost.example.com"])
def test_a_page_that_others_can_open_installs_nothing(tmp_path: Path, host: str) -> None:
    assert f"served on {host}" in why_no_installs(settings_for(tmp_path, host=host))


@pytest.mark.parametrize("setting", ["extensions", "extension_installs"])
def test_a_setting_forbids_it(tmp_path: Path, setting: str) -> None:
    assert setting in why_no_installs(settings_for(tmp_path, **{setting: False}))
