"""Sandboxes as programs inside see them, and leftovers after failures and kills.

The host's own root is the lowest layer where possible: cheap, and read-only like every
lower layer. Overlayfs refuses layers that lie in each other, so `tiny` is for the rest.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import BinmillError, CommandFailed, HostLacks
from tasks.system import sandbox as boxes
from tasks.system.sandbox import Bind, Sandbox, run, workspace
from tests.kit.files import names
from tests.kit.processes import alive, ends, eventually
from tests.kit.programs import python, shell
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.stub_site import copy_programs
from tests.programs import sandboxes, workspace_over_mount

pytestmark = pytest.mark.usefixtures("needs_sandbox")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@contextlib.contextmanager
def not_set_up(cause: str) -> Iterator[None]:
    """Expect that the sandbox cannot be set up, for a cause that this pattern matches."""
    with refused(BinmillError, "sandbox-not-set-up", chroot="box") as error:
        yield
    assert re.search(cause, str(error.value.fields["cause"]))


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Sandbox]:
    with workspace(tmp_path / "work", "box", tmp_path / "trash") as space:
        yield Sandbox("box", (Path("/"),), space, environment={"PATH": PATH})


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root of a shell and a few programs, with the libraries they need."""
    return copy_programs(tmp_path_factory.mktemp("tiny"))


def sh(box: Sandbox, script: str) -> str:
    return run(box, ["sh", "-c", script]).stdout


def host_mounts() -> bytes:
    return Path("/proc/self/mountinfo").read_bytes()


def test_the_mount_table_from_inside(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "file").write_text("x")
    binds = (
        Bind(str(tmp_path / "tree"), "/var/db/repos/tree"),
        Bind(str(tmp_path / "file"), "/etc/file.conf"),
        Bind(str(tmp_path / "tree"), "/var/cache/pkgs", writable=True),
    )
    before = host_mounts()
    table = {}
    for line in sh(replace(box, binds=binds), "cat /proc/self/mountinfo").splitlines():
        fields, kind = (part.split() for part in line.split(" - "))
        flags = [x for x in fields[5].split(",") if x in ("ro", "nosuid", "nodev", "noexec")]
        assert fields[4] not in table
        assert not [x for x in fields[6:] if x.startswith(("shared", "master"))]
        table[fields[4]] = (kind[0] if kind[0] != "ext4" else "bind", *flags)
    real = table.pop("/var/db/repos/tree")[1:], table.pop("/etc/file.conf")[1:]
    assert real == (("ro", "nosuid", "nodev"), ("ro", "nosuid", "nodev"))
    for writable in ("/var/cache/pkgs", "/tmp", "/var/tmp"):
        assert "ro" not in table.pop(writable)
    assert table == {
        "/": ("overlay",),
        "/proc": ("proc", "nosuid", "nodev", "noexec"),
        "/sys": ("sysfs", "ro", "nosuid", "nodev", "noexec"),
        "/run": ("tmpfs", "nosuid", "nodev"),
        "/dev": ("tmpfs", "nosuid", "noexec"),
        "/dev/pts": ("devpts", "nosuid", "noexec"),
        "/dev/shm": ("tmpfs", "nosuid", "nodev"),
    }
    assert host_mounts() == before


def test_the_devices_inside(box: Sandbox) -> None:
    names = "fd full null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert sh(box, "ls /dev").split() == names.split()
    assert sh(box, "echo gone > /dev/null; head -c 2 /dev/zero | od -An -tx1").split() == ["00"] * 2
    assert sh(box, "stat -c %a /dev/null /dev/shm /dev /run").split() == [
        "666",
        "1777",
        "755",
        "755",
    ]


def test_the_environment_is_exactly_what_was_given(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LD_PRELOAD", "PYTHONPATH", "BASH_ENV", "MAKEFLAGS", "XDG_RUNTIME_DIR", "SECRET"):
        monkeypatch.setenv(name, "/nonexistent/sesame")
    monkeypatch.delenv("LD_PRELOAD")  # it would break the programs of the host itself
    monkeypatch.setenv("https_proxy", "http://user:sesame@proxy/")
    environment = {"PATH": PATH, "ODD": "x y=$(id)\n\u4e2d", "EMPTY": ""}
    printed = run(replace(box, environment=environment), ["env", "-0"]).stdout
    assert dict(x.split("=", 1) for x in printed.split("\0") if x) == environment


def test_no_process_inside_shows_the_caller_s_environment(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "sesame")
    output = sh(box, "cat /proc/[0-9]*/environ | tr '\\0' '\\n'")
    assert f"PATH={PATH}" in output
    assert "sesame" not in output


def test_identity_of_the_process(box: Sandbox) -> None:
    script = (
        "hostname; umask; pwd; cat /proc/1/comm; readlink /proc/self/fd/0;"
        " test $(ps -o sid= -p $$) = $$ && echo own session; id -u"
    )
    lines = sh(box, script).splitlines()
    assert lines[0] == "box"
    assert lines[1:3] == ["0022", "/"]
    assert lines[3].startswith("python")
    assert lines[4:] == ["/dev/null", "own session", "0"]
    assert os.uname().nodename != "box"


def test_umask_022_whatever_the_caller_s(box: Sandbox) -> None:
    before = os.umask(0o077)
    try:
        sh(box, "touch /root/file; mkdir /root/folder")
    finally:
        os.umask(before)
    assert (box.upper / "root/file").stat().st_mode & 0o777 == 0o644
    assert (box.upper / "root/folder").stat().st_mode & 0o777 == 0o755


def test_stray_descriptors_are_closed(box: Sandbox, tmp_path: Path) -> None:
    with (tmp_path / "secret").open("w") as stream:
        os.set_inheritable(stream.fileno(), True)
        output = sh(box, "for f in /proc/self/fd/*; do readlink $f; done; ls /proc/1/fd")
    assert "secret" not in output
    assert "memfd" not in output
    assert sh(box, "ls /proc/1/fd").split() == ["0", "1", "2"]


def test_writes_go_to_the_upper_and_the_lower_stays(
    box: Sandbox, tmp_path: Path, tiny: Path
) -> None:
    low, lower = tmp_path / "lowest", tmp_path / "lower"
    for layer in (low, lower):
        (layer / "srv").mkdir(parents=True)
        (layer / "srv" / "both").write_text(layer.name)
    (low / "srv" / "doomed").write_text("x")
    layered = replace(box, layers=(lower, low, tiny))
    output = sh(layered, "cat /srv/both; rm /srv/doomed; echo new > /srv/both; ls /srv")
    assert output == "lowerboth\n"
    assert (lower / "srv" / "both").read_text() == "lower"
    assert names(tiny / "bin")
    assert (lower / "srv" / "both").read_text() == "lower"
    assert (low / "srv" / "doomed").exists()
    assert (box.upper / "srv" / "both").read_text() == "new\n"
    assert not Path("/srv/both").exists()


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b", "a b", "caf\u00e9", "a\\,b:c", "x" * 200])
def test_layers_and_workspaces_with_odd_names(tmp_path: Path, tiny: Path, name: str) -> None:
    layer = tmp_path / name
    (layer / "srv").mkdir(parents=True)
    (layer / "srv" / "file").write_text("found")
    with workspace(tmp_path / f"{name}.work", "box", tmp_path / "trash") as space:
        odd = Sandbox("box", (layer, tiny), space, environment={"PATH": PATH})
        assert sh(odd, "cat /srv/file; echo x > /srv/new") == "found"
        assert (odd.upper / "srv" / "new").exists()


def test_read_only_binds_are_read_only(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("old")
    (tmp_path / "conf").write_text("old")
    binds = (Bind(str(tmp_path / "tree"), "/mnt/tree"), Bind(str(tmp_path / "conf"), "/mnt/c"))
    bound = replace(box, binds=binds)
    for script in (
        "echo x > /mnt/tree/file",
        "touch /mnt/tree/new",
        "echo x > /mnt/c",
        "rm /mnt/c",
    ):
        assert run(bound, ["sh", "-c", script], check=False).returncode != 0
    assert (tmp_path / "tree" / "file").read_text() == "old"
    assert (tmp_path / "conf").read_text() == "old"
    assert names(tmp_path / "tree") == ["file"]


def test_a_writable_bind_takes_writes(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "pkgs").mkdir()
    sh(replace(box, binds=(Bind(str(tmp_path / "pkgs"), "/mnt/p", True),)), "echo x > /mnt/p/f")
    assert (tmp_path / "pkgs" / "f").read_text() == "x\n"


@pytest.mark.parametrize("folder", [True, False])
@pytest.mark.parametrize("where", ["upper", "layer"])
@pytest.mark.parametrize(
    ("link", "target"), [("mnt/tree", "/mnt/tree"), ("mnt", "/mnt/tree"), ("mnt", "/mnt")]
)
def test_no_mount_goes_through_a_link_of_the_guest(  # noqa: PLR0917
    box: Sandbox, tmp_path: Path, tiny: Path, where: str, link: str, target: str, folder: bool
) -> None:
    source = tmp_path / "source"
    if folder:
        source.mkdir()
    else:
        source.write_text("x")
    layer = box.upper if where == "upper" else tmp_path / "layer"
    (layer / link).parent.mkdir(parents=True, exist_ok=True)
    (layer / link).symlink_to("/etc" if folder else "/etc/passwd")
    layers = (tiny,) if where == "upper" else (layer, tiny)
    linked = replace(box, layers=layers, binds=(Bind(str(source), target),))
    with not_set_up(f"{target}.* link"):
        run(linked, ["true"])


@pytest.mark.parametrize("place", ["proc", "sys", "dev", "run"])
def test_link_at_a_mount_point_of_every_chroot_is_refused(box: Sandbox, place: str) -> None:
    (box.upper / place).symlink_to("/etc")
    with not_set_up(f"/{place}.* link"):
        run(box, ["true"])


@pytest.mark.parametrize("target", ["/mnt/../../../etc/x", "/.."])
def test_mount_point_with_dots_is_refused(box: Sandbox, tmp_path: Path, target: str) -> None:
    with not_set_up("climbs"):
        run(replace(box, binds=(Bind(str(tmp_path), target),)), ["true"])


def test_missing_source_of_a_mount_is_an_error(box: Sandbox) -> None:
    with not_set_up("No such file"):
        run(replace(box, binds=(Bind("/nonexistent/x", "/mnt/x"),)), ["true"])


def test_missing_layer_is_an_error(box: Sandbox) -> None:
    with not_set_up("layer /nonexistent: No such file"):
        run(replace(box, layers=(Path("/nonexistent"),)), ["true"])


def test_host_is_not_visible(box: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "lower").mkdir()
    script = "grep -c . /proc/self/mountinfo; ls /proc | grep -c '^[0-9]'; ls /sys/fs/cgroup"
    mounts, processes = sh(box, script).split()[:2]
    assert int(mounts) == 9
    assert int(processes) <= 5


def test_only_network_is_lo(box: Sandbox) -> None:
    output = sh(box, "cat /proc/net/dev | tail -n +3 | cut -d: -f1; cat /sys/class/net/lo/flags")
    assert output.split() == ["lo", "0x9"]
    # not the environment's own, which may lie in /tmp, and that is another one inside
    python = str(Path(sys.executable).resolve())
    connects = "import socket; socket.create_connection(('127.0.0.1', 1), 2)"
    attempt = run(box, [python, "-c", connects], check=False)
    assert "Connection refused" in attempt.stderr  # lo is up
    outward = "import socket; socket.create_connection(('192.0.2.1', 1), 2)"
    assert "unreachable" in run(box, [python, "-c", outward], check=False).stderr


def test_network_of_the_host_is_shared_on_request(box: Sandbox) -> None:
    inside = sh(replace(box, network=True), "readlink /proc/self/ns/net").strip()
    assert inside == str(Path("/proc/self/ns/net").readlink())
    assert sh(box, "readlink /proc/self/ns/net").strip() != inside


@pytest.mark.parametrize("name", ["mnt", "pid", "ipc", "uts", "cgroup", "net"])
def test_sandbox_has_namespaces_of_its_own(box: Sandbox, name: str) -> None:
    inside = sh(box, f"readlink /proc/self/ns/{name}").strip()
    assert inside.startswith(f"{name}:")
    assert inside != str(Path(f"/proc/self/ns/{name}").readlink())


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 251", 251),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -SEGV $$", 139),
    ],
)
def test_exit_code_is_returned_and_named_in_the_error(box: Sandbox, script: str, code: int) -> None:
    assert run(box, ["sh", "-c", script], check=False).returncode == code
    if code:
        with refused(CommandFailed, "command-failed", chroot="box", status=code):
            run(box, ["sh", "-c", script])


def test_missing_program_is_named_in_the_error(box: Sandbox) -> None:
    cause = "nosuch: No such file or directory"
    with refused(CommandFailed, "command-failed", status=127, cause=cause):
        run(box, ["nosuch"])


def test_arguments_are_not_interpreted(box: Sandbox) -> None:
    words = ["; id", "$(id)", "a b", "*", "-n", "--", "", "\n", "caf\u00e9"]
    output = run(box, ["printf", "%s\\0", *words]).stdout
    assert output.split("\0")[:-1] == words


def test_log_gets_both_streams(box: Sandbox, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "box.log"
    with refused(CommandFailed, "command-failed-logged", status=1, cause="two", log=log):
        run(box, ["sh", "-c", "echo one; echo two >&2; exit 1"], log=log)
    assert log.read_text() == "one\ntwo\n"


def test_processes_end_with_the_command(box: Sandbox, tmp_path: Path) -> None:
    shared = replace(box, binds=(Bind(str(tmp_path), "/mnt", True),))
    sh(shared, "setsid sh -c 'while :; do date +%N >> /mnt/beat; sleep 0.05; done' & sleep 0.3")
    beat = (tmp_path / "beat").read_text()
    assert beat
    assert not sandbox_pids(tmp_path)
    assert (tmp_path / "beat").read_text() == beat


def sandbox_pids(tmp_path: Path) -> list[int]:
    """Processes, zombies aside, that have an overlay of this test as their root."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(tmp_path).encode() in (entry / "mountinfo").read_bytes():
                    pids.append(int(entry.name))
    return [pid for pid in pids if alive(pid)]


def test_timeout_ends_a_grandchild_in_its_own_session(box: Sandbox, tmp_path: Path) -> None:
    script = "setsid setsid sleep 600 & trap '' TERM; touch /started; while :; do sleep 1; done"
    with refused(CommandFailed, "program-timeout", command="sh in box", seconds=1):
        run(box, ["sh", "-c", script], timeout=1)
    assert (box.upper / "started").exists()
    assert eventually(lambda: not sandbox_pids(tmp_path))


@pytest.fixture
def small_group(tmp_path: Path) -> Iterator[Path]:
    """A control group of 100 MB, of either version."""
    one, two = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    parent, limits = (
        (one, ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"))
        if one.is_dir()
        else (two, ("memory.max", "memory.swap.max"))
    )
    group = parent / f"binmill-test-{tmp_path.name}-{os.getpid()}"
    try:
        group.mkdir()
        (group / limits[0]).write_text(str(100 << 20))
    except OSError as error:
        pytest.skip(f"needs a memory control group: {error}")
    with contextlib.suppress(OSError):  # where swap is not accounted
        (group / limits[1]).write_text(str(100 << 20) if parent == one else "0")
    yield group
    assert eventually(lambda: not (group / "cgroup.procs").read_text().split())
    group.rmdir()


def test_lack_of_memory_is_named_in_the_error(tmp_path: Path, small_group: Path) -> None:
    result = subprocess.run(
        python(sandboxes, "exhaust_memory", tmp_path, PATH, small_group),
        cwd=PROJECT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert (
        "failed in box (exit code 1): out of memory, the kernel killed a process" in result.stdout
    )


def test_mount_left_in_the_work_area_is_not_deleted_through(tmp_path: Path) -> None:
    """The host has a folder bound into a workspace."""
    source, stale = tmp_path / "kept", tmp_path / "work/box/upper/mnt"
    for folder in (source, stale):
        folder.mkdir(parents=True)
    (source / "precious").write_text("x")
    result = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            *python(workspace_over_mount, source, stale),
        ],
        cwd=PROJECT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    box = tmp_path / "work" / "box"
    assert result.stdout.splitlines() == [
        f"{box} was not deleted, because something is mounted at {stale}",
        f"  next: run: umount {stale}; then run the same command again",
        "True True",
        "True False",
    ]


def test_no_zombies_inside(box: Sandbox) -> None:
    script = "for i in 1 2 3; do (sh -c 'true &'); done; sleep 0.2; grep -l ^State.Z /proc/*/status"
    assert run(box, ["sh", "-c", script], check=False).stdout == ""


@contextlib.contextmanager
def a_run_in_its_own_host(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run of a sandbox on a host whose root is a shared mount, as under systemd."""
    with subprocess.Popen(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            *shell("on_shared_root.sh", tmp_path),
            *python(sandboxes, "sleep", tmp_path, PATH),
        ],
        cwd=PROJECT,
        stderr=subprocess.DEVNULL,
    ) as host:
        try:
            yield host
        finally:
            if not (tmp_path / "over").exists():
                os.kill(int((tmp_path / "runner").read_text()), signal.SIGKILL)
            host.wait()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_leaves_no_process_and_no_mount(tmp_path: Path, number: int) -> None:
    """test_kills.py does it at random moments."""
    upper = tmp_path / "work" / "box" / "upper"
    with a_run_in_its_own_host(tmp_path):
        assert eventually((upper / "started").exists)
        runner = int((tmp_path / "runner").read_text())
        inside = [pid for pid in sandbox_pids(tmp_path) if pid != runner]
        assert len(inside) >= 3
        os.kill(runner, number)
        assert eventually((tmp_path / "over").exists)
    assert all(ends(pid) for pid in inside)
    assert not sandbox_pids(tmp_path)
    assert str(tmp_path) not in (tmp_path / "mounts").read_text()
    assert (upper / "started").exists() == (number == signal.SIGKILL)
    with workspace(tmp_path / "work", "box", tmp_path / "trash") as space:  # the next run sweeps
        assert names(space / "upper") == []
    assert names(tmp_path / "trash") == []


def test_a_workspace_is_swept_before_and_after(tmp_path: Path) -> None:
    left = tmp_path / "work" / "box" / "upper" / "left"
    left.mkdir(parents=True)
    with workspace(tmp_path / "work", "box", tmp_path / "trash") as space:
        assert not left.exists()
        assert sorted(names(space)) == ["root", "tmp", "upper", "var-tmp", "work"]
        assert space.stat().st_mode & 0o777 == 0o700
        assert (space / "upper").stat().st_mode & 0o777 == 0o755
    assert names(tmp_path / "work") == []
    with pytest.raises(ZeroDivisionError), workspace(tmp_path / "work", "box", tmp_path / "trash"):
        raise ZeroDivisionError
    assert names(tmp_path / "work") == []


def test_workspace_on_another_file_system_is_refused(tmp_path: Path) -> None:
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere,
        refused(BinmillError, "work-on-another-disk"),
        workspace(Path(elsewhere), "box", tmp_path / "trash"),
    ):
        pass
    assert names(tmp_path / "trash") == []


def test_temporary_folders_are_new_each_time(box: Sandbox) -> None:
    """They are not part of the overlay, and hide the content that a layer has there."""
    assert names(Path("/tmp"))
    look = "stat -f -c %T / /tmp /var/tmp; stat -c %a /tmp /var/tmp; ls /tmp /var/tmp"
    kinds = sh(box, f"{look}; echo x > /tmp/x; mv /tmp/x /var/tmp/y; cp /bin/true /tmp; /tmp/true")
    first, *rest = kinds.split()
    assert "overlay" in first
    assert rest[2:] == ["1777", "1777", "/tmp:", "/var/tmp:"]
    assert first not in rest[:2]
    assert names(box.upper) == []
    assert names(box.workspace / "var-tmp") == ["y"]


def test_sandbox_needs_root(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with refused(HostLacks, "root-needed", work="enter the chroot box"):
        run(box, ["true"])


def _entering(tmp_path: Path, argv: list[str]) -> list[str]:
    return python(sandboxes, "enter_with", tmp_path, PATH, *argv)


def test_enter_without_a_terminal_inherits_the_streams(tmp_path: Path) -> None:
    result = subprocess.run(
        _entering(tmp_path, ["sh", "-c", "cat; echo err >&2; exit 5"]),
        cwd=PROJECT,
        input=b"in",
        capture_output=True,
        check=False,
    )
    assert (result.returncode, result.stdout, result.stderr) == (5, b"in", b"err\n")


def test_enter_whose_sandbox_is_killed_ends_as_a_shell_would(tmp_path: Path) -> None:
    with subprocess.Popen(
        _entering(tmp_path, ["sh", "-c", "echo here; sleep 600"]),
        cwd=PROJECT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == b"here\n"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(children[0]), signal.SIGKILL)  # unshare
    assert process.returncode == 128 + signal.SIGKILL
    assert not sandbox_pids(tmp_path)


def test_enter_on_a_terminal_has_one_of_its_own(tmp_path: Path) -> None:
    outer, inner = pty.openpty()
    script = "tty; stty size; test -t 0 && test -t 2 && echo control > /dev/tty; read x; echo +$x"
    with subprocess.Popen(
        _entering(tmp_path, ["sh", "-c", script]),
        cwd=PROJECT,
        stdin=inner,
        stdout=inner,
        stderr=inner,
    ) as process:
        os.close(inner)
        text = b""
        with contextlib.suppress(OSError):  # EIO: the last one has hung up
            while part := os.read(outer, 4096):
                text += part
                if part.rstrip().endswith(b"control"):
                    os.write(outer, b"typed\r")
    os.close(outer)
    assert process.returncode == 0
    assert b"control" in text
    assert b"+typed" in text


def test_failure_of_unshare_is_not_that_of_the_command(
    box: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boxes, "_NAMESPACES", ("--no-such-option",))
    with not_set_up("no-such-option|unshare --help"):
        run(box, ["true"], check=False)
