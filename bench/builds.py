"""Builds of the lab's packages by the real Portage: in a buildroot each, against one emerge of all.

Goals: with as many buildroots as processors at most 1.05 times as long as `emerge --emptytree`
with as many jobs; one at a time at most 1.10 times; of one changed package, 3 s more than emerge
takes for it alone.

Only builds are timed: the distfiles are there, the plan is made, and each whole build begins with
an empty store, or an empty PKGDIR. Both ways have the same MAKEOPTS.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli

from bench.measure import (
    Bench,
    Row,
    Size,
    Table,
    populate_memory,
    progress,
    rounds,
    row,
    scratch_filesystem,
    settle,
)
from lab import builder, upstream
from tasks.portage import account
from tasks.site import CONFIG_VARIABLE
from tasks.store.store import Store
from tests.kit.lab_site import LabSite, lab_site_in

LEAF = "app-text/tree"  # nothing needs it, and it needs nothing that is built; make alone builds it
FEW = ("app-misc/nosy", "app-text/dos2unix")  # besides those of the profile
GIGABYTES = 5


def run(table: Table, size: Size) -> None:
    """Compare whole builds side by side and one at a time, then one package, then none."""
    populate_memory()
    with _site(whole=size.scale >= 1) as site:
        processors = os.cpu_count() or 1
        for packages in (processors, 1):
            table.add(_whole(site, packages, size.pairs))
        table.add(_one_changed(site, size.pairs))
        table.add(_none_changed(site, size.pairs))
        built = len(list(Store(site.layout).entries()))
    table.save({"packages": built, "MAKEOPTS": "one job per processor"})


BENCH = Bench(run, full=Size(3), quick=Size(1, 0.5))


@contextmanager
def _site(*, whole: bool) -> Iterator[LabSite]:
    """A site on the lab, planned, with its distfiles; its state has a file system of its own."""
    progress("preparing the lab and its chroot")
    lab = builder.build_lab(upstream.default_directory()).directory
    template = tomli.loads((upstream.SOURCES / "config.toml.in").read_text())
    packages = template["chroots"]["base"]["packages"] if whole else FEW
    with scratch_filesystem(GIGABYTES) as disk, lab_site_in(lab, disk.parent) as site:
        state = site.layout.state
        state.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", disk, state], check=True)
        site.change(**{"chroots.base": {"packages": list(packages)}})
        site.doit("plan:base")
        for file in upstream.Upstream(site.lab).distfiles.glob("*/*.*"):
            account.writable_folder(site.layout.distfiles)
            shutil.copy(file, site.layout.distfiles)
        yield site
        subprocess.run(["umount", state], check=True)


def _whole(site: LabSite, packages: int, pairs: int) -> Row:
    """Build the whole set, that many packages at once."""
    site.change(build={"packages": packages})
    own: list[float] = []
    usual: list[float] = []
    for _ in rounds(f"the whole set, {packages} at once", pairs):
        settle()
        usual.append(_build(site, "emerge"))
        shutil.rmtree(site.layout.store, ignore_errors=True)
        settle()
        own.append(_build(site, "per-package"))
    return row(f"the whole set, {packages} at once, against emerge", own, usual)


def _one_changed(site: LabSite, pairs: int) -> Row:
    """Build one package that the store does not have, against emerge of it alone."""
    own: list[float] = []
    usual: list[float] = []
    for _ in rounds("one package changed", pairs * 2):
        usual.append(_build(site, LEAF))
        _forget(site.layout.store, LEAF)
        own.append(_build(site, "per-package"))
    return row("one package changed, against emerge of it alone", own, usual)


def _none_changed(site: LabSite, pairs: int) -> Row:
    times = [_build(site, "per-package") for _ in rounds("nothing to build", pairs * 2)]
    return row("nothing to build", times)


def _forget(store: Path, name: str) -> None:
    """Delete what leads to the builds of a package, as if its input key were a new one."""
    for folder in ("entries", "outputs"):
        for file in store.glob(f"{folder}/*.json"):
            if f'"{name}-' in file.read_text():
                file.unlink()


def _build(site: LabSite, way: str) -> float:
    words = [sys.executable, "-m", "bench.build_one", way]
    environment = {**os.environ, CONFIG_VARIABLE: str(site.layout.config)}
    return float(subprocess.check_output(words, env=environment, text=True).splitlines()[-1])
