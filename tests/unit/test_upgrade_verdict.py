"""The verdict of the gate on an upgrade: Portage's reports, lost files, libraries that are left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks.buildroot.union import Union
from tasks.errors import NotTrusted
from tasks.publish import upgrade
from tasks.publish.gate import NotInstalled
from tasks.publish.upgrade import Blocked, FileLost, LibraryLeft, UpgradeCollision
from tests.kit.packages import stanza
from tests.kit.refused import refused

REPORT = """\
>>> Installing (1 of 2) a-b/new-1::cases
 * Detected file collision(s):
 *
 * \t/usr/bin/one
 * \t/usr/bin/two
 *
 * Searching all installed packages for file collisions...
 *
 * Press Ctrl-C to Stop
 *
 * a-b/old-1.5-r2:0::cases
 * \t/usr/bin/one
 * \t/usr/bin/two
 *
 * Package 'a-b/new-1' NOT merged due to file collisions. If necessary,
 * refer to your elog messages for the whole content of the above message.

>>> Failed to install a-b/new-1, Log file:
"""
BLOCK = '[blocks B      ] <a-b/old-2 ("<a-b/old-2" is soft blocking a-b/new-1)'
VALUES = {"BUILD_ID": "1", "BUILD_TIME": "5"}


def install(root: Path, cpv: str, *paths: str, **values: str) -> None:
    entry = root / "var/db/pkg" / cpv
    entry.mkdir(parents=True, exist_ok=True)
    for name, value in {**VALUES, "PF": cpv.partition("/")[2], **values}.items():
        (entry / name).write_text(f"{value}\n")
    (entry / "CONTENTS").write_text("".join(f"obj {path} {'0' * 32} 1\n" for path in paths))
    for path in paths:
        place = root / path.strip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()


def test_client_is_upgraded_to_packages_in_slots_that_it_has(tmp_path: Path) -> None:
    install(tmp_path, "a-b/one-1", SLOT="0/1")
    install(tmp_path, "a-b/slotted-1", SLOT="1")
    index = [
        stanza("a-b/one-2", SLOT="0/2"),
        stanza("a-b/slotted-1.5", SLOT="1"),
        stanza("a-b/slotted-2", SLOT="2"),
        stanza("a-b/other-1", SLOT="0"),
    ]
    installed = ["a-b/one-1", "a-b/slotted-1", "a-b/removed-1"]
    names = upgrade.same_slots(index, installed, Union([tmp_path]))
    assert names == ["a-b/one-2", "a-b/slotted-1.5"]


def test_collision_names_the_package_its_owner_and_the_paths() -> None:
    collision = UpgradeCollision("a-b/new-1", "a-b/old-1.5-r2", ("/usr/bin/one", "/usr/bin/two"))
    assert upgrade.collisions(REPORT * 2) == [collision]  # the log and the messages at the end
    assert "(2 paths)" in str(collision)
    assert upgrade.collisions(REPORT.replace("NOT merged", "merged")) == []
    assert upgrade.collisions("") == []


def test_block_is_shown_in_the_words_of_portage() -> None:
    (block,) = upgrade.blocks(f"{BLOCK}\n{BLOCK}\n[blocks b ] !a-b/solved\n")
    assert block == Blocked(BLOCK.partition("] ")[2])


def test_packages_in_another_build_were_not_installed(tmp_path: Path) -> None:
    install(tmp_path, "a-b/same-1")
    install(tmp_path, "a-b/older-1", BUILD_TIME="4")
    tree = Union([tmp_path])
    stanzas = [stanza(f"a-b/{name}-1", BUILD_TIME="5") for name in ("same", "older", "none")]
    assert upgrade.judge(stanzas, tree, tree) == [
        NotInstalled("a-b/older-1"),
        NotInstalled("a-b/none-1"),
    ]


def test_same_build_in_another_file_is_installed_again(tmp_path: Path) -> None:
    install(tmp_path, "a-b/same-1")
    install(tmp_path, "a-b/signed-1")
    tree = Union([tmp_path])
    stanzas = [stanza(f"a-b/{n}-1", SHA512="1", BUILD_TIME="5") for n in ("same", "signed", "new")]
    packages = {"a-b/same-1": "1", "a-b/signed-1": "0"}
    assert upgrade.changed_files(stanzas, packages, tree) == ["a-b/signed-1"]


def test_file_that_the_upgrade_deletes_is_lost(tmp_path: Path) -> None:
    """One that was never there is not; nor is one that is reached through another folder now."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    install(lower, "a-b/x-1", "/usr/share/a", "/usr/share/b", "/usr/lib64/c", "/usr/share/never")
    (lower / "usr/share/never").unlink()
    upper.mkdir()
    (upper / "usr/lib64").parent.mkdir()
    (upper / "usr/lib64").symlink_to("lib")
    (upper / "usr/lib").mkdir()
    (upper / "usr/lib/c").touch()
    stanzas = [stanza("a-b/x-1", BUILD_TIME="5")]
    before, after = Union([lower]), Union([upper, lower])
    assert upgrade.judge(stanzas, before, after) == []
    (upper / "usr/lib/c").unlink()
    (upper / "usr/share").symlink_to("nowhere")
    assert upgrade.judge(stanzas, before, Union([upper, lower])) == [
        FileLost("a-b/x-1", ("/usr/lib64/c", "/usr/share/a", "/usr/share/b"))
    ]


def test_libraries_that_this_upgrade_leaves_are_listed(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for root, paths in ((lower, ["/usr/lib/a.so.1"]), (upper, ["/usr/lib/a.so.1", "/lib/b.so.1"])):
        place = root / "var/lib/portage/preserved_libs_registry"
        place.parent.mkdir(parents=True)
        place.write_text(json.dumps({"a-b/x:0": ["a-b/x-1", "7", paths]}))
    before, after = Union([lower]), Union([upper, lower])
    assert upgrade.judge([], before, after) == [LibraryLeft("/lib/b.so.1")]
    assert upgrade.judge([], after, before) == []
    assert upgrade.judge([], Union([]), Union([tmp_path])) == []


@pytest.mark.parametrize("text", ["x", "[]", '{"a": 1}', '{"a": ["x", 1, [2]]}', "[" * 100_000])
def test_damaged_registry_is_an_error(tmp_path: Path, text: str) -> None:
    place = tmp_path / "var/lib/portage/preserved_libs_registry"
    place.parent.mkdir(parents=True)
    place.write_text(text)
    with refused(NotTrusted, "preserved-libraries-unreadable"):
        upgrade.preserved_libraries(Union([tmp_path]))
    place.unlink()
    place.symlink_to("/etc/passwd")
    with refused(NotTrusted, "preserved-libraries-unreadable"):
        upgrade.preserved_libraries(Union([tmp_path]))


def test_client_updates_and_every_package_is_named() -> None:
    words = upgrade.command(["a-b/y"], ["a-b/x-1"])
    assert words[0] == "emerge"
    assert {"--update", "--deep", "--newuse", "--usepkgonly", "--oneshot", "@world"} <= {*words}
    assert {"a-b/y", "=a-b/x-1"} <= {*words}
    assert "--emptytree" not in words
