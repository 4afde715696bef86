"""Install roots: layers that are added, compared with their listings, and deleted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.errors import BinmillError
from tasks.publish import install_root
from tasks.publish.install_root import InstallRoot
from tests.kit.refused import refused

ROOT = InstallRoot("a" * 128, "b" * 64, 1, {"a-b/x-1": "c" * 128})


def kept(tmp_path: Path, root: InstallRoot, **files: str) -> InstallRoot:
    """The install root after files were added on top of another one."""
    upper = tmp_path / "upper"
    for name, text in files.items():
        (upper / name).parent.mkdir(parents=True, exist_ok=True)
        (upper / name).write_text(text)
    install_root.keep(tmp_path / "root", root, upper, tmp_path / "trash")
    new_root = install_root.read(tmp_path / "root")
    assert new_root is not None
    return new_root


def test_each_upgrade_adds_a_layer_and_changes_none(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    assert install_root.read(folder) is None
    first = kept(tmp_path, ROOT, one="1")
    assert (first.upgrades, replace(first, layers=())) == (0, ROOT)
    second = kept(tmp_path, replace(first, generation=2), one="2", two="2")
    assert second.upgrades == 1
    assert second.layers[1:] == first.layers
    top, bottom = second.paths(folder)
    assert ((top / "one").read_text(), (bottom / "one").read_text()) == ("2", "1")
    assert not list(install_root.flaws(folder, second))
    assert folder.stat().st_mode & 0o777 == 0o700


def test_fresh_root_replaces_the_old_layers_and_what_a_killed_run_left(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    kept(tmp_path, ROOT, one="1")
    (folder / ("d" * 32)).mkdir()
    fresh = kept(tmp_path, ROOT, one="other")
    assert {path.name for path in folder.iterdir()} == {
        install_root.RECORD,
        fresh.layers[0],
        f"{fresh.layers[0]}.listing",
    }
    assert install_root.unnamed(folder, fresh) == []


def test_lists_of_packages_that_left_are_not_kept(tmp_path: Path) -> None:
    folder = tmp_path / "root"
    lists = folder / install_root.CONTENTS
    lists.mkdir(parents=True)
    old, new = (lists / (letter * 128) for letter in "ab")
    old.touch()
    new.touch()
    assert install_root.unnamed(folder, None) == [lists]
    packages = {"a-b/x-1": old.name, "a-b/y-1": new.name}
    root = kept(tmp_path, replace(ROOT, packages=packages), one="1")
    assert (old.exists(), new.exists()) == (True, True)
    after = replace(root, packages={"a-b/x-1": new.name})
    assert install_root.unnamed(folder, after) == [old]
    kept(tmp_path, after, two="2")
    assert (old.exists(), new.exists()) == (False, True)


def test_caches_and_logs_are_not_kept_and_no_link_is_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside/cache"
    outside.mkdir(parents=True)
    folder = tmp_path / "root"
    root = kept(tmp_path, ROOT, **{"var/cache/binpkgs/x": "1", "var/log/y": "1", "var/lib/z": "1"})
    assert [path.name for path in (folder / root.layers[0] / "var").iterdir()] == ["lib"]
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/var").symlink_to(outside.parent)
    kept(tmp_path, ROOT)
    assert outside.is_dir()


def test_damage_of_a_layer_or_its_listing_is_found(tmp_path: Path) -> None:
    folder, root = tmp_path / "root", kept(tmp_path, ROOT, one="1", two="2")
    (layer,) = root.paths(folder)
    (layer / "one").write_text("other")
    (layer / "three").touch()
    (layer / "two").unlink()
    assert sorted(install_root.flaws(folder, root)) == [
        "/one: other content",
        "/three does not belong there",
        "/two is missing",
    ]
    listing = folder / f"{layer.name}.listing"
    listing.write_text(listing.read_text().replace("one", "uno"))
    assert len(list(install_root.flaws(folder, root))) == 1
    text = listing.read_text()
    listing.write_text("0" * 64 + text[64:])
    assert list(install_root.flaws(folder, root)) == [
        f"{listing.name} is the listing of another layer"
    ]
    listing.unlink()
    assert len(list(install_root.flaws(folder, root))) == 1


@pytest.mark.parametrize(
    "change",
    [{"layers": []}, {"layers": ["../" + "a" * 29]}, {"generation": "1"}, {"seed": None}],
)
def test_damaged_record_is_an_error(tmp_path: Path, change: dict[str, object]) -> None:
    folder = tmp_path / "root"
    kept(tmp_path, ROOT, one="1")
    record = folder / install_root.RECORD
    record.write_text(json.dumps({**json.loads(record.read_text()), **change}))
    with refused(BinmillError, "install-root-unreadable"):
        install_root.read(folder)
