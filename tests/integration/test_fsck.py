"""fsck by the real doit on a small site: it reports, marks and repairs each kind of damage."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.layout import Layout
from tasks.publish import install_root
from tasks.publish.install_root import InstallRoot
from tasks.system.files import locked
from tests.kit.files import names
from tests.kit.sample_site import TASKS, YESTERDAY, SampleSite, tasks_run

Damage = Callable[[Layout], None]


def record(layout: Layout, task: str) -> dict[str, str]:
    fields: dict[str, str] = json.loads(layout.record(task).read_text())
    return fields


def export(layout: Layout, task: str) -> Path:
    return layout.export(record(layout, task)["commit"])


def seed(layout: Layout) -> Path:
    return layout.seed(record(layout, "seed:openrc")["sha512"])


def flip(path: Path, at: int = 0) -> None:
    """Change one bit of a file."""
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)


def flipped_export(layout: Layout) -> None:
    flip(export(layout, "tree") / "app-misc/one/one-1.ebuild")


def strange_export(layout: Layout) -> None:
    (export(layout, "overlay:java") / "x.ebuild").write_text("x")


def executable_export(layout: Layout) -> None:
    (export(layout, "tree") / "profiles/repo_name").chmod(0o755)


def lost_export(layout: Layout) -> None:
    subprocess.run(["rm", "-r", export(layout, "tree")], check=True)


def flipped_seed(layout: Layout) -> None:
    flip(seed(layout) / "usr/bin/sh")


def lost_capability(layout: Layout) -> None:
    os.removexattr(seed(layout) / "usr/bin/ping", "security.capability")


def other_owner(layout: Layout) -> None:
    os.chown(seed(layout) / "etc/secret", 0, 0)


def other_mode(layout: Layout) -> None:
    (seed(layout) / "usr/bin/su").chmod(0o755)


def lost_in_seed(layout: Layout) -> None:
    (seed(layout) / "dev/null").unlink()


def cut_listing(layout: Layout) -> None:
    listing = layout.seed_listing(record(layout, "seed:openrc")["sha512"])
    os.truncate(listing, listing.stat().st_size - 10)


def changed_layer(layout: Layout) -> None:
    layer = layout.state / json.loads(layout.record("chroot:base").read_text())["layers"][0]
    (layer / "etc/hosts").write_text("10.0.0.1 localhost\n")


def more_in_etc(layout: Layout) -> None:
    (layout.state / record(layout, "etc:java")["path"] / "package.mask").write_text("*/*\n")


def cut_record(layout: Layout) -> None:
    os.truncate(layout.record("etc:base"), 9)


def flipped_record(layout: Layout) -> None:
    flip(layout.record("tree"), layout.record("tree").read_bytes().index(b'"tag": "') + 8)


def no_record_at_all(layout: Layout) -> None:
    layout.record("chroot:java").write_text("[]")


Case = tuple[Damage, str, str]  # with the damaged task, and words of the flaw
# Several at once: one damage must not hide another.
ROUNDS: list[list[Case]] = [
    [
        (flipped_export, "tree", "/app-misc/one/one-1.ebuild has changed"),
        (strange_export, "overlay:java", "/x.ebuild does not belong there"),
        (flipped_seed, "seed:openrc", "/usr/bin/sh: other content"),
        (changed_layer, "chroot:base", "differs from the layer"),
        (cut_record, "etc:base", "its record cannot be read"),
        (more_in_etc, "etc:java", "differs from the files"),
    ],
    [
        (executable_export, "tree", "/profiles/repo_name has changed"),
        (lost_capability, "seed:openrc", "/usr/bin/ping: other capabilities or attributes"),
        (no_record_at_all, "chroot:java", "its record cannot be read"),
    ],
    [
        (lost_export, "tree", "is missing"),
        (other_owner, "seed:openrc", "/etc/secret: other owner, group"),
        (other_mode, "seed:openrc", "/usr/bin/su: other mode"),
        (lost_in_seed, "seed:openrc", "/dev/null is missing"),
    ],
    [
        (flipped_record, "tree", "is not the one that its task wrote"),
        (cut_listing, "seed:openrc", "is not what was written"),
    ],
]


@pytest.mark.parametrize("cases", ROUNDS)
def test_fsck_repairs_damaged_artifacts_and_no_others(
    built_site: SampleSite, cases: list[Case]
) -> None:
    before = built_site.records()
    damaged = {task for _, task, _ in cases}
    for damage, _, _ in cases:
        damage(built_site.layout)
    printed = built_site.doit("fsck", code=1)
    flaws = dict(
        line.split(": damaged: ") for line in printed.splitlines() if ": damaged: " in line
    )
    assert flaws.keys() == damaged
    for _, task, words in cases:
        assert words in flaws[task]
    assert f"\n{len(damaged)} damaged, all marked: " in built_site.doit("fsck", "--repair")
    assert tasks_run(built_site.doit(*TASKS)) == damaged
    assert built_site.records() == before
    assert built_site.doit("fsck").startswith("no damage: ")


def test_fsck_deletes_a_damaged_install_root(built_site: SampleSite) -> None:
    layout = built_site.layout
    folder, upper = layout.install_root("client", "base"), layout.state / "upper"
    upper.mkdir()
    (upper / "one").write_text("1")
    install_root.keep(folder, InstallRoot("a", "b", 1, {}), upper, layout.trash)
    assert built_site.doit("fsck").startswith("no damage: ")
    (file,) = folder.glob("*/one")
    flip(file)
    assert "install root of client:base: damaged: /one: other content" in built_site.doit(
        "fsck", code=1
    )
    built_site.doit("fsck", "--repair")
    assert not folder.exists()
    assert built_site.doit("fsck").startswith("no damage: ")
    assert tasks_run(built_site.doit(*TASKS)) == set()


def test_fsck_without_repair_changes_nothing(built_site: SampleSite) -> None:
    flipped_export(built_site.layout)
    printed = built_site.doit("fsck", code=1)
    assert built_site.doit("fsck", code=1) == printed
    assert "nothing to do" in built_site.doit(*TASKS)


def test_fsck_repairs_a_damaged_database(built_site: SampleSite) -> None:
    """Other commands advise the repair; after it every task writes the same record."""
    before = built_site.records()
    os.truncate(built_site.layout.database, 5000)
    for words in ((), ("tree",), ("list",), ("status",), ("why",), ("clean", "tree")):
        printed = built_site.doit(*words, code=3)
        assert printed.startswith("ERROR: ")
        assert printed.count("\n") == 2  # the second says what to do next
        assert "\n  next: doit fsck --repair " in printed
    assert "doit.db: damaged: " in built_site.doit("fsck", code=1)
    built_site.doit("fsck", "--repair")
    assert len(tasks_run(built_site.doit(*TASKS))) == 7
    assert built_site.records() == before
    assert built_site.doit("fsck").startswith("no damage: ")
    assert "doit.db.damaged" in built_site.doit("gc", "--yes")
    assert not list(built_site.layout.state.glob("*.damaged*"))


def test_fsck_leaves_a_damaged_lock_to_a_person(built_site: SampleSite) -> None:
    text = built_site.layout.lock.read_text()
    built_site.layout.lock.write_text(text[:-20])
    for words in (("fsck",), ("fsck", "--repair")):
        printed = built_site.doit(*words, code=1)
        assert "config.lock: damaged: " in printed
        assert "  not marked; " in printed
        assert "version control" in printed
    built_site.layout.lock.write_text(text)
    assert built_site.doit("fsck").startswith("no damage: ")


def git(repository: Path, *words: str, stdin: bytes = b"") -> str:
    result = subprocess.run(
        ["git", "--git-dir", repository, *words], check=True, input=stdin, capture_output=True
    )
    return result.stdout.decode().strip()


def loosen(repository: Path) -> None:
    """Unpack the objects of a repository into a file each."""
    folder = repository / "objects/pack"
    packs = [path.read_bytes() for path in folder.glob("*.pack")]
    for each in folder.iterdir():
        each.unlink()
    for pack in packs:
        git(repository, "unpack-objects", "-q", stdin=pack)


def damage_blob(repository: Path, name: str) -> None:
    """Truncate the object of a name (TAG:PATH)."""
    digest = git(repository, "rev-parse", name)
    loosen(repository)
    truncate(repository, digest)


def truncate(repository: Path, digest: str) -> None:
    loose = repository / "objects" / digest[:2] / digest[2:]
    loose.chmod(0o644)
    os.truncate(loose, 5)


def test_fsck_renames_a_damaged_tree_and_snapshot_freezes_the_day_again(
    built_site: SampleSite,
) -> None:
    before = built_site.records()
    tag = f"{YESTERDAY:%Y%m%d}"
    damage_blob(built_site.layout.tree, f"{tag}:app-misc/one/one-1.ebuild")
    assert "tree.git: damaged: " in built_site.doit("fsck", code=1)
    printed = built_site.doit("fsck", "--repair", code=1)
    assert f"  {tag} cannot be read\n" in printed
    assert "nothing to do" in built_site.doit(*TASKS)
    assert f"frozen gentoo {tag}" in built_site.doit("snapshot")
    assert built_site.records() == before
    assert built_site.doit("fsck").startswith("no damage: ")


def test_fsck_copies_intact_days_of_a_damaged_tree(built_site: SampleSite) -> None:
    tree = built_site.layout.tree
    truncate(tree, git(tree, "hash-object", "-w", "--stdin", stdin=b"not of a frozen day"))
    refs = ("for-each-ref", "refs/heads", "refs/tags")
    before = git(tree, *refs)
    assert "tree.git: damaged: " in built_site.doit("fsck", code=1)
    built_site.doit("fsck", "--repair")
    assert git(tree, *refs) == before
    assert names(built_site.layout.state / "tree.git.damaged/refs")
    assert built_site.doit("fsck").startswith("no damage: ")
    assert "nothing to do" in built_site.doit(*TASKS)


def test_fsck_renames_a_damaged_overlay(built_site: SampleSite) -> None:
    before = built_site.records()
    repository = built_site.layout.overlay("java")
    commit = record(built_site.layout, "overlay:java")["commit"]
    damage_blob(repository, f"{commit}:dev-java/a/a-1.ebuild")
    assert "overlays/java.git: damaged: " in built_site.doit("fsck", code=1)
    built_site.doit("fsck", "--repair")
    assert "nothing to do" in built_site.doit(*TASKS)
    assert names(repository.parent) == ["java.git.damaged"]
    built_site.doit("clean", "overlay:java")
    assert tasks_run(built_site.doit(*TASKS)) == {"overlay:java"}
    assert built_site.records() == before
    built_site.doit("gc", "--yes")
    assert names(repository.parent) == ["java.git"]


def test_fsck_repair_beside_a_running_task_does_not_mark_its_artifact(
    built_site: SampleSite,
) -> None:
    flipped_export(built_site.layout)
    with locked(built_site.layout.task_lock("tree"), "tree"):
        printed = built_site.doit("fsck", "--repair", code=1)
    assert re.search(r"  not marked: tree is locked by another run \(process \d", printed), printed
    assert export(built_site.layout, "tree").is_dir()
    built_site.doit("fsck", "--repair")
    assert tasks_run(built_site.doit(*TASKS)) == {"tree"}
