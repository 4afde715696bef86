"""Two generations compared: each package in the right list, and why it was built again."""

from __future__ import annotations

import json

from tasks.publish.diff import Package, Released, as_json, compare, text
from tests.kit.packages import stanza

Stanza = dict[str, str]


def released(number: int, *stanzas: Stanza, commit: str = "a" * 40) -> Released:
    return Released(number, stanzas, {"gentoo": commit})


def only(*found: Package) -> Package:
    assert len(found) == 1
    return found[0]


def test_nothing_differs() -> None:
    one = released(1, stanza("a-b/x-1"))
    found = compare(one, released(2, stanza("a-b/x-1")))
    assert (found.packages, found.same, found.revisions) == (1, 1, {})
    assert not (found.new or found.gone or found.bumped or found.rebuilt or found.resigned)
    assert text(found, "base") == "base generation 1 -> 2: 1 packages, 1 the same; 1 kB"


def test_new_gone_bumped() -> None:
    found = compare(
        released(1, stanza("a-b/old-1"), stanza("a-b/x-1.2_p3-r1"), stanza("a-b/x-9-y-1")),
        released(2, stanza("a-b/new-1"), stanza("a-b/x-1.10", SIZE="2500"), stanza("a-b/x-9-y-1")),
    )
    assert only(*found.new).name == "a-b/new"
    assert only(*found.gone).name == "a-b/old"
    bumped = only(*found.bumped)
    assert (bumped.name, bumped.before, bumped.after) == ("a-b/x", "1.2_p3-r1", "1.10")
    assert found.same == 1
    assert text(found, "base").splitlines() == [
        "base generation 1 -> 2: 3 packages, 1 new, 1 gone, 1 bumped, 1 the same; 3 kB -> 4 kB",
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


def test_slots_are_told_apart() -> None:
    two = stanza("d/py-3.11", SLOT="3.11"), stanza("d/py-3.12", SLOT="3.12/1")
    found = compare(released(1, *two), released(2, two[1], stanza("d/py-3.11.9", SLOT="3.11")))
    assert (only(*found.bumped).slot, found.same) == ("3.11", 1)
    assert "d/py:3.11 3.11 -> 3.11.9" in text(found, "x")
    # the only one of both sides has moved; a third one beside it is new
    found = compare(released(1, two[0]), released(2, two[1]))
    assert only(*found.bumped).before == "3.11"
    found = compare(released(1, two[0]), released(2, two[1], stanza("d/py-3.13", SLOT="3.13")))
    assert (len(found.new), len(found.gone)) == (2, 1)


def test_why_it_was_built_again() -> None:
    lib, user = "a-b/lib-1", "a-b/user-1"
    needs = {"RDEPEND": ">=a-b/lib-1.0:0/1= || ( a-b/p a-b/q )"}

    def why(before: Stanza, after: Stanza) -> tuple[str, ...]:
        found = compare(released(1, before), released(2, after))
        return only(*found.rebuilt).why

    use = {"IUSE": "nls +ssl", "USE": "amd64 nls"}
    assert why(stanza(user, 1, use), stanza(user, 2, IUSE="nls ssl", USE="ssl x86")) == (
        "USE +ssl -nls",
    )
    assert why(stanza(user, 1, needs), stanza(user, 2, RDEPEND="a-b/lib:0/2=")) == (
        "its dependencies: +a-b/lib:0/2= ->=a-b/lib-1.0:0/1= -a-b/p -a-b/q",
    )
    assert why(stanza(user), stanza(user, 2, COMMIT="b" * 40)) == ("the commit of gentoo",)
    assert why(stanza(user), stanza(user, 2)) == ("built again with the same words",)
    assert why(stanza(user, ETC=""), stanza(user, 2, ETC="two")) == (
        "built again with the same words",
    )
    found = compare(
        released(1, stanza(lib), stanza(user, 1, needs)),
        released(2, stanza(lib, 2, ETC="two"), stanza(user, 2, needs, ETC="two")),
    )
    assert [(p.name, p.why) for p in found.rebuilt] == [
        ("a-b/lib", ("the config",)),
        ("a-b/user", ("changed below it: a-b/lib", "the config")),
    ]
    blocked = {"RDEPEND": "!<a-b/lib-1 !!a-b/lib"}
    found = compare(
        released(1, stanza(lib), stanza(user, 1, blocked)),
        released(2, stanza("a-b/lib-2"), stanza(user, 2, blocked)),
    )
    assert only(*found.rebuilt).why == ("built again with the same words",)


def test_sonames_licences_and_signatures() -> None:
    found = compare(
        released(
            1,
            stanza("a-b/x-1", PROVIDES="x86_64: libx.so.1 liby.so.1", LICENSE="MIT"),
            stanza("a-b/s-1"),
        ),
        released(
            2,
            stanza("a-b/x-2", PROVIDES="x86_64: libx.so.2 liby.so.1 x86_32: libx.so.2"),
            stanza("a-b/s-1", SIZE="1001", SHA1="other"),
        ),
    )
    bumped = only(*found.bumped)
    assert bumped.sonames == ("+libx.so.2", "-libx.so.1")
    assert bumped.licence == ("MIT", "")
    assert only(*found.resigned).name == "a-b/s"
    told = text(found, "base")
    assert "a-b/x 1 -> 2, sonames +libx.so.2 -libx.so.1, licence MIT -> none" in told


def test_as_json() -> None:
    old, new = (
        released(1, stanza("a-b/x-1")),
        released(3, stanza("a-b/x-1", 2, COMMIT="b" * 40), commit="b" * 40),
    )
    told = as_json(compare(old, new))
    assert json.loads(json.dumps(told)) == told
    assert told["revisions"] == {"gentoo": ["a" * 40, "b" * 40]}
    assert told["rebuilt"] == [
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
            "why": ["the commit of gentoo"],
        }
    ]
    assert (told["since"], told["until"], told["sizes"]) == (1, 3, [1000, 1000])


def test_sizes_are_told_in_units() -> None:
    def told(size: int) -> str:
        found = compare(released(1), released(2, stanza("a-b/x-1", SIZE=str(size))))
        return text(found, "b").splitlines()[0].rsplit("-> ", 1)[1]

    assert [told(n) for n in (999, 1000, 999_999, 1_000_000, 71_250_000, 2 * 10**12)] == [
        "999 B",
        "1 kB",
        "1000 kB",
        "1.0 MB",
        "71.2 MB",
        "2000.0 GB",
    ]
