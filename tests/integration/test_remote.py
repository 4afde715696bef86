"""The tree repository and a bare remote, each with a will of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot import remote as remotes
from tasks.snapshot.freeze import Frozen, freeze, newest
from tasks.snapshot.remote import fetch, follow, push
from tests.integration.test_freeze import git, references
from tests.snapshots import DAY, FILES, accepted, snapshot

NEXT = DAY + timedelta(days=1)


pytestmark = pytest.mark.usefixtures("environment_comes_back")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


@pytest.fixture
def frozen(repository: Path, tmp_path: Path) -> Frozen:
    return freeze(repository, accepted(snapshot(tmp_path)), DAY, "gentoo")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    made = tmp_path / "re mote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", made], check=True)
    return made


def hook(remote: Path, text: str) -> None:
    path = remote / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def test_branch_and_tag_arrive(repository: Path, remote: Path, frozen: Frozen) -> None:
    assert push(repository, str(remote), frozen) is True
    assert references(remote) == references(repository)
    assert push(repository, str(remote), frozen) is False
    assert references(remote) == references(repository)


def test_day_after_day(repository: Path, remote: Path, frozen: Frozen, tmp_path: Path) -> None:
    push(repository, str(remote), frozen)
    later = freeze(repository, accepted(snapshot(tmp_path, NEXT)), NEXT, "gentoo")
    assert push(repository, str(remote), later) is True
    assert references(remote) == references(repository)


def test_a_hook_that_rejects(repository: Path, remote: Path, frozen: Frozen) -> None:
    before = references(repository)
    hook(remote, "echo 'not on my watch' >&2; exit 1")
    with pytest.raises(BinmillError, match=r"20260115 could not be pushed.*rejected") as refused:
        push(repository, str(remote), frozen)
    assert "\n" not in refused.value.message
    assert "stays frozen" in refused.value.hint
    assert references(remote) == {}
    assert references(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) is True


def test_a_remote_that_has_moved_is_not_forced(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """And no tag gets there without its branch."""
    other = freeze(tmp_path / "other.git", accepted(snapshot(tmp_path, NEXT)), NEXT, "gentoo")
    push(tmp_path / "other.git", str(remote), other)
    before = references(remote)
    with pytest.raises(BinmillError, match="has moved on"):
        push(repository, str(remote), frozen)
    assert references(remote) == before


def test_a_remote_that_moves_at_that_moment(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the push: still not forced, and no tag without the branch."""
    other = freeze(tmp_path / "other.git", accepted(snapshot(tmp_path, NEXT)), NEXT, "gentoo")
    push(tmp_path / "other.git", str(remote), other)
    before = references(remote)
    monkeypatch.setattr(remotes, "_listed", lambda *_: {})
    with pytest.raises(BinmillError, match="20260115 could not be pushed"):
        push(repository, str(remote), frozen)
    assert references(remote) == before


def test_another_tag_of_that_name_is_an_alarm(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    lie = snapshot(tmp_path, files={**FILES, "evil": b"x"})
    theirs = freeze(tmp_path / "other.git", accepted(lie), DAY, "gentoo")
    push(tmp_path / "other.git", str(remote), theirs)
    before = references(remote)
    with pytest.raises(NotTrusted, match="has another 20260115"):
        push(repository, str(remote), frozen)
    assert references(remote) == before


def test_a_hook_that_hangs(
    repository: Path, remote: Path, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook(remote, "echo $$ > pid; exec sleep 600")
    monkeypatch.setattr(remotes, "REMOTE_SECONDS", 2)
    with pytest.raises(BinmillError, match=r"(?i)timeout|timed out"):
        push(repository, str(remote), frozen)
    assert references(remote) == {}
    _gone(int((remote / "pid").read_text()))
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) is True


def _gone(pid: int) -> None:
    """Wait until a process is gone; git hangs up on its hook, which then dies by itself."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("the hook has outlived the push")


@pytest.mark.parametrize("where", ["gone.git", "file", "dir"])
def test_no_repository_there(repository: Path, tmp_path: Path, frozen: Frozen, where: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    for act in (lambda: push(repository, str(tmp_path / where), frozen),
                lambda: fetch(repository, str(tmp_path / where), "20260115")):  # fmt: skip
        with pytest.raises(BinmillError) as failed:
            act()
        assert "fatal" in failed.value.message
        assert "\n" not in failed.value.message


@pytest.mark.parametrize("where", ["--upload-pack=touch hacked", "ext::sh -c 'touch hacked'", "-x"])
def test_a_remote_is_never_a_command(
    repository: Path, tmp_path: Path, frozen: Frozen, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config refuses such names; here they would still be harmless."""
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: push(repository, where, frozen),
        lambda: fetch(repository, where, "20260115"),
    ):
        with pytest.raises(BinmillError):
            act()
    assert list(tmp_path.rglob("hacked")) == []


def test_a_fresh_repository_takes_one_day_and_goes_on_where_the_remote_is(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    push(repository, str(remote), frozen)
    planted = ["git", "--git-dir", str(remote), "tag", "99990101", frozen.commit]
    subprocess.run(planted, check=True)
    fresh = tmp_path / "fresh.git"
    fetch(fresh, str(remote), frozen.tag)
    assert newest(fresh) == frozen  # what else the remote calls a day is not taken
    follow(fresh, str(remote))
    assert git(fresh, "rev-parse", "main") == git(repository, "rev-parse", "main")
    later = freeze(fresh, accepted(snapshot(tmp_path, NEXT)), NEXT, "gentoo")
    assert push(fresh, str(remote), later) is True
    follow(repository, str(remote))  # and the first machine goes on where the second is
    after = NEXT + timedelta(days=1)
    third = freeze(repository, accepted(snapshot(tmp_path, after)), after, "gentoo")
    assert push(repository, str(remote), third) is True


def test_following_never_moves_a_branch_that_went_its_own_way(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    other = tmp_path / "other.git"
    push(other, str(remote), freeze(other, accepted(snapshot(tmp_path, NEXT)), NEXT, "gentoo"))
    before = git(repository, "rev-parse", "main")
    follow(repository, str(remote))
    assert git(repository, "rev-parse", "main") == before
    with pytest.raises(BinmillError, match="has moved on"):
        push(repository, str(remote), frozen)


def test_fetch_from_an_empty_remote(tmp_path: Path, remote: Path) -> None:
    """The remote of a first run has nothing yet."""
    fetch(tmp_path / "fresh.git", str(remote), "20260115")
    assert references(tmp_path / "fresh.git") == {}


def test_fetch_never_moves_what_is_here(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    lie = snapshot(tmp_path, files={**FILES, "evil": b"x"})
    theirs = freeze(tmp_path / "other.git", accepted(lie), DAY, "gentoo")
    push(tmp_path / "other.git", str(remote), theirs)
    before = references(repository)
    with pytest.raises(BinmillError, match="rejected"):
        fetch(repository, str(remote), frozen.tag)
    assert references(repository) == before
    assert newest(repository) == frozen


def test_the_environment_of_the_caller_has_no_say(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text('[url "/nowhere"]\n\tinsteadOf = /\n[push]\n\tfoo = x\n')
    assert push(repository, str(remote), frozen) is True
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git(remote, "log", "-1", "--format=%s", "20260115^{commit}") == "gentoo 20260115"
