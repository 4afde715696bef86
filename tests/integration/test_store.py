"""The store: additions are whole or nothing, older packages stay, damage is seen before use."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from tasks import clock
from tasks.builder.package_builds import build_of, causes_of
from tasks.errors import NotTrusted
from tasks.portage import index
from tasks.store.built import Built
from tasks.store.collect import collect_from_store, set_id
from tasks.store.store import Store, highest_builds
from tasks.system import tree_manifest
from tests.kit.files import names
from tests.kit.kills import killed_before
from tests.kit.packages import gpkg, parts
from tests.kit.refused import refused
from tests.kit.stored import CPV, Workshop, key, planned, workshop


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return workshop(tmp_path)


def files(store: Store, folder: str) -> list[str]:
    return names(store.layout.store / folder)


def test_added_package_is_there_and_intact(shop: Workshop) -> None:
    store, product = shop.store, shop.product()
    raw = product.package.read_bytes()
    assert store.lookup(key(1)) is None
    with clock.stopped_at(1_700_000_000.5):
        built = store.add(key(1), product)
    assert store.lookup(key(1)) == built
    assert (built.cpv, built.repo, built.build_id, built.key) == (CPV, "gentoo", 3, key(1))
    assert (built.built, built.seconds, built.size) == (1_700_000_000, 2.5, len(raw))
    assert store.verify_package(built).read_bytes() == raw
    layer = store.verify_layer(built.layer)
    assert (layer / "usr/bin/hello").stat().st_mode & 0o7777 == 0o4755
    assert (layer / "etc/link").readlink() == Path("../usr")
    assert product.layer is not None
    assert not product.layer.exists()
    assert files(store, "incoming") == []
    assert store.layout.store.stat().st_mode & 0o77 == 0
    assert store.lookup(key(2)) is None


def test_package_without_a_layer_is_added(shop: Workshop) -> None:
    built = shop.store.add(key(1), shop.product(layer=False))
    assert built.layer == ""
    assert shop.store.lookup(key(1)) == built


def test_equal_package_keeps_the_older_bytes(shop: Workshop) -> None:
    store = shop.store
    older = store.add(key(1), shop.product(build_id=3))
    bytes_ = store.verify_package(older).read_bytes()
    newer = shop.product(build_id=4)
    assert newer.package.read_bytes() != bytes_
    assert store.add(key(2), newer) == older
    assert store.lookup(key(2)) == store.lookup(key(1)) == older
    entry = store.read_entry(store.layout.store_entry(key(2)))
    assert entry is not None
    assert (entry.key, entry.cut_off) == (key(2), True)
    assert store.verify_package(older).read_bytes() == bytes_
    assert len(files(store, "packages")) == 1
    assert len(files(store, "layers")) == 3
    assert newer.layer is not None
    assert not newer.layer.exists()
    assert store.add(key(3), shop.product(build_id=5)) == older  # not the one of key 2


@pytest.mark.parametrize(
    "change",
    [
        {"content": b"other"},
        {"SLOT": "0/2"},
        {"KEYWORDS": "~amd64"},  # the same to other packages, not to clients
        {"pf": "hello-2.10-r2"},
        {"repository": "java"},
    ],
    ids=str,
)
def test_other_package_is_not_cut_off(shop: Workshop, change: dict[str, str]) -> None:
    store = shop.store
    older = store.add(key(1), shop.product(build_id=3))
    content = {"content": change.pop("content")} if "content" in change else {}
    newer = store.add(key(2), shop.product(build_id=4, **content, **change))  # type: ignore[arg-type]
    assert newer.build_id == 4
    assert newer.key == key(2)
    assert store.lookup(key(1)) == older
    assert (newer.identity == older.identity) == ("KEYWORDS" in change or "pf" in change)


def test_older_package_without_a_layer_does_not_stay_where_one_is_needed(shop: Workshop) -> None:
    shop.store.add(key(1), shop.product(layer=False))
    newer = shop.store.add(key(2), shop.product(build_id=4))
    assert newer.layer
    assert newer.build_id == 4
    assert shop.store.add(key(3), shop.product(build_id=5, layer=False)) == newer


def damage_package(store: Store, built: Built) -> None:
    path = store.layout.store_package(built.sha512)
    raw = bytearray(path.read_bytes())
    raw[700] ^= 1
    path.write_bytes(raw)


def damage_layer(store: Store, built: Built) -> None:
    path = store.layout.store_layer(built.layer) / "usr/bin/hello"
    status = path.stat()
    path.write_bytes(b"#!/bin/sH\n")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # the time is set back


@pytest.mark.parametrize("damage", [damage_package, damage_layer])
def test_damaged_older_package_does_not_stay(
    shop: Workshop, damage: Callable[[Store, Built], None]
) -> None:
    older = shop.store.add(key(1), shop.product())
    damage(shop.store, older)
    newer = shop.store.add(key(2), shop.product(build_id=4))
    assert newer.build_id == 4
    assert shop.store.add(key(3), shop.product(build_id=5)) == newer


def retarget(link: Path) -> None:
    link.unlink()
    link.symlink_to("x")


LAYER_DAMAGE: dict[str, Callable[[Path], object]] = {
    "content": lambda layer: (layer / "usr/bin/hello").write_bytes(b"#!/bin/sH\n"),
    "mode": lambda layer: (layer / "usr/bin/hello").chmod(0o755),
    "owner": lambda layer: os.chown(layer / "etc", 1, 1),
    "more": lambda layer: (layer / "etc/more").touch(),
    "less": lambda layer: (layer / "etc/link").unlink(),
    "link": lambda layer: retarget(layer / "etc/link"),
    "attribute of a file": lambda layer: os.setxattr(layer / "usr/bin/hello", "user.x", b"y"),
    "attribute of a folder": lambda layer: os.setxattr(layer / "usr", "trusted.x", b"y"),
    "opaque": lambda layer: os.setxattr(layer / "usr", "trusted.overlay.opaque", b"y"),
    "listing": lambda layer: layer.with_name(f"{layer.name}.listing").write_text("x"),
    "no listing": lambda layer: layer.with_name(f"{layer.name}.listing").unlink(),
    "other listing": lambda layer: tree_manifest.write(
        layer / "etc", layer.with_name(f"{layer.name}.listing")
    ),
}


@pytest.mark.usefixtures("needs_root")
def test_layers_with_other_attributes_are_two(shop: Workshop) -> None:
    first = shop.store.add(key(1), shop.product())
    product = shop.product(b"x", build_id=4)
    assert product.layer is not None
    (product.layer / "usr/bin/hello").write_bytes(b"#!/bin/sh\n")
    (product.layer / "var/db/pkg" / CPV / "BUILD_ID").write_text("3\n")
    os.setxattr(product.layer / "usr/bin", "trusted.overlay.opaque", b"y")
    second = shop.store.add(key(2), product)
    assert first.layer != second.layer
    for built in (first, second):
        shop.store.verify_layer(built.layer)


@pytest.mark.parametrize("how", LAYER_DAMAGE)
@pytest.mark.usefixtures("needs_root")
def test_changed_layer_is_refused(shop: Workshop, how: str) -> None:
    built = shop.store.add(key(1), shop.product())
    layer = shop.store.verify_layer(built.layer)
    LAYER_DAMAGE[how](layer)
    if "listing" in how:  # it is read with the layer, not on every use
        shop.store.layout.store_verified(built.layer).unlink()
    for _ in range(2):
        with refused(NotTrusted, "store-layer-changed", path=layer):
            shop.store.verify_layer(built.layer)


def test_unchanged_layer_is_read_once_and_after_a_copy(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = shop.store.add(key(1), shop.product())
    layer = shop.store.layout.store_layer(built.layer)
    reads: list[Path] = []
    real = tree_manifest.differences

    def recorded(root: Path, *rest: Any) -> Any:
        reads.append(root)
        return real(root, *rest)

    monkeypatch.setattr(tree_manifest, "differences", recorded)
    for _ in range(3):
        shop.store.verify_layer(built.layer)
    assert reads == []
    copy = layer.with_name("copy")
    subprocess.run(["cp", "-a", layer, copy], check=True)
    subprocess.run(["rm", "-r", layer], check=True)
    copy.rename(layer)
    for _ in range(3):
        shop.store.verify_layer(built.layer)
    assert reads == [layer]


def test_changed_package_is_refused(shop: Workshop) -> None:
    store = shop.store
    built = store.add(key(1), shop.product())
    path = store.layout.store_package(built.sha512)
    damage_package(store, built)
    assert store.lookup(key(1)) == built  # it is not read yet
    with refused(NotTrusted, "store-package-changed", package=CPV, path=path):
        store.verify_package(built)
    copy = path.with_name("copy")
    path.rename(copy)
    path.symlink_to(copy)
    with refused(NotTrusted, "store-package-changed"):
        store.verify_package(built)


def lose(path: Path) -> None:
    subprocess.run(["rm", "-r", path], check=True)


def test_entry_whose_files_are_lost_is_not_there(shop: Workshop) -> None:
    layout = shop.store.layout
    places: tuple[Callable[[Built], Path], ...] = (
        lambda built: layout.store_package(built.sha512),
        lambda built: layout.store_layer(built.layer),
        lambda built: layout.store_listing(built.layer),
        lambda built: layout.store_entry(built.key),
    )
    for number, place in enumerate(places):
        built = shop.store.add(key(number), shop.product(bytes([number])))
        lose(place(built))
        assert shop.store.lookup(key(number)) is None
        again = shop.store.add(key(number), shop.product(bytes([number])))
        assert shop.store.lookup(key(number)) == again
        shop.store.verify_layer(again.layer)
    cut = shop.store.add(key(9), shop.product(b"cut"))
    os.truncate(layout.store_package(cut.sha512), 100)
    assert shop.store.lookup(key(9)) is None


def test_damaged_entry_is_not_there_and_is_written_again(shop: Workshop) -> None:
    store = shop.store
    built = store.add(key(1), shop.product())
    path = store.layout.store_entry(key(1))
    good = json.loads(path.read_text())
    for change in (
        {"key": key(2)},
        {"more": 1},
        {"built": None},
        {"built": {**asdict(built), "build_id": "3"}},
        {"built": {**asdict(built), "build_id": 0}},
        {"built": {**asdict(built), "cpv": "../x-1"}},
        {"built": {**asdict(built), "sha512": "../../../etc/passwd"}},
        {"built": {**asdict(built), "layer": "../x"}},
        {"built": {**asdict(built), "more": 1}},
        {"built": {k: v for k, v in asdict(built).items() if k != "stanza"}},
    ):
        path.write_text(json.dumps({**good, **change}))
        assert store.lookup(key(1)) is None
    for raw in (b"", b"{", b"[]", b"\0" * 100, b"[" * 100_000, b" " * (5 << 20)):
        path.write_bytes(raw)
        assert store.lookup(key(1)) is None
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert store.lookup(key(1)) is None
    path.unlink()
    os.mkfifo(path)
    assert store.lookup(key(1)) is None
    assert store.add(key(1), shop.product(build_id=4)) == built
    assert store.lookup(key(1)) == built


@pytest.mark.parametrize(
    "wrong",
    [
        {"planned": planned("app-misc/hello-2.11")},
        {"planned": planned(repo="java")},
        {"planned": replace(planned(), restrict=("bindist",))},
        {"planned": replace(planned(), dependencies={"RDEPEND": "a/b"})},
        {"build_id": 4},
        {"stanza": ""},
        {"stanza": "CPV: x/y-1\n\n"},
    ],
    ids=str,
)
def test_package_that_is_not_the_planned_one_is_refused(
    shop: Workshop, wrong: dict[str, str]
) -> None:
    product = shop.product()
    with pytest.raises(NotTrusted) as caught:
        shop.store.add(key(1), replace(product, **wrong))  # type: ignore[arg-type]
    assert caught.value.code == ("stanza-differs" if "stanza" in wrong else "package-claims")
    assert shop.store.lookup(key(1)) is None
    assert files(shop.store, "packages") == files(shop.store, "layers") == []
    assert files(shop.store, "incoming") == []
    assert product.layer is not None
    assert product.layer.is_dir()


def test_stanza_with_a_second_package_is_refused(shop: Workshop) -> None:
    product = shop.product()
    with refused(NotTrusted, "stanza-differs"):
        shop.store.add(key(1), replace(product, stanza=product.stanza * 2))


@pytest.mark.parametrize("key_", ["RDEPEND", "USE", "RESTRICT", "KEYWORDS", "repository", "EAPI"])
def test_stanza_that_says_more_than_its_package_is_refused(shop: Workshop, key_: str) -> None:
    """Clients read the index; a build can write to that of its PKGDIR."""
    product = shop.product()
    stanza = f"{product.stanza.strip()}\n{key_}: evil\n\n"
    with refused(NotTrusted, "stanza-differs", package=CPV):
        shop.store.add(key(1), replace(product, stanza=stanza))


def test_damaged_package_is_refused(shop: Workshop) -> None:
    product = shop.product()
    gpkg(product.package, [*parts()[:2], ("image.tar.zst", b"junk")])
    with pytest.raises(NotTrusted):
        shop.store.add(key(1), product)
    assert shop.store.lookup(key(1)) is None


def test_killed_at_any_point_leaves_all_or_nothing(tmp_path: Path) -> None:
    """And the next run completes it, whatever the killed one has left."""
    moment, died = 0, True
    while died:
        moment += 1
        shop = workshop(tmp_path / str(moment))
        product = shop.product()
        died = killed_before(moment, lambda s=shop, p=product: s.store.add(key(1), p))  # type: ignore[misc]
        built = shop.store.lookup(key(1))
        assert died or built
        if built:
            shop.store.verify_package(built)
            shop.store.verify_layer(built.layer)
        again = shop.store.add(key(1), shop.product(build_id=4))
        assert shop.store.lookup(key(1)) == again
        assert built in (None, again)
        shop.store.verify_package(again)
        shop.store.verify_layer(again.layer)
        for path, _ in shop.store.leftovers((), oldest=0.0):
            lose(path)
        assert files(shop.store, "incoming") == []
        assert shop.store.lookup(key(1)) == again
        assert len(files(shop.store, "packages")) == 1
        assert len(files(shop.store, "layers")) == 3
    assert moment > 10


def test_killed_cut_off_at_any_point_keeps_the_older(tmp_path: Path) -> None:
    moment, died = 0, True
    while died:
        moment += 1
        shop = workshop(tmp_path / str(moment))
        older = shop.store.add(key(1), shop.product())
        product = shop.product(build_id=4)
        died = killed_before(moment, lambda s=shop, p=product: s.store.add(key(2), p))  # type: ignore[misc]
        assert shop.store.lookup(key(2)) in ({older, None} if died else {older})
        assert shop.store.lookup(key(1)) == older
        assert shop.store.add(key(2), shop.product(build_id=5)) == older


def test_equal_packages_added_at_once_become_one(shop: Workshop) -> None:
    results: list[Built] = []
    products = [shop.product(build_id=number) for number in range(1, 9)]
    start = threading.Barrier(len(products))

    def add(number: int) -> None:
        start.wait()
        results.append(shop.store.add(key(number), products[number]))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(len(products))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == len(products)
    assert len(set(results)) == 1
    assert {shop.store.lookup(key(number)) for number in range(8)} == set(results)
    shop.store.verify_layer(results[0].layer)


def test_processes_add_at_once(shop: Workshop) -> None:
    products = [shop.product(bytes([n // 2]), build_id=n + 1) for n in range(8)]
    children = []
    for number, product in enumerate(products):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                shop.store.add(key(number), product)
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * 8
    found = [shop.store.lookup(key(number)) for number in range(8)]
    assert len(set(found)) == 4
    for built in filter(None, found):
        shop.store.verify_package(built)
        shop.store.verify_layer(built.layer)


def test_build_numbers_are_never_given_twice(shop: Workshop) -> None:
    store = shop.store
    assert [store.next_build_id(CPV) for _ in range(3)] == [1, 2, 3]
    assert store.next_build_id(CPV, highest=7) == 8
    assert store.next_build_id(CPV, highest=2) == 9
    assert store.next_build_id("app-misc/hello-2.10") == 1
    given: list[int] = []
    threads = [
        threading.Thread(target=lambda: given.append(store.next_build_id(CPV))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(given) == list(range(10, 30))
    for number in ("10000", "9" * 200, "1e9", "0100"):
        (store.layout.store_numbers("app-misc", "hello-2.10-r1") / number).touch()
    assert store.next_build_id(CPV, highest=9_998) == 9_999
    for highest in (0, 9_999):
        with refused(NotTrusted, "build-numbers-used-up", package=CPV):
            store.next_build_id(CPV, highest)
    with refused(NotTrusted, "package-name-malformed"):
        store.next_build_id("../x-1")


def test_highest_builds_are_read_from_paths() -> None:
    paths = ["a/b/b-1-2.gpkg.tar", "a/b/b-1-11.gpkg.tar", "a/b/b-1-r1-3.gpkg.tar", "x", "a/b/c"]
    assert highest_builds(paths) == {"a/b-1": 11, "a/b-1-r1": 3}
    huge = [f"a/b/b-1-{number}.gpkg.tar" for number in ("10000", "999999999", "9" * 10_000)]
    assert highest_builds([*paths, *huge]) == {"a/b-1": 11, "a/b-1-r1": 3}


def test_own_inputs_are_those_of_the_newest_build_in_a_slot(shop: Workshop) -> None:
    store = shop.store
    assert store.last_inputs("base", CPV, "0") is None
    store.remember_inputs("base", CPV, "0", {"ebuild": "1"})
    store.remember_inputs("base", "app-misc/hello-3", "0", {"ebuild": "2"})
    store.remember_inputs("java", CPV, "0", {"ebuild": "3"})
    assert store.last_inputs("base", CPV, "0") == ("app-misc/hello-3", {"ebuild": "2"})
    assert store.last_inputs("java", "app-misc/hello-9", "0") == (CPV, {"ebuild": "3"})
    assert store.last_inputs("base", CPV, "1") is None
    for path in store.layout.store.rglob("*.json"):
        path.write_text("[")
    assert store.last_inputs("base", CPV, "0") is None


def test_leftovers_are_what_no_set_and_no_recent_run_needs(shop: Workshop) -> None:
    store, now = shop.store, 2_000_000_000.0
    needed = store.add(key(1), shop.product(b"1"))
    recent = store.add(key(2), shop.product(b"2"))
    old = store.add(key(3), shop.product(b"3"))
    for each in (needed, recent, old):
        store.keep_inputs(each, {"own": each.cpv})
    broken = store.layout.store_entry(key(4))
    broken.write_text("x")
    orphan = store.layout.store_package("f" * 128)
    orphan.touch()
    store.layout.store_entry(key(1)).with_name(".x.tmp").touch()
    for number in (1, 2, 3):
        os.utime(store.layout.store_entry(key(number)), (now - 99, now - 99))
    with clock.stopped_at(now):
        store.mark_used([key(2), key(7)])
    leftovers = dict(store.leftovers({needed.sha512}, oldest=now - 50))
    own = store.paths([old])
    assert len(own) == 6
    assert leftovers == {
        store.layout.store_entry(key(3)): "leftover-store-entry",
        broken: "leftover-store-damaged",
        orphan: "leftover-store-file",
        broken.with_name(".x.tmp"): "leftover-store-file",
        **dict.fromkeys(own, "leftover-store-file"),
    }
    for path in leftovers:
        lose(path)
    assert store.lookup(key(1)) == needed
    assert store.lookup(key(2)) == recent
    assert dict(store.leftovers({needed.sha512}, oldest=now - 50)) == {}


def test_inputs_of_a_package_are_those_of_its_own_build(shop: Workshop) -> None:
    built = shop.store.add(key(1), shop.product())
    assert shop.store.inputs_of(built.sha512) is None
    shop.store.keep_inputs(built, {"own": "first", "causes": ["its ebuild changed"]})
    shop.store.keep_inputs(built, {"own": "of a build that came out equal"})
    assert shop.store.inputs_of(built.sha512) == {
        "own": "first",
        "causes": ["its ebuild changed"],
    }
    assert causes_of(shop.store, built.sha512) == ("its ebuild changed",)
    assert build_of(shop.store, built.sha512) is None  # half of them
    for damaged in (b"{", b"[]", b'{"causes": 3}', b"[" * 100_000):
        shop.store.layout.store_inputs(built.sha512).write_bytes(damaged)
        assert causes_of(shop.store, built.sha512) == ()
    assert shop.store.inputs_of("../../x") is None


HEADER = {"ARCH": "amd64", "GENTOO_MIRRORS": "http://me:sesame@x", "PACKAGES": "9"}


def test_set_is_made_of_packages_of_the_store(shop: Workshop, tmp_path: Path) -> None:
    store, sets = shop.store, tmp_path / "state/sets/base"
    hello = store.add(key(1), shop.product())
    alpha = store.add(key(2), shop.product(pf="alpha-1", SLOT="0/5"))
    members = [(planned(), hello), (planned("app-misc/alpha-1", sub="5"), alpha)]
    packages = collect_from_store(store, members, HEADER, sets)
    assert [package.cpv for package in packages] == ["app-misc/alpha-1", CPV]
    assert (packages[0].slot, packages[1].use) == ("0/5", "amd64 nls")
    assert packages[1].sha512 == hello.sha512
    folder = sets / set_id(packages)
    assert names(sets) == [folder.name]
    stored = store.layout.store_package(hello.sha512)
    assert (folder / packages[1].path).samefile(stored)
    text = (folder / "Packages").read_text()
    assert text == f"ARCH: amd64\nPACKAGES: 2\n\n{alpha.stanza}{hello.stanza}"
    header, *stanzas = index.read(folder / "Packages")
    assert header == {"ARCH": "amd64", "PACKAGES": "2"}
    assert set(index.of_set(stanzas, packages)) == {package.path for package in packages}
    assert collect_from_store(store, members[::-1], HEADER, sets) == packages
    assert names(sets) == [folder.name]


def test_package_that_changed_is_in_no_set(shop: Workshop, tmp_path: Path) -> None:
    store, sets = shop.store, tmp_path / "state/sets/base"
    built = store.add(key(1), shop.product())
    damage_package(store, built)
    with refused(NotTrusted, "store-package-changed"):
        collect_from_store(store, [(planned(), built)], HEADER, sets)
    assert names(sets) == []


@pytest.mark.parametrize(
    "wrong",
    [
        planned("app-misc/hello-2.11"),
        planned("app-misc/other-2.10-r1"),
        planned(repo="java"),
        planned(slot="1"),
        planned(sub="5"),
    ],
    ids=lambda each: f"{each.cpv} {each.repo} {each.slot}/{each.sub_slot}",
)
def test_package_that_is_not_in_the_plan_is_in_no_set(
    shop: Workshop, tmp_path: Path, wrong: object
) -> None:
    built = shop.store.add(key(1), shop.product())
    sets = tmp_path / "state/sets/base"
    with refused(NotTrusted, "package-claims"):
        collect_from_store(shop.store, [(wrong, built)], HEADER, sets)  # type: ignore[list-item]
    assert names(sets) == []


def test_set_killed_at_any_point_is_made_by_the_next_run(shop: Workshop, tmp_path: Path) -> None:
    store, sets = shop.store, tmp_path / "state/sets/base"
    member = (planned(), store.add(key(1), shop.product()))
    moment, died = 0, True
    while died:
        moment += 1
        died = killed_before(moment, lambda: collect_from_store(store, [member], HEADER, sets))
        (package,) = collect_from_store(store, [member], HEADER, sets)
        assert names(sets) == [set_id([package])]
        store.verify_package(member[1])
    assert moment > 5
