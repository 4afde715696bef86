"""`doit snapshot`: what is frozen, pushed and said, day after day and for days on purpose."""

from __future__ import annotations

import os
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks import lock as locks
from tasks.errors import BinmillError, DownloadFailed, NotTrusted, Stale
from tasks.lock import Lock, TreePin
from tasks.records import SnapshotRecord
from tasks.site import Site
from tests.kit.fake_upstream import (
    NEXT,
    NOW,
    PASSWORD,
    FakeUpstream,
    digest,
    last_modified,
    run_snapshot,
    tag,
)
from tests.kit.files import names
from tests.kit.refused import refused
from tests.kit.repositories import git, refs
from tests.kit.scripted_server import in_turn, status
from tests.kit.snapshots import DAY, made_at
from tests.kit.tree_manifests import signed_manifest, tree_files

BEFORE = DAY - timedelta(days=1)


def short(site: Site, day: date) -> str:
    return git(site.layout.tree, "rev-parse", f"{tag(day)}^{{commit}}")[:7]


def pushed_to(fake_upstream: FakeUpstream) -> str:
    return f", pushed to file://localhost{fake_upstream.remote}"


def test_what_is_said(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    right = fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    record, said = fake_upstream.snapshot(site)
    assert record == SnapshotRecord(
        tag="20260115",
        commit=git(site.layout.tree, "rev-parse", "20260115^{commit}"),
        timestamp=made_at(DAY),
        sha512=digest(right),
        signer=fake_upstream.keys.fingerprint("good"),
    )
    assert said == (
        f"  frozen gentoo 20260115 as {short(site, DAY)} (tag 20260115, 3 files)"
        f"{pushed_to(fake_upstream)}\n"
    )
    before = fake_upstream.frozen_state(site)
    again, said = fake_upstream.snapshot(site)
    assert (again, fake_upstream.frozen_state(site)) == (record, before)
    assert said == (
        "  no newer snapshot than 20260115 (mirror says 2026-01-16T00:45Z, 2 mirrors asked)\n"
    )
    fake_upstream.publish("one", fake_upstream.signed(NEXT))
    record, said = fake_upstream.snapshot(site)
    assert record.tag == "20260116"
    assert said == (
        f"  frozen gentoo 20260116 as {short(site, NEXT)} "
        f"(tag 20260116, 2 files changed since 20260115){pushed_to(fake_upstream)}\n"
    )
    assert fake_upstream.snapshot(site)[1] == (
        "  no newer snapshot than 20260116 (there can be none before tomorrow)\n"
    )
    assert refs(fake_upstream.remote) == refs(site.layout.tree)
    assert PASSWORD not in git(site.layout.tree, "log", "--format=%B", "--all")


def test_what_is_said_of_one_file_and_no_remote(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site(remote=None)
    fake_upstream.publish("one", fake_upstream.signed(DAY, files={}), DAY)
    assert fake_upstream.snapshot(site)[1] == (
        f"  frozen gentoo 20260115 as {short(site, DAY)} (tag 20260115, 1 file)\n"
    )
    fake_upstream.publish("one", fake_upstream.signed(NEXT, files={}))
    assert fake_upstream.snapshot(site)[1] == (
        f"  frozen gentoo 20260116 as {short(site, NEXT)} "
        "(tag 20260116, 1 file changed since 20260115)\n"
    )
    assert refs(fake_upstream.remote) == {}


def test_no_mirror_that_says_when(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(site)
    fake_upstream.answer(status(404), "one", DAY, ".gpgsig")
    assert fake_upstream.snapshot(site)[1] == "  no newer snapshot than 20260115 (1 mirror asked)\n"


def test_only_newer_days_are_asked_for(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    with pytest.raises(BinmillError, match="no mirror has a snapshot of the last 5 days") as none:
        run_snapshot(site)
    assert "lookback_days" in none.value.hint
    days = [NEXT - timedelta(days=back) for back in range(5)]
    assert fake_upstream.server.paths == [fake_upstream.path("one", day, ".gpgsig") for day in days]
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(site)
    fake_upstream.server.paths.clear()
    fake_upstream.snapshot(site)
    asked = [fake_upstream.path("one", NEXT, ".gpgsig"), fake_upstream.path("one", DAY, ".gpgsig")]
    assert fake_upstream.server.paths == asked  # the second: when it got what is frozen
    assert fake_upstream.requested_archives() == []


def test_the_mirrors_are_down(frozen_upstream: FakeUpstream) -> None:
    for suffix in ("", ".gpgsig"):
        frozen_upstream.answer(status(503), "one", NEXT, suffix)
    error = frozen_upstream.refused(frozen_upstream.site(), DownloadFailed)
    assert (
        f"{frozen_upstream.url('one')}/snapshots/gentoo-20260116.tar.xz.gpgsig: HTTP 503"
        in error.message
    )
    frozen_upstream.publish("one", frozen_upstream.signed())
    assert frozen_upstream.snapshot(frozen_upstream.site())[0].tag == "20260116"


@pytest.mark.parametrize("cut", ["cut once", "killed"])
def test_the_rest_of_half_an_archive(fake_upstream: FakeUpstream, cut: str) -> None:
    """Of a run that broke off; the next one asks for the rest only."""
    site = fake_upstream.site()
    right = fake_upstream.publish("one", fake_upstream.signed())
    half = len(right.archive) // 2
    answers = [fake_upstream.plain(right.archive, pieces=half), status(503)]
    fake_upstream.answer(in_turn(*answers), "one")
    with pytest.raises(DownloadFailed, match="HTTP 503"):
        run_snapshot(site)
    left = site.layout.downloads / "gentoo-20260116.tar.xz"
    assert left.read_bytes() == right.archive[:half]
    assert names(left.parent) == [".gentoo-20260116.tar.xz.partial", left.name]
    assert site.layout.downloads.stat().st_mode & 0o777 == 0o700
    if cut == "killed":  # before the small files were swept
        left.with_name(f"{left.name}.gpgsig").write_bytes(b"half")
    fake_upstream.publish("one", right)
    fake_upstream.server.ranges.clear()
    assert fake_upstream.snapshot(site)[0].sha512 == digest(right)
    assert [asked for asked in fake_upstream.server.ranges if asked[0]] == [
        (f"bytes={half}-", last_modified(NEXT))
    ]


@pytest.mark.parametrize("days", [6, 8])
def test_half_an_archive_that_nobody_went_on_with(frozen_upstream: FakeUpstream, days: int) -> None:
    """It goes after a week; what else lies there is somebody else's."""
    site = frozen_upstream.site()
    site.layout.downloads.mkdir(exist_ok=True)
    old = (NOW - timedelta(days=days)).timestamp()
    for name in ("gentoo-20260101.tar.xz", ".gentoo-20260101.tar.xz.partial", "stage3.tar.xz"):
        (site.layout.downloads / name).write_bytes(b"half")
        os.utime(site.layout.downloads / name, (old, old))
    frozen_upstream.publish("one", frozen_upstream.signed())
    run_snapshot(site)
    kept = [".gentoo-20260101.tar.xz.partial", "gentoo-20260101.tar.xz"] if days < 7 else []
    assert names(site.layout.downloads) == [*kept, "stage3.tar.xz"]


def test_a_push_that_failed_is_made_up_for(fake_upstream: FakeUpstream, tmp_path: Path) -> None:
    """The freeze stands, and is said; the next run pushes, though there is nothing newer."""
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    away = fake_upstream.remote.rename(tmp_path / "away.git")
    with refused(BinmillError, "push-failed", tag="20260115") as error:
        run_snapshot(site)
    assert "\n" not in error.value.message
    assert PASSWORD not in str(error.value)
    said = fake_upstream.output().splitlines()
    assert said[0].startswith(f"  could not read file://localhost{fake_upstream.remote}: ")
    assert said[1:] == [f"  frozen gentoo 20260115 as {short(site, DAY)} (tag 20260115, 3 files)"]
    away.rename(fake_upstream.remote)
    assert fake_upstream.snapshot(site)[1] == (
        "  no newer snapshot than 20260115 (mirror says 2026-01-16T00:45Z, 1 mirror asked), "
        f"pushed 20260115 to file://localhost{fake_upstream.remote}\n"
    )
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


def test_what_an_earlier_push_failed_to_bring_is_named(
    fake_upstream: FakeUpstream, tmp_path: Path
) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    away = fake_upstream.remote.rename(tmp_path / "away.git")
    with pytest.raises(BinmillError):
        run_snapshot(site)
    away.rename(fake_upstream.remote)
    fake_upstream.publish("one", fake_upstream.signed())
    _, said = fake_upstream.snapshot(site)
    assert said.endswith(
        "(tag 20260116, 2 files changed since 20260115), "
        f"pushed 20260115, 20260116 to file://localhost{fake_upstream.remote}\n"
    )
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


AGE = [
    # hours after it was made, warn_hours, fail_hours, what comes of it
    (35, 36, 72, ""),
    (36, 36, 72, ""),
    (37, 36, 72, "warn"),
    (72, 36, 72, "warn"),
    (73, 36, 72, "fail"),
    (96, 36, 72, "fail"),
    (96, 0, 72, "fail"),
    (96, 0, 0, ""),
    (96, 36, 0, "warn"),
    (9, 8, 0, "warn"),
]


@pytest.mark.parametrize(("hours", "warn", "fail", "outcome"), AGE)
def test_21_nothing_newer(
    frozen_upstream: FakeUpstream, hours: int, warn: int, fail: int, outcome: str
) -> None:
    """Somebody may hold the newer ones back, or the mirrors have stopped to work."""
    frozen_upstream.now = NOW - timedelta(hours=35, minutes=15) + timedelta(hours=hours)
    frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
    site = frozen_upstream.site(warn_hours=warn, fail_hours=fail)
    if outcome == "fail":
        error = frozen_upstream.refused(site, Stale)
        assert error.message.startswith(
            f"nothing newer than 20260115 for {hours} h (more than {fail} h): "
        )
        assert "fail_hours" in error.hint
        frozen_upstream.now = NOW
        frozen_upstream.publish("one", frozen_upstream.signed())
        assert frozen_upstream.snapshot(site)[0].tag == "20260116"
        return
    _, said = frozen_upstream.snapshot(site)
    warning = f"  20260115 is {hours} h old (more than {warn} h): are the mirrors behind?"
    assert (warning in said.splitlines()) == (outcome == "warn")
    assert said.splitlines()[-1].startswith("  no newer snapshot than 20260115 (")
    assert len(said.splitlines()) == 1 + (outcome == "warn")


def test_21_what_is_new_here_may_be_old(fake_upstream: FakeUpstream) -> None:
    """A first run, or one after a long pause: it is taken, and said."""
    fake_upstream.now = NOW + timedelta(days=3)
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    record, said = fake_upstream.snapshot(fake_upstream.site())
    assert record.tag == "20260115"
    assert said.splitlines()[0].startswith("  20260115 is 107 h old (more than 36 h): ")
    assert said.splitlines()[1].startswith("  frozen gentoo 20260115 as ")


def test_an_older_day_on_purpose(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site(warn_hours=1)
    fake_upstream.publish("one", fake_upstream.signed())
    record, _ = fake_upstream.snapshot(site)
    main = refs(site.layout.tree)["refs/heads/main"]
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    again, said = fake_upstream.snapshot(site, day="20260115")
    assert again == record
    assert said == (
        f"  frozen gentoo 20260115 as {short(site, DAY)} (tag 20260115, 2 files unlike 20260116); "
        f"it was asked for, 20260116 stays the newest{pushed_to(fake_upstream)}\n"
    )
    assert refs(site.layout.tree).keys() == {
        "refs/heads/main",
        "refs/tags/20260115",
        "refs/tags/20260116",
    }
    assert refs(site.layout.tree)["refs/heads/main"] == main
    assert refs(fake_upstream.remote) == refs(site.layout.tree)
    fake_upstream.server.paths.clear()
    assert fake_upstream.snapshot(site)[0] == record


def test_a_newer_day_on_purpose(frozen_upstream: FakeUpstream) -> None:
    frozen_upstream.publish("one", frozen_upstream.signed())
    record, said = frozen_upstream.snapshot(frozen_upstream.site(), day="20260116")
    assert record.tag == "20260116"
    assert "asked for" not in said
    assert said.endswith(f"changed since 20260115){pushed_to(frozen_upstream)}\n")


@pytest.mark.parametrize(
    "day",
    [
        "2026-01-15",
        "20261301",
        "20260230",
        "2026115",
        "202601 5",
        "today",
        "20260115\n",
        " 20260115",
        "\uff12\uff10260115",
        "../../../x",
    ],
)
def test_what_is_no_day(frozen_upstream: FakeUpstream, day: str) -> None:
    error = frozen_upstream.refused(frozen_upstream.site(), BinmillError, day=day)
    assert error.message == f"--date: {day!r} is not a day"
    assert "20260315" in error.hint
    assert frozen_upstream.server.paths == []


@pytest.mark.parametrize("day", ["20260114", "20991231", "99991231", "00010101"])
def test_a_day_that_nobody_has(frozen_upstream: FakeUpstream, day: str) -> None:
    error = frozen_upstream.refused(frozen_upstream.site("one", "two"), DownloadFailed, day=day)
    for mirror in ("one", "two"):
        assert f"{frozen_upstream.url(mirror)}/snapshots/gentoo-" in error.message
    assert "[mirrors]" in error.hint


def test_a_day_that_is_frozen_already(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    before = frozen_upstream.frozen_state(site)
    record, said = frozen_upstream.snapshot(site, day="20260115")
    assert record.tag == "20260115"
    assert said == f"  gentoo 20260115 is frozen already, as {short(site, DAY)}\n"
    assert frozen_upstream.server.paths == []
    assert frozen_upstream.frozen_state(site) == before


def locked_at(site: Site, day: date | str) -> None:
    text = day if isinstance(day, str) else tag(day)
    locks.write(site.layout, Lock(tree=TreePin(tag=text, commit="a" * 40)))


def test_20_a_lost_state_does_not_fall_behind_the_lock(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    locked_at(site, NEXT)
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    error = fake_upstream.refused(site, BinmillError)
    assert error.message == (
        "no mirror has a snapshot of the last 5 days that is not older than 20260116, "
        "which is locked"
    )
    fake_upstream.publish(
        "one", fake_upstream.signed(DAY), NEXT
    )  # the older one under a newer name
    assert "not after what is frozen or locked" in fake_upstream.refused(site, NotTrusted).message
    fake_upstream.publish("one", fake_upstream.signed())
    assert fake_upstream.snapshot(site)[0].tag == "20260116"
    assert fake_upstream.requested_archives().count("one/20260115") == 0


def test_a_lock_that_names_no_day(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed())
    locked_at(site, "newest")
    error = fake_upstream.refused(site, BinmillError)
    assert error.message == "config.lock: 'newest' is not a day"


def with_manifests(fake_upstream: FakeUpstream, *, evil: bool = False) -> Any:
    files, top = tree_files()
    del files["metadata/timestamp.x"]
    files["Manifest"] = signed_manifest(fake_upstream.keys, top, at=made_at(NEXT))
    if evil:
        files["app-misc/one/one-1.ebuild"] = b"EAPI=8\nevil\n"
    return fake_upstream.signed(files=files)


def test_manifests(frozen_upstream: FakeUpstream) -> None:
    """A file that is not what its Manifest says: the whole day is refused, wherever it is from."""
    site = frozen_upstream.site("one", "two")
    evil = frozen_upstream.publish("one", with_manifests(frozen_upstream, evil=True))
    cause = "is not what was signed: 'app-misc/one/one-1.ebuild' has "
    assert cause in frozen_upstream.refused(site, NotTrusted).message
    right = frozen_upstream.publish("two", with_manifests(frozen_upstream))
    record, said = frozen_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    passed, frozen = said.splitlines()
    assert passed.startswith(f"  refused: {frozen_upstream.url('one')}: commit ")
    assert cause in passed
    assert frozen.startswith("  frozen gentoo 20260116 as ")
    other = frozen_upstream.site("one", name="other", manifests="never", remote=None)
    assert frozen_upstream.snapshot(other)[0].sha512 == digest(evil)


@pytest.mark.parametrize("manifests", ["always", "when-signed"])
def test_no_manifests(frozen_upstream: FakeUpstream, manifests: str) -> None:
    frozen_upstream.publish("one", frozen_upstream.signed())
    site = frozen_upstream.site(manifests=manifests)
    if manifests == "always":
        error = frozen_upstream.refused(site, NotTrusted)
        assert "there is no Manifest at its top" in error.message
    else:
        assert frozen_upstream.snapshot(site)[0].tag == "20260116"


def test_a_remote_that_is_ahead_is_followed(fake_upstream: FakeUpstream) -> None:
    """A machine that lost its state goes on where the others are."""
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(fake_upstream.site())
    fake_upstream.publish("one", fake_upstream.signed())
    other = fake_upstream.site(name="other")
    record, said = fake_upstream.snapshot(other)
    assert record.tag == "20260116"
    assert said.endswith(f"(tag 20260116, 3 files){pushed_to(fake_upstream)}\n")
    strung = git(fake_upstream.remote, "log", "--first-parent", "--format=%s", "main").splitlines()
    assert strung[:2] == ["freeze gentoo 20260116", "freeze gentoo 20260115"]
