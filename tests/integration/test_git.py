"""Repositories of ours, whatever the caller's environment and configuration say."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from git.exc import GitError

from tasks.errors import BinmillError
from tasks.system.git import bare, explained
from tests.kit.refused import refused

pytestmark = pytest.mark.usefixtures("environment_comes_back")


def test_made_once_and_opened_again(tmp_path: Path) -> None:
    repo = bare(tmp_path / "tree.git")
    assert repo.bare
    assert repo.git.symbolic_ref("HEAD") == "refs/heads/main"
    assert "-export-subst" in (tmp_path / "tree.git" / "info" / "attributes").read_text()
    blob = repo.git.hash_object("-w", os.devnull)
    assert bare(tmp_path / "tree.git").git.cat_file("-t", blob) == "blob"


def test_inside_a_git_hook_of_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """git sets GIT_DIR for its hooks: a run from there must not write into that repository."""
    caller = tmp_path / "caller"
    subprocess.run(["git", "init", "-q", caller], check=True)
    monkeypatch.setenv("GIT_DIR", str(caller / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(caller))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(caller / ".git" / "objects"))
    repo = bare(tmp_path / "tree.git")
    blob = repo.git.hash_object("-w", os.devnull)
    repo.git.update_ref("refs/tags/ours", blob)
    assert (tmp_path / "tree.git" / "refs" / "tags" / "ours").exists()
    assert (tmp_path / "tree.git" / "objects" / blob[:2] / blob[2:]).exists()
    assert not (caller / ".git" / "refs" / "tags" / "ours").exists()


def test_no_configuration_of_the_caller_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[binmill]\n\tprobe = home\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "binmill.probe")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "environment")
    settings = bare(tmp_path / "tree.git").git.config("--list")
    assert "core.bare=true" in settings
    assert "binmill.probe" not in settings


def test_no_hooks_from_templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "templates" / "hooks").mkdir(parents=True)
    (tmp_path / "templates" / "hooks" / "update").write_text("#!/bin/sh\n")
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "templates"))
    bare(tmp_path / "tree.git")
    assert not (tmp_path / "tree.git" / "hooks" / "update").exists()


@pytest.mark.parametrize("remote", ["ext::sh -c touch% x", "a-b::x"])
def test_no_remote_helpers(tmp_path: Path, remote: str) -> None:
    repo = bare(tmp_path / "tree.git")
    with (
        refused(BinmillError, "push-failed", tag="20260115") as error,
        explained("push-failed", tag="20260115", remote=remote),
    ):
        repo.git.ls_remote("--", remote, allow_unsafe_protocols=True)
    assert re.fullmatch("fatal: .*not allowed", str(error.value.fields["cause"]))


def test_a_remote_that_is_gone(tmp_path: Path) -> None:
    repo = bare(tmp_path / "tree.git")
    with (
        refused(BinmillError, "remote-unreadable", remote="http://host/nowhere.git") as error,
        explained("remote-unreadable", remote="http://user:secret@host/nowhere.git"),
    ):
        repo.git.fetch("--", str(tmp_path / "nowhere.git"))
    assert re.fullmatch("fatal: .*nowhere.*", str(error.value.fields["cause"]))


def test_a_repository_of_another_user(tmp_path: Path, needs_root: None) -> None:  # noqa: ARG001
    bare(tmp_path / "tree.git")
    os.chown(tmp_path / "tree.git", 65534, 65534)
    with pytest.raises(BinmillError, match="belongs to another user") as failed:
        bare(tmp_path / "tree.git")
    assert "chown" in failed.value.hint


@pytest.mark.parametrize("name", ["$HOME", "${NOWHERE}x", "%HOME%", "~", "a b", "caf\u00e9"])
def test_never_in_another_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """GitPython starts git in the current directory when it does not find the one that it was
    given, and it does not find one with a $ in its path: the caller's repository is not ours."""
    caller = tmp_path / "caller"
    subprocess.run(["git", "init", "-q", "-b", "main", caller], check=True)
    monkeypatch.chdir(caller)
    repo = bare(tmp_path / name / "tree.git")
    blob = repo.git.hash_object("-w", os.devnull)
    repo.git.update_ref("refs/tags/ours", blob)
    assert (tmp_path / name / "tree.git" / "refs" / "tags" / "ours").exists()
    (tmp_path / name / "tree.git").rename(tmp_path / "away")
    with pytest.raises(GitError):
        repo.git.update_ref("refs/tags/theirs", blob)
    assert not list((caller / ".git" / "refs" / "tags").iterdir())
    assert not list((caller / ".git" / "objects").glob("??"))
