"""One package in a clean buildroot: the chroot, the merge layers of its closure, and nothing else.

The chroot's own emerge(1) builds and merges the package without network. What it wrote becomes the
package's merge layer, which other buildroots have below them. The outcome is data; so is every way
in which a build can fail.
"""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tasks.buildroot import flat_layers
from tasks.buildroot.harvest import SideEffect, harvest, paths_of
from tasks.errors import NotTrusted
from tasks.portage import account, emerge, gpkg, vdb
from tasks.portage.etc_portage import DISTDIR, LOGDIR, PKGDIR
from tasks.portage.index import INDEX
from tasks.system import disk_space, sandbox
from tasks.system.files import private_folder, remove_tree
from tasks.system.sandbox import Bind, Ended, Limits, Sandbox

Reason = Literal[
    "built",
    "failed",  # a phase of the ebuild, or emerge itself
    "dependency-not-installed",  # one of `installs`
    "timeout",
    "silent",
    "log-too-large",
    "out-of-memory",
    "too-many-processes",
    "disk-full",
    "network-denied",
    "not-packed",  # emerge succeeded without leaving a package
    "cancelled",
]
_STOPPED: dict[str, Reason] = {
    "seconds": "timeout",
    "silence": "silent",
    "output": "log-too-large",
    "cancelled": "cancelled",
}
RECIPE = "1"  # part of every input key: change it when the same inputs give another package
_WORK = "/var/tmp/portage"  # noqa: S108 - inside: PORTAGE_TMPDIR, unless it is set elsewhere
INSTALLED = "installed"  # in the workspace: the layer that `installs` left
_TAIL = 4 << 20  # bytes of a log that are searched for the reason of a failure
# A buildroot is deleted after the build: no sync, and no copies of libraries for older programs.
# Configuration files are those of the package, not numbered copies beside the seed's.
_FEATURES = "-merge-sync -preserve-libs -parallel-fetch -fail-clean -news"
_VARIABLES = {"FEATURES": _FEATURES, "CONFIG_PROTECT": "-* /nonexistent"}
# env-update(1) takes 0.3 s, so it runs only where a layer has files for it. Libraries of the layers
# are not in the seed's cache.
_SCRIPT = """
set -e
if [ "$1" = update ]; then env-update --no-ldconfig; fi
if command -v ldconfig >/dev/null; then ldconfig -X; fi
shift
exec "$@"
"""
_ENVIRONMENTS = ("etc/env.d", "etc/ld.so.conf.d")


@dataclass(frozen=True)
class BinaryPackage:
    """A binary package to install: its CPV, its build number, its file."""

    cpv: str
    build_id: int
    file: Path


@dataclass(frozen=True)
class PackageBuild:
    """Everything that the build of one package needs.

    `chroot` is the chroot's own sandbox with an empty workspace on the file system of state/.
    `layers` are the merge layers of the closure in dependency order, the topmost last; `installs`
    packages of it that must really be installed, as their layers cannot be combined.
    `folder` is a private one for PKGDIR and logs, with the package's distfiles; `flat` is the cache
    of flat layers, `merge_layer` the place of the result. `tmpfs` is the size in bytes of one for
    work directories; 0: they are on the disk.
    """

    chroot: Sandbox
    cpv: str
    repo: str
    build_id: int
    layers: tuple[Path, ...]
    installs: tuple[BinaryPackage, ...]
    folder: Path
    flat: Path
    merge_layer: Path
    trash: Path
    makeopts: str
    limits: Limits
    tmpfs: int = 0

    @property
    def log(self) -> Path:
        """The whole output of the build."""
        return self.folder / "build.log"

    @property
    def pkgdir(self) -> Path:
        """Its PKGDIR, which the build can write to."""
        return self.folder / "packages"

    @property
    def distdir(self) -> Path:
        """Its DISTDIR, with no files but its own, which the build can read."""
        return self.folder / "distfiles"

    @property
    def name(self) -> gpkg.Name:
        """Its parsed name; raises NotTrusted for one that is none."""
        return _name(self.cpv, self.build_id)


@dataclass(frozen=True)
class Outcome:
    """The end of one build. `package` and `layer` are None unless it is `built`.

    `package` is still where the build could write, so it is only to be copied with
    files.copy_plain. `status` is the exit code of emerge, None if it was not started. `message` is
    the telling line of the log, `memory` the peak in bytes (None: unknown), `seconds` the whole
    time.
    """

    cpv: str
    reason: Reason
    status: int | None
    message: str
    log: Path
    seconds: float
    memory: int | None = None
    package: Path | None = None
    layer: Path | None = None
    side_effects: tuple[SideEffect, ...] = ()


def build(order: PackageBuild, cancelled: Callable[[], bool] = lambda: False) -> Outcome:
    """Build one package and move its merge layer to `order.merge_layer`.

    The workspace of a failed build is left as it is. The layer is not synced to the disk yet.
    Raises BinmillError where the sandbox cannot be set up or the build has tampered with its
    results.
    """
    with paths_of(order.cpv):  # what it left is read already where the root is a copy
        return _build(order, cancelled)


def _build(order: PackageBuild, cancelled: Callable[[], bool]) -> Outcome:
    start = time.monotonic()
    _start_folder(order)
    root = plan(order)
    if order.installs:
        installed = _install(order, root, cancelled)
        if isinstance(installed, Outcome):
            return replace(installed, seconds=time.monotonic() - start)
        root = replace(root, layers=(installed, *root.layers))
    _occupy_lower_numbers(order)
    ended = _run(order, root, command(order), order.layers, cancelled)
    outcome = _outcome(order, ended)
    if outcome.reason == "built":
        outcome = _harvested(order, root, outcome)
    return replace(outcome, seconds=time.monotonic() - start)


def command(order: PackageBuild) -> list[str]:
    """The call of emerge(1) that builds, packs and merges one package, without its dependencies."""
    return [
        *_emerge("--usepkg=n", "--buildpkg=y"),
        f"={order.cpv}::{order.repo}",
    ]


def _emerge(*options: str) -> list[str]:
    return [
        "emerge",
        "--ignore-default-opts",
        "--verbose",
        "--color=n",
        "--nospinner",
        "--quiet-build=n",  # a build without output is ended as one that hangs
        "--package-moves=n",  # they would change the entries of other packages
        "--jobs=1",
        "--nodeps",
        "--oneshot",
        *options,
    ]


def plan(order: PackageBuild) -> Sandbox:
    """The sandbox of a build: the closure's layers over those of the chroot, without network."""
    below = tuple(reversed(order.chroot.layers))
    layers = flat_layers.mountable(order.layers, below, order.flat, order.trash)
    binds = (
        *order.chroot.binds,
        Bind(str(order.distdir), DISTDIR),
        Bind(str(order.pkgdir), PKGDIR, writable=True),
        Bind(str(order.folder / "logs"), LOGDIR, writable=True),
    )
    environment = {**order.chroot.environment, **_VARIABLES, "MAKEOPTS": order.makeopts}
    return replace(
        order.chroot,
        layers=(*reversed(layers), *order.chroot.layers),
        binds=binds,
        environment=environment,
        network=False,
        tmpfs={_WORK: order.tmpfs} if order.tmpfs else {},
    )


def _start_folder(order: PackageBuild) -> None:
    order.name  # noqa: B018 - before anything is written
    private_folder(order.folder)
    order.distdir.mkdir(exist_ok=True)
    for path in (order.pkgdir, order.folder / "logs"):
        account.writable_folder(path)


def _occupy_lower_numbers(order: PackageBuild) -> None:
    """Make Portage give the package its build number (bintree._allocate_filename_multi).

    It takes the first for which PKGDIR has nothing, not even an empty folder.
    """
    for number in range(1, order.build_id):
        (order.pkgdir / _name(order.cpv, number).path).mkdir(parents=True)


def _run(
    order: PackageBuild,
    root: Sandbox,
    argv: Sequence[str],
    layers: Sequence[Path],
    cancelled: Callable[[], bool],
) -> Ended:
    """Run emerge in a buildroot where the generated files fit the layers."""
    if layers:
        update = "update" if _bring_environment(layers) else "keep"
        argv = ["sh", "-c", _SCRIPT, "sh", update, *argv]
    return sandbox.run_limited(root, argv, log=order.log, limits=order.limits, cancelled=cancelled)


def _bring_environment(layers: Sequence[Path]) -> bool:
    """Tell whether a layer has files from which env-update(1) generates others."""
    return any(
        os.path.lexists(layer / place)
        for layer in layers
        for place in (*_ENVIRONMENTS, "etc/ld.so.conf")
    )


def _install(order: PackageBuild, root: Sandbox, cancelled: Callable[[], bool]) -> Path | Outcome:
    """Install binary packages on top of the layers; returns the layer that this leaves.

    It is a layer of its own, so that the build's upper layer has nothing of it.
    """
    atoms = []
    for each in order.installs:
        name = _name(each.cpv, each.build_id)
        place = order.pkgdir / name.path
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(each.file, place)  # not a link: the buildroot can write here
        atoms.append(f"={name.cpv}")
    argv = [*_emerge("--usepkgonly", "--binpkg-respect-use=n"), *atoms]
    target = root.workspace / INSTALLED
    with sandbox.workspace(root.workspace, "install", order.trash) as space:
        features = f"{_FEATURES} -pkgdir-index-trusted"  # there is no index
        environment = {**root.environment, "FEATURES": features}
        inside = replace(root, workspace=space, environment=environment)
        ended = _run(order, inside, argv, order.layers, cancelled)
        if ended.returncode != 0 or ended.stopped:
            outcome = _outcome(order, ended)
            reason = outcome.reason if ended.stopped else "dependency-not-installed"
            return replace(outcome, reason=reason)
        inside.upper.rename(target)
    remove_tree(order.pkgdir, order.trash)
    account.writable_folder(order.pkgdir)
    return target


def _outcome(order: PackageBuild, ended: Ended) -> Outcome:
    """The outcome of emerge's run, before anything is harvested."""
    with order.log.open("rb") as stream:
        stream.seek(max(0, order.log.stat().st_size - _TAIL))
        output = stream.read().decode("utf-8", "replace")
    reason = _reason(ended, output, order.chroot.workspace)
    return Outcome(
        cpv=order.cpv,
        reason=reason,
        status=ended.returncode,
        message="" if reason == "built" else emerge.first_failure(output),
        log=order.log,
        seconds=0,
        memory=ended.memory,
    )


def _reason(ended: Ended, output: str, space: Path) -> Reason:
    if ended.stopped:
        return _STOPPED[ended.stopped]
    if ended.returncode == 0:
        return "built"
    full = "No space left on device" in output or disk_space.shortage(space) is not None
    causes: tuple[tuple[bool, Reason], ...] = (
        (ended.out_of_memory, "out-of-memory"),
        (ended.out_of_processes, "too-many-processes"),
        (full, "disk-full"),
        (emerge.tried_the_network(output), "network-denied"),
    )
    return next((reason for applies, reason in causes if applies), "failed")


def _harvested(order: PackageBuild, root: Sandbox, outcome: Outcome) -> Outcome:
    """Add package, layer and side effects to the outcome of a build that succeeded."""
    name = order.name
    category, pf = name.category, f"{name.package}-{name.version}"
    package = order.pkgdir / name.path
    try:
        entry = next(
            e for e in vdb.entries(root.upper) if (e.parent.name, e.name) == (category, pf)
        )
    except StopIteration:
        return replace(outcome, reason="not-packed")
    if not (_is_plain(package) and _is_plain(order.pkgdir / INDEX)):
        return replace(outcome, reason="not-packed")
    if vdb.value(entry, "BUILD_ID") != str(order.build_id):
        raise NotTrusted("build-number-differs", package=order.cpv, number=order.build_id)
    mounts = [bind.target for bind in root.binds]
    effects = harvest(root.upper, root.layers, order.cpv, mounts, order.trash)
    status = root.upper.lstat()
    os.chown(root.upper, 0, 0)
    root.upper.chmod(stat.S_IMODE(status.st_mode) & ~0o022)
    private_folder(order.merge_layer.parent)
    root.upper.rename(order.merge_layer)
    return replace(outcome, package=package, layer=order.merge_layer, side_effects=effects)


def _is_plain(path: Path) -> bool:
    """True for a file with one name; its folders must be no links."""
    if any(folder.is_symlink() for folder in (path.parent, path.parent.parent)):
        return False
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_nlink == 1


def _name(cpv: str, build_id: int) -> gpkg.Name:
    category, _, pf = cpv.partition("/")
    return gpkg.parse(category, pf, str(build_id))
