"""publish: what clients see, and how they get from one generation to another."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

from tasks import records
from tasks.errors import BinmillError
from tasks.flow import candidate, chroots
from tasks.records import Record
from tasks.site import Site
from tasks.system.terminal import say


def publish(site: Site, name: str, *, asked: bool) -> Record:
    """Switch clients to the candidate that went through the gate; tidy what nobody needs any more.

    After a rollback it stays as it is until the set changes, or somebody asks for it.
    """
    from tasks.publish import generation, published

    made = records.read(site.layout, f"candidate:{name}")
    binhost, number = site.layout.binhost(name), made["generation"]
    now = generation.current(binhost)
    if now is not None and held_by_rollback(site, name) and not asked:
        say(f"  {name}: generation {now}, of a rollback, is held; to end that: doit publish:{name}")
    elif now is None or _origin(site, name, now) != number:
        _let_out(site, name, number)
    for channel in ("", *site.config.binhost.channels):
        if not valid(site, name, channel):
            _renew(site, name, channel)
    now = generation.current(binhost)
    assert now is not None  # noqa: S101 - the candidate has been let out, or there was one
    gone = tidy(site, name)
    say(
        f"  {name}: generation {now} is current"
        + (f"; {len(gone)} old ones deleted" if gone else "")
    )
    facts = published.facts(binhost, now)
    return {"generation": now, "set": facts["set"], "views": facts["views"]}


def _let_out(site: Site, name: str, number: int) -> None:
    """Show clients a candidate, or an earlier generation as a new one."""
    from tasks.publish import generation, published

    binhost = site.layout.binhost(name)
    if generation.is_next(binhost, number):
        generation.let_out(binhost, number)
    if number == max(published.numbers(binhost), default=0):
        generation.switch(binhost, number)
    else:  # a rollback came in between: nobody may get what is older than what he has
        again(site, name, number)


def _renew(site: Site, name: str, channel: str) -> None:
    """Make a channel's generation anew, as it is, before its release manifest expires."""
    from tasks.publish import generation, published

    binhost = site.layout.binhost(name)
    number = generation.current(binhost, channel)
    if number is not None:
        facts = published.facts(binhost, number)
        if facts["signer"] != site.config.binhost.signing_key:
            say(
                f"  {name}: generation {number} of {channel or 'a rollback'} is signed by another "
                "key, and its manifest is not renewed; give it a newer one"
            )
            return
        held = {key: facts[key] for key in ("rollback", "instead_of") if key in facts}
        again(site, name, number, channel, **held)


def _origin(site: Site, name: str, number: int) -> int:
    """The generation that first had a generation's packages."""
    from tasks.publish import published

    return int(published.facts(site.layout.binhost(name), number).get("of", number))


def again(site: Site, name: str, number: int, channel: str = "", **about: Any) -> int:
    """Make a new generation of the packages of an earlier one, for a channel; returns its number.

    `about` is what it says of itself beside what the earlier one said.
    """
    from tasks.publish import generation, published

    layout = site.layout
    binhost = layout.binhost(name)
    about["of"] = _origin(site, name, number)
    content = generation.content_of(
        published.place(binhost, number), site.config.binhost.valid_days, **about
    )
    signer, key = content.about["signer"], site.config.binhost.signing_key
    if signer != key:
        raise BinmillError(
            f"the packages of generation {number} of {name} are signed by {signer}, not by {key}",
            "clients trust the newer key; take a generation that is signed by it",
        )
    with chroots.workspace(site, f"sign-{name}") as space:
        sign = partial(candidate.sign_beside, site, name, space)
        new = generation.prepare(binhost, content, sign, layout.trash)
    generation.let_out(binhost, new)
    generation.switch(binhost, new, channel)
    return new


def held_by_rollback(site: Site, name: str) -> bool:
    """Whether the current generation is of a rollback, and the set is still that of then."""
    from tasks.publish import generation, published

    binhost = site.layout.binhost(name)
    now = generation.current(binhost)
    held = published.facts(binhost, now).get("instead_of") if now is not None else None
    return held is not None and held == records.read(site.layout, f"binpkgs:{name}")["set"]


def tidy(site: Site, name: str) -> list[int]:
    """Delete the generations that nobody needs; returns their numbers.

    What records name stays: it would be made again.
    """
    from tasks.publish import generation

    pinned = {
        records.read(site.layout, task)["generation"]
        for task in (f"candidate:{name}", f"publish:{name}")
        if site.layout.record(task).exists()
    }
    table = site.config.binhost
    return generation.prune(
        site.layout.binhost(name),
        pinned,
        keep=table.keep,
        keep_days=table.keep_days,
        trash=site.layout.trash,
    )


def place(site: Site, name: str, record: Record) -> Path:
    """Where the generation lies that a record names."""
    from tasks.publish import published

    return published.place(site.layout.binhost(name), record["generation"])


def all_valid(site: Site, name: str) -> bool:
    """Whether that holds for every channel."""
    return all(valid(site, name, channel) for channel in ("", *site.config.binhost.channels))


def valid(site: Site, name: str, channel: str = "") -> bool:
    """Whether a channel's release manifests are good for a while; True if there are none."""
    from tasks.publish import generation, published, release_manifest

    binhost = site.layout.binhost(name)
    try:
        now = generation.current(binhost, channel)
        created = published.facts(binhost, now)["created"] if now is not None else None
    except (BinmillError, OSError, LookupError, ValueError):
        return False  # damaged, or of a release that had none
    valid_days = site.config.binhost.valid_days
    return created is None or time.time() < release_manifest.renewal(created, valid_days)
