"""The first process (pid 1) of a sandbox: mount, pivot, run the command, reap, exit with it.

Run by tasks.system.sandbox inside fresh namespaces, by the same interpreter; reads its plan from
the file descriptor named on the command line. Standard library only, and of that what is quick to
import: typing, json, socket and contextlib would take half of the time that entering takes.

Mount points are found component by component without following links, since packages have had
their hands on the tree: a link at /var/db/repos must not lead a mount elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import marshal
import os
import signal
import stat
import sys
import termios

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

FAILED = 251
NO_OVERLAY = 252  # nothing else is wrong; tasks.system.sandbox tries it with a copy
# mount(2), umount(2)
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
MNT_DETACH = 2
SYS_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
}
LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "fd/0",
    "stdout": "fd/1",
    "stderr": "fd/2",
    "ptmx": "pts/ptmx",
}
# Places for what is soon gone, on the workspace's own file system instead of the overlay, which
# makes work there slower; by the name of the workspace's folder.
TEMPORARY = {"tmp": "/tmp", "var-tmp": "/var/tmp"}
OPTIONS = "xino=off,metacopy=off,redirect_dir=nofollow"
NO_OVERLAYS = (errno.ENODEV, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
STANDARD_STREAMS = 3
AF_INET, SOCK_DGRAM = 2, 2  # socket(2)

libc = ctypes.CDLL(None, use_errno=True)


def mount(source: str, target: str, kind: str, flags: int = 0, options: str = "") -> None:
    """mount(2), with an OSError that says what was mounted where."""
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount {kind or source} at {target}: {os.strerror(number)}")


def beneath(root: str, path: str, *, folder: bool) -> int:
    """A descriptor of `path` below `root`, made where it is missing, never through a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    here = os.open(root, flags)
    parts = [part for part in path.split("/") if part]
    if ".." in parts:
        raise OSError(f"{path} climbs; nothing is mounted on it")
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if last and not folder:
            try:
                os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=here))
            except FileExistsError:
                pass
            following = os.open(part, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
            if stat.S_ISLNK(os.fstat(following).st_mode):
                raise OSError(f"{path} is a link inside the chroot; nothing is mounted on it")
        else:
            try:
                os.mkdir(part, 0o755, dir_fd=here)
            except FileExistsError:
                pass
            try:
                following = os.open(part, flags, dir_fd=here)
            except OSError as error:
                why = "is a link or a file" if error.errno == errno.ENOTDIR else error.strerror
                raise OSError(f"{path}: {part} {why} in the chroot; nothing is mounted") from None
        os.close(here)
        here = following
    return here


def mount_beneath(
    root: str, source: str, path: str, kind: str, flags: int = 0, options: str = ""
) -> None:
    """mount(2) on a path inside the root that was walked to without following links."""
    folder = os.path.isdir(source) if flags & MS_BIND else True
    point = beneath(root, path, folder=folder)
    try:
        mount(source, f"/proc/self/fd/{point}", kind, flags, options)
    finally:
        os.close(point)


class NoOverlay(Exception):
    """This kernel has no overlayfs, or none for a file system like that of the workspace."""


def mount_root(plan: dict[str, Any]) -> str:
    """The overlay of all layers, or the copy that was made of them."""
    space = plan["workspace"]
    root = f"{space}/root"
    if plan["copied"]:
        mount(root, root, "", MS_BIND)
        return root
    # mount(2) takes one page of options: descriptors have short names, and need no escaping
    folders = [*plan["layers"], f"{space}/upper", f"{space}/work"]
    numbers = list(map(open_layer, folders))
    *lower, upper, work = map(str, numbers)
    os.chdir("/proc/self/fd")
    # an upper layer becomes a layer of other roots: it must not refer to what was below it here
    options = f"lowerdir={':'.join(lower)},upperdir={upper},workdir={work},{OPTIONS}"
    try:
        return mount_overlay(root, options)
    finally:
        for number in numbers:
            os.close(number)


def open_layer(folder: str) -> int:
    """A descriptor of a layer, with an OSError that names it."""
    try:
        return os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OSError(error.errno, f"layer {folder}: {error.strerror}") from None


def mount_overlay(root: str, options: str) -> str:
    """Mount the overlay at `root`, and return that."""
    # volatile spares a sync for each file that is copied up; kernels before 5.10 do not know it
    for more in (",volatile", ""):
        try:
            mount("overlay", root, "overlay", 0, options + more)
            return root
        except OSError as error:
            if error.errno not in NO_OVERLAYS:
                raise
    raise NoOverlay


def make_root(plan: dict[str, Any]) -> str:
    """The root, and every mount of the plan upon it."""
    root = mount_root(plan)
    mount_beneath(root, "proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount_beneath(root, "sysfs", "/sys", "sysfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)
    mount_beneath(root, "tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755")
    os.close(beneath(root, "/run/lock", folder=True))
    make_dev(root)
    for name, place in TEMPORARY.items():
        mount_beneath(root, f"{plan['workspace']}/{name}", place, "", MS_BIND)
    for place, size in plan["tmpfs"].items():
        mount_beneath(root, "tmpfs", place, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={size}")
    for bind in plan["binds"]:
        mount_beneath(root, bind["source"], bind["target"], "", MS_BIND)
        if not bind["writable"]:
            point = beneath(root, bind["target"], folder=os.path.isdir(bind["source"]))
            flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV
            mount("", f"/proc/self/fd/{point}", "", flags)
            os.close(point)
    return root


def make_dev(root: str) -> None:
    """A minimal /dev: six devices, a pts instance of its own, shm, the usual links."""
    mount_beneath(root, "tmpfs", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=1m")
    dev = beneath(root, "/dev", folder=True)
    for name, (major, minor) in DEVICES.items():
        os.mknod(name, stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=dev)
        os.chmod(name, 0o666, dir_fd=dev)
    for name, target in LINKS.items():
        os.symlink(target, name, dir_fd=dev)
    os.close(dev)
    mount_beneath(
        root,
        "devpts",
        "/dev/pts",
        "devpts",
        MS_NOSUID | MS_NOEXEC,
        "newinstance,ptmxmode=0666,mode=620,gid=5",
    )
    mount_beneath(root, "tmpfs", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777")


def pivot(root: str) -> None:
    """Make `root` the only root there is (pivot_root(2), the "." "." idiom of its man page)."""
    os.chdir(root)
    number = SYS_PIVOT_ROOT[os.uname().machine]
    if libc.syscall(number, b".", b".") != 0:
        raise OSError(ctypes.get_errno(), "pivot_root failed")
    if libc.umount2(b".", MNT_DETACH) != 0:
        raise OSError(ctypes.get_errno(), "the old root could not be left")
    os.chdir("/")


def loopback_up() -> None:
    """Switch on `lo` in a fresh network namespace (netdevice(7), SIOCSIFFLAGS)."""
    plug = libc.socket(AF_INET, SOCK_DGRAM, 0)
    if plug < 0:
        raise OSError(ctypes.get_errno(), "the loopback interface could not be switched on")
    up_and_running = 0x1 | 0x40
    name_and_flags = b"lo".ljust(16, b"\0") + up_and_running.to_bytes(2, sys.byteorder)
    fcntl.ioctl(plug, 0x8914, name_and_flags.ljust(32, b"\0"))
    os.close(plug)


def guest(plan: dict[str, Any]) -> None:
    """Become the command. Runs in the child; does not return."""
    os.setsid()
    if plan["terminal"]:
        fcntl.ioctl(0, termios.TIOCSCTTY, 1)
    os.umask(0o022)
    os.chdir("/")
    if plan["terminal"]:
        try:
            os.chdir(plan["environment"].get("HOME", "/"))
        except OSError:
            pass  # a chroot without a home still has a shell
    os.closerange(STANDARD_STREAMS, os.sysconf("SC_OPEN_MAX"))
    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, signal.SIG_DFL)
        except (OSError, ValueError):
            pass  # KILL, STOP, and those that the C library keeps for itself
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    os.write(2, f"{plan['argv'][0]}: {execute(plan['argv'], plan['environment'])}\n".encode())
    os._exit(127)


def execute(argv: list[str], environment: dict[str, str]) -> str:
    """execvpe(3); returns only when it failed, and says why.

    os.execvpe would import a module first, by now from the guest's own library.
    """
    folders = environment.get("PATH", "").split(":")
    why = os.strerror(errno.ENOENT)
    for path in [argv[0]] if "/" in argv[0] else [f"{folder}/{argv[0]}" for folder in folders]:
        try:
            os.execve(path, argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            why = error.strerror or why
    return why


def reap(child: int) -> int:
    """Wait for everything; return the command's exit status, as a shell would say it."""
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def exit_on_signals() -> None:
    """Let TERM and HUP end it: the first process gets no signal without a handler for it.

    pid_namespaces(7), "The namespace init process".
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: os._exit(128 + signal.SIGTERM))
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main() -> int:
    """Set up, run, exit; the kernel ends everything else in the namespace with this process."""
    exit_on_signals()
    with os.fdopen(int(sys.argv[1]), "r+b") as stream:
        plan = marshal.load(stream)
        try:
            hostname = plan["hostname"].encode()
            if libc.sethostname(hostname, len(hostname)) != 0:
                raise OSError(ctypes.get_errno(), f"{plan['hostname']!r} is no host name")
            if not plan["network"]:
                loopback_up()
            pivot(make_root(plan))
        except NoOverlay:
            return NO_OVERLAY
        except OSError as error:
            sys.stderr.write(f"{error.args[-1]}\n")
            return FAILED
        stream.truncate(0)  # tells tasks.system.sandbox that what ends from here on is the command
    child = os.fork()
    if child == 0:
        guest(plan)
    return reap(child)


if __name__ == "__main__":
    sys.exit(main())
