"""`doit snapshot`: freezing, pushing and notes, day after day and with --date."""

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
from tasks.system.http import NotOnMirrors
from tasks.system.notes import Note, listening
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
from tests.kit.snapshots import DAY, snapshot_time
from tests.kit.tree_manifests import signed_manifest, tree_files

BEFORE = DAY - timedelta(days=1)


def commit_of(site: Site, day: date) -> str:
    return git(site.layout.tree, "rev-parse", f"{tag(day)}^{{commit}}")


def frozen(code: str, site: Site, day: date, files: int, **more: str) -> Note:
    commit = commit_of(site, day)
    return Note(code, {"name": "gentoo", "tag": tag(day), "commit": commit, "files": files, **more})


def pushed_note(fake_upstream: FakeUpstream, *days: date) -> Note:
    remote = f"file://localhost{fake_upstream.remote}"
    return Note("days-pushed", {"tags": list(map(tag, days)), "remote": remote})


def codes(notes: list[Note]) -> list[str]:
    return [note.code for note in notes]


def test_snapshot_freezes_and_pushes_each_new_day(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    right = fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    record, notes = fake_upstream.snapshot(site)
    assert record == SnapshotRecord(
        tag="20260115",
        commit=commit_of(site, DAY),
        timestamp=snapshot_time(DAY),
        sha512=digest(right),
        signer=fake_upstream.keys.fingerprint("good"),
    )
    assert notes == [frozen("frozen-first", site, DAY, 3), pushed_note(fake_upstream, DAY)]
    before = fake_upstream.frozen_state(site)
    again, notes = fake_upstream.snapshot(site)
    assert (again, fake_upstream.frozen_state(site)) == (record, before)
    assert notes == [
        Note("nothing-newer-since", {"tag": "20260115", "mirrors": 2, "time": snapshot_time(DAY)})
    ]
    fake_upstream.publish("one", fake_upstream.signed(NEXT))
    record, notes = fake_upstream.snapshot(site)
    assert record.tag == "20260116"
    assert notes == [
        frozen("frozen-newer", site, NEXT, 2, since="20260115"),
        pushed_note(fake_upstream, NEXT),
    ]
    _, notes = fake_upstream.snapshot(site)
    assert notes == [Note("nothing-newer-possible", {"tag": "20260116"})]
    assert refs(fake_upstream.remote) == refs(site.layout.tree)
    assert PASSWORD not in git(site.layout.tree, "log", "--format=%B", "--all")


def test_snapshot_without_a_remote_pushes_nothing(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site(remote=None)
    fake_upstream.publish("one", fake_upstream.signed(DAY, files={}), DAY)
    _, notes = fake_upstream.snapshot(site)
    assert notes == [frozen("frozen-first", site, DAY, 1)]
    assert refs(fake_upstream.remote) == {}


def test_nothing_newer_on_a_mirror_without_dates(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(site)
    fake_upstream.answer(status(404), "one", DAY, ".gpgsig")
    _, notes = fake_upstream.snapshot(site)
    assert notes == [Note("nothing-newer", {"tag": "20260115", "mirrors": 1})]


def test_snapshot_requests_newer_days_only(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    with refused(BinmillError, "no-snapshot", lookback=5):
        run_snapshot(site)
    days = [NEXT - timedelta(days=back) for back in range(5)]
    assert fake_upstream.server.paths == [fake_upstream.path("one", day, ".gpgsig") for day in days]
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(site)
    fake_upstream.server.paths.clear()
    fake_upstream.snapshot(site)
    requested = [
        fake_upstream.path("one", NEXT, ".gpgsig"),
        fake_upstream.path("one", DAY, ".gpgsig"),
    ]
    assert fake_upstream.server.paths == requested  # the second for its date
    assert fake_upstream.requested_archives() == []


def test_mirrors_that_are_down_are_reported(frozen_upstream: FakeUpstream) -> None:
    for suffix in ("", ".gpgsig"):
        frozen_upstream.answer(status(503), "one", NEXT, suffix)
    error = frozen_upstream.refused(frozen_upstream.site(), DownloadFailed, "no-mirror-accepted")
    assert (
        f"{frozen_upstream.url('one')}/snapshots/gentoo-20260116.tar.xz.gpgsig: HTTP 503"
        in error.message
    )
    frozen_upstream.publish("one", frozen_upstream.signed())
    assert frozen_upstream.snapshot(frozen_upstream.site())[0].tag == "20260116"


@pytest.mark.parametrize("cut", ["cut once", "killed"])
def test_partial_archive_is_resumed_by_the_next_run(fake_upstream: FakeUpstream, cut: str) -> None:
    site = fake_upstream.site()
    right = fake_upstream.publish("one", fake_upstream.signed())
    half = len(right.archive) // 2
    answers = [fake_upstream.plain(right.archive, pieces=half), status(503)]
    fake_upstream.answer(in_turn(*answers), "one")
    with pytest.raises(DownloadFailed, match="HTTP 503"):
        run_snapshot(site)
    partial = site.layout.downloads / "gentoo-20260116.tar.xz"
    assert partial.read_bytes() == right.archive[:half]
    assert names(partial.parent) == [".gentoo-20260116.tar.xz.partial", partial.name]
    assert site.layout.downloads.stat().st_mode & 0o777 == 0o700
    if cut == "killed":  # before the small files were deleted
        partial.with_name(f"{partial.name}.gpgsig").write_bytes(b"half")
    fake_upstream.publish("one", right)
    fake_upstream.server.ranges.clear()
    assert fake_upstream.snapshot(site)[0].sha512 == digest(right)
    assert [headers for headers in fake_upstream.server.ranges if headers[0]] == [
        (f"bytes={half}-", last_modified(NEXT))
    ]


@pytest.mark.parametrize("days", [6, 8])
def test_partial_archive_is_deleted_after_a_week(frozen_upstream: FakeUpstream, days: int) -> None:
    """Other files there belong to other tasks."""
    site = frozen_upstream.site()
    site.layout.downloads.mkdir(exist_ok=True)
    old = (NOW - timedelta(days=days)).timestamp()
    for name in ("gentoo-20260101.tar.xz", ".gentoo-20260101.tar.xz.partial", "stage3.tar.xz"):
        (site.layout.downloads / name).write_bytes(b"half")
        os.utime(site.layout.downloads / name, (old, old))
    frozen_upstream.publish("one", frozen_upstream.signed())
    run_snapshot(site)
    partials = [".gentoo-20260101.tar.xz.partial", "gentoo-20260101.tar.xz"] if days < 7 else []
    assert names(site.layout.downloads) == [*partials, "stage3.tar.xz"]


def test_failed_push_is_repeated_by_the_next_run(
    fake_upstream: FakeUpstream, tmp_path: Path
) -> None:
    """The day stays frozen; the next run pushes it, even where there is nothing newer."""
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    away = fake_upstream.remote.rename(tmp_path / "away.git")
    notes: list[Note] = []
    with refused(BinmillError, "push-failed", tag="20260115") as error, listening(notes.append):
        run_snapshot(site)
    assert "\n" not in error.value.message
    assert PASSWORD not in str(error.value)
    assert codes(notes) == ["remote-not-read", "frozen-first"]
    away.rename(fake_upstream.remote)
    _, notes = fake_upstream.snapshot(site)
    assert codes(notes) == ["nothing-newer-since", "days-pushed"]
    assert notes[1] == pushed_note(fake_upstream, DAY)
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


def test_push_names_the_days_of_an_earlier_failed_push(
    fake_upstream: FakeUpstream, tmp_path: Path
) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    away = fake_upstream.remote.rename(tmp_path / "away.git")
    with refused(BinmillError, "push-failed"):
        run_snapshot(site)
    away.rename(fake_upstream.remote)
    fake_upstream.publish("one", fake_upstream.signed())
    _, notes = fake_upstream.snapshot(site)
    assert notes[-1] == pushed_note(fake_upstream, DAY, NEXT)
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


AGE = [
    # hours after the snapshot, warn_hours, fail_hours, the result
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
def test_nothing_newer_for_long_warns_then_fails(
    frozen_upstream: FakeUpstream, hours: int, warn: int, fail: int, outcome: str
) -> None:
    """The mirrors may withhold newer ones, or be out of date."""
    frozen_upstream.now = NOW - timedelta(hours=35, minutes=15) + timedelta(hours=hours)
    frozen_upstream.publish("one", frozen_upstream.signed(DAY), DAY)
    site = frozen_upstream.site(warn_hours=warn, fail_hours=fail)
    if outcome == "fail":
        frozen_upstream.refused(
            site, Stale, "snapshots-too-old", tag="20260115", hours=hours, limit=fail
        )
        frozen_upstream.now = NOW
        frozen_upstream.publish("one", frozen_upstream.signed())
        assert frozen_upstream.snapshot(site)[0].tag == "20260116"
        return
    _, notes = frozen_upstream.snapshot(site)
    warning = Note("snapshot-old", {"tag": "20260115", "hours": hours, "limit": warn})
    assert notes[:-1] == ([warning] if outcome == "warn" else [])
    assert notes[-1].code.startswith("nothing-newer")


def test_old_snapshot_of_a_first_run_is_frozen_with_a_warning(fake_upstream: FakeUpstream) -> None:
    fake_upstream.now = NOW + timedelta(days=3)
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    record, notes = fake_upstream.snapshot(fake_upstream.site())
    assert record.tag == "20260115"
    assert notes[0] == Note("snapshot-old", {"tag": "20260115", "hours": 107, "limit": 36})
    assert codes(notes[1:]) == ["frozen-first", "days-pushed"]


def test_older_day_by_date_gets_a_tag_only(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site(warn_hours=1)
    fake_upstream.publish("one", fake_upstream.signed())
    record, _ = fake_upstream.snapshot(site)
    main = refs(site.layout.tree)["refs/heads/main"]
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    again, notes = fake_upstream.snapshot(site, day="20260115")
    assert again == record
    assert notes == [
        frozen("frozen-older", site, DAY, 2, since="20260116"),
        pushed_note(fake_upstream, DAY),
    ]
    assert refs(site.layout.tree).keys() == {
        "refs/heads/main",
        "refs/tags/20260115",
        "refs/tags/20260116",
    }
    assert refs(site.layout.tree)["refs/heads/main"] == main
    assert refs(fake_upstream.remote) == refs(site.layout.tree)
    fake_upstream.server.paths.clear()
    assert fake_upstream.snapshot(site)[0] == record


def test_newer_day_by_date_becomes_the_newest(frozen_upstream: FakeUpstream) -> None:
    frozen_upstream.publish("one", frozen_upstream.signed())
    record, notes = frozen_upstream.snapshot(frozen_upstream.site(), day="20260116")
    assert record.tag == "20260116"
    assert codes(notes) == ["frozen-newer", "days-pushed"]


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
def test_date_that_is_no_day_is_refused(frozen_upstream: FakeUpstream, day: str) -> None:
    site = frozen_upstream.site()
    frozen_upstream.refused(site, BinmillError, "not-a-day", day=day, source="--date", text=day)
    assert frozen_upstream.server.paths == []


@pytest.mark.parametrize("day", ["20260114", "20991231", "99991231", "00010101"])
def test_date_that_no_mirror_has_is_reported(frozen_upstream: FakeUpstream, day: str) -> None:
    site = frozen_upstream.site("one", "two")
    error = frozen_upstream.refused(site, NotOnMirrors, "no-mirror-accepted", day=day)
    for mirror in ("one", "two"):
        assert f"{frozen_upstream.url(mirror)}/snapshots/gentoo-" in error.message
    assert "[mirrors]" in error.hint


def test_date_that_is_frozen_already_changes_nothing(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    before = frozen_upstream.frozen_state(site)
    record, notes = frozen_upstream.snapshot(site, day="20260115")
    assert record.tag == "20260115"
    fields = {"name": "gentoo", "tag": "20260115", "commit": commit_of(site, DAY)}
    assert notes == [Note("frozen-already", fields)]
    assert frozen_upstream.server.paths == []
    assert frozen_upstream.frozen_state(site) == before


def lock_tree_at(site: Site, day: date | str) -> None:
    text = day if isinstance(day, str) else tag(day)
    locks.write(site.layout, Lock(tree=TreePin(tag=text, commit="a" * 40)))


def test_lost_state_does_not_lead_back_behind_the_lock(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    lock_tree_at(site, NEXT)
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    code = "no-snapshot-since-lock"
    fake_upstream.refused(site, BinmillError, code, lookback=5, pinned="20260116")
    # the older one under a newer name
    fake_upstream.publish("one", fake_upstream.signed(DAY), NEXT)
    code = "nothing-newer-accepted"
    fake_upstream.refused(site, NotTrusted, code, codes=["snapshot-too-old"])
    fake_upstream.publish("one", fake_upstream.signed())
    assert fake_upstream.snapshot(site)[0].tag == "20260116"
    assert fake_upstream.requested_archives().count("one/20260115") == 0


def test_lock_that_names_no_day_is_refused(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site()
    fake_upstream.publish("one", fake_upstream.signed())
    lock_tree_at(site, "newest")
    source = "config.lock"
    fake_upstream.refused(site, BinmillError, "not-a-day", source=source, text="newest")


def with_manifests(fake_upstream: FakeUpstream, *, evil: bool = False) -> Any:
    files, top = tree_files()
    del files["metadata/timestamp.x"]
    files["Manifest"] = signed_manifest(fake_upstream.keys, top, at=snapshot_time(NEXT))
    if evil:
        files["app-misc/one/one-1.ebuild"] = b"EAPI=8\nevil\n"
    return fake_upstream.signed(files=files)


def test_day_with_a_changed_file_is_refused(frozen_upstream: FakeUpstream) -> None:
    """A file differs from its Manifest: another mirror may have the right one."""
    site = frozen_upstream.site("one", "two")
    evil = frozen_upstream.publish("one", with_manifests(frozen_upstream, evil=True))
    cause = "is not what was signed: 'app-misc/one/one-1.ebuild' has "
    error = frozen_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
    assert cause in error.message
    right = frozen_upstream.publish("two", with_manifests(frozen_upstream))
    record, notes = frozen_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    assert codes(notes) == ["archive-refused", "frozen-newer", "days-pushed"]
    reason = str(notes[0].fields["cause"])
    assert reason.startswith(f"{frozen_upstream.url('one')}: commit ")
    assert cause in reason
    other = frozen_upstream.site("one", name="other", manifests="never", remote=None)
    assert frozen_upstream.snapshot(other)[0].sha512 == digest(evil)


@pytest.mark.parametrize("manifests", ["always", "when-signed"])
def test_day_without_manifests(frozen_upstream: FakeUpstream, manifests: str) -> None:
    frozen_upstream.publish("one", frozen_upstream.signed())
    site = frozen_upstream.site(manifests=manifests)
    if manifests == "always":
        error = frozen_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
        assert "there is no Manifest at its top" in error.message
    else:
        assert frozen_upstream.snapshot(site)[0].tag == "20260116"


def test_new_machine_continues_from_the_remote(fake_upstream: FakeUpstream) -> None:
    """So does a machine that lost its state."""
    fake_upstream.publish("one", fake_upstream.signed(DAY), DAY)
    fake_upstream.snapshot(fake_upstream.site())
    fake_upstream.publish("one", fake_upstream.signed())
    other = fake_upstream.site(name="other")
    record, notes = fake_upstream.snapshot(other)
    assert record.tag == "20260116"
    assert notes == [frozen("frozen-first", other, NEXT, 3), pushed_note(fake_upstream, NEXT)]
    subjects = git(
        fake_upstream.remote, "log", "--first-parent", "--format=%s", "main"
    ).splitlines()
    assert subjects[:2] == ["freeze gentoo 20260116", "freeze gentoo 20260115"]
