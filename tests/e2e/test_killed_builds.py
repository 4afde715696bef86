"""Builds whose doit, sandbox or compiler is killed: nothing is left, and nothing is built twice."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from lab.upstream import PROFILE
from tasks import records
from tasks.records import BINPKGS
from tasks.store import identity
from tasks.system.files import write_atomic
from tests.kit import killed_builds
from tests.kit.files import names
from tests.kit.killed_builds import CHROOT, PACKAGES, WAYS, KilledBuild
from tests.kit.lab_site import LabSite


@dataclass(frozen=True)
class QuietSite:
    """A site, the identities of the packages that an unkilled run has built, and its seconds."""

    site: LabSite
    identities: dict[str, str]
    seconds: float


@pytest.fixture(scope="module")
def quiet_site(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> QuietSite:
    provided = "app-arch/bzip2-9 app-text/tree-9 dev-util/pkgconf-9 sys-libs/zlib-9"
    folder = lab_site.layout.site / CHROOT / "profile"
    write_atomic(folder / "package.provided", "".join(f"{each}\n" for each in provided.split()))
    killed_builds.create_chroot(
        lab_site,
        tmp_path_factory.mktemp(CHROOT),
        {"seed": "lab", "profile": PROFILE, "portage_dir": CHROOT},
    )
    start = time.monotonic()
    assert killed_builds.build_from_scratch(lab_site).last.built == PACKAGES
    return QuietSite(lab_site, identities(lab_site), time.monotonic() - start)


def identities(site: LabSite) -> dict[str, str]:
    record = records.load(site.layout, BINPKGS(CHROOT))
    folder = site.layout.binpkgs(CHROOT) / record.set
    return {each.cpv: identity.read(folder / each.path).identity for each in record.packages}


def check(quiet: QuietSite, build: KilledBuild, groups: set[object], words: str) -> None:
    """Check a build that was killed and finished; `groups` are control groups of others."""
    words = "\n".join((words, *map(str, build.kills), *(kill.run.output for kill in build.kills)))
    for kill in build.kills:
        assert list(kill.left) == [], words
        assert kill.code in ((-9,) if kill.way == "doit" and kill.hit else (0, 1)), words
    runs = [*(kill.run for kill in build.kills), build.last]
    built = [package for each in runs for package in each.built]
    assert sorted(built) == sorted(set(built)), words
    assert set(built) | build.last.reused == PACKAGES, words
    assert identities(quiet.site) == quiet.identities, words
    assert killed_builds.control_groups() - groups == set(), words
    layout = quiet.site.layout
    assert names(layout.work) == names(layout.trash) == names(layout.store_incoming) == [], words


def kill(quiet: QuietSite, ways: Sequence[str], seed: int) -> KilledBuild:
    groups: set[object] = {*killed_builds.control_groups()}
    dice = random.Random(seed)  # noqa: S311 - to be repeated, not to be secret
    seconds = quiet.seconds / len(ways)
    build = killed_builds.build_from_scratch(quiet.site, ways, seconds, dice)
    check(quiet, build, groups, f"BINMILL_SEED={seed}")
    return build


def test_build_that_is_killed_in_every_way_ends_as_a_quiet_one(quiet_site: QuietSite) -> None:
    build = kill(quiet_site, WAYS, seed=20260310)
    assert any(kill.hit for kill in build.kills)


@pytest.mark.soak
def test_builds_that_are_killed_at_random_moments(quiet_site: QuietSite) -> None:
    """BINMILL_SEED repeats a run; BINMILL_KILLS makes it shorter or longer."""
    seed = int(os.environ.get("BINMILL_SEED", time.time()))
    hits = set()
    for number in range(int(os.environ.get("BINMILL_KILLS", "120")) // len(WAYS)):
        ways = random.Random(seed + number).choices(WAYS, k=len(WAYS))  # noqa: S311
        build = kill(quiet_site, ways, seed + number)
        hits |= {kill.way for kill in build.kills if kill.hit}
    assert hits == {*WAYS}
