"""Programs that really run: their end, their environment, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.errors import CommandFailed, HostLacks
from tasks.system import command
from tasks.system.command import locate, run, started, stop
from tests.kit.files import names
from tests.kit.processes import ends, eventually
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.programs import start_and_wait


def test_run_returns_exit_code_and_output() -> None:
    result = run("sh", "-c", "echo out; echo err >&2")
    assert (result.returncode, result.stdout, result.stderr) == (0, "out\n", "err\n")
    assert result.argv == ("sh", "-c", "echo out; echo err >&2")


@pytest.mark.parametrize(
    ("script", "code", "outcome", "cause"),
    [
        ("echo it broke >&2; exit 3", 3, "exit code 3", "it broke"),
        ("echo only this; exit 1", 1, "exit code 1", "only this"),
        ("exit 255", 255, "exit code 255", "it printed nothing"),
        ("kill -KILL $$", -9, "killed by SIGKILL", "it printed nothing"),
        ("kill -TERM $$", -15, "killed by SIGTERM", "it printed nothing"),
        ("kill -35 $$", -35, "killed by signal 35", "it printed nothing"),
        ("printf '\\377' >&2; exit 1", 1, "exit code 1", "\ufffd"),
    ],
)
def test_error_names_outcome_and_last_line(
    script: str, code: int, outcome: str, cause: str
) -> None:
    assert run("sh", "-c", script, check=False).returncode == code
    with refused(CommandFailed, "program-failed", outcome=outcome, cause=cause):
        run("sh", "-c", script)


HOSTILE = [
    "; touch x",
    "$(touch x)",
    "`touch x`",
    "a b",
    "*",
    "-n",
    "--",
    "'",
    '"',
    "\n",
    "\\",
    "caf\u00e9",
    "",
    "~",
    "$HOME",
    "a" * 100_000,
]


def test_arguments_are_not_interpreted(tmp_path: Path) -> None:
    script = "import sys; sys.stdout.buffer.write('\\0'.join(sys.argv[1:]).encode())"
    result = run(sys.executable, "-c", script, *HOSTILE, cwd=tmp_path)
    assert result.stdout.split("\0") == HOSTILE
    assert names(tmp_path) == []


def test_env_replaces_the_environment_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    odd = {"PATH": "/usr/bin:/bin", "A": "x y=$(id)\n", "B": ""}
    printed = run("env", "-0", env=odd).stdout
    assert dict(x.split("=", 1) for x in printed.split("\0") if x) == odd
    assert run("env", "-0", env={}).stdout == ""


def test_without_env_the_current_environment_is_passed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run("true")  # plumbum is imported by now
    monkeypatch.setenv("SET_LATER", "yes")
    monkeypatch.delenv("HOME")
    printed = run("env").stdout.splitlines()
    assert "SET_LATER=yes" in printed
    assert not [line for line in printed if line.startswith("HOME=")]


def test_cwd_input_and_files_kept_open(tmp_path: Path) -> None:
    assert run("pwd", "-P", cwd=tmp_path).stdout.strip() == str(tmp_path.resolve())
    assert run("cat", input=b"in\n").stdout == "in\n"
    assert run("cat").stdout == ""  # /dev/null, never the terminal
    reader, writer = os.pipe()
    run(sys.executable, "-c", f"import os; os.write({writer}, b'through')", pass_fds=(writer,))
    os.close(writer)
    assert os.read(reader, 99) == b"through"
    os.close(reader)


def test_no_descriptor_is_inherited() -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        descriptors = run("ls", "/proc/self/fd").stdout.split()
    finally:
        os.close(reader)
        os.close(writer)
    assert str(writer) not in descriptors


def test_log_is_appended_to_and_its_end_is_in_the_error(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "x.log"
    run("sh", "-c", "echo one; echo two >&2", log=log)
    with refused(CommandFailed, "program-failed-logged", cause="three", log=log):
        run("sh", "-c", "echo three; exit 1", log=log)
    assert log.read_text() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("program", "package"),
    [("nginx", "nginx-light"), ("unshare", "util-linux"), ("xz", "xz-utils"), ("other", "other")],
)
def test_error_of_a_missing_program_names_its_package(
    monkeypatch: pytest.MonkeyPatch, program: str, package: str
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with refused(HostLacks, "program-missing", program=program, package=package):
        locate(program)


def test_folder_or_plain_file_on_the_path_is_no_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "true").mkdir()
    (tmp_path / "false").write_text("")
    monkeypatch.setenv("PATH", f"{tmp_path}::{os.environ['PATH']}")
    assert not locate("true").startswith(str(tmp_path))
    assert not locate("false").startswith(str(tmp_path))


def test_timeout_ends_the_whole_group(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $! >> {pids}; sh -c 'echo $$ >> {pids}; sleep 600'; true"
    with refused(CommandFailed, "program-timeout", seconds=0.5):
        run("sh", "-c", script, timeout=0.5)
    children = [int(pid) for pid in pids.read_text().split()]
    assert len(children) == 2
    assert all(ends(pid) for pid in children)


def test_program_that_ignores_term_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "_GRACE_SECONDS", 0.2)
    with refused(CommandFailed, "program-timeout"):
        run("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done", timeout=0.3)


def test_daemon_of_the_group_ends_with_the_block(tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with started("sh", "-c", f"sleep 600 & echo $! > {pidfile}") as process:
        assert process.wait() == 0
    assert ends(int(pidfile.read_text()))


def test_stop_may_be_called_twice() -> None:
    with started("sleep", "600") as process:
        stop(process)
        assert process.returncode == -signal.SIGTERM
        stop(process)


def test_error_in_the_block_stops_the_program() -> None:
    with pytest.raises(ZeroDivisionError), started("sleep", "600") as process:
        raise ZeroDivisionError
    assert process.returncode == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_kill_of_the_parent_leaves_no_child(number: int) -> None:
    with subprocess.Popen(
        python(start_and_wait), cwd=PROJECT, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        # setpriv has become sleep: from here on the death signal is set
        assert eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        parent.send_signal(number)
    assert ends(child)
