"""Runs of the real Portage that are killed again and again end as a run that was not.

`make test` has a small site with a task of every kind; `make soak` has the lab's base and a stack,
and a hundred kills at random moments.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomli
import tomli_w

from lab import upstream
from tasks import journal
from tasks.layout import Layout
from tasks.site import CONFIG_VARIABLE
from tests.kit import package_contents, secret_search
from tests.kit.lab_site import BASE_SET, LabSite, tasks_run
from tests.kit.processes import leftovers_of_kill
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.programs import kill_at_boundaries
from tests.programs.kill_at_boundaries import POINTS

SMALL = {"base": {"packages": ["app-misc/figlet"], "overlays": ["java"], "package_use": {}}}
KINDS = {
    "snapshot",
    "lock",
    "tree",
    "overlay",
    "seed",
    "chroot",
    "etc",
    "mount",
    "check",
    "plan",
    "binpkgs",
    "publish",
    "client",
}
# Packages that differ from build to build even without a kill, and what differs in each.
NOT_REPRODUCIBLE: dict[str, str] = {}
# In records after a build: digests of packages, which have the time of their build in them.
_OF_ONE_BUILD = {"build_id", "path", "size"}  # keys of a package in a record
_DIGEST = re.compile(r"[0-9a-f]{32,128}")


# In URLs and in the caller's environment; nothing here needs it.
SECRET = "sesame-open-0815"


def another_site(
    lab_site: LabSite, place: Path, chroots: Mapping[str, Mapping[str, Any]]
) -> LabSite:
    """Another site with the same keys, mirror and upstream, and these chroots."""
    serve_overlay(lab_site)
    place.mkdir()
    shutil.copytree(lab_site.layout.site / "secrets", place / "secrets")
    raw = tomli.loads(lab_site.layout.config.read_text())
    del raw["tree"]["remote"]  # only one of two that push at once succeeds
    mirror = raw["mirrors"]["gentoo"][0].replace("//", f"//me:{SECRET}@")
    raw["mirrors"] = {"gentoo": [mirror], "local": [f"{mirror}/local"]}
    raw["network"] = {"proxy": f"http://me:{SECRET}@127.0.0.1:9"}  # not for this host
    raw["overlays"]["java"]["url"] = f"{mirror}/java.git"
    raw["chroots"] = {name: {**raw["chroots"][name], **keys} for name, keys in chroots.items()}
    used = {name for chroot in raw["chroots"].values() for name in chroot.get("overlays", [])}
    raw["overlays"] = {name: raw["overlays"][name] for name in used}
    site = LabSite(Layout(site=place, state=place / "state"), lab_site.lab)
    site.layout.config.write_text(tomli_w.dumps(raw))
    return site


def serve_overlay(lab_site: LabSite) -> None:
    """Serve the overlay over HTTP, as plain files (gitprotocol-http(5), the dumb one)."""
    lab = upstream.Upstream(lab_site.lab)
    if not (lab.mirror / "java.git").exists():
        subprocess.run(
            ["git", "clone", "-q", "--bare", lab.overlay, lab.mirror / "java.git"], check=True
        )
        subprocess.run(["git", "-C", lab.mirror / "java.git", "update-server-info"], check=True)


def run_to_boundary(site: LabSite, *words: str) -> tuple[str, int, str]:
    """Run until the next boundary; returns its name ("" at the end), the exit code, the output."""
    passed = site.layout.site / "passed"
    before = passed.read_text().splitlines() if passed.exists() else []
    result = subprocess.run(
        python(kill_at_boundaries, passed, *words),
        cwd=PROJECT,
        text=True,
        env={**os.environ, "A_TOKEN": SECRET, CONFIG_VARIABLE: str(site.layout.config)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
        timeout=1500,
    )
    after = passed.read_text().splitlines()
    return (after[-1] if len(after) > len(before) else ""), result.returncode, result.stdout


def comparable(value: Any) -> Any:
    """A record of a build or of a later task, without sizes, digests and numbers of packages.

    A build that was killed has used up its number.
    """
    if isinstance(value, dict):
        others = {key: inner for key, inner in value.items() if key not in _OF_ONE_BUILD}
        return {key: comparable(inner) for key, inner in others.items()}
    if isinstance(value, list):
        return [comparable(inner) for inner in value]
    return "DIGEST" if isinstance(value, str) and _DIGEST.fullmatch(value) else value


def packages(site: LabSite, name: str) -> Iterator[tuple[str, Path]]:
    record = json.loads(site.layout.record(f"binpkgs:{name}").read_text())
    for package in record["packages"]:
        folder = site.layout.binpkgs(name) / record["set"]
        yield re.sub(r"-[0-9]+$", "", package["cpv"]), folder / package["path"]


def assert_same(one: LabSite, other: LabSite) -> None:
    """The same lock, records and packages."""
    assert one.layout.lock.read_bytes() == other.layout.lock.read_bytes()
    left, right = one.records(), other.records()
    assert left.keys() == right.keys()
    for task, text in left.items():
        if task.split(".")[0] in ("binpkgs", "candidate", "gate", "publish", "client"):
            assert comparable(json.loads(text)) == comparable(json.loads(right[task])), task
        else:
            assert text == right[task], task
    assert not list((one.layout.state / "records").glob("*.before"))
    config = tomli.loads(one.layout.config.read_text())
    for name in config["chroots"]:
        ours, theirs = dict(packages(one, name)), dict(packages(other, name))
        assert ours.keys() == theirs.keys()
        unlike = {cpv: package_contents.differences(ours[cpv], theirs[cpv]) for cpv in ours}
        unlike = {cpv: lines for cpv, lines in unlike.items() if lines}
        assert set(unlike) <= set(NOT_REPRODUCIBLE), unlike


def kill_at_every_boundary(site: LabSite) -> list[str]:
    places: list[str] = []
    while True:
        place, code, printed = run_to_boundary(site)
        finished = {p.removesuffix(" remembered") for p in places if p.endswith(" remembered")}
        assert not finished & tasks_run(printed), printed  # a finished task is not run again
        if not place:
            assert code == 0, printed
            return places
        assert code == -signal.SIGKILL, printed
        places.append(place)


def boundaries(site: LabSite) -> set[str]:
    """All boundaries that an undisturbed run has passed.

    An on-demand task is done once its result is there; doit need not remember it.
    """
    tasks = every_task(site)
    assert {task.split(":")[0] for task in tasks} >= KINDS
    places = {f"{task} {point}" for task in tasks for point in POINTS}
    return places - {"snapshot remembered", "lock remembered"}


def every_task(site: LabSite) -> set[str]:
    """The tasks that have run on a site, by its journals."""
    folders = journal.folders(site.layout)
    return {run.task for folder in folders for run in journal.task_runs(folder)}


@dataclass(frozen=True)
class QuietSite:
    """A site whose first run goes on in the background; `finished` waits for its end."""

    site: LabSite
    run: Future[str]

    def finished(self) -> LabSite:
        self.run.result()
        return self.site


@contextmanager
def quiet_site_in(place: Path, lab_site: LabSite, chroots: Any) -> Iterator[QuietSite]:
    """Start the run of a quiet site; the block can kill another one meanwhile."""
    site = another_site(lab_site, place, chroots)
    with ThreadPoolExecutor(1) as beside:
        yield QuietSite(site, beside.submit(lambda: site.doit(A_TOKEN=SECRET)))


@pytest.fixture(scope="module")
def quiet_site(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QuietSite]:
    """A small site that is never killed."""
    with quiet_site_in(tmp_path_factory.mktemp("quiet") / "site", lab_site, SMALL) as quiet:
        yield quiet


def test_run_killed_at_every_boundary_ends_as_a_quiet_one(
    quiet_site: QuietSite, lab_site: LabSite, tmp_path: Path
) -> None:
    """Long tasks are killed one time less: `make soak` has every boundary."""
    site = another_site(lab_site, tmp_path / "killed", SMALL)
    spared = {f"{kind}:base made" for kind in ("binpkgs", "candidate", "gate", "client")}
    (site.layout.site / "passed").write_text("".join(f"{place}\n" for place in sorted(spared)))
    places = kill_at_every_boundary(site)
    quiet = quiet_site.finished()
    assert_same(site, quiet)
    assert tasks_run(site.doit()) == set()
    assert sorted(places) == sorted(boundaries(quiet) - spared)


def test_finished_site_has_no_secret(quiet_site: QuietSite) -> None:
    """Passwords of URLs and the caller's environment are in no log, record or package."""
    quiet = quiet_site.finished()
    assert quiet.layout.record("client:base").exists()
    state = quiet.layout.state
    # Portage reads the password in `etc` and writes it down in `inside`; other users cannot enter
    for folder in ("etc", "inside"):
        assert (state / folder).stat().st_mode & 0o077 == 0
    leaks = secret_search.leaks(state, SECRET)
    assert {name for name in leaks if not name.startswith("inside/")} == {
        f"etc/base/{path.name}/{file}"
        for path in (state / "etc/base").iterdir()
        for file in ("make.conf", "mirrors")
    }
    for name in leaks:
        assert not name.endswith((".log", ".gpkg.tar")) and ".gpkg.tar " not in name, name
    assert SECRET not in secret_search.database_dump(quiet.layout.database)
    assert SECRET not in quiet.layout.lock.read_text()
    for words in (("list", "--all"), ("status",), ("why", "overlay"), ("dumpdb",)):
        assert SECRET not in quiet.doit(*words)


LARGE: dict[str, dict[str, Any]] = {"base": {"packages": BASE_SET}, "java": {}}


@pytest.mark.soak
def test_stack_killed_at_every_boundary_ends_as_a_quiet_one(
    lab_site: LabSite, tmp_path: Path
) -> None:
    killed_site = another_site(lab_site, tmp_path / "killed", LARGE)
    with quiet_site_in(tmp_path / "quiet", lab_site, LARGE) as quiet_site:
        places = kill_at_every_boundary(killed_site)
        quiet = quiet_site.finished()
    assert_same(killed_site, quiet)
    assert tasks_run(killed_site.doit()) == set()
    assert sorted(places) == sorted(boundaries(quiet))


@pytest.mark.soak
def test_stack_killed_at_a_hundred_random_moments_ends_as_a_quiet_one(
    lab_site: LabSite, tmp_path: Path
) -> None:
    """Every few kills a task is forgotten, so that every kind of task is killed.

    BINMILL_SEED repeats a run; BINMILL_KILLS makes it shorter or longer.
    """
    seed = int(os.environ.get("BINMILL_SEED", time.time()))
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    killed_site, quiet = (
        another_site(lab_site, tmp_path / name, LARGE) for name in ("killed", "quiet")
    )
    quiet.doit()
    longest = max(journal.usual_seconds(quiet.layout).values())
    tasks = sorted(every_task(quiet))
    for number in range(int(os.environ.get("BINMILL_KILLS", "100"))):
        if number % 4 == 3:
            killed_site.doit("forget", dice.choice(tasks))
        with killed_site.start() as process:
            time.sleep(dice.uniform(0.2, 2 + longest * dice.random() ** 2))
            process.kill()
        assert process.returncode in (0, -signal.SIGKILL), f"BINMILL_SEED={seed}, kill {number}"
        assert leftovers_of_kill(killed_site.layout) == [], f"BINMILL_SEED={seed}, kill {number}"
    killed_site.doit()
    assert_same(killed_site, quiet)
