"""Rollback, promotion and comparison of what was published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tasks import records
from tasks.chroot import sandboxes
from tasks.errors import BinmillError
from tasks.flow import gate, publish
from tasks.records import BINPKGS, Inputs
from tasks.site import Chroot
from tasks.system.files import locked

if TYPE_CHECKING:
    from tasks.publish.diff import Difference, Released


def roll_back(chroot: Chroot, to: str = "") -> tuple[int, int]:
    """Publish an earlier generation's packages as a new generation; returns (new, earlier).

    A client must not meet anything older than it has read, so an old generation does not come back
    as it was. The new one is held: see publish.publish_candidate. Raises BinmillError where there
    is no such generation, or [access] does not allow it now.
    """
    from tasks.publish import generation, published, retention

    binhost = chroot.binhost
    task = f"publish:{chroot.name}"
    with locked(chroot.layout.busy(task), task):
        kept, current = generation.kept(binhost), generation.current(binhost)
        target = retention.before(kept, current, to)
        wrong = gate.licences(chroot.site, gate.stanzas_of(published.place(binhost, target)))
        if wrong:
            raise BinmillError(
                "rollback-not-allowed", number=target, chroot=chroot.name, reason=wrong[0]
            )
        new = publish.reissue(
            chroot,
            _inputs(chroot),
            target,
            rollback=target,
            instead_of=_newest_set(chroot, current),
        )
    return new, target


def promote(chroot: Chroot, number: str = "", to: str = "") -> tuple[str, int]:
    """Give a channel a tested generation, unchanged; returns the channel and the generation.

    Without `to` the first channel, without `number` what the channel before it has.
    """
    from tasks.publish import generation

    channels = chroot.site.config.binhost.channels
    channel = to or (channels[0] if channels else "")
    if channel not in channels:
        raise BinmillError("channel-unknown", channel=channel, known=channels or ["none"])
    binhost, task = chroot.binhost, f"publish:{chroot.name}"
    below = ["", *channels][channels.index(channel)]
    with locked(chroot.layout.busy(task), task):
        chosen = _number(chroot, number, generation.current(binhost, below))
        before = generation.current(binhost, channel)
        if before == chosen:
            raise BinmillError("channel-has-generation", channel=channel, number=chosen)
        if before is not None and _stamp(chroot, before) > _stamp(chroot, chosen):
            chosen = publish.reissue(chroot, _inputs(chroot), chosen, channel)
        else:
            generation.switch(binhost, chosen, channel)
    return channel, chosen


def difference(chroot: Chroot, first: str = "", second: str = "") -> Difference:
    """Compare two generations as a client of the first meets the second.

    Without `first` the one that was current before, without `second` the current one.
    """
    from tasks.publish import diff, generation

    old = _number(chroot, first, generation.current(chroot.binhost, previous=True))
    new = _number(chroot, second, generation.current(chroot.binhost))
    return diff.compare(_released(chroot, old), _released(chroot, new))


def _inputs(chroot: Chroot) -> Inputs:
    """What signing a generation again reads."""
    return records.reading(chroot.layout, sandboxes.seed_keys(chroot))


def _released(chroot: Chroot, number: int) -> Released:
    """All packages of a generation, whatever their group, and what each was built from."""
    from tasks.publish import provenance, published
    from tasks.publish.diff import Released

    folder = published.place(chroot.binhost, number)
    files = published.files(folder)
    stanzas = {s["PATH"]: s for listed in gate.stanzas_of(folder).values() for s in listed}
    return Released(
        number,
        [
            {**stanza, **provenance.built_from(files[path].origin, stanza.get("REPO", ""))}
            for path, stanza in stanzas.items()
        ],
        published.facts_in(folder)["revisions"],
    )


def _number(chroot: Chroot, word: str, otherwise: int | None) -> int:
    """The generation or candidate of that number; raises BinmillError if there is none."""
    from tasks.publish import published

    binhost = chroot.binhost
    known = [*published.numbers(binhost), *published.numbers(binhost, published.CANDIDATES)]
    if word and word.isdecimal() and int(word) in known:
        return int(word)
    if not word and otherwise is not None:
        return otherwise
    numbers = list(map(str, known)) or ["none"]
    if word:
        raise BinmillError(
            "generation-unknown", number=word[:40], chroot=chroot.name, known=numbers
        )
    raise BinmillError("generation-no-other", chroot=chroot.name, known=numbers)


def _stamp(chroot: Chroot, number: int) -> int:
    from tasks.publish import published

    return int(published.facts(chroot.binhost, number)["timestamp"])


def _newest_set(chroot: Chroot, current: int | None) -> str:
    """The set that a rollback leaves: the newest one that was built."""
    from tasks.publish import published

    if chroot.layout.record(f"binpkgs:{chroot.name}").exists():
        return records.load(chroot.layout, BINPKGS(chroot.name)).set
    return str(published.facts(chroot.binhost, current)["set"]) if current is not None else ""
