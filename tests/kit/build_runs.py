"""Runs of binpkgs:NAME, package by package, and what became of each package."""

from __future__ import annotations

import json
from dataclasses import dataclass

from tasks.portage import gpkg
from tests.kit.lab_site import LabSite


@dataclass(frozen=True)
class Run:
    """A run of binpkgs, by its events: CATEGORY/PN of what was built, and so on."""

    output: str
    built: set[str]
    unchanged: set[str]
    failed: dict[str, str]  # the class of each failure
    skipped: set[str]
    cut_off: set[str]
    reused: set[str]


def last_run(site: LabSite, chroot: str, output: str = "") -> Run:
    """The newest run of a site, which may still go on; a run that had nothing to do has no log."""
    path = site.layout.logs / "latest" / f"binpkgs.{chroot}.events"
    events = []
    if path.exists() and not output.startswith("nothing to do"):
        events = list(map(json.loads, path.read_text().splitlines()))

    def names(event: str, *, where: str = "", value: object = None) -> set[str]:
        return {
            cp(each["package"])
            for each in events
            if each["event"] == event and (not where or bool(each[where]) is value)
        }

    return Run(
        output=output,
        built=names("package-built"),
        unchanged=names("package-built", where="unchanged", value=True),
        failed={
            cp(each["package"]): each["failure"]["kind"]
            for each in events
            if each["event"] == "package-failed" and not each["again"]
        },
        skipped=names("package-skipped"),
        cut_off=names("package-reused", where="because", value=True),
        reused=names("package-reused", where="because", value=False),
    )


def cp(cpv: str) -> str:
    """CATEGORY/PN of a CPV."""
    return gpkg.parse_cpv(cpv).cp


def run(site: LabSite, chroot: str, code: int = 0) -> Run:
    """Build a chroot's set."""
    return last_run(site, chroot, site.doit(f"binpkgs:{chroot}", code=code))
