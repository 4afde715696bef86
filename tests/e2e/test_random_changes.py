"""Random changes of a tree: the packages built one by one equal those of one emerge of the set.

What is random is drawn from a seed that is printed with what went wrong. BINMILL_SEED repeats one.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from tasks import records
from tasks.records import BINPKGS
from tasks.store import identity
from tasks.system.files import write_atomic
from tests.kit import random_tree
from tests.kit.build_runs import run
from tests.kit.case_overlay import write_overlay
from tests.kit.lab_site import LabSite
from tests.kit.random_tree import Tree

CHROOT = "base"


class RandomSite:
    """A site whose base has the packages of a random tree."""

    def __init__(self, site: LabSite, overlay: Path) -> None:
        self.site, self._overlay = site, overlay
        self._written: tuple[dict[str, str], dict[str, str]] = ({}, {})

    def apply(self, tree: Tree) -> None:
        """Replace the tree and the settings of the site."""
        texts = (tree.ebuilds(), tree.overlay())
        if texts != self._written:
            for old in self._overlay.glob("app-cases/*"):
                shutil.rmtree(old)
            write_overlay(self._overlay, "random", *texts)
            self._written = texts
        folder = self.site.layout.site / "random"
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in tree.portage_dir().items():
            write_atomic(folder / path, text)
        base: dict[str, object] = {
            "overlays": ["random"],
            "packages": tree.atoms,
            "portage_dir": "random",
            "package_use": {},
            "env": {"CFLAGS": tree.cflags},
        }
        self.site.change(**{f"chroots.{CHROOT}": base})
        self.site.doit("lock")

    def build(self, driver: str) -> tuple[dict[str, tuple[str, str]], set[str]]:
        """Build the set; returns USE and identity by CPV, and the packages that were built."""
        self.site.change(build={"driver": driver, "packages": 2})
        built = run(self.site, CHROOT).built
        record = records.load(self.site.layout, BINPKGS(CHROOT))
        folder = self.site.layout.binpkgs(CHROOT) / record.set
        contents = [(each.cpv, identity.read(folder / each.path)) for each in record.packages]
        return {cpv: (each.metadata["USE"], each.identity) for cpv, each in contents}, built


@pytest.mark.soak
def test_set_equals_that_of_emerge_after_each_change(lab_site: LabSite, tmp_path: Path) -> None:
    seed = int(os.environ.get("BINMILL_SEED", time.time()))
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    overlay = tmp_path / "overlay"
    lab_site.change(**{"overlays.random": {"url": str(overlay)}})
    site, tree = RandomSite(lab_site, overlay), random_tree.first(dice, 6)
    story, reused = ["first"], 0
    for _ in range(15):
        site.apply(tree)
        by_package, built = site.build("per-package")
        at_once, _ = site.build("emerge")
        different = {cpv for cpv in by_package if by_package[cpv] != at_once.get(cpv)}
        where = f"BINMILL_SEED={seed}: {story}"
        assert by_package.keys() == at_once.keys(), where
        assert not different, where
        reused += len(by_package) - len(built)
        changes = []
        for _ in range(dice.randint(1, 3)):
            change, tree = random_tree.changed(dice, tree)
            changes.append(change)
        story.append(" and ".join(changes))
    assert reused > len(tree.packages)
