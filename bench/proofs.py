"""Gate, client and access proof of one changed package in a set, against fresh installations.

Goal: for a set of 200 packages, all three together at least ten times faster than fresh ones.

The packages are generated ebuilds of three small files each, built by the lab's Portage: the price
of a package's installation is that of Portage, not of its content. Each pair begins with the three
fresh installations. Then one package changes, and all three upgrade what is installed. Lock,
build, candidate and publication are not timed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tomli
import tomli_w

from bench.measure import Bench, Size, Table, progress, rounds, row, scratch_filesystem, seconds
from lab import builder, upstream
from tasks.serve import certificates
from tasks.site import CONFIG_VARIABLE
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite, lab_site_in
from tests.kit.project import DOIT, PROJECT

COUNT, FILES, GIGABYTES = 200, 3, 5
GROUP = "role:java"
PROOFS = ("gate", "client", "members")


def run(table: Table, size: Size) -> None:
    """Time the three proofs, fresh and as upgrades, in turns."""
    count = int(COUNT * size.scale)
    times: dict[tuple[str, bool], list[float]] = {
        (task, fresh): [] for task in PROOFS for fresh in (True, False)
    }
    with _site(count) as site:
        for number in rounds(f"{count} packages", size.pairs):
            for fresh in (True, False):
                _change(site, count, 2 * number + (not fresh))
                _prove(site, times, fresh=fresh)
    for task in PROOFS:
        table.add(row(f"{task}, one package changed", times[task, False], times[task, True]))
    own, usual = (
        [sum(each) for each in zip(*(times[task, fresh] for task in PROOFS), strict=True)]
        for fresh in (False, True)
    )
    table.add(row("all three, one package changed", own, usual))
    table.save({"packages": f"{count}, beside those of the profile", "usual way": "fresh installs"})


BENCH = Bench(run, full=Size(3), quick=Size(2, scale=0.15))


@contextmanager
def _site(count: int) -> Iterator[LabSite]:
    """A site on the lab with one chroot and one view, on a file system of its own."""
    progress("preparing the lab and its chroot")
    lab = builder.build_lab(upstream.default_directory()).directory
    with scratch_filesystem(GIGABYTES) as disk, lab_site_in(lab, disk.parent) as site:
        state = site.layout.state
        state.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "--bind", disk, state], check=True)
        overlay = site.layout.site / "cases"
        write_overlay(overlay, "cases", _ebuilds(count, 0), {})
        _configure(site, overlay)
        progress(f"building {count} packages")
        site.doit("candidate:base")
        yield site
        subprocess.run(["umount", state], check=True)


def _configure(site: LabSite, overlay: Path) -> None:
    raw = tomli.loads(site.layout.config.read_text())
    base = {key: raw["chroots"]["base"][key] for key in ("seed", "profile")}
    base |= {"overlays": ["cases"], "packages": [f"{CATEGORY}/all"]}
    raw["chroots"] = {"base": base}
    raw["overlays"] = {"cases": {"url": str(overlay)}}
    raw["access"] = {
        "groups": [GROUP, "site:acme"],
        "restricted": GROUP,
        "binhosts": {"base": GROUP},
    }
    tls = certificates.self_signed(site.layout.site / "secrets/tls")
    raw["serve"] = {"certificate": str(tls.certificate), "certificate_key": str(tls.key)}
    raw.setdefault("build", {})["packages"] = os.cpu_count() or 1
    site.layout.config.write_text(tomli_w.dumps(raw))


def _ebuilds(count: int, version: int) -> dict[str, str]:
    """Packages with a few files each, the first with a text that varies, and one that needs all."""
    names = [f"part{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(count)]
    needs = " ".join(f"{CATEGORY}/{name}" for name in names)
    ebuilds = {"all-1": f'RDEPEND="{needs}"'}
    for name in names:
        text = version if name == names[0] else 0
        lines = "".join(
            f"\techo {text} > {name}{n} || die; doins {name}{n}\n" for n in range(FILES)
        )
        ebuilds[f"{name}-1"] = f"src_install() {{\n\tinsinto /usr/share/cases\n{lines}}}"
    return ebuilds


def _change(site: LabSite, count: int, version: int) -> None:
    """Make a candidate in which one package differs from the last one; 0 is the first of all."""
    if version:
        write_overlay(site.layout.site / "cases", "cases", _ebuilds(count, version), {})
    site.doit("lock")
    site.doit("candidate:base")


def _prove(site: LabSite, times: dict[tuple[str, bool], list[float]], *, fresh: bool) -> None:
    for task in PROOFS:
        if task == "client":
            site.doit("publish:base")
        words = [str(DOIT), f"{task}:base", *(["--fresh"] if fresh else [])]
        env = {**os.environ, CONFIG_VARIABLE: str(site.layout.config)}
        times[task, fresh].append(seconds(words, cwd=PROJECT, env=env))
