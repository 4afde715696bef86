"""Overlays from real git repositories, some of them hostile, and exports of their commits."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tasks.config.tables import Overlay
from tasks.errors import BinmillError, NotTrusted
from tasks.lock import OverlayPin
from tasks.snapshot.export import export_commit
from tasks.snapshot.overlays import branch_head, branch_update, fetch_pinned
from tasks.snapshot.repository import has_commit
from tasks.system import git as git_module
from tasks.system.git import bare
from tasks.system.notes import Note
from tests.kit.files import names
from tests.kit.overlays import commit, git, pin, rewrite_branch
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.repositories import corrupt_object
from tests.programs import export_tree


@pytest.fixture
def upstream(tmp_path: Path) -> Path:
    """An overlay's repository, with a work tree."""
    path = tmp_path / "upstream"
    subprocess.run(["git", "init", "-q", "-b", "main", path], check=True)
    commit(path, {"metadata/layout.conf": "masters = gentoo\n", "profiles/repo_name": "java\n"})
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Our bare repository of the overlay, which does not exist yet."""
    return tmp_path / "java.git"


def test_branch_head_is_the_commit_of_the_branch(upstream: Path, ours: Path) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    assert branch_head(ours, Overlay(url=str(upstream))) == pin(upstream, at)
    git(upstream, "branch", "other/branch")
    commit(upstream, {"x": "y"})
    assert branch_head(ours, Overlay(url=str(upstream), branch="other/branch")).commit == at


@pytest.mark.parametrize("branch", ["gone", "mai", "ain"])
def test_branch_head_of_a_missing_branch_is_refused(
    upstream: Path, ours: Path, branch: str
) -> None:
    with refused(BinmillError, "branch-missing", branch=branch):
        branch_head(ours, Overlay(url=str(upstream), branch=branch))


def test_missing_remote_is_reported(tmp_path: Path, ours: Path) -> None:
    missing = str(tmp_path / "gone")
    with refused(BinmillError, "overlay-unreachable", url=missing) as error:
        branch_head(ours, Overlay(url=missing))
    assert "\n" not in error.value.message
    with refused(BinmillError, "overlay-not-fetched", url=missing):
        fetch_pinned(ours, pin(Path(missing), "a" * 40))


def by_branch_only(ours: Path) -> None:
    """Use a protocol by which a server sends only the commits of its branches."""
    bare(ours).git.config("protocol.version", "0")


def forget(upstream: Path) -> None:
    """Delete all commits that no branch has."""
    git(upstream, "reflog", "expire", "--expire=now", "--all")
    git(upstream, "gc", "-q", "--prune=now")


@pytest.mark.parametrize("by_branch", [False, True])
def test_fetch_pinned_does_not_follow_the_branch(
    upstream: Path, ours: Path, tmp_path: Path, by_branch: bool
) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    later = commit(upstream, {"evil": "x"})
    if by_branch:
        by_branch_only(ours)
    fetch_pinned(ours, pin(upstream, at))
    assert has_commit(ours, later) is by_branch  # only the requested commit is fetched
    export_commit(ours, at, tmp_path / "out", tmp_path / "trash")
    assert names(tmp_path / "out") == ["metadata", "profiles"]


def test_fetched_commit_stays(upstream: Path, ours: Path, tmp_path: Path) -> None:
    """Even when upstream is gone, and after git gc."""
    at = git(upstream, "rev-parse", "HEAD")
    fetch_pinned(ours, pin(upstream, at))
    fetch_pinned(ours, pin(upstream, rewrite_branch(upstream, {"x": "y"})))
    git(ours, "-c", "gc.pruneExpire=now", "gc", "-q")
    upstream.rename(tmp_path / "gone")
    fetch_pinned(ours, pin(upstream, at))
    assert has_commit(ours, at)


def test_fetch_pinned_of_a_commit_that_no_branch_has(
    upstream: Path, ours: Path, tmp_path: Path
) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    rewrite_branch(upstream, {"x": "y"})
    fetch_pinned(ours, pin(upstream, at))
    export_commit(ours, at, tmp_path / "out", tmp_path / "trash")
    assert names(tmp_path / "out") == ["metadata", "profiles"]


@pytest.mark.parametrize("by_branch", [False, True])
def test_fetch_pinned_of_a_deleted_commit_is_refused(
    upstream: Path, ours: Path, by_branch: bool
) -> None:
    deleted = commit(upstream, {"x": "y"})
    git(upstream, "reset", "-q", "--hard", "HEAD~")
    if by_branch:
        by_branch_only(ours)
    else:
        forget(upstream)
    with refused(BinmillError, "pinned-commit-gone", commit=deleted, branch="main"):
        fetch_pinned(ours, pin(upstream, deleted))
    assert not has_commit(ours, deleted)


def test_leftovers_of_a_killed_fetch_are_deleted(upstream: Path, ours: Path) -> None:
    half = Path(bare(ours).git_dir) / "objects" / "pack" / "tmp_pack_x"
    half.write_bytes(b"half")
    fetch_pinned(ours, pin(upstream, git(upstream, "rev-parse", "HEAD")))
    assert not half.exists()


def test_fetch_pinned_in_a_damaged_repository(upstream: Path, ours: Path, tmp_path: Path) -> None:
    """The error is not that upstream has lost the commit."""
    at = git(upstream, "rev-parse", "HEAD")
    fetch_pinned(ours, pin(upstream, at))
    corrupt_object(ours, at, packed=False)
    with refused(BinmillError, "repository-damaged", repository=ours):
        fetch_pinned(ours, pin(upstream, at))
    ours.rename(tmp_path / "damaged.git")
    fetch_pinned(ours, pin(upstream, at))
    assert has_commit(ours, at)


def test_hanging_server_is_tried_once(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text(f"#!/bin/sh\necho x >> {tmp_path}/asked\nexec sleep 600\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setattr(git_module, "REMOTE_SECONDS", 2)
    there = OverlayPin(url="ssh://host.example/java.git", branch="main", commit="a" * 40)
    with refused(BinmillError, "overlay-not-fetched", cause="timeout: it did not end within 2 s"):
        fetch_pinned(ours, there)
    assert (tmp_path / "asked").read_text() == "x\n"


def update(code: str, at: str, branch: str = "main", **more: str) -> Note:
    return Note(code, {"overlay": "java", "branch": branch, "pinned": at, **more})


def test_branch_update_tells_a_new_commit(upstream: Path, ours: Path) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    fetch_pinned(ours, pin(upstream, at))
    assert branch_update(ours, pin(upstream, at)) is None
    commit(upstream, {"x": "y"})
    later = commit(upstream, {"x": "z"})
    assert branch_update(ours, pin(upstream, at)) == update("overlay-moved", at, head=later)
    assert git(ours, "for-each-ref", "--format=%(refname) %(objectname)").splitlines() == [
        f"refs/pins/{at} {at}",
        f"refs/remotes/origin/main {later}",
    ]


@pytest.mark.parametrize("fetched", [True, False])
def test_branch_update_tells_a_rewritten_branch(upstream: Path, ours: Path, fetched: bool) -> None:
    first = git(upstream, "rev-parse", "HEAD")
    at = commit(upstream, {"x": "y"})
    if fetched:
        fetch_pinned(ours, pin(upstream, at))
    git(upstream, "reset", "-q", "--hard", first)
    assert branch_update(ours, pin(upstream, at)) == update("overlay-rewritten", at, head=first)
    new = rewrite_branch(upstream, {"x": "z"})
    assert branch_update(ours, pin(upstream, at)) == update("overlay-rewritten", at, head=new)
    assert has_commit(ours, at) is fetched


def test_branch_update_tells_a_missing_branch(upstream: Path, ours: Path, tmp_path: Path) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    git(upstream, "branch", "feature/main")  # another branch whose name ends the same way
    expected = update("overlay-branch-gone", at, branch="java/main")
    assert branch_update(ours, pin(upstream, at, "java/main")) == expected
    upstream.rename(tmp_path / "gone")
    with refused(BinmillError, "overlay-unreachable") as error:
        branch_update(ours, pin(upstream, at))
    assert "\n" not in error.value.message


def test_branch_update_refuses_a_hostile_commit(upstream: Path, ours: Path) -> None:
    at = git(upstream, "rev-parse", "HEAD")
    tree_with(upstream, f"120000 blob {blob(upstream, '../../elsewhere')}\t.gitmodules")
    with refused(BinmillError, "overlay-not-fetched"):
        branch_update(ours, pin(upstream, at))
    assert git(ours, "for-each-ref") == ""


def test_has_commit_is_false_for_a_tree(upstream: Path, ours: Path) -> None:
    fetch_pinned(ours, pin(upstream, git(upstream, "rev-parse", "HEAD")))
    assert not has_commit(ours, git(upstream, "rev-parse", "HEAD^{tree}"))


def test_hooks_and_config_of_upstream_do_not_run(
    upstream: Path, ours: Path, tmp_path: Path
) -> None:
    at = commit(upstream, {"x": "y"})
    git(upstream, "config", "core.fsmonitor", f"touch {tmp_path}/hacked")
    git(upstream, "config", "uploadpack.packObjectsHook", f"touch {tmp_path}/hacked")
    fetch_pinned(ours, pin(upstream, at))
    assert not (tmp_path / "hacked").exists()


def tree_with(upstream: Path, *entries: str) -> str:
    """Create a commit that no work tree could have; each entry is a line of ls-tree."""
    tree = git(upstream, "mktree", "--missing", stdin="".join(e + "\n" for e in entries).encode())
    at = git(upstream, "commit-tree", "-m", "x", tree)
    git(upstream, "update-ref", "refs/heads/main", at)
    return at


def blob(upstream: Path, text: str) -> str:
    return git(upstream, "hash-object", "-w", "--stdin", stdin=text.encode())


def test_submodule_is_refused(upstream: Path, ours: Path, tmp_path: Path) -> None:
    at = tree_with(upstream, f"160000 commit {'1' * 40}\tvendor")
    fetch_pinned(ours, pin(upstream, at))
    with refused(NotTrusted, "commit-entry-odd", commit=at, path="vendor"):
        export_commit(ours, at, tmp_path / "out", tmp_path / "trash")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git"])
def test_git_directory_inside_is_refused(
    upstream: Path, ours: Path, tmp_path: Path, name: str
) -> None:
    below = git(upstream, "mktree", stdin=f"100644 blob {blob(upstream, 'x')}\tconfig\n".encode())
    at = tree_with(upstream, f"040000 tree {below}\t{name}")
    with pytest.raises(BinmillError):
        fetch_pinned(ours, pin(upstream, at))
        export_commit(ours, at, tmp_path / "out", tmp_path / "trash")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("120000", "../../elsewhere"),
        ("100644", '[submodule "../../x"]\n\tpath = x\n\turl = --upload-pack=touch hacked\n'),
        ("100644", '[submodule "x"]\n\tpath = -x\n\turl = ext::touch hacked\n'),
    ],
    ids=["a link", "an option", "a path like an option"],
)
def test_hostile_gitmodules_are_refused(upstream: Path, ours: Path, mode: str, text: str) -> None:
    at = tree_with(upstream, f"{mode} blob {blob(upstream, text)}\t.gitmodules")
    with refused(BinmillError, "overlay-not-fetched"):
        fetch_pinned(ours, pin(upstream, at))
    assert not has_commit(ours, at)


def test_two_entries_of_one_name_are_refused(upstream: Path, ours: Path) -> None:
    """A link and a directory of the same name would write through the link."""
    below = git(upstream, "mktree", stdin=f"100644 blob {blob(upstream, 'x')}\tpasswd\n".encode())
    raw = b"".join(
        mode + b" etc\0" + bytes.fromhex(target)
        for mode, target in ((b"120000", blob(upstream, "/etc")), (b"40000", below))
    )
    tree = git(upstream, "hash-object", "-t", "tree", "--literally", "-w", "--stdin", stdin=raw)
    at = git(upstream, "commit-tree", "-m", "x", tree)
    git(upstream, "update-ref", "refs/heads/main", at)
    with refused(BinmillError, "overlay-not-fetched"):
        fetch_pinned(ours, pin(upstream, at))


def test_links_are_exported_as_links(upstream: Path, ours: Path, tmp_path: Path) -> None:
    """Nothing follows them here; inside a chroot they lead into the chroot."""
    (upstream / "out").symlink_to("/etc/shadow")
    (upstream / "up").symlink_to("../../..")
    at = commit(upstream, {"x": "y"})
    fetch_pinned(ours, pin(upstream, at))
    export_commit(ours, at, tmp_path / "files", tmp_path / "trash")
    assert str((tmp_path / "files" / "out").readlink()) == "/etc/shadow"
    assert str((tmp_path / "files" / "up").readlink()) == "../../.."


def test_export_is_made_once(upstream: Path, ours: Path, tmp_path: Path) -> None:
    at = commit(upstream, {"x": "y"})
    (upstream / "x").chmod(0o777)
    at = commit(upstream, {})
    fetch_pinned(ours, pin(upstream, at))
    out = tmp_path / "exports" / at
    half = out.with_name(f".{at}.tmp")  # what a killed run leaves
    half.mkdir(parents=True)
    (half / "junk").write_text("x")
    export_commit(ours, at, out, tmp_path / "trash")
    assert names(out) == ["metadata", "profiles", "x"]
    assert (out / "x").stat().st_mode & 0o777 == 0o755
    assert (out / "x").stat().st_mtime == int(git(upstream, "log", "-1", "--format=%ct"))
    assert names(out.parent) == [at]
    (out / "x").unlink()
    export_commit(ours, at, out, tmp_path / "trash")
    assert not (out / "x").exists()


def test_failing_tar_ends_the_export(upstream: Path, ours: Path, tmp_path: Path) -> None:
    """A full disk ends tar while git still writes; neither waits for the other."""
    at = commit(upstream, {"big": "x" * 2_000_000})
    fetch_pinned(ours, pin(upstream, at))
    fake = tmp_path / "bin" / "tar"
    fake.parent.mkdir()
    fake.write_text("#!/bin/sh\nexit 2\n")
    fake.chmod(0o755)
    result = subprocess.run(
        python(export_tree, ours, at, tmp_path / "out", tmp_path / "trash"),
        cwd=PROJECT,
        timeout=60,
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{fake.parent}:{os.environ['PATH']}"},
    )
    assert at[:12] in result.stdout
    assert not (tmp_path / "out").exists()
