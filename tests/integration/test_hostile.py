"""Hostile strings of config.toml reach real programs as one argument, never as a command."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from tasks.config import types
from tasks.config.tables import Overlay
from tasks.errors import HostLacks
from tasks.publish import sign
from tasks.snapshot import overlays, remote
from tasks.snapshot.frozen_days import FrozenDay
from tasks.snapshot.repository import has_commit
from tasks.system.git import bare
from tests.kit.overlays import commit, pin
from tests.kit.refused import refused

ODD = [
    "$(touch${IFS}pwned)",
    "`touch${IFS}pwned`",
    ";touch${IFS}pwned;",
    "|touch${IFS}pwned",
    "a&&b>c",
    "--upload-pack=touch${IFS}pwned",
    "-",
    "*",
    "~",
    "a'b\"c",
    "a\\b",
    "caf\u00e9\u4e2d",
    "x" * 200,
    "%s%0a",
    "{x,y}",
    "a#b",
    "a@b",
    "ext::sh",
]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[list[str]]]:
    """Return the list to which the argument vector of every program is added."""
    monkeypatch.chdir(tmp_path)
    commands: list[list[str]] = []
    start = subprocess.Popen.__init__

    def record(self: Any, args: Any, *more: Any, **options: Any) -> None:
        assert not isinstance(args, str | bytes)
        assert not options.get("shell")
        commands.append([str(word) for word in args])
        start(self, args, *more, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    yield commands
    assert not list(tmp_path.rglob("pwned*"))


def upstream(folder: Path) -> str:
    """Create a git repository in a folder of any name; return the id of its commit."""
    subprocess.run(["git", "init", "-q", "-b", "main", "--", folder], check=True)
    return commit(folder, {"profiles/repo_name": "java\n"})


@pytest.mark.parametrize("name", ODD, ids=lambda name: ascii(name[:30]))
def test_overlay_at_an_odd_path_is_fetched(
    tmp_path: Path, commands: list[list[str]], name: str
) -> None:
    there, ours = tmp_path / "odd" / name, tmp_path / "java.git"
    there.parent.mkdir()
    head = upstream(there)
    url = TypeAdapter(types.Remote).validate_python(str(there))
    commands.clear()
    overlay = Overlay(url=url)
    assert overlays.branch_head(ours, overlay).commit == head
    overlays.fetch_pinned(ours, pin(there, head))
    assert has_commit(ours, head)
    fetches = [words for words in commands if any(str(there) in word for word in words)]
    assert fetches
    for words in fetches:
        assert words.index("--", words.index("--git-dir=.")) < words.index(str(there))


@pytest.mark.parametrize("name", ODD[:6], ids=lambda name: ascii(name[:30]))
def test_push_to_an_odd_path_from_an_odd_path_succeeds(
    tmp_path: Path, commands: list[list[str]], name: str
) -> None:
    """GitPython would expand variables in the path of our own repository."""
    there, ours = tmp_path / "odd" / name, tmp_path / "$HOME" / "tree.git"
    there.parent.mkdir()
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", "--", there], check=True)
    repo = bare(ours)
    assert Path(repo.git_dir) == ours
    head = upstream(tmp_path / "upstream")
    repo.git.fetch(tmp_path / "upstream", "main:main", "main:refs/tags/20260310")
    frozen = FrozenDay(tag="20260310", commit=head, timestamp=1, sha512="", signer="")
    assert remote.push(ours, str(there), frozen) == ["20260310"]
    remote.fast_forward(ours, str(there))
    assert str(bare(there).git.rev_parse("main")) == head
    assert commands


@pytest.mark.parametrize("name", ODD[:6], ids=lambda name: ascii(name[:30]))
def test_public_key_of_an_odd_home_runs_gpg_with_that_path(
    tmp_path: Path, commands: list[list[str]], name: str
) -> None:
    home = tmp_path / name
    home.mkdir(mode=0o700)
    with refused(HostLacks, "signing-key-unusable"):
        sign.public_key(home, "A" * 40)
    words = next(words for words in commands if "--homedir" in words)
    assert words[words.index("--homedir") + 1] == str(home)
