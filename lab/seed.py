"""The stage's package database, as a stage3 has one: the stage's own emerge(1) installs packages.

They come from the tree on the day of the stage: sources/tree with the older ebuilds of
sources/seed. The toolchain is that of the distribution: its packages own the files that are there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lab import tree
from lab.stage import ENVIRONMENT
from lab.upstream import PROFILE, REPOSITORY, SOURCES, Upstream
from tasks.system import sandbox
from tasks.system.command import run
from tasks.system.files import remove_tree, write_atomic

_LAYER = SOURCES / "seed"
_COMMAND = ("emerge", "--color=n", "--nospinner", "--quiet-build=y", "--oneshot", "--jobs=2")
_VARIABLES = {
    "COLLISION_IGNORE": "/*",  # the distribution's files are there already
    "CONFIG_PROTECT": "-*",
    "FEATURES": "-merge-sync -news parallel-install",
    "MAKEOPTS": "-j2",
    "PYTHONDONTWRITEBYTECODE": "1",
}
_INSTALLED = ("etc", "usr", "var/db/pkg", "var/lib")  # of what the run has written


def install_packages(lab: Upstream, root: Path, distfiles: dict[str, tree.Distfile]) -> None:
    """Install the packages of sources/seed in a stage's root directory."""
    kit = lab.work / "seed"
    remove_tree(kit, lab.trash)
    rendered = tree.render([SOURCES / "tree", _LAYER], distfiles, kit / "tree")
    tree.add_licenses(kit / "tree")
    tree.add_manifests(kit / "tree", distfiles, thin=False)
    older = {path.parent.relative_to(_LAYER).as_posix() for path in _LAYER.glob("*/*/metadata.xml")}
    packages = [cpv for cpv in rendered if tree.package_of(cpv) in older]
    (kit / "distfiles").mkdir()
    for package in older & distfiles.keys():
        shutil.copy(distfiles[package].file, kit / "distfiles" / distfiles[package].name)
    location = f"/var/db/repos/{REPOSITORY}"
    write_atomic(kit / "etc/repos.conf", f"[{REPOSITORY}]\nlocation = {location}\n")
    (kit / "etc/make.profile").symlink_to(f"../..{location}/profiles/{PROFILE}")
    binds = (
        sandbox.Bind(str(kit / "etc"), "/etc/portage"),
        sandbox.Bind(str(kit / "tree"), location),
        sandbox.Bind(str(kit / "distfiles"), "/var/cache/distfiles", writable=True),
    )
    with sandbox.workspace(lab.work, "seed-sandbox", lab.trash) as space:
        inside = sandbox.Sandbox("lab-seed", (root,), space, binds, {**ENVIRONMENT, **_VARIABLES})
        atoms = [f"={cpv}" for cpv in packages]
        sandbox.run(inside, (*_COMMAND, *atoms), log=lab.logs / "seed.log")
        places = [place for place in _INSTALLED if (inside.upper / place).exists()]
        # without what overlayfs notes in extended attributes
        copy = ("cp", "--archive", "--no-preserve=xattr", "--parents")
        run(*copy, *places, root, cwd=inside.upper)
    remove_tree(kit, lab.trash)
