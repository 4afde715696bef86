"""Comparison of two days: sorting, text, JSON, choice of days. The output of git is made up."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

from tasks.errors import BinmillError, Stale
from tasks.messages import Field
from tasks.snapshot.changes import (
    KINDS,
    Changes,
    PackageChange,
    choose_days,
    sort_changes,
    version_key,
)
from tasks.snapshot.changes_report import as_json, as_text
from tests.kit.refused import refused

DAYS = ["20261117", "20261119", "20261120"]
HEAD = ["since", "until", "files", "derived"]
PLACES = ["eclasses", "profiles", "licenses", "news", "glsa", "other"]
IN_ORDER = [  # 1.001.1: a part with a leading zero loses trailing zeros and is compared as text
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


def differences(*lines: str, listed: str = "") -> Changes:
    """Lines as `A path`; `listed` are the paths of the older day."""
    letters = [(line[0], line[2:]) for line in lines]
    return sort_changes("20261119", "20261120", letters, listed.split())


def lists(changes: Changes) -> dict[str, object]:
    """The content of each list that is not empty."""
    packages = {kind: [each.name for each in changes.of_kind(kind)] for kind in KINDS}
    everything = {**packages, **changes.others, "derived": changes.derived}
    return {kind: value for kind, value in everything.items() if value}


def test_versions_sort_as_pms_says() -> None:
    assert all(version_key(one) < version_key(other) for one, other in pairwise(IN_ORDER))
    assert sorted(sorted(IN_ORDER), key=version_key) == IN_ORDER


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
        # the folder's name shows where the version starts
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
def test_change_stands_in_its_list(
    lines: list[str], listed: str, wanted: dict[str, object]
) -> None:
    changes = differences(*lines, listed=listed)
    assert lists(changes) == wanted
    assert changes.files == len(lines)


def test_package_change_has_its_versions() -> None:
    listed = "a/p/p-2.ebuild a/p/p-10.ebuild a/p/p-1.ebuild a/p/files/p-3.ebuild a/q/q-7.ebuild"
    changes = differences(
        "D a/p/p-1.ebuild", "A a/p/p-11.ebuild", "M a/p/p-2.ebuild", listed=listed
    )
    (package,) = changes.of_kind("bumped")
    assert package == PackageChange("a/p", ("1", "2", "10"), ("2", "10", "11"), ("2",))
    assert package.added == ["11"]
    assert package.removed == ["1"]


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
def test_other_file_is_no_ebuild(path: str) -> None:
    assert lists(differences(f"A {path}")) == {"touched": ["a/p"]}


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
    changes = differences(f"A {path}")
    for rows in (None, 9):
        rendered = as_text(changes, rows=rows)
        assert rendered.isascii()
        assert all(line.isprintable() for line in rendered.splitlines())
        assert len(rendered.splitlines()) == 4
    assert as_json(changes).isascii()


def package_text(listed: str, *lines: str) -> str:
    """The text for a/p, whose versions were `listed`."""
    paths = " ".join(f"a/p/p-{version}.ebuild" for version in listed.split())
    edits = [f"{line[0]} a/p/p-{line[1:]}.ebuild" for line in lines]
    return as_text(differences(*edits, listed=paths)).splitlines()[-1].strip()


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
def test_package_text_shows_versions(before: str, lines: list[str], wanted: str) -> None:
    assert package_text(before, *lines) == wanted


def test_text_of_a_day() -> None:
    changes = differences(
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
    assert as_text(changes) == (
        "gentoo 20261119 -> 20261120: 8 files (1 derived), 1 package new, 1 gone, 2 bumped, "
        "2 eclasses,\n  1 profile\n"
        "\nnew (1)\n  a/new-1\n"
        "\ngone (1)\n  a/gone\n"
        "\nbumped (2)\n  a/p 1 -> 2, a/q 1 -> 3\n"
        "\neclasses (2)\n  cmake, -old\n"
        "\nprofiles (1)\n  package.mask"
    )
    assert "\n  a/p 1 -> 2\n  a/q 1 -> 3\n" in as_text(changes, rows=None)
    assert as_text(changes, name="guru").startswith("guru 20261119 -> ")


def test_text_without_changes() -> None:
    assert as_text(differences()) == "gentoo 20261119 -> 20261120: 0 files (0 derived)"
    assert json.loads(as_json(differences()))["bumped"] == []


def test_text_counts_what_does_not_fit() -> None:
    changes = differences(
        *(f"M a/p{n:04}/p{n:04}-1.ebuild" for n in range(1500)),
        listed=" ".join(f"a/p{n:04}/p{n:04}-1.ebuild" for n in range(1500)),
    )
    head, blank, title, *body, rest = as_text(changes, width=80, rows=9).splitlines()
    assert head == ("gentoo 20261119 -> 20261120: 1,500 files (0 derived), 1,500 packages changed")
    assert (blank, title) == ("", "changed (1,500)")
    assert len(body) == 9
    assert max(map(len, body)) <= 80
    entries = " ".join(line.strip() for line in body).split(", ")
    assert entries == [f"a/p{n:04} 1" for n in range(len(entries))]
    assert rest == f"  and {1500 - len(entries):,} more"
    assert len(as_text(changes, rows=None).splitlines()) == 1503


def test_text_does_not_cut_an_item_wider_than_the_screen() -> None:
    name = "a/" + "long" * 40
    assert (
        f"  {name}-1"
        in as_text(differences(f"A {name}/{name[2:]}-1.ebuild"), width=40).splitlines()
    )


def test_json_has_everything() -> None:
    changes = differences("A a/p/p-2.ebuild", "M profiles/x", listed="a/p/p-1.ebuild")
    plain = json.loads(as_json(changes))
    assert (plain["since"], plain["until"]) == ("20261119", "20261120")
    assert plain["bumped"] == [{"name": "a/p", "before": ["1"], "after": ["1", "2"], "changed": []}]
    assert plain["profiles"] == {"x": "changed"}
    assert list(plain) == [*HEAD, *KINDS, *PLACES]


@pytest.mark.parametrize(
    ("days", "wanted"),
    [
        ([], ("20261119", "20261120")),
        (["20261117"], ("20261117", "20261120")),
        (["20261117", "20261119"], ("20261117", "20261119")),
        (["20261120", "20261117"], ("20261120", "20261117")),
        (["20261120", "20261120"], ("20261120", "20261120")),
    ],
)
def test_choice_of_days(days: list[str], wanted: tuple[str, str]) -> None:
    assert choose_days(DAYS, days) == wanted
    assert choose_days(DAYS[::-1], days) == wanted


@pytest.mark.parametrize(
    ("days", "code", "fields"),
    [
        (["20261118"], "day-misspelt", {"day": "20261118", "suggestion": "20261119"}),
        (["2026-11-17"], "day-misspelt", {"day": "2026-11-17", "suggestion": "20261117"}),
        (["20261117", "20261191"], "day-misspelt", {"suggestion": "20261119"}),
        (["yesterday"], "day-not-frozen", {"day": "yesterday", "newest": DAYS}),
        (["\x1b[2J"], "day-not-frozen", {"day": "\x1b[2J"}),
        ([""], "day-not-frozen", {"day": ""}),
        (["--json"], "day-not-frozen", {"day": "--json"}),
        (DAYS, "too-many-days", {"number": 3}),
        (["20261120"], "day-is-newest", {"day": "20261120"}),
    ],
)
def test_choice_of_other_words_is_refused(
    days: list[str], code: str, fields: dict[str, Field]
) -> None:
    with refused(BinmillError, code, **fields) as error:
        choose_days(DAYS, days)
    assert error.value.message.isprintable()


@pytest.mark.parametrize("days", [[], ["20261119"], ["20261119", "20261120"]])
def test_choice_of_too_few_days_is_refused(days: list[str]) -> None:
    with refused(Stale, "nothing-frozen"):
        choose_days([], days)
    with refused(Stale, "one-day-frozen", day="20261119"):
        choose_days(["20261119"], days)
