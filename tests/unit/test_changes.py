"""Two days compared: how it is sorted, told and picked. What git says is made up here."""

from __future__ import annotations

import json
from dataclasses import fields
from itertools import pairwise

import pytest

from tasks.errors import BinmillError, Stale
from tasks.snapshot.changes import Changes, Package, as_json, compared, order, pick, text

DAYS = ["20261117", "20261119", "20261120"]
IN_ORDER = [  # 1.001.1: what begins with a zero loses its last zeros, and then is compared as text
    "0",
    "0.01",
    "0.02",
    "0.1",
    "0.2",
    "0.10",
    "1_alpha",
    "1_alpha1_beta",
    "1_alpha1",
    "1_alpha2",
    "1_alpha10",
    "1_beta",
    "1_pre",
    "1_rc1",
    "1_rc1_p1",
    "1_rc2",
    "1",
    "1-r1",
    "1-r2",
    "1-r10",
    "1_p",
    "1_p1",
    "1_p20200101",
    "1a",
    "1b",
    "1.0",
    "1.0.1",
    "1.00.2",
    "1.001.1",
    "1.01",
    "1.1_rc1-r5",
    "1.1",
    "1.9",
    "1.10",
    "2",
    "10",
    "20261119",
    "9" * 5000,
    "1" + "0" * 5000,
]


def differ(*lines: str, listed: str = "") -> Changes:
    """Lines as `A path`; `listed` are the paths of the older day."""
    letters = [(line[0], line[2:]) for line in lines]
    return compared("20261119", "20261120", letters, listed.split())


def lists(found: Changes) -> dict[str, object]:
    """What is in which list, the empty ones left out."""
    named = {f.name: getattr(found, f.name) for f in fields(found)}
    return {
        kind: [p.name for p in value] if isinstance(value, tuple) else value
        for kind, value in named.items()
        if value and kind not in ("since", "until", "files")
    }


def test_versions_sort_as_pms_says() -> None:
    assert all(order(one) < order(other) for one, other in pairwise(IN_ORDER))
    assert sorted(sorted(IN_ORDER), key=order) == IN_ORDER


@pytest.mark.parametrize(
    ("lines", "listed", "wanted"),
    [
        (["A a-b/c/c-1.ebuild", "A a-b/c/Manifest"], "", {"new": ["a-b/c"]}),
        (["D a-b/c/c-1.ebuild"], "a-b/c/c-1.ebuild", {"gone": ["a-b/c"]}),
        (["A a-b/c/c-2.ebuild"], "a-b/c/c-1.ebuild", {"bumped": ["a-b/c"]}),
        (
            ["A a-b/c/c-2.ebuild", "D a-b/c/c-1.ebuild", "M a-b/c/Manifest"],
            "a-b/c/c-1.ebuild",
            {"bumped": ["a-b/c"]},
        ),
        (["D a-b/c/c-1.ebuild"], "a-b/c/c-1.ebuild a-b/c/c-2.ebuild", {"trimmed": ["a-b/c"]}),
        (["M a-b/c/c-1.ebuild", "M a-b/c/Manifest"], "a-b/c/c-1.ebuild", {"changed": ["a-b/c"]}),
        (["T a-b/c/c-1.ebuild"], "a-b/c/c-1.ebuild", {"changed": ["a-b/c"]}),
        (["A a-b/c/files/c-1.patch"], "a-b/c/c-1.ebuild", {"touched": ["a-b/c"]}),
        (["M a-b/c/metadata.xml"], "a-b/c/c-1.ebuild", {"touched": ["a-b/c"]}),
        (["D a-b/c/Manifest"], "", {"touched": ["a-b/c"]}),
        # the name of the folder says where the version begins
        (["A a/c-d/c-d-1.ebuild"], "a/c-d/c-d-0.ebuild a/c/c-1.ebuild", {"bumped": ["a/c-d"]}),
        (["A x/p+/p+-1_p2-r3.ebuild"], "", {"new": ["x/p+"]}),
        (
            ["M eclass/x.eclass", "A eclass/y.eclass", "D eclass/tests/z.sh"],
            "",
            {"eclasses": {"x": "changed", "y": "new"}, "other": {"eclass/tests/z.sh": "gone"}},
        ),
        (
            ["M profiles/arch/amd64/package.mask", "M profiles/use.local.desc"],
            "",
            {"profiles": {"arch/amd64/package.mask": "changed"}, "derived": 1},
        ),
        (["D licenses/Z", "A licenses/MIT"], "", {"licenses": {"MIT": "new", "Z": "gone"}}),
        (
            [
                "A metadata/news/2026-11-20-x/2026-11-20-x.en.txt",
                "A metadata/news/2026-11-20-x/2026-11-20-x.de.txt",
                "A metadata/news/old/old.de.txt",
                "M metadata/news/old/old.en.txt",
                "D metadata/news/older/older.de.txt",
            ],
            "",
            {"news": {"2026-11-20-x": "new", "old": "changed", "older": "gone"}},
        ),
        (
            ["A metadata/glsa/glsa-202611-01.xml", "M metadata/glsa/Manifest"],
            "",
            {"glsa": {"glsa-202611-01": "new"}, "derived": 1},
        ),
        (
            [
                "M metadata/md5-cache/a-b/c-1",
                "D metadata/md5-cache/a-b/c-0",
                "M Manifest",
                "M Manifest.files.gz",
                "M a-b/Manifest.gz",
                "M metadata/news/timestamp.chk",
                "M metadata/md5-cache/Manifest.gz",
                "M metadata/timestamp.x",
            ],
            "",
            {"derived": 8},
        ),
        (
            [
                "M metadata/layout.conf",
                "M header.txt",
                "A a-b/metadata.xml",
                "A scripts/a/a-1.ebuild",
            ],
            "",
            {
                "other": {
                    "a-b/metadata.xml": "new",
                    "header.txt": "changed",
                    "metadata/layout.conf": "changed",
                    "scripts/a/a-1.ebuild": "new",
                }
            },
        ),
        ([], "a-b/c/c-1.ebuild", {}),
    ],
)
def test_each_in_its_list(lines: list[str], listed: str, wanted: dict[str, object]) -> None:
    found = differ(*lines, listed=listed)
    assert lists(found) == wanted
    assert found.files == len(lines)


def test_what_is_known_of_a_package() -> None:
    listed = "a/p/p-2.ebuild a/p/p-10.ebuild a/p/p-1.ebuild a/p/files/p-3.ebuild a/q/q-7.ebuild"
    found = differ("D a/p/p-1.ebuild", "A a/p/p-11.ebuild", "M a/p/p-2.ebuild", listed=listed)
    assert found.bumped == (Package("a/p", ("1", "2", "10"), ("2", "10", "11"), ("2",)),)
    assert found.bumped[0].added == ["11"]
    assert found.bumped[0].removed == ["1"]


@pytest.mark.parametrize(
    "path",
    [
        "a/p/p-x.ebuild",
        "a/p/q-1.ebuild",
        "a/p/p-1.ebuild~",
        "a/p/p-.ebuild",
        "a/p/-1.ebuild",
        "a/p/p-1.ebuild/x",
        "a/p/p-1-r.ebuild",
        "a/p/p-1_foo.ebuild",
        "a/p/p-1.ebuild\n",
        "a/p/p-1.ebuild.ebuild",
        "a/p/p-\u0661.ebuild",
        "a/p/p.ebuild",
        "a/p/p-1.EBUILD",
    ],
)
def test_what_is_no_ebuild(path: str) -> None:
    assert lists(differ(f"A {path}")) == {"touched": ["a/p"]}


@pytest.mark.parametrize(
    "path",
    [
        "\x1b[2Ja/b/b-1.ebuild",
        "a\nb/c/c-1.ebuild",
        "-a/b/b-1.ebuild",
        "a/b c/b-1.ebuild",
        ".x/y/z",
        "a/\u202eb/b-1.ebuild",
        "\udcff/b/b-1.ebuild",
        "\u0430/b/b-1.ebuild",
        "eclass/\r.eclass",
        "profiles/a\n20 packages gone",
        "licenses/\x9b31m",
        "metadata/news/\x07/x",
        "\x00",
        "metadata/glsa/glsa-\b.xml",
    ],
)
def test_odd_names_cannot_write_on_the_terminal(path: str) -> None:
    found = differ(f"A {path}")
    for rows in (None, 9):
        said = text(found, rows=rows)
        assert said.isascii()
        assert all(line.isprintable() for line in said.splitlines())
        assert len(said.splitlines()) == 4
    assert json.loads(json.dumps(as_json(found), ensure_ascii=False).encode()) == as_json(found)


def story(listed: str, *lines: str) -> str:
    """What is told of a/p, whose versions were `listed`."""
    paths = " ".join(f"a/p/p-{version}.ebuild" for version in listed.split())
    edits = [f"{line[0]} a/p/p-{line[1:]}.ebuild" for line in lines]
    return text(differ(*edits, listed=paths)).splitlines()[-1].strip()


@pytest.mark.parametrize(
    ("before", "lines", "wanted"),
    [
        ("", ["A1", "A2"], "a/p-2"),
        ("1 2", ["D1", "D2"], "a/p"),
        ("1.0", ["A1.1"], "a/p 1.0 -> 1.1"),
        ("1.0", ["A1.1", "D1.0"], "a/p 1.0 -> 1.1"),
        ("1.0", ["A1.0-r1", "D1.0"], "a/p 1.0 -> 1.0-r1"),
        ("1.9 1.10", ["A1.11", "D1.9"], "a/p 1.10 -> 1.11 -1.9"),
        (
            "3.12.4 3.13.0",
            ["A3.12.5", "A3.13.1", "D3.12.4", "D3.13.0"],
            "a/p 3.13.0 -> 3.13.1 +3.12.5 -3.12.4",
        ),
        ("3.12.4 3.13.0", ["A3.12.5", "D3.12.4"], "a/p +3.12.5 -3.12.4"),
        ("1 9999", ["A2"], "a/p 1 -> 2"),
        ("9999", ["A2"], "a/p +2"),
        ("2 9999", ["D2"], "a/p -2"),
        ("2", ["A9999"], "a/p +9999"),
        ("1 2", ["D2"], "a/p 2 -> 1"),
        ("1 2", ["D1"], "a/p -1"),
        ("1 2 3", ["M1", "M3"], "a/p 1 3"),
        ("1 2", ["A3", "D1", "M2"], "a/p 2 -> 3 -1 (2 changed)"),
    ],
)
def test_what_is_told_of_a_package(before: str, lines: list[str], wanted: str) -> None:
    assert story(before, *lines) == wanted


def test_a_day_on_one_screen() -> None:
    found = differ(
        "A a/new/new-1.ebuild",
        "D a/gone/gone-1.ebuild",
        "A a/p/p-2.ebuild",
        "A a/q/q-3.ebuild",
        "M eclass/cmake.eclass",
        "D eclass/old.eclass",
        "M profiles/package.mask",
        "A metadata/md5-cache/a/p-2",
        listed="a/gone/gone-1.ebuild a/p/p-1.ebuild a/q/q-1.ebuild",
    )
    assert text(found) == (
        "gentoo 20261119 -> 20261120: 8 files (1 derived), 1 package new, 1 gone, 2 bumped, "
        "2 eclasses,\n  1 profile\n"
        "\nnew (1)\n  a/new-1\n"
        "\ngone (1)\n  a/gone\n"
        "\nbumped (2)\n  a/p 1 -> 2, a/q 1 -> 3\n"
        "\neclasses (2)\n  cmake, -old\n"
        "\nprofiles (1)\n  package.mask"
    )
    assert "\n  a/p 1 -> 2\n  a/q 1 -> 3\n" in text(found, rows=None)
    assert text(found, name="guru").startswith("guru 20261119 -> ")


def test_nothing_changed() -> None:
    assert text(differ()) == "gentoo 20261119 -> 20261120: 0 files (0 derived)"
    assert as_json(differ())["bumped"] == []


def test_many_are_counted_where_they_do_not_fit() -> None:
    found = differ(
        *(f"M a/p{n:04}/p{n:04}-1.ebuild" for n in range(1500)),
        listed=" ".join(f"a/p{n:04}/p{n:04}-1.ebuild" for n in range(1500)),
    )
    head, blank, title, *body, rest = text(found, width=80, rows=9).splitlines()
    assert head == ("gentoo 20261119 -> 20261120: 1,500 files (0 derived), 1,500 packages changed")
    assert (blank, title) == ("", "changed (1,500)")
    assert len(body) == 9
    assert max(map(len, body)) <= 80
    shown = " ".join(line.strip() for line in body).split(", ")
    assert shown == [f"a/p{n:04} 1" for n in range(len(shown))]
    assert rest == f"  and {1500 - len(shown):,} more"
    assert len(text(found, rows=None).splitlines()) == 1503


def test_an_item_that_is_wider_than_the_screen_is_whole() -> None:
    name = "a/" + "long" * 40
    assert f"  {name}-1" in text(differ(f"A {name}/{name[2:]}-1.ebuild"), width=40).splitlines()


def test_as_json_has_it_all() -> None:
    found = differ("A a/p/p-2.ebuild", "M profiles/x", listed="a/p/p-1.ebuild")
    plain = json.loads(json.dumps(as_json(found)))
    assert (plain["since"], plain["until"]) == ("20261119", "20261120")
    assert plain["bumped"] == [{"name": "a/p", "before": ["1"], "after": ["1", "2"], "changed": []}]
    assert plain["profiles"] == {"x": "changed"}
    assert plain.keys() == {f.name for f in fields(Changes)}


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], ("20261119", "20261120")),
        (["20261117"], ("20261117", "20261120")),
        (["20261117", "20261119"], ("20261117", "20261119")),
        (["20261120", "20261117"], ("20261120", "20261117")),
        (["20261120", "20261120"], ("20261120", "20261120")),
    ],
)
def test_pick(words: list[str], wanted: tuple[str, str]) -> None:
    assert pick(DAYS, words) == wanted
    assert pick(DAYS[::-1], words) == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["20261118"], "there is no frozen day '20261118'; did you mean 20261119?"),
        (["2026-11-17"], "there is no frozen day '2026-11-17'; did you mean 20261117?"),
        (["20261117", "20261191"], "there is no frozen day '20261191'; did you mean 20261119?"),
        (["yesterday"], "there is no frozen day 'yesterday'"),
        (["\x1b[2J"], r"there is no frozen day '\x1b[2J'"),
        ([""], "there is no frozen day ''"),
        (["--json"], "there is no frozen day '--json'"),
        (DAYS, "3 days are too many to compare"),
        (["20261120"], "20261120 is the newest frozen day"),
    ],
)
def test_words_that_name_no_two_days(words: list[str], message: str) -> None:
    with pytest.raises(BinmillError) as refused:
        pick(DAYS, words)
    assert refused.value.message == message
    assert refused.value.hint


@pytest.mark.parametrize("words", [[], ["20261119"], ["20261119", "20261120"]])
def test_too_few_days(words: list[str]) -> None:
    with pytest.raises(Stale, match="nothing is frozen yet\n  next: run `doit snapshot`"):
        pick([], words)
    with pytest.raises(Stale, match="20261119 is the only frozen day"):
        pick(["20261119"], words)
