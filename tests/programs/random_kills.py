"""Run doit again and again on a host of its own, kill it at random moments, list leftovers.

Started by tests.kit.random_kills as the first process of fresh mount and pid namespaces whose root
is a shared mount, as on most machines. So every process that it sees belongs to doit; a mount
that leaks shows in its own table.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.kit.processes import eventually
from tests.kit.project import DOIT
from tests.kit.random_kills import WAYS, Kill, Work, is_first

LONG_SECONDS = 20.0  # time limit for the end of a run


def main(request: dict[str, Any]) -> None:
    """Print each Kill as a line of JSON."""
    state = Path(request["config"]).parent / "state"
    subprocess.run(["mount", "--make-rshared", "/"], check=True)
    dice = random.Random(request["seed"])  # noqa: S311 - to be repeated, not to be secret
    works = [Work(**each) for each in request["works"]]
    before = mounts()
    for number in range(request["count"]):
        work = works[number % len(works)]
        way = list(WAYS)[number // len(works) % len(WAYS)]
        print(json.dumps(asdict(kill(work, way, state, dice, before))), flush=True)


def kill(work: Work, way: str, state: Path, dice: random.Random, before: list[str]) -> Kill:
    """Start a run, end it at a random moment, start the one after it."""
    delay = dice.uniform(0.05, work.seconds)
    for task in work.again:
        (state / "records" / f"{task.replace(':', '.')}.json").unlink(missing_ok=True)
    run = Run(work.words, work.keys, terminal=bool(work.keys) or way == "close the terminal")
    time.sleep(delay)
    hit = end(run, way, dice)
    code = run.wait()
    left = leftovers(state, before)
    then = Run(work.then, "", terminal=False)
    code_then = then.wait()
    left += leftovers(state, before)
    for pid in other_processes():  # one that is left must not spoil the next runs
        send_signal(pid, signal.SIGKILL)
    result = Kill(work.words, way, hit, round(delay, 3), code, code_then, left)
    early = way == "INT" and code == 1 and "KeyboardInterrupt" in run.printed()
    if left or code_then != 0 or (code not in WAYS[way] and not early):
        output = [run.printed()[-2000:], then.printed()[-2000:]]
        return replace(result, wrong=True, output=output)
    return result


class Run:
    """A running doit in a session of its own, with or without a terminal."""

    def __init__(self, words: Sequence[str], keys: str, *, terminal: bool) -> None:
        self.output = os.memfd_create("output")
        self.outside = -1
        inside = -1
        if terminal:
            self.outside, inside = pty.openpty()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            stream = inside if terminal else os.open(os.devnull, os.O_RDONLY)
            os.dup2(stream, 0)
            if terminal:
                fcntl.ioctl(0, 0x540E, 0)  # TIOCSCTTY
            for number in (1, 2):
                os.dup2(inside if terminal else self.output, number)
            os.closerange(3, 64)
            os.execv(DOIT, [str(DOIT), *words])  # noqa: S606
        if terminal:
            os.close(inside)
            os.write(self.outside, keys.encode())

    def hang_up(self) -> None:
        """Close the terminal, as a window or an ssh connection that goes away."""
        if self.outside >= 0:
            os.close(self.outside)
            self.outside = -1

    def wait(self) -> int | None:
        """The exit code as a shell shows it; None if it did not end in time."""
        ended = eventually(lambda: self.pid in ended_processes(), LONG_SECONDS, self._drain)
        while self._drain():  # its last words
            pass
        self.hang_up()
        if not ended:
            return None
        code = os.waitstatus_to_exitcode(ended_processes()[self.pid])
        return code if code >= 0 else 128 - code

    def _drain(self) -> int:
        """Read what was written to the terminal: a writer waits when nobody does."""
        if self.outside < 0:
            return 0
        os.set_blocking(self.outside, False)
        with contextlib.suppress(OSError):
            return os.write(self.output, os.read(self.outside, 1 << 16))
        return 0

    def printed(self) -> str:
        """The output so far."""
        return os.pread(self.output, 1 << 20, 0).decode("utf-8", "replace")


_STATUSES: dict[int, int] = {}


def ended_processes() -> dict[int, int]:
    """Statuses of all ended processes; as the first process, this one reaps every orphan."""
    with contextlib.suppress(ChildProcessError):
        while (child := os.waitpid(-1, os.WNOHANG))[0]:
            _STATUSES[child[0]] = child[1]
    return _STATUSES


def end(run: Run, way: str, dice: random.Random) -> str:
    """End a run in one of WAYS; returns the command line of the killed process."""
    if way == "close the terminal":
        run.hang_up()
    elif way in ("TERM", "INT", "HUP"):
        send_signal(run.pid, getattr(signal, f"SIG{way}"))
    elif way == "kill doit":
        send_signal(run.pid, signal.SIGKILL)
    else:
        first = way == "kill the first process"
        candidates: list[int] = []

        def some() -> bool:
            candidates[:] = [
                pid
                for pid in other_processes()
                if pid != run.pid and (not first or is_first(command_line(pid)))
            ]
            return bool(candidates) or run.pid in ended_processes()

        eventually(some, LONG_SECONDS)
        victim = dice.choice(candidates) if candidates else 0
        hit = command_line(victim)[:300]
        if victim:
            send_signal(victim, signal.SIGKILL)
        # a run that does not need the victim continues, some forever
        if not eventually(lambda: run.pid in ended_processes(), 1.0):
            send_signal(run.pid, signal.SIGTERM)
        return hit
    return "doit"


def send_signal(pid: int, number: int) -> None:
    """kill(2), ignoring a process that has ended meanwhile."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def command_line(pid: int) -> str:
    """The command line of a process; "" when it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return ""


def other_processes() -> list[int]:
    """All processes except this one."""
    ended_processes()
    return [int(p.name) for p in Path("/proc").iterdir() if p.name.isdigit() and p.name != "1"]


def mounts() -> list[str]:
    """This host's mounts, without their numbers."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sorted(" ".join(line.split()[3:]) for line in lines)


def leftovers(state: Path, before: list[str]) -> list[str]:
    """The leftovers of an ended run on its host: processes, mounts, loop devices, locks."""
    eventually(lambda: not other_processes(), LONG_SECONDS)
    left = [f"process {command_line(pid) or pid}" for pid in other_processes()]
    left += [f"mount {line}" for line in mounts() if line not in before]
    left += [f"mount gone {line}" for line in before if line not in mounts()]
    for loop in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if str(state) in loop.read_text():
                left.append(f"loop device {loop}")
    for lock in (state / "locks").glob("*"):
        with lock.open() as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                left.append(f"lock {lock.name}")
    return left


if __name__ == "__main__":
    main(json.load(sys.stdin))
