"""publish: the generation that clients see, and how they get from one to another."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from tasks import records
from tasks.errors import BinmillError
from tasks.flow import signing
from tasks.records import BINPKGS, CANDIDATE, CandidateRecord, Inputs, PublishRecord
from tasks.site import Chroot
from tasks.system.notes import note


def publish_candidate(chroot: Chroot, inputs: Inputs) -> PublishRecord:
    """Switch clients to the candidate that passed the gate; delete generations no longer needed.

    After a rollback the current one stays until the set changes, or the task is named.
    """
    from tasks.publish import generation, published

    candidate = inputs[CANDIDATE(chroot.name)]
    binhost, number = chroot.binhost, candidate.generation
    current = generation.current(binhost)
    set_id = inputs[BINPKGS(chroot.name)].set
    if current is not None and holds_rollback(chroot, set_id) and not inputs.request.named:
        note("rollback-held", chroot=chroot.name, number=current)
    elif current is None or _origin(chroot, current) != number:
        _show(chroot, inputs, number)
    for channel in ("", *chroot.site.config.binhost.channels):
        if not valid(chroot, channel):
            _renew(chroot, inputs, channel)
    current = generation.current(binhost)
    assert current is not None  # noqa: S101 - the candidate is published, or there was one
    gone = tidy(chroot, {number, current})
    note("generation-current", chroot=chroot.name, number=current)
    if gone:
        note("generations-deleted", chroot=chroot.name, numbers=len(gone))
    facts = published.facts(binhost, current)
    return PublishRecord(current, facts["set"], facts["views"])


def _show(chroot: Chroot, inputs: Inputs, number: int) -> None:
    """Show clients a candidate, or an earlier generation as a new one."""
    from tasks.publish import generation, published

    binhost = chroot.binhost
    if generation.is_next(binhost, number):
        generation.let_out(binhost, number)
    if number == max(published.numbers(binhost), default=0):
        generation.switch(binhost, number)
    else:  # a rollback came in between: a client must not get anything older than it has
        reissue(chroot, inputs, number)


def _renew(chroot: Chroot, inputs: Inputs, channel: str) -> None:
    """Issue a channel's generation again, unchanged, before its release manifest expires."""
    from tasks.publish import generation, published

    number = generation.current(chroot.binhost, channel)
    if number is None:
        return
    facts = published.facts(chroot.binhost, number)
    if facts["signer"] != chroot.site.config.binhost.signing_key:
        place = channel or "a rollback"
        note("manifest-not-renewed", chroot=chroot.name, number=number, channel=place)
        return
    held = {key: facts[key] for key in ("rollback", "instead_of") if key in facts}
    reissue(chroot, inputs, number, channel, **held)


def _origin(chroot: Chroot, number: int) -> int:
    """The generation that first had a generation's packages."""
    from tasks.publish import published

    return int(published.facts(chroot.binhost, number).get("of", number))


def reissue(chroot: Chroot, inputs: Inputs, number: int, channel: str = "", **about: Any) -> int:
    """Make a new generation of an earlier one's packages, for a channel; returns its number.

    `about` is added to the facts of the earlier one.
    """
    from tasks.publish import generation, published

    binhost, table = chroot.binhost, chroot.site.config.binhost
    about["of"] = _origin(chroot, number)
    content = generation.content_of(published.place(binhost, number), table.valid_days, **about)
    signer, key = str(content.about["signer"]), str(table.signing_key)
    if signer != key:
        raise BinmillError(
            "generation-signed-by-other-key",
            number=number,
            chroot=chroot.name,
            signer=signer,
            key=key,
        )
    with chroot.workspace("sign") as space:
        sign = partial(signing.sign_beside, chroot, inputs, space)
        new = generation.prepare(binhost, content, sign, chroot.layout.trash)
    generation.let_out(binhost, new)
    generation.switch(binhost, new, channel)
    return new


def holds_rollback(chroot: Chroot, set_id: str) -> bool:
    """Whether the current generation comes from a rollback away from that set."""
    from tasks.publish import generation, published

    current = generation.current(chroot.binhost)
    facts = published.facts(chroot.binhost, current) if current is not None else {}
    return facts.get("instead_of") is not None and facts["instead_of"] == set_id


def rollback_ends(chroot: Chroot) -> bool:
    """Whether publish:NAME would end a rollback, if it were named."""
    try:
        record = records.load(chroot.layout, BINPKGS(chroot.name))
    except BinmillError:
        return False
    return holds_rollback(chroot, record.set)


def tidy(chroot: Chroot, pinned: set[int]) -> list[int]:
    """Delete the generations that nothing needs, except those pinned; returns their numbers."""
    from tasks.publish import generation

    table = chroot.site.config.binhost
    return generation.prune(
        chroot.binhost,
        pinned,
        keep=table.keep,
        keep_days=table.keep_days,
        trash=chroot.layout.trash,
    )


def place(chroot: Chroot, record: CandidateRecord | PublishRecord | records.GateRecord) -> Path:
    """The folder of the generation that a record names."""
    from tasks.publish import published

    return published.place(chroot.binhost, record.generation)


def all_valid(chroot: Chroot) -> bool:
    """Whether the release manifests of every channel are valid for a while."""
    return all(valid(chroot, channel) for channel in ("", *chroot.site.config.binhost.channels))


def valid(chroot: Chroot, channel: str = "") -> bool:
    """Whether a channel's release manifests are valid for a while; True if there are none."""
    from tasks.publish import generation, published, release_manifest

    binhost = chroot.binhost
    try:
        current = generation.current(binhost, channel)
        created = published.facts(binhost, current)["created"] if current is not None else None
    except (BinmillError, OSError, LookupError, ValueError):
        return False  # damaged, or of a release that had none
    valid_days = chroot.site.config.binhost.valid_days
    return created is None or time.time() < release_manifest.renewal(created, valid_days)
