"""Object ids of a plan's files, from real repositories."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from tasks.errors import BinmillError
from tasks.planner.keys import PinnedRepository, read_objects
from tasks.system.git import objects_at
from tests.kit.overlays import commit, git
from tests.kit.plans import World, planned
from tests.kit.refused import refused

FILES = {
    "dev-libs/popt/popt-1.19-r1.ebuild": "EAPI=8\n",
    "dev-libs/popt/files/a.patch": "--- a\n",
    "dev-libs/plain/plain-1.ebuild": "EAPI=8\n",
    "eclass/x.eclass": "# x\n",
}
WORLD = World((planned("dev-libs/popt-1.19-r1", eclasses=["x"]), planned("dev-libs/plain-1")))


@pytest.fixture
def repository(tmp_path: Path) -> PinnedRepository:
    """A bare repository, and its commit."""
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    for target, link in (
        ("popt-1.19-r1.ebuild", "linked.ebuild"),
        ("nowhere\n0123456789012345678901234567890123456789 blob 7", "broken.ebuild"),
        ("../../../../etc/passwd", "outside.ebuild"),
    ):
        (work / "dev-libs/popt").mkdir(parents=True, exist_ok=True)
        (work / "dev-libs/popt" / link).symlink_to(target)
    head = commit(work, FILES)
    subprocess.run(["git", "clone", "-q", "--bare", work, tmp_path / "tree.git"], check=True)
    return PinnedRepository(tmp_path / "tree.git", head)


def id_of(repository: PinnedRepository, path: str) -> str:
    return git(repository.path, "rev-parse", f"{repository.commit}:{path}")


def test_objects_of_a_plan_are_those_of_the_pinned_commit(repository: PinnedRepository) -> None:
    objects = read_objects(WORLD.plan, {"gentoo": repository})
    paths = ["dev-libs/popt/popt-1.19-r1.ebuild", "dev-libs/popt/files", "eclass/x.eclass"]
    paths.append("dev-libs/plain/plain-1.ebuild")  # it has no files/
    assert objects.ids == {("gentoo", path): id_of(repository, path) for path in paths}
    assert objects.commits == {"gentoo": repository.commit}


def test_plan_that_names_what_the_commit_lacks_is_an_error(repository: PinnedRepository) -> None:
    lacking = World((planned("dev-libs/popt-1.19-r1", eclasses=["y"]),))
    with refused(BinmillError, "planned-file-missing", path="eclass/y.eclass"):
        read_objects(lacking.plan, {"gentoo": repository})
    with refused(BinmillError, "planned-file-missing", path="dev-libs/new/new-1.ebuild"):
        read_objects(World((planned("dev-libs/new-1"),)).plan, {"gentoo": repository})
    with refused(BinmillError, "planned-repository-unknown", repo="gentoo"):
        read_objects(WORLD.plan, {"other": repository})


def test_folder_in_place_of_an_ebuild_is_an_error(tmp_path: Path) -> None:
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", "-b", "main", work], check=True)
    head = commit(work, {"a/a/a-1.ebuild/x": "x"})
    subprocess.run(["git", "clone", "-q", "--bare", work, tmp_path / "tree.git"], check=True)
    pinned = PinnedRepository(tmp_path / "tree.git", head)
    with refused(BinmillError, "planned-file-missing", path="a/a/a-1.ebuild"):
        read_objects(World((planned("a/a-1"),)).plan, {"gentoo": pinned})


def test_link_is_followed_within_its_commit_only(repository: PinnedRepository) -> None:
    folder, target = "dev-libs/popt", "dev-libs/popt/popt-1.19-r1.ebuild"

    def at(path: str) -> tuple[str, str] | None:
        return objects_at(repository.path, repository.commit, [path, target])[path]

    assert at(f"{folder}/linked.ebuild") == ("blob", id_of(repository, target))
    for path in (f"{folder}/broken.ebuild", f"{folder}/outside.ebuild"):
        with refused(BinmillError, "commit-link-broken", path=path):
            at(path)


def test_commit_that_is_missing_is_an_error(repository: PinnedRepository) -> None:
    with refused(BinmillError, "commit-unreadable", commit="1" * 40):
        objects_at(repository.path, "1" * 40, ["eclass/x.eclass"])


def test_path_with_a_newline_is_refused(repository: PinnedRepository) -> None:
    with pytest.raises(ValueError, match="newline"):
        objects_at(repository.path, repository.commit, ["a\nb"])


def test_thousands_of_objects_take_one_program(repository: PinnedRepository) -> None:
    paths = [f"dev-libs/popt/{number}" for number in range(40_000)]
    start = time.monotonic()
    objects = objects_at(repository.path, repository.commit, [*paths, "eclass/x.eclass"])
    assert time.monotonic() - start < 20
    assert objects["eclass/x.eclass"] == ("blob", id_of(repository, "eclass/x.eclass"))
    assert [objects[path] for path in paths] == [None] * len(paths)
