"""Rollback, promotion and comparison of published generations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tasks import records
from tasks.chroot import sandboxes
from tasks.errors import BinmillError
from tasks.flow import gate, publish
from tasks.records import BINPKGS, Inputs
from tasks.site import Chroot
from tasks.system.files import locked

if TYPE_CHECKING:
    from tasks.publish.diff import Causes, Difference, Side
    from tasks.publish.generation import Generation


def roll_back(chroot: Chroot, to: str = "") -> tuple[int, int]:
    """Publish an earlier generation's packages as a new generation; returns (new, earlier).

    Clients refuse an index older than theirs, so an old generation is not shown again. The new one
    is held: see publish.publish_candidate. Raises BinmillError if there is no such generation, or
    [access] does not allow it now.
    """
    from tasks.publish import generation, retention
    from tasks.publish.generation import Rollback

    binhost, task = chroot.binhost, f"publish:{chroot.name}"
    with locked(chroot.layout.task_lock(task), task):
        current = generation.load_current(binhost)
        number = current.number if current else None
        target = retention.rollback_target(generation.load_all(binhost), number, to)
        forbidden = gate.forbidden_packages(
            chroot.site, gate.stanzas_of(generation.folder_of(binhost, target))
        )
        if forbidden:
            raise BinmillError(
                "rollback-not-allowed", number=target, chroot=chroot.name, reason=str(forbidden[0])
            )
        new = publish.reissue(
            chroot,
            _inputs(chroot),
            generation.load(binhost, target),
            rollback=Rollback(target, _newest_set(chroot, current)),
        )
    return new, target


def promote(chroot: Chroot, number: str = "", to: str = "") -> tuple[str, Generation]:
    """Give a channel a tested generation, unchanged; returns the channel and the generation.

    Without `to` it is the first channel, without `number` the generation of the channel before it.
    """
    from tasks.publish import generation

    channels = chroot.site.config.binhost.channels
    channel = to or (channels[0] if channels else "")
    if channel not in channels:
        raise BinmillError("channel-unknown", channel=channel, known=channels or ["none"])
    binhost, task = chroot.binhost, f"publish:{chroot.name}"
    below = ["", *channels][channels.index(channel)]
    with locked(chroot.layout.task_lock(task), task):
        pick = _choose(chroot, number, generation.current(binhost, below))
        before = generation.load_current(binhost, channel)
        if before and before.number == pick.number:
            raise BinmillError(
                "channel-has-generation",
                chroot=chroot.name,
                channel=channel,
                number=pick.number,
            )
        if before and before.issue.timestamp > pick.issue.timestamp:
            new = publish.reissue(chroot, _inputs(chroot), pick, channel)
            return channel, generation.load(binhost, new)
        publish.switch(chroot, pick.number, channel)
    return channel, pick


def difference(chroot: Chroot, first: str = "", second: str = "") -> Difference:
    """Compare two generations: the changes for a client that goes from the first to the second.

    Without `first` it is the previous one, without `second` the current one.
    """
    from tasks.publish import diff, generation

    old = _choose(chroot, first, generation.current(chroot.binhost, previous=True))
    new = _choose(chroot, second, generation.current(chroot.binhost))
    return diff.compare(_side(chroot, old), _side(chroot, new), _causes(chroot))


def _causes(chroot: Chroot) -> Causes:
    """The causes of the difference between two packages that the store knows."""
    from tasks.builder.package_builds import build_of
    from tasks.planner.input_changes import PackageMissing, VersionChanged, differences
    from tasks.store.store import Store

    store = Store(chroot.layout)

    def causes(before: Mapping[str, str], after: Mapping[str, str]) -> list[str] | None:
        old, new = (build_of(store, each.get("UNSIGNED", "")) for each in (before, after))
        if old is None or new is None:
            return None
        changes = differences(old.own, new.own, old.buildroot(), new.buildroot())
        if not changes:
            return [str(PackageMissing())]
        return [str(each) for each in changes if not isinstance(each, VersionChanged)]

    return causes


def _inputs(chroot: Chroot) -> Inputs:
    """The inputs of signing a generation again."""
    return records.reading(chroot.layout, sandboxes.seed_keys(chroot))


def _side(chroot: Chroot, each: Generation) -> Side:
    """All packages of a generation, whatever their group, and the origin of each."""
    from tasks.publish import generation, provenance, published
    from tasks.publish.diff import Side

    folder = generation.folder_of(chroot.binhost, each.number)
    packages = published.read_ledger(folder)
    stanzas = {s["PATH"]: s for view in gate.stanzas_of(folder).values() for s in view}
    full_stanzas = [
        {
            **stanza,
            **provenance.built_from(packages[path].origin, stanza.get("REPO", "")),
            "UNSIGNED": packages[path].collected,
        }
        for path, stanza in stanzas.items()
    ]
    return Side(each.number, full_stanzas, each.source.revisions)


def _choose(chroot: Chroot, word: str, default: int | None) -> Generation:
    """The generation or candidate of that number; raises BinmillError if there is none."""
    from tasks.publish import generation

    binhost = chroot.binhost
    numbers = [*generation.numbers(binhost), *generation.numbers(binhost, generation.CANDIDATES)]
    if word and word.isdecimal() and int(word) in numbers:
        return generation.load(binhost, int(word))
    if not word and default is not None:
        return generation.load(binhost, default)
    choices = list(map(str, numbers)) or ["none"]
    if word:
        raise BinmillError(
            "generation-unknown", number=word[:40], chroot=chroot.name, known=choices
        )
    raise BinmillError("generation-no-other", chroot=chroot.name, known=choices)


def _newest_set(chroot: Chroot, current: Generation | None) -> str:
    """The set that a rollback replaces: the newest one that was built."""
    if chroot.layout.record(f"binpkgs:{chroot.name}").exists():
        return records.load(chroot.layout, BINPKGS(chroot.name)).set
    return current.source.set if current else ""
