"""Paths that a snapshot may contain."""

from __future__ import annotations

import pytest

from tasks.snapshot import archive
from tasks.snapshot.archive import inner_path

TOP = "gentoo-20260101"


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        (TOP, ""),
        (f"{TOP}/", ""),
        (f"./{TOP}", ""),
        (f"{TOP}/header.txt", "header.txt"),
        (f"./{TOP}/header.txt", "header.txt"),
        (f"{TOP}/app-misc/one/", "app-misc/one"),
        (f"{TOP}/app-misc/one/one-1.ebuild", "app-misc/one/one-1.ebuild"),
        (f"{TOP}/-rf", "-rf"),
        (f"{TOP}/a b", "a b"),
        (f'{TOP}/a"b', 'a"b'),
        (f"{TOP}/ümläut/日本", "ümläut/日本"),
        (f"{TOP}/.gitignore", ".gitignore"),
        (f"{TOP}/.github/x", ".github/x"),
        (f"{TOP}/...", "..."),
        (f"{TOP}/a..b", "a..b"),
        ("/".join([TOP] + ["d"] * 31), "/".join(["d"] * 31)),
    ],
)
def test_allowed(name: str, inner: str) -> None:
    assert inner_path(name) == (TOP, inner)


@pytest.mark.parametrize("name", ["x", f"{TOP}/header.txt", f"{TOP}/a+b_c-1.0/d.e,f@g=h:i"])
def test_the_usual_are_among_the_allowed(name: str) -> None:
    """Every path that the quick pattern accepts passes the slow rules, too."""
    quick = archive._USUAL.fullmatch(name.encode())
    assert bool(quick) == ("/" in name)
    assert inner_path(name) is not None


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/",
        ".",
        "./",
        "..",
        "../x",
        "/etc/passwd",
        f"/{TOP}/x",
        f"{TOP}/..",
        f"{TOP}/../x",
        f"{TOP}/a/../../x",
        f"{TOP}/./x",
        f"{TOP}//x",
        f".//{TOP}",
        f"././{TOP}",
        f"{TOP}/.git",
        f"{TOP}/.git/config",
        f"{TOP}/a/.GIT/config",
        f"{TOP}/.Git",
        f"{TOP}/git~1/config",
        ".git/config",
        f"{TOP}/a\nb",
        f"{TOP}/a\tb",
        f"{TOP}/a\0b",
        f"{TOP}/a\x1b[2Jb",
        f"{TOP}/a\x7fb",
        f"{TOP}/a\u202eb",  # right-to-left override
        f"{TOP}/.g\u200cit",  # a joiner of no width: HFS+ drops it
        f"{TOP}/a\udcffb",  # a byte that is not UTF-8
        f"{TOP}/a\\b",
        f"{TOP}/..\\x",
        "/".join([TOP] + ["d"] * 32),
    ],
)
def test_refused(name: str) -> None:
    assert not archive._USUAL.fullmatch(name.encode("utf-8", "surrogateescape"))
    assert inner_path(name) is None
