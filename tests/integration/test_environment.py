"""The mounts and the environment in a chroot are those of docs/sandbox.md, whoever calls."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.chroot import sandbox_plan
from tasks.layout import Layout
from tasks.records import MOUNT, MountRecord, load
from tasks.system.sandbox import run, workspace
from tests.kit import stub_site
from tests.kit.project import PROJECT

pytestmark = pytest.mark.usefixtures("needs_sandbox")

DOCUMENTED = (PROJECT / "docs/sandbox.md").read_text(encoding="utf-8")
HOSTILE: dict[bytes, bytes] = {
    b"LD_PRELOAD": b"/nonexistent/sesame.so",
    b"LD_LIBRARY_PATH": b"/nonexistent/sesame",
    b"BASH_ENV": b"/nonexistent/sesame",
    b"ENV": b"/nonexistent/sesame",
    b"SHELLOPTS": b"xtrace",
    b"PS4": b"$(echo sesame >&2)",
    b"PROMPT_COMMAND": b"echo sesame",
    b"BASH_FUNC_ls%%": b"() { echo sesame; }",
    b"BASH_FUNC_x%%": b"() { :; }; echo sesame",
    b"PYTHONPATH": b"/nonexistent/sesame",
    b"PYTHONSTARTUP": b"/nonexistent/sesame",
    b"MAKEFLAGS": b"--sesame",
    b"CFLAGS": b"-Dsesame",
    b"FEATURES": b"-sandbox sesame",
    b"PORTDIR_OVERLAY": b"/sesame",
    b"ROOT": b"/sesame",
    b"http_proxy": b"http://user:sesame@proxy.example/",
    b"HTTPS_PROXY": b"http://user:sesame@proxy.example/",
    b"SSH_AUTH_SOCK": b"/run/sesame",
    b"DBUS_SESSION_BUS_ADDRESS": b"unix:path=/run/sesame",
    b"XDG_RUNTIME_DIR": b"/run/sesame",
    b"LANG": b"sv_SE.UTF-8",
    b"LC_ALL": b"sv_SE.UTF-8",
    b"LANGUAGE": b"sesame",
    b"TZ": b"Pacific/Kiritimati",
    b"HOME": b"/nonexistent/sesame",
    b"SHELL": b"/bin/sesame",
    b"TMPDIR": b"/tmp",
    b"SOURCE_DATE_EPOCH": b"1",
    b"PS1": b"sesame",
    b"HISTFILE": b"/root/sesame",
    b"HUGE": b"sesame" * 20_000,
    b"NOT_UTF8": b"sesame\xff\xfe\x80",
    b"\xff\xfe": b"sesame",
    b"NEWLINE": b"sesame\nPATH=/sesame",
    b"with space": b"sesame",
    b"EMPTY": b"",
}


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory, needs_sandbox: None) -> Layout:  # noqa: ARG001
    site_layout = stub_site.create(tmp_path_factory.mktemp("env") / "site").layout
    doit(site_layout, {}, "mount:java")
    return site_layout


def doit(layout: Layout, more: dict[bytes, bytes], *words: str) -> bytes:
    environment = {**os.environb, **more, b"BINMILL_CONFIG": os.fsencode(layout.config)}
    result = subprocess.run(
        [sys.executable, "-m", "doit", *words],
        cwd=PROJECT,
        env=environment,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def record(layout: Layout) -> MountRecord:
    return load(layout, MOUNT("java"))


def inside(layout: Layout) -> dict[str, str]:
    """The environment that mount:java saw."""
    return dict(line.split("=", 1) for line in record(layout).environment)


def rows(title: str) -> Iterator[tuple[list[str], str]]:
    """The first table below a heading of docs/sandbox.md: names in backquotes, second column."""
    section = DOCUMENTED.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    for line in re.findall(r"^\| (`.*?) \| (.*?) \|", section.partition("\n###")[0], re.MULTILINE):
        yield re.findall(r"`([^`]+)`", line[0]), line[1]


def test_hostile_environment_of_the_caller_changes_nothing(layout: Layout) -> None:
    clean = record(layout)
    layout.record("mount:java").unlink()
    assert b"sesame" not in doit(layout, HOSTILE, "mount:java")
    assert record(layout) == clean
    assert "nothing to do" in doit(layout, {}, "mount:java").decode()


def test_environment_of_the_caller_is_nowhere_inside(layout: Layout) -> None:
    """Neither in the first process nor in a shell, which would interpret some of it."""
    script = "cat /proc/1/environ /proc/1/cmdline; env; ls /; set"
    for shell in ("sh", "bash"):
        output = doit(layout, HOSTILE, "enter", "java", "--scratch", "--", shell, "-c", script)
        assert b"PATH=/usr/local/sbin:" in output
        assert b"sesame" not in output
        assert b"Kiritimati" not in output


def test_enter_adds_three_variables(layout: Layout) -> None:
    hostile = {**HOSTILE, b"TERM": b"vt220"}
    printed = doit(layout, hostile, "enter", "java", "--scratch", "--", "env", "-0")
    environment = dict(line.split("=", 1) for line in printed.decode().split("\0") if line)
    assert environment == {
        **inside(layout),
        "TERM": "vt220",
        "PS1": "[java] \\w \\$ ",
        "HISTFILE": "",
    }


def test_variable_is_documented_with_its_value(layout: Layout) -> None:
    documented = dict((names[0], value) for names, value in rows("The environment"))  # noqa: C402
    environment = inside(layout)
    for name, value in environment.items():
        assert name in documented
        assert f"`{value}`" in documented[name]
    later = {"SOURCE_DATE_EPOCH", "MAKEOPTS", "PS1", "HISTFILE"}
    assert documented.keys() - environment.keys() == later
    assert sandbox_plan.ENVIRONMENT.keys() <= documented.keys()


def test_mount_is_documented_with_its_options(layout: Layout) -> None:
    lines = DOCUMENTED.partition("\n## The mount table\n")[2].partition("\n### ")[0].splitlines()
    documented = {}
    for line in (line for line in lines if line.startswith("| `/")):
        _, at, _, options, *_ = (cell.strip() for cell in line.split("|"))
        for name in re.findall(r"`([^`]+)`", at):
            documented[name] = sorted(options.replace("*", "").split(", "))
    documented["/var/db/repos/gentoo"] = documented.pop("/var/db/repos/TREE")
    mounts = {mount.at: sorted(mount.options.split(",")) for mount in record(layout).mounts}
    assert documented.pop("/etc/resolv.conf") == ["nodev", "nosuid", "ro"]  # with network only
    del documented["/var/db/repos/OVERLAY"]
    assert mounts == documented


@pytest.mark.parametrize("kind", ["file", "link", "link to a link"])
def test_resolver_is_the_present_one_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    real = tmp_path / "stub-resolv.conf"
    real.write_text("nameserver 192.0.2.1\n")
    resolver = real
    for hop in range(kind.count("link")):
        (tmp_path / f"link{hop}").symlink_to(resolver)
        resolver = tmp_path / f"link{hop}"
    monkeypatch.setattr(sandbox_plan, "RESOLVER", str(resolver))
    seed = stub_site.copy_programs(tmp_path / "seed")
    for address in ("192.0.2.1", "192.0.2.2"):
        fresh = tmp_path / "fresh"  # as resolvconf does: a new file is renamed
        fresh.write_text(f"nameserver {address}\n")
        fresh.rename(real)
        with workspace(tmp_path / "work", "box", tmp_path / "trash") as space:
            plan = sandbox_plan.plan("box", [seed], space, repos={}, etc=None, network=True)
            assert run(plan, ["cat", "/etc/resolv.conf"]).stdout == f"nameserver {address}\n"
            assert run(plan, ["sh", "-c", ": > /etc/resolv.conf"], check=False).returncode != 0
        assert real.read_text() == f"nameserver {address}\n"


@pytest.mark.parametrize("kind", ["missing", "dangling", "folder"])
def test_host_without_a_resolver_mounts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    resolver = tmp_path / "resolv.conf"
    if kind == "dangling":
        resolver.symlink_to(tmp_path / "gone")
    elif kind == "folder":
        resolver.mkdir()
    monkeypatch.setattr(sandbox_plan, "RESOLVER", str(resolver))
    plan = sandbox_plan.plan("box", [], tmp_path, repos={}, etc=None, network=True)
    assert plan.binds == ()


def test_names_do_not_depend_on_the_host(layout: Layout) -> None:
    printed = doit(
        layout,
        HOSTILE,
        "enter",
        "java",
        "--scratch",
        "--",
        "sh",
        "-c",
        "cat /etc/hosts /etc/binmill-chroot",
    ).decode()
    assert printed == "127.0.0.1 localhost java\n::1 localhost\nbase > java\n"
