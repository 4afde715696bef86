"""The sandbox of a chroot as a plan, and the mount table as read inside."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tasks.chroot.sandbox_plan import ENVIRONMENT, mount_table, plan
from tasks.records import Mount
from tasks.system.sandbox import Bind, Sandbox


def sandbox(**more: Any) -> Sandbox:
    arguments: dict[str, Any] = {
        "repos": {"ours": Path("/s/exports/b"), "gentoo": Path("/s/exports/a")},
        "etc": Path("/s/etc/x"),
        **more,
    }
    return plan("java", [Path("/s/layers/top"), Path("/s/seeds/x")], Path("/s/work/x"), **arguments)


def test_plan_has_layers_mounts_and_environment() -> None:
    inside = sandbox(binds=(Bind("/s/distfiles", "/var/cache/distfiles", writable=True),))
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
        environment=ENVIRONMENT,
        network=False,
    )


def test_environment_of_the_caller_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEFLAGS", "-j99")
    monkeypatch.setenv("HOME", "/home/user")
    assert sandbox() == sandbox()
    assert sandbox().environment == ENVIRONMENT
    assert sandbox().environment["HOME"] == "/root"


def test_variables_override_the_environment() -> None:
    inside = sandbox(variables={"TERM": "xterm", "PS1": "$ "})
    assert (inside.environment["TERM"], inside.environment["PS1"]) == ("xterm", "$ ")
    assert ENVIRONMENT["TERM"] == "dumb"


def test_plan_without_etc_mounts_repositories_only() -> None:
    targets = [bind.target for bind in sandbox(etc=None).binds]
    assert targets == ["/var/db/repos/gentoo", "/var/db/repos/ours"]


def test_resolver_is_mounted_with_the_network_only() -> None:
    resolver = os.path.realpath("/etc/resolv.conf")
    targets = [bind.target for bind in sandbox(network=True).binds]
    assert ("/etc/resolv.conf" in targets) == Path(resolver).is_file()
    for bind in sandbox(network=True).binds:
        assert not bind.writable
        if bind.target == "/etc/resolv.conf":
            assert bind.source == resolver  # the file itself, never a link
    assert "/etc/resolv.conf" not in [bind.target for bind in sandbox().binds]


INSIDE = """\
903 902 0:66 / / rw,relatime - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d
904 903 0:70 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
905 903 0:71 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs rw
906 903 254:0 /s/exports/a /var/db/repos/gentoo ro,nosuid,nodev,relatime - ext4 /dev/vda rw
907 903 254:0 /s/a\\040-\\040b /var/cache/x\\040y rw,relatime shared:5 master:6 - ext4 /dev/vda rw
908 903 0:72 / /dev/pts rw,nosuid,noexec - devpts devpts rw,gid=5,mode=620
"""


def test_mount_table_is_sorted_and_simplified() -> None:
    assert mount_table(INSIDE) == (
        Mount("/", "overlay", "rw"),
        Mount("/dev/pts", "devpts", "rw,nosuid,noexec"),
        Mount("/proc", "proc", "rw,nosuid,nodev,noexec"),
        Mount("/sys", "sysfs", "ro,nosuid,nodev,noexec"),
        Mount("/var/cache/x\\040y", "bind", "rw"),
        Mount("/var/db/repos/gentoo", "bind", "ro,nosuid,nodev"),
    )
    assert mount_table("") == ()


def test_mount_table_does_not_depend_on_the_host() -> None:
    """Mount ids, devices, host paths and the order of mounting are left out."""
    other = "\n".join(
        reversed(
            INSIDE.replace("254:0", "8:1")
            .replace("/dev/vda", "/dev/sda")
            .replace("/s/", "/t/")
            .splitlines()
        )
    )
    assert mount_table(other) == mount_table(INSIDE)
