"""Build in the chroot base of a site: python -m bench.build_one WAY, with BINMILL_CONFIG set.

WAY is `per-package` (all that binpkgs:base does with that driver), `emerge` (one emerge of the
whole set, and no more), or an atom, which emerge builds alone in the chroot. Prints the seconds.

Both ways of a whole set begin with what is there: the store, or an empty PKGDIR.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from tasks import records, site
from tasks.chroot import sandboxes
from tasks.flow import fetching, per_package
from tasks.portage import account, emerge, etc_portage
from tasks.records import PLAN, Inputs, Key
from tasks.site import Chroot
from tasks.system import sandbox
from tasks.system.files import private_folder
from tasks.system.sandbox import Bind


def run_emerge(chroot: Chroot, inputs: Inputs, command: list[str]) -> float:
    """Run emerge in the chroot as the driver `emerge` does; returns its seconds."""
    build, log = chroot.site.config.build, chroot.log("emerge")
    private_folder(chroot.layout.inside)
    distdir = fetching.distdir(chroot)
    with chroot.workspace("emerge") as space:
        folders = [space / "packages", space / "logs"]
        for folder in (distdir.folder, *folders):
            account.writable_folder(folder)
        binds = (
            *distdir.binds,
            Bind(str(folders[0]), etc_portage.PKGDIR, writable=True),
            Bind(str(folders[1]), etc_portage.LOGDIR, writable=True),
        )
        variables = {**distdir.variables, "MAKEOPTS": emerge.makeopts(build)}
        inside = sandboxes.own(chroot, inputs, space, binds=binds, variables=variables)
        start = time.perf_counter()
        sandbox.run(inside, command, log=log)
        return time.perf_counter() - start


def main(way: str) -> float:
    """Build once; the seconds."""
    chroot = site.load(Path(__file__).parents[1]).chroot("base")
    keys: tuple[Key[Any], ...] = (*sandboxes.own_keys(chroot), PLAN(chroot.name))
    inputs = records.reading(chroot.layout, keys)
    if way == "per-package":
        start = time.perf_counter()
        per_package.build_set(chroot, inputs)
        return time.perf_counter() - start
    if way == "emerge":
        return run_emerge(
            chroot, inputs, emerge.command(chroot.site.config.build, chroot.own.packages)
        )
    alone = ("--verbose", "--color=n", "--quiet-build=y", "--nodeps", "--oneshot", "--usepkg=n")
    return run_emerge(chroot, inputs, ["emerge", *alone, way])


if __name__ == "__main__":
    print(f"{main(sys.argv[1]):.3f}")
