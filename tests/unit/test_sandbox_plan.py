"""The sandbox of a chroot, as a plan; and the mount table that comes back from inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tasks.chroot.sandbox_plan import ENVIRONMENT, mount_table, plan
from tasks.system.sandbox import Bind, Sandbox


def room(**more: Any) -> Sandbox:
    given: dict[str, Any] = {
        "repos": {"ours": Path("/s/exports/b"), "gentoo": Path("/s/exports/a")},
        "etc": Path("/s/etc/x"),
        "timestamp": 1795372402,
        **more,
    }
    return plan("java", [Path("/s/layers/top"), Path("/s/seeds/x")], Path("/s/work/x"), **given)


def test_plan() -> None:
    inside = room(binds=(Bind("/s/distfiles", "/var/cache/distfiles", writable=True),))
    assert inside == Sandbox(
        hostname="java",
        layers=(Path("/s/layers/top"), Path("/s/seeds/x")),
        workspace=Path("/s/work/x"),
        binds=(
            Bind("/s/exports/a", "/var/db/repos/gentoo"),
            Bind("/s/exports/b", "/var/db/repos/ours"),
            Bind("/s/etc/x", "/etc/portage"),
            Bind("/s/distfiles", "/var/cache/distfiles", writable=True),
        ),
        environment={**ENVIRONMENT, "SOURCE_DATE_EPOCH": "1795372402"},
        network=False,
    )


def test_nothing_of_the_caller_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-j99")
    monkeypatch.setenv("HOME", "/home/somebody")
    assert room() == room()
    assert sorted(room().environment) == sorted([*ENVIRONMENT, "SOURCE_DATE_EPOCH"])
    assert room().environment["HOME"] == "/root"


def test_variables_win() -> None:
    inside = room(variables={"TERM": "xterm", "PS1": "$ "})
    assert (inside.environment["TERM"], inside.environment["PS1"]) == ("xterm", "$ ")
    assert ENVIRONMENT["TERM"] == "dumb"


def test_without_etc() -> None:
    targets = [bind.target for bind in room(etc=None).binds]
    assert targets == ["/var/db/repos/gentoo", "/var/db/repos/ours"]


def test_the_resolver_goes_with_the_network() -> None:
    resolver = os.path.realpath("/etc/resolv.conf")
    targets = [bind.target for bind in room(network=True).binds]
    assert ("/etc/resolv.conf" in targets) == Path(resolver).is_file()
    for bind in room(network=True).binds:
        assert not bind.writable
        if bind.target == "/etc/resolv.conf":
            assert bind.source == resolver  # never a link: what it leads to
    assert "/etc/resolv.conf" not in [bind.target for bind in room().binds]


INSIDE = """\
903 902 0:66 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
904 903 0:70 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
905 903 0:71 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
906 903 254:0 /s/exports/a /var/db/repos/gentoo ro,nosuid,nodev,relatime - ext4 /dev/vda rw
907 903 254:0 /s/a\\040-\\040b /var/cache/x\\040y rw,relatime shared:5 master:6 - ext4 /dev/vda rw
908 903 0:72 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=5,mode=620
"""


def test_mount_table() -> None:
    assert mount_table(INSIDE) == [
        {"at": "/", "type": "overlay", "options": "rw"},
        {"at": "/dev/pts", "type": "devpts", "options": "rw,nosuid,noexec"},
        {"at": "/proc", "type": "proc", "options": "rw,nosuid,nodev,noexec"},
        {"at": "/sys", "type": "sysfs", "options": "ro,nosuid,nodev,noexec"},
        {"at": "/var/cache/x\\040y", "type": "bind", "options": "rw"},
        {"at": "/var/db/repos/gentoo", "type": "bind", "options": "ro,nosuid,nodev"},
    ]
    assert mount_table("") == []


def test_the_table_does_not_vary_by_host() -> None:
    """Numbers, devices and host paths are not in it, nor the order of mounting."""
    other = "\n".join(
        reversed(
            INSIDE.replace("254:0", "8:1")
            .replace("/dev/vda", "/dev/sda")
            .replace("/s/", "/t/")
            .splitlines()
        )
    )
    assert mount_table(other) == mount_table(INSIDE)
