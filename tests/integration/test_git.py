"""Our repositories, independent of the environment and configuration of the caller."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
from git.exc import GitError

from tasks.errors import BinmillError
from tasks.system.git import bare, explained, remotely
from tests.kit.refused import refused


def test_bare_creates_a_repository_once(tmp_path: Path) -> None:
    repo = bare(tmp_path / "tree.git")
    assert repo.bare
    assert repo.git.symbolic_ref("HEAD") == "refs/heads/main"
    assert "-export-subst" in (tmp_path / "tree.git" / "info" / "attributes").read_text()
    blob = repo.git.hash_object("-w", os.devnull)
    assert bare(tmp_path / "tree.git").git.cat_file("-t", blob) == "blob"


def test_git_ignores_the_repository_of_a_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """git sets GIT_DIR for its hooks: a run from there must not write into that repository."""
    caller = tmp_path / "caller"
    subprocess.run(["git", "init", "-q", caller], check=True)
    monkeypatch.setenv("GIT_DIR", str(caller / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(caller))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(caller / ".git" / "objects"))
    monkeypatch.setenv("GIT_COMMON_DIR", str(caller / ".git"))
    before = dict(os.environ)
    repo = bare(tmp_path / "tree.git")
    blob = repo.git.hash_object("-w", os.devnull)
    repo.git.update_ref("refs/tags/ours", blob)
    assert (tmp_path / "tree.git" / "refs" / "tags" / "ours").exists()
    assert (tmp_path / "tree.git" / "objects" / blob[:2] / blob[2:]).exists()
    assert not (caller / ".git" / "refs" / "tags" / "ours").exists()
    assert [tag.name for tag in repo.tags] == ["ours"]
    assert repo.odb.stream(bytes.fromhex(blob)).read() == b""
    assert remotely(repo, "for-each-ref", "--format=%(refname)") == "refs/tags/ours"
    assert dict(os.environ) == before


def test_git_ignores_the_configuration_of_the_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / ".gitconfig").write_text("[binmill]\n\tprobe = home\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "binmill.probe")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "environment")
    settings = bare(tmp_path / "tree.git").git.config("--list")
    assert "core.bare=true" in settings
    assert "binmill.probe" not in settings


def test_git_installs_no_hooks_from_templates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "templates" / "hooks").mkdir(parents=True)
    (tmp_path / "templates" / "hooks" / "update").write_text("#!/bin/sh\n")
    monkeypatch.setenv("GIT_TEMPLATE_DIR", str(tmp_path / "templates"))
    bare(tmp_path / "tree.git")
    assert not (tmp_path / "tree.git" / "hooks" / "update").exists()


@pytest.mark.parametrize("remote", ["ext::sh -c touch% x", "a-b::x"])
def test_git_refuses_remote_helpers(tmp_path: Path, remote: str) -> None:
    repo = bare(tmp_path / "tree.git")
    with (
        refused(BinmillError, "push-failed", tag="20260115") as error,
        explained("push-failed", tag="20260115", remote=remote),
    ):
        repo.git.ls_remote("--", remote, allow_unsafe_protocols=True)
    assert re.fullmatch("fatal: .*not allowed", str(error.value.fields["cause"]))


def test_error_names_the_reason_of_git(tmp_path: Path) -> None:
    repo = bare(tmp_path / "tree.git")
    with (
        refused(BinmillError, "remote-unreadable", remote="http://host/nowhere.git") as error,
        explained("remote-unreadable", remote="http://user:secret@host/nowhere.git"),
    ):
        repo.git.fetch("--", str(tmp_path / "nowhere.git"))
    assert re.fullmatch("fatal: .*nowhere.*", str(error.value.fields["cause"]))


def test_bare_refuses_a_repository_of_another_user(tmp_path: Path, needs_root: None) -> None:  # noqa: ARG001
    bare(tmp_path / "tree.git")
    os.chown(tmp_path / "tree.git", 65534, 65534)
    with refused(BinmillError, "repository-of-another-user", uid=65534):
        bare(tmp_path / "tree.git")


@pytest.mark.parametrize("name", ["$HOME", "${NOWHERE}x", "%HOME%", "~", "a b", "caf\u00e9"])
def test_git_runs_in_no_other_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """GitPython starts git in the current directory if it does not find the given one, and it
    finds none with a $ in its path: git must not run in the caller's repository."""
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
