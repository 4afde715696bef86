"""Failed buildroots: their names, and the lines that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.builder import account
from tasks.builder.account import Account, FailedPackage
from tasks.builder.failure import Failure, Kind
from tasks.buildroot import failed_buildroot
from tasks.errors import BinmillError
from tasks.layout import Layout

TEXT = """{"cpv": "a/b-1", "repo": "gentoo", "phase": "compile", "hostname": "base",
"layers": ["0123"], "below": ["/state/seeds/1"], "environment": {"PATH": "/bin"},
"binds": [{"source": "/state/etc", "target": "/etc/portage", "writable": false}]}"""


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path, tmp_path / "state")


def write(layout: Layout, cpv: str, text: str = TEXT) -> Path:
    path = layout.failed_buildroots("base") / cpv / "buildroot.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)
    return path


def test_package_is_named_with_or_without_its_version(layout: Layout) -> None:
    write(layout, "a/b-1")
    write(layout, "a/c-1")
    write(layout, "a/c-2")
    write(layout, "a/no version")
    assert failed_buildroot.names(layout, "base") == ["a/b-1", "a/c-1", "a/c-2"]
    for name in ("a/b", "a/b-1"):
        failed = failed_buildroot.find(layout, "base", name)
        assert (failed.cpv, failed.phase, failed.below) == (
            "a/b-1",
            "compile",
            (Path("/state/seeds/1"),),
        )
        assert failed.ebuild == "/var/db/repos/gentoo/a/b/b-1.ebuild"
    with pytest.raises(BinmillError) as error:
        failed_buildroot.find(layout, "base", "a/c")
    assert error.value.code == "failed-buildroot-ambiguous"
    assert error.value.fields["packages"] == ["a/c-1", "a/c-2"]


@pytest.mark.parametrize("name", ["a/d", "../b-1", "b-1", "", "a/b-1/..", "a/*"])
def test_unknown_package_is_refused_with_the_known_ones(layout: Layout, name: str) -> None:
    write(layout, "a/b-1")
    with pytest.raises(BinmillError) as error:
        failed_buildroot.find(layout, "base", name)
    assert error.value.code == "failed-buildroot-unknown"
    assert error.value.fields["packages"] == ["a/b-1"]


@pytest.mark.parametrize("text", ["", "{}", "[]", TEXT[:-1], TEXT.replace('"a/b-1"', "1")])
def test_damaged_one_is_refused(layout: Layout, text: str) -> None:
    write(layout, "a/b-1", text)
    with pytest.raises(BinmillError) as error:
        failed_buildroot.find(layout, "base", "a/b-1")
    assert error.value.code == "failed-buildroot-damaged"


def test_one_whose_layers_are_gone_is_not_entered(layout: Layout) -> None:
    write(layout, "a/b-1")
    failed = failed_buildroot.find(layout, "base", "a/b-1")
    with pytest.raises(BinmillError) as error:
        failed_buildroot.entrance(layout, "base", failed, [])
    assert error.value.code == "failed-buildroot-incomplete"
    assert error.value.fields["path"] == Path("/state/seeds/1")


def test_account_says_how_to_enter_it() -> None:
    failure = Failure(Kind.COMPILE, "compile", ("why",), buildroot="it was kept")
    error = account.failed(Account(failed=(FailedPackage("a/b-1", failure, 1.0),)), "base")
    assert "\n    it was kept" in error.message
