"""The tree repository and a bare remote, each with a will of its own."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import date, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot import remote as remotes
from tasks.snapshot.export import export
from tasks.snapshot.freeze import Frozen, freeze, newest
from tasks.snapshot.remote import fetch, follow, push
from tasks.system import git as git_room
from tasks.system.git import bare, explained, remotely
from tests.kit.random_kills import eventually
from tests.kit.repositories import corrupt_object, git, leftovers, refs
from tests.kit.snapshots import DAY, FILES, snapshot, verified_tarball

NEXT = DAY + timedelta(days=1)
MAIN, FIRST, SECOND = "refs/heads/main", "refs/tags/20260115", "refs/tags/20260116"


pytestmark = pytest.mark.usefixtures("environment_comes_back")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


def put(
    repository: Path, folder: Path, day: date = DAY, more: Mapping[str, bytes] | None = None
) -> Frozen:
    """Freeze a day, with `more` files than it has elsewhere."""
    archive = snapshot(folder, day, {**FILES, **(more or {})})
    with verified_tarball(archive) as tarball:
        return freeze(repository, tarball, day, "gentoo").frozen


@pytest.fixture
def frozen(repository: Path, tmp_path: Path) -> Frozen:
    return put(repository, tmp_path)


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    made = tmp_path / "re mote.git"
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", made], check=True)
    return made


def another_machine(
    folder: Path, remote: Path, day: date = DAY, more: Mapping[str, bytes] | None = None
) -> None:
    """It freezes a day for itself and pushes it."""
    there = folder / "another.git"
    push(there, str(remote), put(there, folder, day, more))


def hook(remote: Path, text: str) -> None:
    path = remote / "hooks" / "pre-receive"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def fails_well(error: BinmillError, cause: str, step: str) -> None:
    """One line with the cause, one with the next step, and nothing secret or odd in them."""
    assert cause in error.message
    assert step in error.hint
    assert str(error).count("\n") == 1
    assert str(error).replace("\n", "").isprintable()


def processes(below: Path) -> set[int]:
    """Who works in a folder: git in our repository; its children, hooks and ssh, in theirs."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink().is_relative_to(below):
                found.add(int(process.name))
        except OSError:
            continue
    return found


def all_gone(pids: set[int], below: Path) -> bool:
    """Whether none of these is left, given the moment that the kernel takes to end them."""
    for _ in range(500):
        if not pids & processes(below):
            return True
        time.sleep(0.01)
    return False


def test_branch_and_tag_arrive(repository: Path, remote: Path, frozen: Frozen) -> None:
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote) == refs(repository)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == refs(repository)


def test_day_after_day(repository: Path, remote: Path, frozen: Frozen, tmp_path: Path) -> None:
    push(repository, str(remote), frozen)
    assert push(repository, str(remote), put(repository, tmp_path, NEXT)) == ["20260116"]
    assert refs(remote) == refs(repository)


def test_one_look_and_one_push(
    repository: Path, remote: Path, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def counted(repo: Any, *words: str, seconds: float | None = None) -> str:
        asked.append(words[0])
        return remotely(repo, *words, seconds=seconds)

    for room in (remotes, git_room):
        monkeypatch.setattr(room, "remotely", counted)
    push(repository, str(remote), frozen)
    push(repository, str(remote), frozen)
    assert asked == ["ls-remote", "push", "ls-remote"]


def test_the_remote_is_gone(repository: Path, remote: Path, tmp_path: Path) -> None:
    """Fault 52: the freeze stands, and the next push makes up for all that did not arrive."""
    away = remote.rename(tmp_path / "away.git")
    for day in (DAY, NEXT):
        frozen = put(repository, tmp_path, day)
        before = refs(repository)
        with pytest.raises(BinmillError) as failed:
            push(repository, str(remote), frozen)
        cause = f"{frozen.tag} could not be pushed to {remote}: fatal: "
        fails_well(failed.value, cause, "stays frozen here")
        assert refs(repository) == before
        assert newest(repository) == frozen
    away.rename(remote)
    assert push(repository, str(remote), frozen) == ["20260115", "20260116"]
    assert refs(remote) == refs(repository)


def test_a_day_that_is_not_on_the_branch(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """Days that were frozen on purpose have a tag alone, and there may be no branch at all."""
    git(repository, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote).keys() == {FIRST}
    later = put(repository, tmp_path, NEXT)
    git(repository, "tag", "20260101x", later.commit)
    git(repository, "tag", "mine", later.commit)
    assert push(repository, str(remote), later) == ["20260116"]
    assert refs(remote).keys() == {MAIN, FIRST, SECOND}
    git(remote, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), later) == []  # the branch alone is made up for, too
    assert MAIN in refs(remote)


def test_the_same_day_from_two_machines(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """Fault 50: the same tag with the same content is a success, and nothing is done."""
    another_machine(tmp_path, remote)
    before = refs(remote)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == before
    another_machine(tmp_path, remote, NEXT)  # it goes on; we have nothing that it lacks
    before = refs(remote)
    assert push(repository, str(remote), frozen) == []
    assert refs(remote) == before


def test_a_remote_that_has_moved_is_not_forced(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """Fault 49: and no tag gets there without its branch."""
    another_machine(tmp_path, remote, NEXT)
    before, ours = refs(remote), refs(repository)
    with pytest.raises(BinmillError) as failed:
        push(repository, str(remote), frozen)
    fails_well(failed.value, "has moved on", "nothing is forced")
    assert refs(remote) == before
    assert refs(repository) == ours
    git(remote, "update-ref", "-d", MAIN)
    assert push(repository, str(remote), frozen) == ["20260115"]
    assert refs(remote)[MAIN] == ours[MAIN]


def test_a_remote_that_moves_at_that_moment(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the push: still not forced, and no tag without the branch."""
    another_machine(tmp_path, remote, NEXT)
    before = refs(remote)
    monkeypatch.setattr(remotes, "listed", lambda *_: {})
    with pytest.raises(BinmillError) as failed:
        push(repository, str(remote), frozen)
    fails_well(failed.value, "rejected", "stays frozen here")
    assert refs(remote) == before


def test_another_tag_of_a_name_is_an_alarm(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """Also when it is an older day's, and before anything is pushed."""
    another_machine(tmp_path, remote, more={"evil": b"x"})
    before = refs(remote)
    for day in (frozen, put(repository, tmp_path, NEXT)):
        with pytest.raises(NotTrusted) as alarm:
            push(repository, str(remote), day)
        fails_well(alarm.value, "has another 20260115", "who froze other bytes")
        assert refs(remote) == before


def test_names_that_only_end_alike(remote: Path, tmp_path: Path) -> None:
    another_machine(tmp_path, remote, NEXT, {"evil": b"x"})
    for name in (MAIN, FIRST):
        git(remote, "update-ref", f"refs/heads/{name}", SECOND + "^{commit}")
    git(remote, "update-ref", "-d", MAIN)
    fetch(tmp_path / "fresh.git", str(remote), "20260115")
    follow(tmp_path / "fresh.git", str(remote))
    assert refs(tmp_path / "fresh.git") == {}


def test_a_hook_that_rejects(repository: Path, remote: Path, frozen: Frozen) -> None:
    """Fault 48; what the hook says may be anything."""
    before = refs(repository)
    hook(remote, "printf 'not on\\033[31m my watch\\n' >&2; exit 1")
    with pytest.raises(BinmillError, match=r"20260115 could not be pushed.*rejected") as refused:
        push(repository, str(remote), frozen)
    fails_well(refused.value, "remote: not on?[31m my watch", "stays frozen here")
    assert refs(remote) == {}
    assert refs(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) == ["20260115"]


def test_a_hook_that_hangs(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 51: the time limit ends the push, a deaf hook, and what the hook has started."""
    before, running = refs(repository), processes(tmp_path)
    hook(remote, "trap '' TERM HUP INT PIPE; sleep 600 & echo $! $$ > pids; wait")
    with monkeypatch.context() as impatient, pytest.raises(BinmillError) as failed:
        impatient.setattr(git_room, "REMOTE_SECONDS", 2)
        push(repository, str(remote), frozen)
    assert len((remote / "pids").read_text().split()) == 2
    assert all_gone(processes(tmp_path) - running, tmp_path)
    fails_well(failed.value, "timeout: it did not end within 2 s", "stays frozen here")
    assert refs(remote) == {}
    assert refs(repository) == before
    hook(remote, "exit 0")
    assert push(repository, str(remote), frozen) == ["20260115"]


def test_killed_while_it_pushes(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    """Nothing of ours is left, nothing has arrived by half, and the next run brings it."""
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
    """A server that takes connections and never says a word, as HOST:PORT."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        yield f"127.0.0.1:{server.server_port}"


def test_ssh_and_https_end_with_git(
    repository: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silent: str
) -> None:
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\ntrap '' TERM HUP\nsleep 600\n")
    ssh.chmod(0o755)
    running = processes(tmp_path)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setattr(git_room, "LOOK_SECONDS", 1)
    for where in ("ssh://host.example/tree.git", f"http://{silent}/tree.git"):
        with pytest.raises(BinmillError, match="timeout"):
            push(repository, where, frozen)
        assert all_gone(processes(tmp_path) - running, tmp_path)
    assert leftovers(repository) == []


class _Closed(BaseHTTPRequestHandler):
    """Wants a password for everything."""

    def do_GET(self) -> None:
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="x"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.mark.parametrize("who", ["", "user:s3cret@", "s3cret@"])
def test_nobody_is_asked_for_a_password_and_none_is_told(
    repository: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, who: str
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
        with pytest.raises(BinmillError, match=f"pushed to http://{host}/tree.git") as failed:
            push(repository, f"http://{who}{host}/tree.git", frozen)
        server.shutdown()
    assert "s3cret" not in str(failed.value)
    assert not (tmp_path / "opened").exists()


@pytest.fixture(params=[True, False], ids=["in a pack", "loose"])
def damaged(request: pytest.FixtureRequest, repository: Path, frozen: Frozen) -> Frozen:
    """A frozen day one object of which is not what it was."""
    corrupt_object(repository, f"{frozen.tag}^{{tree}}", packed=request.param)
    return frozen


@pytest.mark.parametrize("act", ["push", "export"])
def test_a_damaged_object(
    repository: Path, remote: Path, damaged: Frozen, tmp_path: Path, act: str
) -> None:
    """Fault 47: the repository is named, and with a new one in its place all goes on."""
    acts: dict[str, Callable[[], object]] = {
        "push": lambda: push(repository, str(remote), damaged),
        "export": lambda: export(repository, damaged.commit, tmp_path / "out", tmp_path / "trash"),
    }
    before = refs(repository)
    with (
        pytest.raises(BinmillError) as failed,
        explained("the tree could not be used", "look", repository),
    ):
        acts[act]()
    fails_well(failed.value, f"{repository} is damaged: error: ", f"move {repository} away")
    assert refs(remote) == {}
    assert refs(repository) == before
    assert not (tmp_path / "out").exists()
    repository.rename(tmp_path / "damaged.git")
    assert put(repository, tmp_path) == damaged
    acts[act]()
    assert refs(repository) == before


@pytest.mark.parametrize("part", ["HEAD", "config", "packed-refs", FIRST, "the tag's object"])
def test_a_damaged_repository(repository: Path, frozen: Frozen, part: str) -> None:
    """GitPython reads these for itself, and has an exception of its own for each."""
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
            pytest.raises(BinmillError, match=str(repository)) as failed,
            explained("the tree could not be read", "look", repository),
        ):
            act()
        assert "\n" not in failed.value.message
        assert failed.value.hint


def test_damage_is_not_blamed_on_the_wrong_one(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    push(repository, str(remote), frozen)
    corrupt_object(remote, "20260115^{tree}", packed=False)
    with pytest.raises(BinmillError, match="could not be read") as failed:
        fetch(tmp_path / "fresh.git", str(remote), "20260115")
    assert "damaged" not in failed.value.message
    assert refs(tmp_path / "fresh.git") == {}
    assert leftovers(tmp_path / "fresh.git") == []


@pytest.mark.parametrize(
    "said",
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
def test_no_long_look_for_damage_where_the_way_is_at_fault(
    repository: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    from git.exc import GitCommandError

    monkeypatch.setattr(git_room, "_damage", lambda _: pytest.fail("every object was looked at"))
    with pytest.raises(BinmillError) as failed, explained("no push", "look", repository):
        raise GitCommandError(["git", "push"], 128, said)
    assert failed.value.message == f"no push: {said}"


def test_a_bug_stays_a_bug(repository: Path) -> None:
    with pytest.raises(ValueError, match="invalid literal"), explained("x", "y", repository):
        int("x")


@pytest.mark.parametrize("where", ["gone.git", "file", "dir"])
def test_no_repository_there(repository: Path, tmp_path: Path, frozen: Frozen, where: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir").mkdir()
    for act in (
        lambda: push(repository, str(tmp_path / where), frozen),
        lambda: fetch(repository, str(tmp_path / where), "20260115"),
    ):
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
    later = put(fresh, tmp_path, NEXT)
    assert push(fresh, str(remote), later) == ["20260116"]
    follow(repository, str(remote))  # and the first machine goes on where the second is
    after = NEXT + timedelta(days=1)
    third = put(repository, tmp_path, after)
    assert push(repository, str(remote), third) == ["20260117"]


def test_following_never_moves_a_branch_that_went_its_own_way(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    another_machine(tmp_path, remote, NEXT)
    before = git(repository, "rev-parse", "main")
    follow(repository, str(remote))
    assert git(repository, "rev-parse", "main") == before
    with pytest.raises(BinmillError, match="has moved on"):
        push(repository, str(remote), frozen)


def test_fetch_from_an_empty_remote(tmp_path: Path, remote: Path) -> None:
    """The remote of a first run has nothing yet."""
    fetch(tmp_path / "fresh.git", str(remote), "20260115")
    assert refs(tmp_path / "fresh.git") == {}


def test_fetch_never_moves_what_is_here(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path
) -> None:
    another_machine(tmp_path, remote, more={"evil": b"x"})
    before = refs(repository)
    with pytest.raises(BinmillError, match="rejected"):
        fetch(repository, str(remote), frozen.tag)
    assert refs(repository) == before
    assert newest(repository) == frozen


def test_the_environment_of_the_caller_has_no_say(
    repository: Path, remote: Path, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text('[url "/nowhere"]\n\tinsteadOf = /\n[push]\n\tfoo = x\n')
    assert push(repository, str(remote), frozen) == ["20260115"]
    monkeypatch.delenv("GIT_DIR", raising=False)
    assert git(remote, "log", "-1", "--format=%s", "20260115^{commit}") == "gentoo 20260115"
