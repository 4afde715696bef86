"""snapshot: from the mirrors to a frozen day; and what changed between two of them."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.errors import BinmillError, NotTrusted, Stale
from tasks.flow import upstream_updates
from tasks.records import Inputs, SnapshotRecord
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.snapshot.freeze import Freeze, Frozen
    from tasks.snapshot.mirror import Source, Tarball

_HOUR = 3600
_PART_SECONDS = 7 * 24 * _HOUR  # half a download that nobody went on with


def freeze_newest(site: Site, inputs: Inputs) -> SnapshotRecord:
    """Freeze the newest snapshot if it is newer than all that is frozen, or that of option `day`.

    Pushes what the remote lacks, and says what else upstream has beyond the pins. The record is
    about the newest frozen day, whatever `day` was.
    """
    from tasks.snapshot import freeze

    day = inputs.request.options.get("day", "")

    done = _picked(site, day_of(day, "--date")) if day else _newest(site)
    newest = freeze.newest(site.layout.tree)
    assert newest is not None  # noqa: S101 - else one of the two has raised
    _push(site, newest, done)
    upstream_updates.look(site)
    try:
        freeze.tidy(site.layout.tree)
    except BinmillError as failed:  # all that was wanted is done
        say(f"  {failed.message}")
    return SnapshotRecord(newest.tag, newest.commit, newest.timestamp, newest.sha512, newest.signer)


def frozen_day(site: Site, day: date) -> Freeze:
    """That day's snapshot from the mirrors, frozen on purpose; raises when nobody has it."""
    return _take(site, day, exact=True)


def day_of(tag: str, where: str) -> date:
    """The day that a tag stands for; raises BinmillError saying `where` it is none."""
    try:
        if re.fullmatch(r"[0-9]{8}", tag):  # strptime takes 2026315 for one, too
            return datetime.strptime(tag, "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError:
        pass
    raise BinmillError(f"{where}: {tag!r} is not a day", "write it as the tags are, as 20260315")


def _newest(site: Site) -> str:
    """Freeze what is newer than all that is frozen or locked; returns what to say of it."""
    from tasks.snapshot import freeze
    from tasks.system.http import Missing

    tree = site.config.tree
    held = freeze.newest(site.layout.tree)
    pinned = _locked(site)  # a lost state must not make us fall behind
    days = [
        day
        for day in _days(tree.lookback_days)
        if f"{day:%Y%m%d}" >= pinned and (held is None or f"{day:%Y%m%d}" > held.tag)
    ]
    least = _earliest(day_of(pinned, site.layout.lock.name)) - 1 if pinned else 0
    floor = max(held.timestamp if held else 0, least)
    refused: list[BinmillError] = []
    for day in days:
        try:
            done = _take(site, day, floor=floor)
            _warn_if_old(site, done.frozen)
            return _told(site, done)
        except Missing:
            continue
        except NotTrusted as bad:  # an older day that is new to us is better than none
            refused.append(bad)
            say(f"  {day:%Y%m%d} was refused: {bad.message}")
    if refused:
        raise NotTrusted("nothing newer was accepted: " + refused[0].message, refused[0].hint)
    if held is None:
        limit = f" that is not older than {pinned}, which is locked" if pinned else ""
        raise BinmillError(
            f"no mirror has a snapshot of the last {tree.lookback_days} days{limit}",
            "check [mirrors], or raise [tree] lookback_days in config.toml",
        )
    _not_too_old(site, held)
    return _nothing_newer(site, held, asked=bool(days))


def _picked(site: Site, day: date) -> str:
    from tasks.snapshot import freeze

    name, tag = site.config.tree.name, f"{day:%Y%m%d}"
    held = freeze.read(site.layout.tree, tag)
    if held is not None:
        return f"{name} {tag} is frozen already, as {held.commit[:7]}"
    newest = freeze.newest(site.layout.tree)
    said = _told(site, frozen_day(site, day))
    older = newest is not None and newest.tag > tag
    return f"{said}; it was asked for, {newest.tag} stays the newest" if older and newest else said


def _take(site: Site, day: date, *, exact: bool = False, floor: int = 0) -> Freeze:
    from tasks.snapshot import freeze, manifests, mirror

    tree = site.config.tree
    with (
        locked(site.layout.busy("snapshots"), "the download of snapshots"),
        site.scratch("snapshot") as scratch,
    ):

        def check(place: Path, commit: str) -> None:
            wanted = tree.manifests == "always"
            if wanted or (tree.manifests == "when-signed" and manifests.signed(place, commit)):
                manifests.check(place, commit, site.role(tree.key), scratch, site.layout.trash)

        def accept(tarball: Tarball) -> Freeze:
            _follow(site)
            return freeze.freeze(
                site.layout.tree, tarball, day, tree.name, exact=exact, floor=floor, check=check
            )

        return mirror.take(_source(site), day, accept)


def _source(site: Site) -> Source:
    from tasks.snapshot.mirror import Source
    from tasks.system.files import closed_folder
    from tasks.system.resumable import discard

    tree = site.config.tree
    closed_folder(site.layout.downloads)
    for part in site.layout.downloads.glob(f"{tree.name}-*.tar.xz*"):
        if part.stat().st_mtime < _now().timestamp() - _PART_SECONDS:
            discard(part)
    return Source(site.mirrors, tree.name, site.role(tree.key), site.layout.downloads)


def _days(count: int) -> list[date]:
    """The days whose snapshots can exist, newest first: that of day D is made on D+1."""
    last = _now().date() - timedelta(days=1)
    return [last - timedelta(days=back) for back in range(count)]


def _now() -> datetime:
    return datetime.now(UTC)


def _earliest(day: date) -> int:
    """The earliest time that the snapshot of a day can have in it, in epoch seconds."""
    return int(datetime.combine(day, datetime.min.time(), UTC).timestamp()) + 24 * _HOUR


def _locked(site: Site) -> str:
    """The locked day, or ""."""
    from tasks import lock

    held = lock.load(site.layout)
    return held.tree.tag if held else ""


def _told(site: Site, done: Freeze) -> str:
    frozen = done.frozen
    count = f"{done.changed:,} file{'s' * (done.changed != 1)}"
    if done.since:
        count += f" {'changed since' if done.since < frozen.tag else 'unlike'} {done.since}"
    return (
        f"frozen {site.config.tree.name} {frozen.tag} as {frozen.commit[:7]} "
        f"(tag {frozen.tag}, {count})"
    )


def _nothing_newer(site: Site, held: Frozen, *, asked: bool) -> str:
    from tasks.snapshot import mirror

    if not asked:
        return f"no newer snapshot than {held.tag} (there can be none before tomorrow)"
    count = len(site.mirrors)
    told = mirror.seen(_source(site), day_of(held.tag, "tag"))
    says = f"mirror says {told:%Y-%m-%dT%H:%MZ}, " if told else ""
    return f"no newer snapshot than {held.tag} ({says}{count} mirror{'s' * (count > 1)} asked)"


def _not_too_old(site: Site, held: Frozen) -> None:
    """Raise Stale when there was nothing newer for too long: somebody may hold it back."""
    hours, limit = _hours_old(held), site.config.tree.fail_hours
    if limit and hours > limit:
        raise Stale(
            f"nothing newer than {held.tag} for {hours} h (more than {limit} h): the mirrors are "
            "out of date, or somebody holds the newer ones back",
            "ask another mirror ([mirrors] in config.toml), or raise [tree] fail_hours",
        )
    _warn_if_old(site, held)


def _warn_if_old(site: Site, frozen: Frozen) -> None:
    hours, limit = _hours_old(frozen), site.config.tree.warn_hours
    if limit and hours > limit:
        say(f"  {frozen.tag} is {hours} h old (more than {limit} h): are the mirrors behind?")


def _hours_old(frozen: Frozen) -> int:
    return int(_now().timestamp() - frozen.timestamp) // _HOUR


def _follow(site: Site) -> None:
    from tasks.snapshot import remote

    where = site.config.tree.remote
    if where:
        try:
            remote.follow(site.layout.tree, where)
        except BinmillError as failed:  # freezing needs no remote; the push will say it again
            say(f"  {failed.message}")


def _push(site: Site, newest: Frozen, done: str) -> None:
    """Say what was done, and where it went; what was done is said also when nothing goes there."""
    from tasks.snapshot import remote
    from tasks.system.http import public

    where = site.config.tree.remote
    pushed: list[str] = []
    try:
        if where:
            pushed = remote.push(site.layout.tree, where, newest)
    except BinmillError:
        say(f"  {done}")
        raise
    if where and pushed:
        told = all(f"(tag {tag}," in done for tag in pushed)
        done += f", pushed {'' if told else ', '.join(pushed) + ' '}to {public(where)}"
    say(f"  {done}")
