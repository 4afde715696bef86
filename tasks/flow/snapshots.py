"""snapshot: freeze the newest day from the mirrors, and push it to the remote."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import clock
from tasks import lock as lock_file
from tasks.errors import BinmillError, NotTrusted, Stale
from tasks.flow import upstream_updates
from tasks.messages import Field
from tasks.records import Inputs, SnapshotRecord
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.notes import Note, note
from tasks.text import without_password

if TYPE_CHECKING:
    from tasks.snapshot.download import Source, VerifiedArchive
    from tasks.snapshot.freeze import FreezeResult
    from tasks.snapshot.frozen_days import FrozenDay

_HOUR = 3600
_PARTIAL_SECONDS = 7 * 24 * _HOUR  # a partial download that no run resumed is deleted after this


def freeze_newest(site: Site, inputs: Inputs) -> SnapshotRecord:
    """Freeze the newest snapshot if it is newer than all that is frozen, or that of option `day`.

    Pushes what the remote lacks, and notes what upstream has beyond the pins. The record is about
    the newest frozen day, whatever `day` was.
    """
    from tasks.snapshot import frozen_days, repository

    day = inputs.request.options.get("day", "")
    outcome = _freeze_requested(site, day_of(day, "--date")) if day else _freeze_newer(site)
    note(outcome.code, **outcome.fields)
    newest = frozen_days.newest(site.layout.tree)
    assert newest is not None  # noqa: S101 - else one of the two has raised
    _push(site, newest)
    upstream_updates.look(site)
    try:
        repository.repack(site.layout.tree)
    except BinmillError as error:  # the day is frozen and pushed
        note("not-repacked", cause=error.message)
    return SnapshotRecord(newest.tag, newest.commit, newest.timestamp, newest.sha512, newest.signer)


def freeze_day(site: Site, day: date) -> FreezeResult:
    """Freeze that day's snapshot from the mirrors; raises DownloadFailed when none has it."""
    return _freeze(site, day, exact=True)


def day_of(tag: str, source: str) -> date:
    """Parse a tag; raises BinmillError that names the source of a text that is no day."""
    try:
        if re.fullmatch(r"[0-9]{8}", tag):  # strptime takes 2026315 for one, too
            return datetime.strptime(tag, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        pass
    raise BinmillError("not-a-day", source=source, text=tag)


def _freeze_newer(site: Site) -> Note:
    """Freeze the newest day that is newer than all that is frozen or locked, if there is one."""
    from tasks.snapshot import frozen_days
    from tasks.system.http import NotOnMirrors

    newest = frozen_days.newest(site.layout.tree)
    locked_day = _locked_day(site)  # a lost state must not lead back behind the lock
    days = [
        day
        for day in _possible_days(site.config.tree.lookback_days)
        if f"{day:%Y%m%d}" >= locked_day and (newest is None or f"{day:%Y%m%d}" > newest.tag)
    ]
    least = _earliest(day_of(locked_day, site.layout.lock.name)) - 1 if locked_day else 0
    floor = max(newest.timestamp if newest else 0, least)
    refusal: BinmillError | None = None
    for day in days:
        try:
            result = _freeze(site, day, floor=floor)
            _warn_if_old(site, result.frozen)
            return _frozen_note(site, result)
        except NotOnMirrors:
            continue
        except NotTrusted as error:  # an older day that is new here is better than none
            refusal = refusal or error
            note("day-refused", day=f"{day:%Y%m%d}", cause=error.message)
    if refusal:
        raise NotTrusted(
            "nothing-newer-accepted",
            codes=refusal.fields["codes"],
            cause=refusal.message,
            advice=refusal.hint,
        )
    if newest is None:
        code = "no-snapshot-since-lock" if locked_day else "no-snapshot"
        raise BinmillError(code, lookback=site.config.tree.lookback_days, pinned=locked_day)
    _check_age(site, newest)
    return _nothing_newer(site, newest, looked=bool(days))


def _freeze_requested(site: Site, day: date) -> Note:
    from tasks.snapshot import frozen_days

    tag = f"{day:%Y%m%d}"
    frozen = frozen_days.read(site.layout.tree, tag)
    if frozen is None:
        return _frozen_note(site, freeze_day(site, day))
    return Note(
        "frozen-already", {"name": site.config.tree.name, "tag": tag, "commit": frozen.commit}
    )


def _freeze(site: Site, day: date, *, exact: bool = False, floor: int = 0) -> FreezeResult:
    from tasks.snapshot import download, freeze, manifests

    tree = site.config.tree
    with (
        locked(site.layout.task_lock("snapshots"), "the download of snapshots"),
        site.scratch("snapshot") as scratch,
    ):

        def check(quarantined: Path, commit: str) -> None:
            if tree.manifests == "always" or (
                tree.manifests == "when-signed" and manifests.is_signed(quarantined, commit)
            ):
                role = site.role(tree.key)
                manifests.verify(quarantined, commit, role, scratch, site.layout.trash)

        def accept(archive: VerifiedArchive) -> FreezeResult:
            _fast_forward(site)
            return freeze.freeze_archive(
                site.layout.tree, archive, day, tree.name, exact=exact, floor=floor, check=check
            )

        return download.fetch(_source(site), day, accept)


def _source(site: Site) -> Source:
    from tasks.snapshot.download import Source
    from tasks.system.files import private_folder
    from tasks.system.resumable import discard

    tree = site.config.tree
    private_folder(site.layout.downloads)
    for file in site.layout.downloads.glob(f"{tree.name}-*.tar.xz*"):
        if file.stat().st_mtime < clock.today().timestamp() - _PARTIAL_SECONDS:
            discard(file)
    return Source(site.mirrors, tree.name, site.role(tree.key), site.layout.downloads)


def _possible_days(count: int) -> list[date]:
    """The days whose snapshots can exist, newest first: that of day D is made on D+1."""
    last = clock.today().date() - timedelta(days=1)
    return [last - timedelta(days=back) for back in range(count)]


def _earliest(day: date) -> int:
    """The earliest time that the snapshot of a day can have inside, in epoch seconds."""
    return int(datetime.combine(day, datetime.min.time(), UTC).timestamp()) + 24 * _HOUR


def _locked_day(site: Site) -> str:
    """The locked day, or ""."""
    lock = lock_file.read_or_none(site.layout)
    return lock.tree.tag if lock else ""


def _frozen_note(site: Site, result: FreezeResult) -> Note:
    frozen = result.frozen
    fields: dict[str, Field] = {
        "name": site.config.tree.name,
        "tag": frozen.tag,
        "commit": frozen.commit,
        "files": result.changed,
    }
    if result.since is None:
        return Note("frozen-first", fields)
    code = "frozen-newer" if result.since < frozen.tag else "frozen-older"
    return Note(code, {**fields, "since": result.since})


def _nothing_newer(site: Site, newest: FrozenDay, *, looked: bool) -> Note:
    """The note that no day was frozen; `looked` tells whether a newer one was possible."""
    from tasks.snapshot import download

    if not looked:
        return Note("nothing-newer-possible", {"tag": newest.tag})
    fields: dict[str, Field] = {"tag": newest.tag, "mirrors": len(site.mirrors)}
    time = download.received_at(_source(site), day_of(newest.tag, "tag"))
    if time is None:
        return Note("nothing-newer", fields)
    return Note("nothing-newer-since", {**fields, "time": int(time.timestamp())})


def _check_age(site: Site, newest: FrozenDay) -> None:
    """Raise Stale where there was nothing newer for too long: mirrors may be withholding it."""
    hours, limit = _hours_old(newest), site.config.tree.fail_hours
    if limit and hours > limit:
        raise Stale("snapshots-too-old", tag=newest.tag, hours=hours, limit=limit)
    _warn_if_old(site, newest)


def _warn_if_old(site: Site, frozen: FrozenDay) -> None:
    hours, limit = _hours_old(frozen), site.config.tree.warn_hours
    if limit and hours > limit:
        note("snapshot-old", tag=frozen.tag, hours=hours, limit=limit)


def _hours_old(frozen: FrozenDay) -> int:
    return int(clock.today().timestamp() - frozen.timestamp) // _HOUR


def _fast_forward(site: Site) -> None:
    from tasks.snapshot import remote

    url = site.config.tree.remote
    if url:
        try:
            remote.fast_forward(site.layout.tree, url)
        except BinmillError as error:  # freezing needs no remote; the push reports it again
            note("remote-not-read", cause=error.message)


def _push(site: Site, newest: FrozenDay) -> None:
    from tasks.snapshot import remote

    url = site.config.tree.remote
    tags = remote.push(site.layout.tree, url, newest) if url else []
    if url and tags:
        note("days-pushed", tags=tags, remote=without_password(url))
