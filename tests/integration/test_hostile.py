"""Hostile strings of config.toml on their way to real programs: one argument, never a command."""

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
def started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[list[str]]]:
    """The argument vectors of all that is started meanwhile."""
    monkeypatch.chdir(tmp_path)
    seen: list[list[str]] = []
    start = subprocess.Popen.__init__

    def record(self: Any, args: Any, *more: Any, **named: Any) -> None:
        assert not isinstance(args, str | bytes)
        assert not named.get("shell")
        seen.append([str(word) for word in args])
        start(self, args, *more, **named)

    monkeypatch.setattr(subprocess.Popen, "__init__", record)
    yield seen
    assert not list(tmp_path.rglob("pwned*"))


def upstream(place: Path) -> str:
    """A git repository at that very place; the id of its commit."""
    subprocess.run(["git", "init", "-q", "-b", "main", "--", place], check=True)
    return commit(place, {"profiles/repo_name": "java\n"})


@pytest.mark.parametrize("name", ODD, ids=lambda name: ascii(name[:30]))
def test_an_overlay_at_an_odd_place(tmp_path: Path, started: list[list[str]], name: str) -> None:
    there, ours = tmp_path / "odd" / name, tmp_path / "java.git"
    there.parent.mkdir()
    made = upstream(there)
    url = TypeAdapter(types.Remote).validate_python(str(there))
    started.clear()
    overlay = Overlay(url=url)
    assert overlays.branch_head(ours, overlay).commit == made
    overlays.fetch_pinned(ours, pin(there, made))
    assert has_commit(ours, made)
    told = [words for words in started if any(str(there) in word for word in words)]
    assert told
    for words in told:
        assert words.index("--", words.index("--git-dir=.")) < words.index(str(there))


@pytest.mark.parametrize("name", ODD[:6], ids=lambda name: ascii(name[:30]))
def test_a_remote_at_an_odd_place(tmp_path: Path, started: list[list[str]], name: str) -> None:
    """Our own repository stands at an odd place, too: GitPython would expand variables in it."""
    there, ours = tmp_path / "odd" / name, tmp_path / "$HOME" / "tree.git"
    there.parent.mkdir()
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", "--", there], check=True)
    repo = bare(ours)
    assert Path(repo.git_dir) == ours
    made = upstream(tmp_path / "upstream")
    repo.git.fetch(tmp_path / "upstream", "main:main", "main:refs/tags/20260310")
    frozen = FrozenDay(tag="20260310", commit=made, timestamp=1, sha512="", signer="")
    assert remote.push(ours, str(there), frozen) == ["20260310"]
    remote.fast_forward(ours, str(there))
    assert str(bare(there).git.rev_parse("main")) == made
    assert started


@pytest.mark.parametrize("name", ODD[:6], ids=lambda name: ascii(name[:30]))
def test_a_signing_home_at_an_odd_place(
    tmp_path: Path, started: list[list[str]], name: str
) -> None:
    home = tmp_path / name
    home.mkdir(mode=0o700)
    with refused(HostLacks, "signing-key-unusable"):
        sign.public_key(home, "A" * 40)
    words = next(words for words in started if "--homedir" in words)
    assert words[words.index("--homedir") + 1] == str(home)
