"""Failed buildroots: the places where builds failed, kept on request, to be entered.

A failed buildroot is the workspace of the build, moved to state/failed as it was, and
`buildroot.json`: the layers, mounts and variables of the build. There is one for each package of a
chroot; a newer one replaces it. Nothing that is built reads it.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tasks.buildroot import buildroot, flat_layers
from tasks.buildroot.buildroot import PackageBuild
from tasks.errors import BinmillError, NotTrusted
from tasks.layout import Layout
from tasks.portage import gpkg
from tasks.store.store import Store
from tasks.system.files import locked, private_folder, remove_tree, write_atomic
from tasks.system.sandbox import Bind, Sandbox

_FILE = "buildroot.json"
_RCFILE = "bashrc"
_RCFILE_INSIDE = "/run/failed-buildroot"
# Portage writes the environment at the end of each phase, and where die() is called before that.
_BASHRC = """\
cd {folder}/work 2>/dev/null || cd {folder} 2>/dev/null
for _file in environment die.env; do
    if [[ -f {folder}/temp/$_file ]]; then
        source {folder}/temp/$_file 2>/dev/null
        [[ -d ${{S:-}} ]] && cd "$S"
        break
    fi
done
# programs of ebuilds, like emake, look for Portage there
[[ $PATH == */ebuild-helpers:* ]] && export PORTAGE_BIN_PATH=${{PATH%%/ebuild-helpers*}}
unset _file HISTFILE PROMPT_COMMAND
PS1={prompt}
"""


@dataclass(frozen=True)
class FailedBuildroot:
    """The buildroot of a package that failed in `phase` ("" if unknown).

    `layers` are merge layers of the store by their names, in dependency order; `below` the layers
    of the chroot, the topmost first.
    """

    cpv: str
    repo: str
    phase: str
    hostname: str
    layers: tuple[str, ...]
    below: tuple[Path, ...]
    binds: tuple[Bind, ...]
    environment: Mapping[str, str]

    @property
    def build_folder(self) -> str:
        """The folder in which Portage has built it."""
        return f"/var/tmp/portage/{self.cpv}"  # noqa: S108 - inside

    @property
    def ebuild(self) -> str:
        """The path of its ebuild, inside."""
        name = gpkg.parse_cpv(self.cpv)
        file = f"{name.package}-{name.version}.ebuild"
        return f"/var/db/repos/{self.repo}/{name.cp}/{file}"


def keep(layout: Layout, chroot: str, order: PackageBuild, phase: str) -> None:
    """Move the workspace of a failed build to its place, instead of the one that is there.

    Raises Busy while a shell is in that one.
    """
    space, place = order.chroot.workspace, _place(layout, chroot, order.cpv)
    moved = replace(
        order,
        chroot=replace(order.chroot, workspace=place),
        folder=place / order.folder.relative_to(space),
    )
    sandbox = buildroot.plan(moved)
    data = {
        "cpv": order.cpv,
        "repo": order.repo,
        "phase": phase,
        "hostname": sandbox.hostname,
        "layers": [layer.name for layer in order.layers],
        "below": [str(layer) for layer in order.chroot.layers],
        "binds": [asdict(bind) for bind in sandbox.binds],
        "environment": dict(sandbox.environment),
    }
    private_folder(layout.failed_buildroots(chroot).parent)
    with locked(_lock(layout, chroot, order.cpv), f"the failed buildroot of {order.cpv}"):
        remove_tree(place, layout.trash)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(space / _FILE, json.dumps(data, indent=1) + "\n", mode=0o600)
        space.rename(place)


def find(layout: Layout, chroot: str, package: str) -> FailedBuildroot:
    """The failed buildroot of a package, CATEGORY/NAME or with its version.

    Raises BinmillError that lists those that there are if it has none, or several.
    """
    cpvs = names(layout, chroot)
    matching = [cpv for cpv in cpvs if package in (cpv, gpkg.parse_cpv(cpv).cp)]
    if len(matching) != 1:
        code = "failed-buildroot-ambiguous" if matching else "failed-buildroot-unknown"
        packages = matching or cpvs or ["none"]
        raise BinmillError(code, chroot=chroot, package=package, packages=packages)
    path = _place(layout, chroot, matching[0]) / _FILE
    try:
        return _parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BinmillError("failed-buildroot-damaged", chroot=chroot, path=path.parent) from error


def names(layout: Layout, chroot: str) -> list[str]:
    """The packages of a chroot whose failed buildroots were kept, by CPV, sorted."""
    folder = layout.failed_buildroots(chroot)
    cpvs = []
    for path in sorted(folder.glob(f"*/*/{_FILE}")):
        cpv = f"{path.parts[-3]}/{path.parts[-2]}"
        try:
            cpvs.append(gpkg.parse_cpv(cpv).cpv)
        except NotTrusted:  # no name that `keep` would give
            continue
    return cpvs


def hold(layout: Layout, chroot: str, failed: FailedBuildroot) -> AbstractContextManager[None]:
    """Hold the failed buildroot for one shell: it is not replaced meanwhile."""
    what = f"the failed buildroot of {failed.cpv}"
    return locked(_lock(layout, chroot, failed.cpv), what)


def entrance(
    layout: Layout, chroot: str, failed: FailedBuildroot, command: Sequence[str]
) -> tuple[Sandbox, list[str]]:
    """The sandbox of a failed buildroot, and the command that runs a command or a shell there.

    Its state is that of the failure, with the changes of earlier shells. Raises BinmillError if
    something is missing that the build had, NotTrusted if a layer was changed.
    """
    place, store = _place(layout, chroot, failed.cpv), Store(layout)
    sources = [*failed.below, *(Path(bind.source) for bind in failed.binds)]
    sources += [layout.store_layer(name) for name in failed.layers]
    if missing := [path for path in sources if not path.exists()]:
        raise BinmillError(
            "failed-buildroot-incomplete", chroot=chroot, package=failed.cpv, path=missing[0]
        )
    merged = tuple(store.verify_layer(name) for name in failed.layers)
    below = tuple(reversed(failed.below))
    layers = flat_layers.mountable(merged, below, layout.flat_layers, layout.trash)
    installed = place / buildroot.INSTALLED
    prompt = shlex.quote(f"[{chroot}: {failed.cpv}] \\w \\$ ")
    write_atomic(place / _RCFILE, _BASHRC.format(folder=failed.build_folder, prompt=prompt))
    sandbox = Sandbox(
        hostname=failed.hostname,
        layers=(*([installed] if installed.is_dir() else []), *reversed(layers), *failed.below),
        workspace=place,
        binds=(*failed.binds, Bind(str(place / _RCFILE), _RCFILE_INSIDE)),
        environment=failed.environment,
    )
    if command:
        return sandbox, ["bash", "-c", f'source {_RCFILE_INSIDE}; "$@"', "bash", *command]
    return sandbox, ["bash", "--rcfile", _RCFILE_INSIDE, "-i"]


def _place(layout: Layout, chroot: str, cpv: str) -> Path:
    name = gpkg.parse_cpv(cpv)
    return layout.failed_buildroot(chroot, name.category, f"{name.package}-{name.version}")


def _lock(layout: Layout, chroot: str, cpv: str) -> Path:
    return layout.task_lock(f"failed:{chroot}:{cpv.replace('/', ':')}")


def _parse(raw: bytes) -> FailedBuildroot:
    from pydantic import ConfigDict, TypeAdapter

    kind: Any = FailedBuildroot
    kind.__pydantic_config__ = ConfigDict(extra="forbid", strict=True)
    failed: FailedBuildroot = TypeAdapter(kind).validate_json(raw)
    return failed
