"""Git addresses: which are asked, what is brought, and what a repository cannot make us do."""

from pathlib import Path

import pytest

from tests.plugins.offers import commit_all, git
from webui.errors import ExtensionError
from webui.plugins import installing_git
from webui.plugins.installing_files import unpack
from webui.plugins.installing_git import GitAddress, checkout_of, fetch_files, newest_commit, parse_address


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.py").write_text("x = 1\n")
    commit_all(folder)
    return folder


def at(folder: Path, ref: str = "") -> GitAddress:
    return parse_address(folder.as_uri(), ref, private=True)


def files(address: GitAddress, folder: Path) -> dict[str, str]:
    archive, _ = fetch_files(address, folder / "git")
    unpack(archive, folder / "out")
    return {path.name: path.read_text() for path in (folder / "out").rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:///etc",
        "http://example.org/x",
        "git://example.org/x",
        "ssh://git@example.org/x",
        "git@example.org:x/y",
        "ext::sh -c touch% x",
        "--upload-pack=touch x",
        "https://user:password@example.org/x",
        "https://example.org/x y",
        "https://example.org/",
        "/etc",
        "https://",
    ],
)
def test_only_https_addresses_are_asked(url: str) -> None:
    with pytest.raises(ExtensionError):
        parse_address(url)


@pytest.mark.parametrize("ref", ["--upload-pack=x", "a..b", "-x", "a b", "a:b", "x.lock", "a/", "x" * 300, "+a", "a^"])
def test_a_ref_that_git_could_take_for_something_else_is_refused(ref: str) -> None:
    with pytest.raises(ExtensionError, match="no branch, tag or commit"):
        parse_address("https://example.org/x", ref)


def test_git_itself_refuses_other_protocols(repository: Path, tmp_path: Path) -> None:
    sneaky = GitAddress(url=repository.as_uri())
    with pytest.raises(ExtensionError, match="transport 'file' not allowed"):
        newest_commit(sneaky)
    with pytest.raises(ExtensionError, match="not allowed"):
        fetch_files(GitAddress(url=f"ext::touch {tmp_path / 'ran'}", protocols="file"), tmp_path / "git")
    assert not (tmp_path / "ran").exists()


def test_branches_tags_and_commits_can_be_named(repository: Path, tmp_path: Path) -> None:
    first = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "--annotate", "v1", "--message", "one")
    git(repository, "checkout", "--quiet", "-b", "next")
    (repository / "a.py").write_text("x = 2\n")
    second = commit_all(repository)
    git(repository, "checkout", "--quiet", "main")
    for ref, commit, text in (("", first, "x = 1\n"), ("next", second, "x = 2\n"), ("v1", first, "x = 1\n")):
        assert newest_commit(at(repository, ref)) == commit
        assert files(at(repository, ref), tmp_path / (ref or "none")) == {"a.py": text}
    git(repository, "config", "uploadpack.allowAnySHA1InWant", "true")
    assert files(at(repository, first), tmp_path / "commit") == {"a.py": "x = 1\n"}
    assert newest_commit(at(repository, first)) == first


def test_one_commit_is_fetched_and_not_the_history(repository: Path, tmp_path: Path) -> None:
    for number in range(3):
        (repository / "a.py").write_text(f"x = {number}\n")
        commit_all(repository)
    fetch_files(at(repository), tmp_path / "git")
    assert git(tmp_path / "git" / "repository", "rev-list", "--count", "FETCH_HEAD") == "1"


def test_submodules_filters_and_links_do_nothing(repository: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "inner.py").write_text("y = 1\n")
    commit_all(other)
    git(repository, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", other.as_uri(), "inside")
    (repository / ".gitattributes").write_text("*.py filter=evil\n")
    commit_all(repository)
    assert "inner.py" not in files(at(repository), tmp_path / "one")
    (repository / "secrets").symlink_to("/etc")
    commit_all(repository)
    archive, _ = fetch_files(at(repository), tmp_path / "git")
    with pytest.raises(ExtensionError, match="'secrets' is a link"):
        unpack(archive, tmp_path / "out")


def test_a_repository_that_is_none_is_told_in_gits_words(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExtensionError, match=r"git cannot get it from .*does not appear to be a git repository"):
        newest_commit(at(tmp_path / "empty"))


def test_a_branch_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    with pytest.raises(ExtensionError, match="nowhere"):
        fetch_files(at(repository, "nowhere"), tmp_path / "git")


def test_one_that_takes_too_long_or_too_much_is_ended(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text("#!/bin/sh\nsleep 300 & wait\n")
    slow.chmod(0o755)
    monkeypatch.setenv("PATH", f"{slow.parent}:/usr/bin:/bin")
    monkeypatch.setattr(installing_git, "ASK_S", 0.3)
    with pytest.raises(ExtensionError, match=r"longer than 0\.3 s"):
        newest_commit(at(repository))
    monkeypatch.setattr(installing_git, "ASK_S", 30.0)
    monkeypatch.setattr(installing_git, "MAX_BYTES", 1000)
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "large").write_bytes(bytes(1001))
    with pytest.raises(ExtensionError, match="is larger than"):
        installing_git._git(["fetch"], at(repository), tmp_path / "git", 30.0)


def test_without_git_a_zip_is_suggested(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ExtensionError, match=r"git is not installed.* use a zip"):
        newest_commit(at(repository))


def test_a_checkout_is_told_from_a_plain_folder(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", repository.as_uri(), "clone")
    found = checkout_of(tmp_path / "clone")
    assert found is not None
    assert found[0].url == repository.as_uri()
    assert found[0].ref == "main"
    assert found[1] == newest_commit(at(repository))
    (tmp_path / "plain").mkdir()
    assert checkout_of(tmp_path / "plain") is None
    assert checkout_of(repository) is None, "it has no remote"
