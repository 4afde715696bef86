"""The tree repository and its remote: pushes, refusals, damage, hostile answers."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot import remote as remotes
from tasks.snapshot.export import export_commit
from tasks.snapshot.freeze import freeze_archive
from tasks.snapshot.frozen_days import FrozenDay, newest
from tasks.snapshot.remote import fast_forward, fetch_day, push
from tasks.system import git as git_module
from tasks.system.git import bare, explained, remotely
from tests.kit.processes import eventually
from tests.kit.refused import refused
from tests.kit.repositories import corrupt_object, git, leftovers, refs
from tests.kit.snapshots import DAY, FILES, snapshot, verified_tarball

NEXT = DAY + timedelta(days=1)
MAIN, FIRST, SECOND = "refs/heads/main", "refs/tags/20260115", "refs/tags/20260116"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


def put(
    repository: Path, folder: Path, day: date = DAY, more: Mapping[str, bytes] | None = None
) -> FrozenDay:
    """Freeze a day, with `more` files than it has elsewhere."""
    archive = snapshot(folder, day, {**FILES, **(more or {})})
    with verified_tarball(archive) as tarball:
        return freeze_archive(repository, tarball, day, "gentoo").frozen


@pytest.fixture
def frozen(repository: Path, tmp_path: Path) -> FrozenDay:
    return put(repository, tmp_path)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    path = tmp_path / "re mote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", path], check=True)
    return path


def another_machine(
    folder: Path, remote: Path, day: date = DAY, more: Mapping[str, bytes] | None = None
) -> None:
    """Freeze a day on another machine and push it."""
    there = folder / "another.git"
    push(there, str(remote), put(there, folder, day, more))


def hook(remote: Path, text: str) -> None:
    path = remote / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


@contextmanager
def push_fails(cause: str) -> Iterator[None]:
    """Expect a push to fail for this cause, in one printable line."""
    with refused(BinmillError, "push-failed") as error:
        yield
    assert cause in str(error.value.fields["cause"])
    assert error.value.message.isprintable()


def processes(below: Path) -> set[int]:
    """The processes that work in a folder: git in ours; hooks and ssh in the remote's."""
    pids = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(below):
                pids.add(int(process.name))
        except OSError:
            continue
    return pids


def all_gone(pids: set[int], below: Path) -> bool:
    """Wait up to five seconds for the end of these processes."""
    for _ in range(500):
        if not pids & processes(below):
            return True
        time.sleep(0.01)
    return False


def test_push_sends_branch_and_tag(repository: Path, remote: Path, frozen: FrozenDay) -> None:
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote) == refs(repository)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == refs(repository)


def test_push_sends_the_next_day(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    push(repository, str(remote), frozen)
    assert push(repository, str(remote), put(repository, tmp_path, NEXT)) == ["20260116"]
    assert refs(remote) == refs(repository)


def test_push_connects_once_where_nothing_is_missing(
    repository: Path, remote: Path, frozen: FrozenDay, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[str] = []

    def counting(repo: Any, *words: str, seconds: float | None = None) -> str:
        commands.append(words[0])
        return remotely(repo, *words, seconds=seconds)

    for module in (remotes, git_module):
        monkeypatch.setattr(module, "remotely", counting)
    push(repository, str(remote), frozen)
    push(repository, str(remote), frozen)
    assert commands == ["ls-remote", "push", "ls-remote"]


def test_missing_remote_keeps_the_days_for_a_later_push(
    repository: Path, remote: Path, tmp_path: Path
) -> None:
    """The day stays frozen; the next push sends all that is missing."""
    away = remote.rename(tmp_path / "away.git")
    for day in (DAY, NEXT):
        frozen = put(repository, tmp_path, day)
        before = refs(repository)
        with push_fails("fatal: "):
            push(repository, str(remote), frozen)
        assert refs(repository) == before
        assert newest(repository) == frozen
    away.rename(remote)
    assert push(repository, str(remote), frozen) == ["20260115", "20260116"]
    assert refs(remote) == refs(repository)


def test_day_that_is_not_on_the_branch_is_pushed(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    """Days frozen by --date have a tag only, and there may be no branch at all."""
    git(repository, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote).keys() == {FIRST}
    later = put(repository, tmp_path, NEXT)
    git(repository, "tag", "20260101x", later.commit)
    git(repository, "tag", "mine", later.commit)
    assert push(repository, str(remote), later) == ["20260116"]
    assert refs(remote).keys() == {MAIN, FIRST, SECOND}
    git(remote, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), later) == []  # the branch alone is pushed again, too
    assert MAIN in refs(remote)


def test_same_day_from_two_machines_is_a_success(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    """The same tag with the same content: nothing is pushed."""
    another_machine(tmp_path, remote)
    before = refs(remote)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == before
    another_machine(tmp_path, remote, NEXT)  # it continues; the remote lacks nothing of ours
    before = refs(remote)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == before


def test_diverged_remote_is_not_forced(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    """And no tag is pushed without its branch."""
    another_machine(tmp_path, remote, NEXT)
    before, ours = refs(remote), refs(repository)
    with refused(BinmillError, "remote-diverged", commit=before[MAIN]):
        push(repository, str(remote), frozen)
    assert refs(remote) == before
    assert refs(repository) == ours
    git(remote, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote)[MAIN] == ours[MAIN]


def test_remote_that_diverges_during_the_push_is_not_forced(
    repository: Path,
    remote: Path,
    frozen: FrozenDay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between listing and push: still not forced, and no tag without the branch."""
    another_machine(tmp_path, remote, NEXT)
    before = refs(remote)
    monkeypatch.setattr(remotes, "remote_references", lambda *_: {})
    with push_fails("rejected"):
        push(repository, str(remote), frozen)
    assert refs(remote) == before


def test_other_tag_of_the_same_name_is_refused(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    """Even an older day's, and before anything is pushed."""
    another_machine(tmp_path, remote, more={"evil": b"x"})
    before = refs(remote)
    for day in (frozen, put(repository, tmp_path, NEXT)):
        with refused(NotTrusted, "remote-tag-differs", tag="20260115", theirs=before[FIRST]):
            push(repository, str(remote), day)
        assert refs(remote) == before


def test_references_with_the_same_end_are_ignored(remote: Path, tmp_path: Path) -> None:
    another_machine(tmp_path, remote, NEXT, {"evil": b"x"})
    for name in (MAIN, FIRST):
        git(remote, "update-ref", f"refs/heads/{name}", SECOND + "^{commit}")
    git(remote, "update-ref", "-d", MAIN)
    fetch_day(tmp_path / "fresh.git", str(remote), "20260115")
    fast_forward(tmp_path / "fresh.git", str(remote))
    assert refs(tmp_path / "fresh.git") == {}


def test_push_rejected_by_a_hook(repository: Path, remote: Path, frozen: FrozenDay) -> None:
    """The hook's output is made printable."""
    before = refs(repository)
    hook(remote, "printf 'not on\\033[31m my watch\\n' >&2; exit 1")
    with push_fails("hook declined): remote: not on?[31m my watch"):
        push(repository, str(remote), frozen)
    assert refs(remote) == {}
    assert refs(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) == ["20260115"]


def test_hanging_hook_ends_at_the_time_limit(
    repository: Path,
    remote: Path,
    frozen: FrozenDay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The time limit ends the push, a hook that ignores signals, and the hook's children."""
    before, running = refs(repository), processes(tmp_path)
    hook(remote, "trap '' TERM HUP INT PIPE; sleep 600 & echo $! $$ > pids; wait")
    with monkeypatch.context() as patch, push_fails("timeout: it did not end within 2 s"):
        patch.setattr(git_module, "REMOTE_SECONDS", 2)
        push(repository, str(remote), frozen)
    assert len((remote / "pids").read_text().split()) == 2
    assert all_gone(processes(tmp_path) - running, tmp_path)
    assert refs(remote) == {}
    assert refs(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) == ["20260115"]


def test_killed_push_is_repeated_by_the_next(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    """No process is left, the remote is unchanged, and the next run pushes."""
    before = refs(repository)
    hook(remote, "echo $$ > pid; exec sleep 600")
    run = get_context("spawn").Process(target=push, args=(repository, str(remote), frozen))
    run.start()
    assert eventually(lambda: (remote / "pid").exists() and bool(processes(repository)))
    run.kill()
    run.join()
    assert eventually(lambda: not processes(tmp_path))
    assert refs(remote) == {}
    assert refs(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote) == before


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that accepts connections and never answers, as HOST:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        yield f"127.0.0.1:{server.server_port}"


def test_ssh_and_http_end_with_git(
    repository: Path,
    frozen: FrozenDay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    silent: str,
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\ntrap '' TERM HUP\nsleep 600\n")
    ssh.chmod(0o755)
    running = processes(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setattr(git_module, "LOOK_SECONDS", 1)
    for where in ("ssh://host.example/tree.git", f"http://{silent}/tree.git"):
        with push_fails("timeout"):
            push(repository, where, frozen)
        assert all_gone(processes(tmp_path) - running, tmp_path)
    assert leftovers(repository) == []


class _Closed(BaseHTTPRequestHandler):
    """Requires a password for every path."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("who", ["", "user:s3cret@", "s3cret@"])
def test_password_is_neither_requested_nor_shown(
    repository: Path, frozen: FrozenDay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    window = tmp_path / "window"
    window.write_text(f"#!/bin/sh\ntouch {tmp_path}/opened\n")
    window.chmod(0o755)
    monkeypatch.setenv("SSH_ASKPASS", str(window))
    monkeypatch.setenv("GIT_ASKPASS", str(window))
    monkeypatch.setenv("DISPLAY", ":0")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Closed) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        host = f"127.0.0.1:{server.server_port}"
        with refused(BinmillError, "push-failed", remote=f"http://{host}/tree.git") as error:
            push(repository, f"http://{who}{host}/tree.git", frozen)
        server.shutdown()
    assert "s3cret" not in str(error.value)
    assert not (tmp_path / "opened").exists()


@pytest.fixture(params=[True, False], ids=["in a pack", "loose"])
def damaged_day(request: pytest.FixtureRequest, repository: Path, frozen: FrozenDay) -> FrozenDay:
    """A frozen day with a damaged object."""
    corrupt_object(repository, f"{frozen.tag}^{{tree}}", packed=request.param)
    return frozen


@pytest.mark.parametrize("act", ["push", "export"])
def test_damaged_object_is_reported_and_can_be_frozen_again(
    repository: Path, remote: Path, damaged_day: FrozenDay, tmp_path: Path, act: str
) -> None:
    """The error names the repository; a new one in its place gets the same ids."""
    acts: dict[str, Callable[[], object]] = {
        "push": lambda: push(repository, str(remote), damaged_day),
        "export": lambda: export_commit(
            repository, damaged_day.commit, tmp_path / "out", tmp_path / "trash"
        ),
    }
    before = refs(repository)
    with (
        refused(BinmillError, "repository-damaged", repository=repository) as error,
        explained("tags-unreadable", repository, path=repository),
    ):
        acts[act]()
    assert str(error.value.fields["cause"]).startswith("error: ")
    assert refs(remote) == {}
    assert refs(repository) == before
    assert not (tmp_path / "out").exists()
    repository.rename(tmp_path / "damaged.git")
    assert put(repository, tmp_path) == damaged_day
    acts[act]()
    assert refs(repository) == before


@pytest.mark.parametrize("part", ["HEAD", "config", "packed-refs", FIRST, "the tag's object"])
def test_damaged_file_of_the_repository_is_reported(
    repository: Path, frozen: FrozenDay, part: str
) -> None:
    """GitPython reads these itself, with another exception for each."""
    tag = git(repository, "rev-parse", frozen.tag)
    victim = repository / ("objects/" + tag[:2] + "/" + tag[2:] if " " in part else part)
    victim.unlink(missing_ok=True)
    victim.write_bytes(b"" if " " in part else b"\0\xff garbage\n")
    acts: tuple[Callable[[], object], ...] = (
        lambda: bare(repository).tags[frozen.tag].tag,
        lambda: newest(repository),
    )
    for act in acts:
        with (
            pytest.raises(BinmillError, match=str(repository)) as error,
            explained("tags-unreadable", repository, path=repository),
        ):
            act()
        assert error.value.code in ("repository-damaged", "tag-damaged", "tag-unreadable")
        assert "\n" not in error.value.message


def test_damage_of_the_remote_is_not_reported_as_ours(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    push(repository, str(remote), frozen)
    corrupt_object(remote, "20260115^{tree}", packed=False)
    with refused(BinmillError, "remote-unreadable", remote=str(remote)):
        fetch_day(tmp_path / "fresh.git", str(remote), "20260115")
    assert refs(tmp_path / "fresh.git") == {}
    assert leftovers(tmp_path / "fresh.git") == []


@pytest.mark.parametrize(
    "output",
    [
        "fatal: Could not read from remote repository.",
        "fatal: could not read Username for 'http://x': terminal prompts disabled",
        "fatal: '/x' does not appear to be a git repository",
        "fatal: protocol error: bad line length character: Welc",
        "fatal: unable to access 'https://x/': certificate subject name does not match",
        "client_loop: send disconnect: Broken pipe",
        "fatal: the remote end hung up unexpectedly",
    ],
)
def test_connection_failure_starts_no_search_for_damage(
    repository: Path, monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    from git.exc import GitCommandError

    monkeypatch.setattr(git_module, "_damage", lambda _: pytest.fail("every object was read"))
    with (
        refused(BinmillError, "remote-unreadable", cause=output),
        explained("remote-unreadable", repository, remote="x"),
    ):
        raise GitCommandError(["git", "push"], 128, output)


def test_other_exception_passes_unchanged(repository: Path) -> None:
    with (
        pytest.raises(ValueError, match="invalid literal"),
        explained("tags-unreadable", repository, path=repository),
    ):
        int("x")


@pytest.mark.parametrize("where", ["gone.git", "file", "dir"])
def test_remote_that_is_no_repository_is_reported(
    repository: Path, tmp_path: Path, frozen: FrozenDay, where: str
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    for act in (
        lambda: push(repository, str(tmp_path / where), frozen),
        lambda: fetch_day(repository, str(tmp_path / where), "20260115"),
    ):
        with pytest.raises(BinmillError) as error:
            act()
        assert error.value.code in ("push-failed", "remote-unreadable")
        assert "fatal" in error.value.message
        assert "\n" not in error.value.message


@pytest.mark.parametrize("where", ["--upload-pack=touch hacked", "ext::sh -c 'touch hacked'", "-x"])
def test_remote_is_never_a_command(
    repository: Path, tmp_path: Path, frozen: FrozenDay, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The config refuses such names; here they would still be harmless."""
    monkeypatch.chdir(tmp_path)
    for act in (
        lambda: push(repository, where, frozen),
        lambda: fetch_day(repository, where, "20260115"),
    ):
        with pytest.raises(BinmillError):
            act()
    assert list(tmp_path.rglob("hacked")) == []


def test_new_repository_fetches_one_day_and_continues_from_the_remote(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    push(repository, str(remote), frozen)
    planted = ["git", "--git-dir", str(remote), "tag", "99990101", frozen.commit]
    subprocess.run(planted, check=True)
    fresh = tmp_path / "fresh.git"
    fetch_day(fresh, str(remote), frozen.tag)
    assert newest(fresh) == frozen  # other tags of the remote are not fetched
    fast_forward(fresh, str(remote))
    assert git(fresh, "rev-parse", "main") == git(repository, "rev-parse", "main")
    later = put(fresh, tmp_path, NEXT)
    assert push(fresh, str(remote), later) == ["20260116"]
    fast_forward(repository, str(remote))  # and the first machine continues from the second
    after = NEXT + timedelta(days=1)
    third = put(repository, tmp_path, after)
    assert push(repository, str(remote), third) == ["20260117"]


def test_fast_forward_does_not_move_a_diverged_branch(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    another_machine(tmp_path, remote, NEXT)
    before = git(repository, "rev-parse", "main")
    fast_forward(repository, str(remote))
    assert git(repository, "rev-parse", "main") == before
    with refused(BinmillError, "remote-diverged"):
        push(repository, str(remote), frozen)


def test_fetch_from_an_empty_remote(tmp_path: Path, remote: Path) -> None:
    """The remote of a first run is empty."""
    fetch_day(tmp_path / "fresh.git", str(remote), "20260115")
    assert refs(tmp_path / "fresh.git") == {}


def test_fetch_does_not_change_an_existing_tag(
    repository: Path, remote: Path, frozen: FrozenDay, tmp_path: Path
) -> None:
    another_machine(tmp_path, remote, more={"evil": b"x"})
    before = refs(repository)
    with refused(BinmillError, "remote-unreadable") as error:
        fetch_day(repository, str(remote), frozen.tag)
    assert "rejected" in str(error.value.fields["cause"])
    assert refs(repository) == before
    assert newest(repository) == frozen


def test_environment_of_the_caller_has_no_effect(
    repository: Path,
    remote: Path,
    frozen: FrozenDay,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text('[url "/nowhere"]\n\tinsteadOf = /\n[push]\n\tfoo = x\n')
    assert push(repository, str(remote), frozen) == ["20260115"]
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git(remote, "log", "-1", "--format=%s", "20260115^{commit}") == "gentoo 20260115"
