"""The release gate, as far as it reads indexes and images, before it installs anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.domain import Package
from tasks.errors import NotTrusted
from tasks.publish import gate
from tasks.publish.gate import (
    Collision,
    ForbiddenPackage,
    Library,
    MissingPackage,
    MissingSoname,
    Violation,
)
from tests.kit.packages import PACKERS, gpkg, stanza, tar
from tests.kit.refused import refused


def test_package_in_no_index_is_missing() -> None:
    planned = [package("a-b/x-1", 1), package("a-b/y-1", 2)]
    assert gate.missing_packages(planned, [stanza("a-b/x-1"), stanza("a-b/y-1", 2)]) == []
    assert gate.missing_packages(planned, [stanza("a-b/x-1"), stanza("a-b/y-1", 1)]) == [
        MissingPackage("a-b/y-1", 2)
    ]
    assert len(gate.missing_packages(planned, [])) == 2


def package(cpv: str, build_id: int) -> Package:
    return Package(cpv, build_id, "0", "", "gentoo", f"{cpv}-{build_id}.gpkg.tar", 1, "a" * 128)


def test_soname_that_nothing_provides_is_listed() -> None:
    lib = stanza("a-b/lib-2", PROVIDES="x86_64: liba.so.2 libb.so.1 x86_32: liba.so.2")
    user = stanza("a-b/user-1", REQUIRES="x86_32: libb.so.1 x86_64: liba.so.2 libc.so.6")
    assert gate.missing_sonames([lib, user], [Library("", "libc.so.6")]) == [
        MissingSoname("a-b/user-1", "libb.so.1", "x86_32")
    ]
    assert gate.missing_sonames([lib, user], [Library("x86_32", "libb.so.1")]) == [
        MissingSoname("a-b/user-1", "libc.so.6", "x86_64")
    ]
    assert gate.missing_sonames([stanza("a-b/plain-1")], []) == []


def entry(seed: Path, cpv: str, slot: str, provides: str) -> None:
    place = seed / "var/db/pkg" / cpv
    place.mkdir(parents=True)
    for name, text in {"PF": cpv.split("/")[1], "SLOT": slot, "PROVIDES": provides}.items():
        (place / name).write_text(f"{text}\n")


def test_seed_provides_sonames_of_packages_that_the_set_does_not_replace(tmp_path: Path) -> None:
    entry(tmp_path, "s-l/glibc-2.39-r1", "2.2", "x86_64: libc.so.6")
    entry(tmp_path, "d-l/popt-1.16", "0/0", "x86_64: libpopt.so.0")
    entry(tmp_path, "d-l/slotted-1", "1", "x86_64: libslotted.so.1")
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "usr/lib/libstray.so.1").touch()  # owned by no package
    set_ = [stanza("d-l/popt-1.19", SLOT="0/1"), stanza("d-l/slotted-2", SLOT="2")]
    assert gate.seed_libraries(tmp_path, set_) == {
        Library("x86_64", "libc.so.6"),
        Library("x86_64", "libslotted.so.1"),
    }


def test_seed_without_package_database_provides_its_file_names(tmp_path: Path) -> None:
    for path in (
        "usr/lib/x86_64-linux-gnu/libc.so.6",
        "lib64/ld-linux.so.2",
        "usr/lib/notes.txt",
        "home/libother.so.1",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert gate.seed_libraries(tmp_path, []) == {
        Library("", "libc.so.6"),
        Library("", "ld-linux.so.2"),
    }


def test_paths_of_two_packages_collide_pair_by_pair() -> None:
    files = {
        "a-b/x-1": ["/usr/bin/x", "/usr/bin/tool", "/usr/lib/p/a.pyc", "/usr/share/x"],
        "a-b/y-1": ["/usr/bin/y", "/usr/bin/tool", "/usr/lib/p/a.pyc", "/usr/share/x"],
        "a-b/z-1": ["/usr/bin/z", "/usr/bin/tool", "/lib/modules/1/m.ko"],
        "a-b/w-1": ["/lib/modules/1/m.ko"],
    }
    collisions = gate.collisions(files)
    assert collisions == [
        Collision("a-b/x-1", "a-b/y-1", ("/usr/bin/tool", "/usr/share/x")),
        Collision("a-b/x-1", "a-b/z-1", ("/usr/bin/tool",)),
        Collision("a-b/y-1", "a-b/z-1", ("/usr/bin/tool",)),
    ]


def test_packages_that_block_each_other_may_share_files() -> None:
    stanzas = [
        stanza("a-b/x-1", RDEPEND="a-b/lib || ( !a-b/y !!<a-b/z-2 )"),
        stanza("a-b/y-1", SLOT="0/3"),
        stanza("a-b/z-1"),
    ]
    xy, xz, yz = (Collision(f"a-b/{a}-1", f"a-b/{b}-1", ("/f",)) for a, b in ("xy", "xz", "yz"))
    calls: list[list[dict[str, str]]] = []

    def ask(questions: list[dict[str, str]]) -> list[bool]:
        calls.append(questions)
        return [q["blocker"] == "!a-b/y" and q["cpv"] == "a-b/y-1" for q in questions]

    assert gate.without_blockers([xy, xz, yz], stanzas, ask) == [xz, yz]
    assert {"blocker": "!a-b/y", "cpv": "a-b/y-1", "slot": "0/3"} in calls[0]
    assert {"blocker": "!!<a-b/z-2", "cpv": "a-b/z-1", "slot": "0"} in calls[0]
    assert gate.without_blockers([yz], stanzas, ask) == [yz]  # nothing to ask
    assert len(calls) == 1


@pytest.mark.parametrize("suffix", PACKERS)
def test_package_lists_the_files_of_its_image(tmp_path: Path, suffix: str) -> None:
    from tasks.portage.gpkg import image_paths

    image = tar([("image/usr/bin/x", b"1"), ("image//usr/./share/../lib/y", b"2" * 70000)])
    members = [
        ("gpkg-1", b""),
        (f"metadata.tar{suffix}", b""),
        (f"image.tar{suffix}", PACKERS[suffix](image)),
    ]
    assert list(image_paths(gpkg(tmp_path / "x.gpkg.tar", members))) == ["/usr/bin/x", "/usr/lib/y"]
    broken = gpkg(tmp_path / "y.gpkg.tar", [(f"image.tar{suffix}", b"\x7f not so" * 100)])
    with refused(NotTrusted, "gpkg-damaged"):
        list(image_paths(broken))
    with refused(NotTrusted, "gpkg-damaged"):
        list(image_paths(gpkg(tmp_path / "z.gpkg.tar", [("gpkg-1", b"")])))


def test_refusal_shows_some_violations_of_each_kind_and_logs_all(tmp_path: Path) -> None:
    violations: list[Violation] = [MissingSoname("a-b/x-1", f"lib{n}.so", "") for n in range(7)]
    violations.append(ForbiddenPackage("a-b/x-1", "public"))
    lines = [str(violation) for violation in violations]
    log = tmp_path / "gate.log"
    error = gate.refusal("base", 3, violations, log)
    assert (error.code, error.fields["candidate"]) == ("candidate-refused", 3)
    assert error.fields["violations"] == lines
    assert error.fields["shown"] == [*lines[:5], "soname: and 2 more", lines[-1]]
    assert log.read_text().count("gate: soname: ") == 7
