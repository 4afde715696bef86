"""Two generations compared: each package in the right list, and the causes of rebuilds."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tasks.publish.diff import PackageChange, Side, as_json, compare, text
from tests.kit.packages import stanza

Stanza = dict[str, str]


def side(number: int, *stanzas: Stanza, commit: str = "a" * 40) -> Side:
    return Side(number, stanzas, {"gentoo": commit})


def only(*changes: PackageChange) -> PackageChange:
    assert len(changes) == 1
    return changes[0]


def test_equal_generations_have_no_changes() -> None:
    one = side(1, stanza("a-b/x-1"))
    difference = compare(one, side(2, stanza("a-b/x-1")))
    assert (difference.packages, difference.same, difference.revisions) == (1, 1, {})
    assert not (
        difference.new
        or difference.gone
        or difference.bumped
        or difference.rebuilt
        or difference.resigned
    )
    assert text(difference, "base") == "base generation 1 -> 2: 1 package, 1 unchanged; 1 kB"


def test_added_removed_and_bumped_packages() -> None:
    difference = compare(
        side(1, stanza("a-b/old-1"), stanza("a-b/x-1.2_p3-r1"), stanza("a-b/x-9-y-1")),
        side(2, stanza("a-b/new-1"), stanza("a-b/x-1.10", SIZE="2500"), stanza("a-b/x-9-y-1")),
    )
    assert only(*difference.new).name == "a-b/new"
    assert only(*difference.gone).name == "a-b/old"
    bumped = only(*difference.bumped)
    assert (bumped.name, bumped.before, bumped.after) == ("a-b/x", "1.2_p3-r1", "1.10")
    assert difference.same == 1
    assert text(difference, "base").splitlines() == [
        "base generation 1 -> 2: 3 packages, 1 new, 1 gone, 1 bumped, 1 unchanged; 3 kB -> 4 kB",
        "",
        "new (1)",
        "  a-b/new 1, 1 kB",
        "",
        "gone (1)",
        "  a-b/old 1, 1 kB",
        "",
        "bumped (1)",
        "  a-b/x 1.2_p3-r1 -> 1.10, 1 kB -> 2 kB",
    ]


def test_slots_are_compared_separately() -> None:
    two = stanza("d/py-3.11", SLOT="3.11"), stanza("d/py-3.12", SLOT="3.12/1")
    difference = compare(side(1, *two), side(2, two[1], stanza("d/py-3.11.9", SLOT="3.11")))
    assert (only(*difference.bumped).slot, difference.same) == ("3.11", 1)
    assert "d/py:3.11 3.11 -> 3.11.9" in text(difference, "x")
    # one on each side has moved its slot; a third one beside it is new
    difference = compare(side(1, two[0]), side(2, two[1]))
    assert only(*difference.bumped).before == "3.11"
    difference = compare(side(1, two[0]), side(2, two[1], stanza("d/py-3.13", SLOT="3.13")))
    assert (len(difference.new), len(difference.gone)) == (2, 1)


def test_causes_of_a_rebuild() -> None:
    lib, user = "a-b/lib-1", "a-b/user-1"
    needs = {"RDEPEND": ">=a-b/lib-1.0:0/1= || ( a-b/p a-b/q )"}

    def why(before: Stanza, after: Stanza) -> tuple[str, ...]:
        difference = compare(side(1, before), side(2, after))
        return only(*difference.rebuilt).why

    use = {"IUSE": "nls +ssl", "USE": "amd64 nls"}
    assert why(stanza(user, 1, use), stanza(user, 2, IUSE="nls ssl", USE="ssl x86")) == (
        "USE +ssl -nls",
    )
    assert why(stanza(user, 1, needs), stanza(user, 2, RDEPEND="a-b/lib:0/2=")) == (
        "dependencies +a-b/lib:0/2= ->=a-b/lib-1.0:0/1= -a-b/p -a-b/q",
    )
    assert why(stanza(user), stanza(user, 2, COMMIT="b" * 40)) == ("new commit of gentoo",)
    assert why(stanza(user), stanza(user, 2)) == ()
    assert why(stanza(user, ETC=""), stanza(user, 2, ETC="two")) == ()
    difference = compare(
        side(1, stanza(lib), stanza(user, 1, needs)),
        side(2, stanza(lib, 2, ETC="two"), stanza(user, 2, needs, ETC="two")),
    )
    assert [(p.name, p.why) for p in difference.rebuilt] == [
        ("a-b/lib", ("other /etc/portage",)),
        ("a-b/user", ("change of a-b/lib", "other /etc/portage")),
    ]
    blocked = {"RDEPEND": "!<a-b/lib-1 !!a-b/lib"}
    difference = compare(
        side(1, stanza(lib), stanza(user, 1, blocked)),
        side(2, stanza("a-b/lib-2"), stanza(user, 2, blocked)),
    )
    assert only(*difference.rebuilt).why == ()


def test_known_causes_replace_those_of_the_indexes() -> None:
    def causes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str] | None:
        known = {("1", "2"): ["its ebuild changed"], ("3", "4"): []}
        return known.get((before["UNSIGNED"], after["UNSIGNED"]))

    needs = {"RDEPEND": "a-b/x"}
    old = [stanza("a-b/x-1", UNSIGNED="1"), stanza("a-b/y-1", UNSIGNED="3")]
    new = [stanza("a-b/x-1", 2, UNSIGNED="2"), stanza("a-b/y-2", UNSIGNED="4")]
    difference = compare(
        side(1, *old, stanza("a-b/z-1", 1, needs, UNSIGNED="")),
        side(2, *new, stanza("a-b/z-1", 2, needs, UNSIGNED="")),
        causes,
    )
    assert [(each.name, each.why) for each in difference.rebuilt] == [
        ("a-b/x", ("its ebuild changed",)),
        ("a-b/z", ("change of a-b/x",)),
    ]
    assert only(*difference.bumped).why == ()
    assert "  a-b/x 1 (build 1 -> 2), cause: its ebuild changed" in text(difference, "base")


def test_changes_of_sonames_licences_and_signatures() -> None:
    difference = compare(
        side(
            1,
            stanza("a-b/x-1", PROVIDES="x86_64: libx.so.1 liby.so.1", LICENSE="MIT"),
            stanza("a-b/s-1"),
        ),
        side(
            2,
            stanza("a-b/x-2", PROVIDES="x86_64: libx.so.2 liby.so.1 x86_32: libx.so.2"),
            stanza("a-b/s-1", SIZE="1001", SHA1="other"),
        ),
    )
    bumped = only(*difference.bumped)
    assert bumped.sonames == ("+libx.so.2", "-libx.so.1")
    assert bumped.licence == ("MIT", "")
    assert only(*difference.resigned).name == "a-b/s"
    printed = text(difference, "base")
    assert "a-b/x 1 -> 2, sonames +libx.so.2 -libx.so.1, licence MIT -> none" in printed


def test_difference_as_json() -> None:
    old, new = (
        side(1, stanza("a-b/x-1")),
        side(3, stanza("a-b/x-1", 2, COMMIT="b" * 40), commit="b" * 40),
    )
    plain = as_json(compare(old, new))
    assert json.loads(json.dumps(plain)) == plain
    assert plain["revisions"] == {"gentoo": ["a" * 40, "b" * 40]}
    assert plain["rebuilt"] == [
        {
            "name": "a-b/x",
            "slot": "0",
            "before": "1",
            "after": "1",
            "builds": ["1", "2"],
            "use": [],
            "sonames": [],
            "licence": None,
            "sizes": [1000, 1000],
            "why": ["new commit of gentoo"],
        }
    ]
    assert (plain["since"], plain["until"], plain["sizes"]) == (1, 3, [1000, 1000])


def test_sizes_have_units() -> None:
    def size_text(size: int) -> str:
        difference = compare(side(1), side(2, stanza("a-b/x-1", SIZE=str(size))))
        return text(difference, "b").splitlines()[0].rsplit("-> ", 1)[1]

    assert [size_text(n) for n in (999, 1000, 999_999, 1_000_000, 71_250_000, 2 * 10**12)] == [
        "999 B",
        "1 kB",
        "1000 kB",
        "1.0 MB",
        "71.2 MB",
        "2000.0 GB",
    ]
