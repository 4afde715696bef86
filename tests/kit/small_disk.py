"""A small tmpfs that one process alone has mounted: it ends with that process, on any host."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.project import PROJECT


@dataclass(frozen=True)
class Disk:
    """A mount namespace with the tmpfs at `folder`; `top` is its path outside of it."""

    process: subprocess.Popen[bytes]
    folder: Path

    @property
    def top(self) -> Path:
        return Path(f"/proc/{self.process.pid}/root{self.folder}")

    @property
    def prefix(self) -> tuple[str, ...]:
        """The prefix of a command of this project that runs in there."""
        inside = f"--mount=/proc/{self.process.pid}/ns/mnt"
        return "nsenter", inside, "env", f"--chdir={PROJECT}"

    def remount(self, how: str) -> None:
        subprocess.run([*self.prefix, "mount", "-o", f"remount,{how}", self.folder], check=True)


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[Disk]:
    """A disk at a new folder while the block runs; `options` as of tmpfs(5)."""
    folder.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "sh",
            "-c",
            'mount -t tmpfs -o "$1" small "$0" && echo ready && exec sleep 3600',
            folder,
            options,
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield Disk(process, folder)
    finally:
        process.kill()
        process.communicate()


def fill_bytes(top: Path, left: int) -> None:
    """Leave so many bytes free."""
    free = os.statvfs(top)
    with (top / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(free.f_bavail * free.f_frsize - left, 1))


def fill_inodes(top: Path, left: int) -> None:
    """Leave so many inodes free."""
    (top / "ballast").mkdir()
    for number in range(os.statvfs(top).f_favail - left):
        (top / f"ballast/{number}").touch()


Fill = Callable[[Path, int], None]
