"""`doit enter` on a small site, with and without a terminal, and the manual changes it keeps."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest

from tasks.chroot.sandboxes import own_keys
from tasks.flow.binpkgs import build_key
from tasks.layout import Layout
from tasks.records import BINPKGS, CHROOT, ETC, BinpkgsRecord, ChrootRecord, load, reading, save
from tasks.site import Site
from tests.kit import stub_site
from tests.kit.files import names
from tests.kit.project import PROJECT
from tests.kit.stub_site import doit, enter_sh, modified_chroots

pytestmark = pytest.mark.usefixtures("needs_sandbox")


@pytest.fixture(scope="module")
def mounted_site(tmp_path_factory: pytest.TempPathFactory, needs_sandbox: None) -> Site:  # noqa: ARG001
    """A site whose chroots are mounted, and a copy of it in that state."""
    site = stub_site.create(tmp_path_factory.mktemp("enter") / "site")
    doit(site.layout, "mount:base", "mount:java", "mount:appliance")
    subprocess.run(["cp", "-a", site.layout.site, site.layout.site.with_name("kept")], check=True)
    return site


@pytest.fixture
def site(mounted_site: Site) -> Site:
    """The mounted site, restored to its first state at the same path."""
    place = mounted_site.layout.site
    subprocess.run(["rm", "-rf", "--one-file-system", place], check=True)
    subprocess.run(["cp", "-a", place.with_name("kept"), place], check=True)
    return mounted_site


def record(layout: Layout, name: str = "java") -> ChrootRecord:
    return load(layout, CHROOT(name))


def layers(layout: Layout, name: str = "java") -> tuple[str, ...]:
    return record(layout, name).layers


def test_changes_are_kept_and_reported(site: Site) -> None:
    layout = site.layout
    clean = layers(layout)
    printed = enter_sh(layout, "echo mine > /root/file; rm /etc/hosts; ln -s /etc /root/link")
    assert "modified by hand" in printed
    assert "doit enter java --reset" in printed
    assert modified_chroots(layout) == ["java"]
    assert "modified by hand" in doit(layout, "status")
    assert doit(layout, "why", "mount:java").startswith("chroot:java: java was modified by hand")
    assert "java contains manual changes" in doit(layout, "mount:java", "mount:appliance")
    assert layers(layout)[1:] == clean
    assert record(layout).modified == ("java",)
    assert record(layout, "appliance").modified == ("java",)
    assert layers(layout, "appliance")[1:] == layers(layout)
    assert modified_chroots(layout) == ["appliance", "java"]
    assert enter_sh(layout, "cat /root/file; ls /etc", name="appliance").startswith("mine\n")
    output = enter_sh(layout, "cat /root/file; ls -a /root /etc", "--scratch")
    assert "link" in output
    assert "hosts" not in output
    assert "nothing to do" in doit(layout, "mount:java", "mount:appliance")


def test_reset_restores_the_records(site: Site) -> None:
    layout = site.layout
    clean = layout.record("chroot:java").read_text(), layout.record("mount:java").read_text()
    enter_sh(layout, "echo mine > /root/file")
    doit(layout, "mount:java")
    assert layout.record("chroot:java").read_text() != clean[0]
    assert "are discarded" in doit(layout, "enter", "java", "--reset")
    assert modified_chroots(layout) == ["java"]  # its record still says so, until the next run
    doit(layout, "mount:java")
    assert modified_chroots(layout) == []
    assert (layout.record("chroot:java").read_text(), layout.record("mount:java").read_text()) == (
        clean
    )
    assert enter_sh(layout, "ls /root") == ""
    assert "java has no manual changes" in doit(layout, "enter", "java", "--reset")


def test_build_key_depends_on_manual_changes(site: Site) -> None:
    layout, chroot = site.layout, site.chroot("java")

    def key() -> str:
        return build_key(chroot, reading(layout, (*own_keys(chroot), BINPKGS("base"))))

    save(layout, BINPKGS("base"), BinpkgsRecord("s", ()))
    clean = key()
    enter_sh(layout, "echo mine > /root/file")
    doit(layout, "mount:java")
    mine = key()
    enter_sh(layout, "echo another > /root/file")
    doit(layout, "mount:java")
    assert len({clean, mine, key()}) == 3


def test_scratch_discards_changes(site: Site) -> None:
    layout = site.layout
    enter_sh(layout, "true")
    before = sorted(str(path) for path in layout.state.rglob("*") if "logs" not in path.parts)
    assert enter_sh(layout, "echo x > /root/file; cat /root/file", "--scratch") == "x\n"
    assert doit(layout, "enter", "--scratch", "java", "--", "sh", "-c", ": > /root/x") == ""
    after = sorted(str(path) for path in layout.state.rglob("*") if "logs" not in path.parts)
    assert after == before
    assert "nothing to do" in doit(layout, "mount:java")


def test_looking_around_modifies_nothing(site: Site) -> None:
    layout = site.layout
    look = (
        "ls -lR / > /tmp/list; : > /var/tmp/y;"
        " mkdir -p /var/cache/edb /var/lib/portage /var/lib/gentoo/news /var/log; : > /var/log/x;"
        " chmod 755 /etc; touch -r /etc/hosts /etc/hosts;"
        " mkdir -p /bin/__pycache__; : > /bin/__pycache__/portage.cpython-311.pyc"
    )
    assert enter_sh(layout, look) == ""
    assert modified_chroots(layout) == []
    assert "nothing to do" in doit(layout, "mount:java")


CHANGES = {
    "chmod 700 /root": "ls -ld /root | head -c 10",
    "mkdir /opt": "ls -d /opt",
    "rm /etc/hosts": "test -e /etc/hosts || echo gone",
    "ln -s x /etc/link": "readlink /etc/link",
    "chmod 600 /etc/binmill-chroot": "ls -l /etc/binmill-chroot | head -c 10",
    "mkdir /etc/x; mv /etc/resolv.conf /etc/x 2> /dev/null || : > /etc/x/y": "ls -d /etc/x/*",
    "mkdir -m 700 /var/lib": "ls -ld /var/lib | head -c 10",
    "echo 5 > /bin/five; chmod 4755 /bin/five": "ls -l /bin/five | head -c 10",
}


def test_each_kind_of_change_is_kept(site: Site) -> None:
    each = "; ".join(f"{change}; {look}; echo" for change, look in CHANGES.items())
    printed = enter_sh(site.layout, each)
    assert "modified by hand" in printed
    again = enter_sh(
        site.layout, "; ".join(f"{look}; echo" for look in CHANGES.values()), "--scratch"
    )
    assert again == printed.partition("chroot java is modified")[0]
    assert again.count("\n\n") >= 4


def test_second_session_continues_in_a_new_layer(site: Site) -> None:
    layout = site.layout
    enter_sh(layout, "echo one > /root/one; rm /etc/hosts")
    first = (
        layout.state
        / json.loads((layout.manual_changes("java") / "layer.json").read_text())["layer"]
    )
    was = sorted((path, path.lstat().st_mtime_ns) for path in first.rglob("*"))
    assert enter_sh(
        layout, "cat /root/one; ls /etc; echo two > /root/two; rm /root/one"
    ).startswith("one\nbinmill-chroot\n")
    assert sorted((path, path.lstat().st_mtime_ns) for path in first.rglob("*")) == was
    assert enter_sh(layout, "ls /root /etc", "--scratch").split()[:3] == [
        "/etc:",
        "binmill-chroot",
        "portage",
    ]
    assert enter_sh(layout, "ls /root", "--scratch") == "two\n"
    assert len(names(layout.state / "layers/java")) == 3  # its own, and one for each visit
    doit(layout, "mount:java")
    assert len(layers(layout)) == 4


def test_undone_changes_leave_no_mark(site: Site) -> None:
    layout = site.layout
    enter_sh(layout, "mkdir /opt; : > /opt/x")
    assert modified_chroots(layout) == ["java"]
    enter_sh(layout, "rm -r /opt")
    assert modified_chroots(layout) == []


def test_change_below_drops_manual_changes(site: Site) -> None:
    layout = site.layout
    enter_sh(layout, "echo mine > /root/file", name="appliance")
    doit(layout, "mount:appliance")
    assert record(layout, "appliance").modified == ("appliance",)
    enter_sh(layout, "echo base > /root/base", name="java")
    assert "appliance is rebuilt without its manual changes" in doit(layout, "mount:appliance")
    assert record(layout, "appliance").modified == ("java",)
    assert enter_sh(layout, "ls /root", "--scratch", name="appliance") == "base\n"


def test_change_in_the_base_derives_every_stack_again(site: Site) -> None:
    layout = site.layout
    before = {name: layers(layout, name) for name in ("base", "java", "appliance")}
    enter_sh(layout, "echo base > /root/base", name="base")
    doit(layout, "chroot:appliance")
    after = {name: layers(layout, name) for name in ("base", "java", "appliance")}
    assert after["base"][1:] == before["base"]
    assert after["java"][1:] == after["base"]
    assert after["appliance"][1:] == after["java"]
    assert "nothing to do" in doit(layout, "chroot:appliance")


def test_changes_of_a_failed_command_are_kept(site: Site) -> None:
    printed = doit(site.layout, "enter", "java", "sh", "-c", ": > /root/x; exit 3", code=3)
    assert "modified by hand" in printed
    assert modified_chroots(site.layout) == ["java"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_changes_of_a_killed_command_are_discarded(site: Site, number: int) -> None:
    layout = site.layout
    with subprocess.Popen(
        [
            sys.executable,
            "-m",
            "doit",
            "enter",
            "java",
            "--",
            "sh",
            "-c",
            ": > /root/x; echo here; sleep 600",
        ],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "BINMILL_CONFIG": str(layout.config)},
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        process.send_signal(number)
    assert modified_chroots(layout) == []
    assert enter_sh(layout, "ls /root") == ""


def test_arguments_of_the_command_are_passed_unchanged(site: Site) -> None:
    words = ["--scratch", "A=b", "-x", "--", "$(id)", "a b"]
    printed = doit(
        site.layout, "enter", "java", "--", "sh", "-c", 'printf "%s|" "$@"', "sh", *words
    )
    assert printed == "|".join([*words, ""])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "required: NAME"),
        (("java", "--scrach"), "unrecognized arguments: --scrach"),
        (("java", "--reset", "ls"), "--reset takes neither"),
        (("java", "--failed", "a/b", "--scratch"), "--failed takes neither"),
        (("java", "--failed"), "expected one argument"),
    ],
)
def test_wrong_arguments_are_refused_with_usage(
    site: Site, words: tuple[str, ...], sentence: str
) -> None:
    printed = doit(site.layout, "enter", *words, code=3)
    assert sentence in printed
    assert "doit enter NAME [--scratch | --reset | --failed PACKAGE] [-- COMMAND]" in printed


def test_unknown_chroot_is_refused_with_the_known_ones(site: Site) -> None:
    printed = doit(site.layout, "enter", "jva", code=1)
    assert "[chroot-unknown]" in printed
    assert "base, java, appliance" in printed


def test_modified_etc_portage_is_reported(site: Site) -> None:
    layout = site.layout
    folder = layout.state / load(layout, ETC("java")).path
    (folder / "package.mask").write_text("dev-libs/mine\n")
    printed = doit(layout, "enter", "java", "--", "true", code=1)
    assert "package.mask" in printed
    assert "[etc-modified]" in printed
    assert (folder / "package.mask").read_text() == "dev-libs/mine\n"
    (folder / "package.mask").unlink()
    doit(layout, "enter", "java", "--", "true")


def test_missing_profile_is_reported(site: Site) -> None:
    layout = site.layout
    layout.config.write_text(
        stub_site.CONFIG.replace('profile = "default"', 'profile = "nosuch/23.0"')
    )
    printed = doit(layout, "mount:java", code=1)
    assert "nosuch/23.0" in printed
    assert "[chroot-profile-missing]" in printed


def test_damaged_mark_is_reported_with_advice(site: Site) -> None:
    layout = site.layout
    enter_sh(layout, ": > /root/x")
    (layout.manual_changes("java") / "layer.json").write_text("{")
    printed = doit(layout, "mount:java", code=1)
    assert "[manual-mark-damaged]" in printed
    assert "doit enter java --reset" in printed
    doit(layout, "enter", "java", "--reset")
    doit(layout, "mount:java")


class Terminal:
    """A terminal with doit in it: sends keys, and reads the screen."""

    def __init__(self, layout: Layout, *words: str) -> None:
        self.outside, inside = pty.openpty()
        self.resize(40, 100)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", "--wait", sys.executable, "-m", "doit", "enter", *words],
            cwd=PROJECT,
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={**os.environ, "BINMILL_CONFIG": str(layout.config), "TERM": "vt100"},
        )
        os.close(inside)
        self.screen = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.outside, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def sees(self, text: str, seconds: float = 30.0) -> None:
        """Wait until the text is on the screen; the next call continues behind it."""
        until = time.monotonic() + seconds
        while text not in self.screen:
            left = until - time.monotonic()
            assert left > 0, f"{text!r} is not on the screen: {self.screen!r}"
            if select.select([self.outside], [], [], left)[0]:
                with contextlib.suppress(OSError):
                    self.screen += os.read(self.outside, 4096).decode()
        self.screen = self.screen.partition(text)[2]

    def types(self, keys: str) -> None:
        os.write(self.outside, keys.encode())

    def code(self) -> int:
        with contextlib.suppress(OSError):
            while os.read(self.outside, 4096):
                pass
        return self.process.wait(30)

    def hang_up(self) -> None:
        if self.outside >= 0:
            os.close(self.outside)
            self.outside = -1


@contextlib.contextmanager
def at_a_terminal(layout: Layout, *words: str) -> Iterator[Terminal]:
    terminal = Terminal(layout, *words)
    try:
        yield terminal
    finally:
        terminal.hang_up()
        terminal.process.wait(30)


def test_job_control_at_a_terminal(site: Site) -> None:
    with at_a_terminal(site.layout, "java") as terminal:
        terminal.sees("your changes are kept")
        terminal.sees("[java] ~ # ")
        terminal.types("stty size; ls -d $PWD; echo $$-$TERM-$HISTFILE-\r")
        terminal.sees("40 100")
        terminal.sees("/root")
        terminal.sees("-vt100--")
        terminal.resize(50, 132)
        terminal.types("sleep 0.2; stty size\r")
        terminal.sees("50 132")
        terminal.types("sleep 600\r")
        terminal.sees("sleep 600")
        time.sleep(0.3)
        terminal.types("\x1a")  # Ctrl-Z
        terminal.sees("Stopped")
        terminal.types("jobs; bg; echo now $(jobs -r | cat)\r")
        terminal.sees("Stopped")
        terminal.sees("now [1]+ Running")
        terminal.types("fg\r")
        terminal.sees("fg\r\nsleep 600")
        time.sleep(0.3)
        terminal.types("\x03")  # Ctrl-C
        terminal.sees("[java]")
        terminal.types("echo it was $?\r")
        terminal.sees("it was 130")
        terminal.types("exit 7\r")
        assert terminal.code() == 7
    assert modified_chroots(site.layout) == []  # no history was written either


def test_command_at_a_terminal_has_it(site: Site) -> None:
    with at_a_terminal(site.layout, "java", "--", "sh", "-c", "test -t 1 && exit 9") as terminal:
        assert terminal.code() == 9


def test_changes_of_a_shell_are_kept_when_its_terminal_disappears(site: Site) -> None:
    with at_a_terminal(site.layout, "java") as terminal:
        terminal.sees("[java]")
        terminal.types("echo mine > /root/file; echo do''ne\r")
        terminal.sees("done")
        terminal.hang_up()
    assert modified_chroots(site.layout) == ["java"]
    assert enter_sh(site.layout, "cat /root/file", "--scratch") == "mine\n"


def test_second_session_at_once_is_refused(site: Site) -> None:
    with at_a_terminal(site.layout, "java") as terminal:
        terminal.sees("[java]")
        printed = doit(site.layout, "enter", "java", "--", "true", code=1)
        assert "a shell in java" in printed
        terminal.types("exit\r")
        assert terminal.code() == 0
    doit(site.layout, "enter", "java", "--", "true")
