"""`doit why` about packages: before their first build, after a change of a flag, a day later."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lab import upstream
from tasks.portage import gpkg
from tests.kit.lab_site import LabSite

pytestmark = pytest.mark.usefixtures("stocked_store")

SET = ["app-arch/pbzip2", "app-misc/nosy", "app-text/tree"]  # pbzip2 needs bzip2
PACKAGES = ["bzip2", "nosy", "pbzip2", "pkgconf", "tree", "zlib"]
BINPKGS = "binpkgs:base"
SAME = ("reused", ["cause-inputs-unchanged"])
MAY = ("may-build", ["cause-dependency-may-change"])


@pytest.fixture(scope="module")
def built_site(lab_site: LabSite) -> LabSite:
    lab_site.change(**{"chroots.base": {"packages": SET}})
    assert why(lab_site)["forecast"]["error"] == "forecast-no-plan"
    lab_site.doit("plan:base")
    new = ("will-build", ["cause-package-new"])
    assert decisions(why(lab_site)["forecast"]) == dict.fromkeys(PACKAGES, new)
    lab_site.doit("publish:base")
    return lab_site


def why(site: LabSite) -> dict[str, Any]:
    """The reason of binpkgs:base, with its forecast; nothing is written."""
    before = written(site)
    rows = json.loads(site.doit("why", "--json", BINPKGS))
    assert written(site) == before
    (row,) = [row for row in rows if row["task"] == BINPKGS]
    return dict(row)


def written(site: LabSite) -> dict[str, tuple[int, int]]:
    """All files that a run may write but doit's database, by path: their inodes and times."""
    files = {}
    for place, folders, names in os.walk(site.layout.state):
        folders[:] = [each for each in folders if each not in ("exports", "seeds", "layers")]
        for name in set(names) - {"doit.db"}:
            status = Path(place, name).lstat()
            files[f"{place}/{name}"] = (status.st_ino, status.st_mtime_ns)
    return files


def decisions(forecast: dict[str, Any]) -> dict[str, tuple[str, list[str]]]:
    """What becomes of each package, by name: the decision, and the codes of its causes."""
    return {
        gpkg.parse_cpv(each["package"]).package: (
            each["decision"],
            [cause["code"] for cause in each["causes"]],
        )
        for each in forecast["packages"]
    }


def test_flag_of_a_package(built_site: LabSite) -> None:
    up_to_date = why(built_site)
    assert up_to_date["up_to_date"]
    same = dict.fromkeys(PACKAGES, SAME)
    assert decisions(up_to_date["forecast"]) == same

    config = built_site.layout.config.read_text()
    flag = {"package_use": {"app-arch/bzip2": ["static-libs"], "dev-libs/libyaml": ["static-libs"]}}
    built_site.change(**{"chroots.base": flag})
    row = why(built_site)
    assert row["forecast"]["plan"] == "outdated"
    bzip2 = ("may-build", ["cause-settings"])
    assert decisions(row["forecast"]) == {**same, "bzip2": bzip2, "pbzip2": MAY}
    printed = built_site.doit("why", BINPKGS)
    assert "package.use app-arch/bzip2: +static-libs" in printed
    assert "0 packages will be built, 2 may be built, 4 will not be built" in printed

    built_site.doit("plan:base")
    row = why(built_site)
    assert row["forecast"]["plan"] == "current"
    bzip2 = ("will-build", ["cause-use"])
    assert decisions(row["forecast"]) == {**same, "bzip2": bzip2, "pbzip2": MAY}
    package = next(p for p in row["forecast"]["packages"] if "/bzip2" in p["package"])
    assert package["causes"][0]["sentence"] == "USE +static-libs"
    assert package["measured"]
    assert 0 < package["seconds"] == row["forecast"]["seconds"]["will-build"]

    built_site.doit("candidate:base")
    difference = json.loads(built_site.doit("diff", "base", "1", "2", "--json"))
    causes = {each["name"]: each["why"] for each in difference["rebuilt"]}
    assert causes["app-arch/bzip2"] == ["USE +static-libs"]
    assert causes.keys() <= {"app-arch/bzip2", "app-arch/pbzip2"}
    candidate = built_site.layout.binhost("base") / "candidate/2/public/provenance.jsonl"
    for line in map(json.loads, candidate.read_text().splitlines()):
        definition = line["predicate"]["buildDefinition"]
        name = gpkg.parse_cpv(definition["externalParameters"]["package"]).cp
        new = ["it was never built for this chroot"]
        assert definition["internalParameters"]["causes"] == causes.get(name, new), name

    built_site.layout.config.write_text(config)
    built_site.doit("plan:base")
    row = why(built_site)
    before = ("reused", ["cause-built-before"])  # both came out of the first build
    assert decisions(row["forecast"]) == {**same, "bzip2": before, "pbzip2": before}
    built_site.doit(BINPKGS)


def test_next_day(built_site: LabSite) -> None:
    old, new = upstream.Upstream(built_site.lab).facts().days
    upstream.publish_next_day(built_site.lab)
    built_site.doit("snapshot", "lock")
    row = why(built_site)
    assert row["root"] == {"code": "cause-pin-moved", "task": "tree", "before": old, "after": new}
    assert row["sentence"].startswith(f"tree {old} -> {new} ")
    tree = ("may-build", ["cause-ebuild-gone", "cause-newer-version"])
    assert decisions(row["forecast"])["tree"] == tree
    assert {each for each, _ in decisions(row["forecast"]).values()} == {"may-build", "reused"}
    tasks = {each["task"] for each in json.loads(built_site.doit("why", "--json"))}
    assert "chroot:base" not in tasks  # its seed is the same
    (seed,) = json.loads(built_site.doit("why", "--json", "seed:lab"))
    assert seed["cause"]["code"] == "cause-pin-unchanged"

    built_site.doit("plan:base")
    assert decisions(why(built_site)["forecast"])["tree"] == ("will-build", ["cause-version"])
