"""rollback, promote, generations, diff: what people do with what was published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tasks import records
from tasks.errors import BinmillError
from tasks.flow import gate, publish
from tasks.flow.serve import Words
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.publish.diff import Released


def rollback(site: Site, words: list[str]) -> None:
    """`doit rollback:NAME [--to N]`: an earlier generation's packages, as a new generation.

    What clients have read must not be followed by something older, so nothing old comes back as
    it was. It is held: see switching.publish.
    """
    from tasks.publish import generation, published, retention

    parser = Words(prog="doit rollback", add_help=False)
    parser.add_argument("name")
    parser.add_argument("--to", default="")
    asked = parser.parse_args(words)
    name = _known(site, asked.name)
    binhost = site.layout.binhost(name)
    with locked(site.layout.busy(f"publish:{name}"), f"publish:{name}"):
        kept, now = generation.kept(binhost), generation.current(binhost)
        target = retention.before(kept, now, asked.to)
        wrong = gate.licences(site, gate.stanzas_of(published.place(binhost, target)))
        if wrong:
            raise BinmillError(
                f"generation {target} of {name} is not what [access] allows now: {wrong[0]}",
                "go back to another one (doit generations), or change [access]",
            )
        new = publish.again(
            site, name, target, rollback=target, instead_of=_newest_set(site, name, now)
        )
    say(
        f"{name}: generation {new} is current, with the packages of {target}; it is held until the "
        f"set changes, or until doit publish:{name}"
    )


def promote(site: Site, words: list[str]) -> None:
    """`doit promote NAME [N] [--to CHANNEL]`: a tested generation to the next channel, as it is."""
    from tasks.publish import generation, published

    parser = Words(prog="doit promote", add_help=False)
    parser.add_argument("name")
    parser.add_argument("number", nargs="?", default="")
    parser.add_argument("--to", default="")
    asked = parser.parse_args(words)
    name, channels = _known(site, asked.name), site.config.binhost.channels
    channel = asked.to or (channels[0] if channels else "")
    if channel not in channels:
        raise BinmillError(
            f"there is no channel {channel!r}",
            f"[binhost] channels in config.toml has: {', '.join(channels) or 'none'}",
        )
    binhost = site.layout.binhost(name)
    below = ["", *channels][channels.index(channel)]
    with locked(site.layout.busy(f"publish:{name}"), f"publish:{name}"):
        number = _number(site, name, asked.number, generation.current(binhost, below))
        before = generation.current(binhost, channel)
        if before == number:
            raise BinmillError(f"{channel} has generation {number} already", "doit generations")
        if before is not None and _stamp(site, name, before) > _stamp(site, name, number):
            number = publish.again(site, name, number, channel)
        else:
            generation.switch(binhost, number, channel)
    facts = published.facts(binhost, number)
    say(f"{name}: {channel} has generation {number}, {facts['packages']} packages")


def generations(site: Site, words: list[str]) -> None:
    """`doit generations [NAME] [--json]`: what is kept, what is current, what is held."""
    from tasks.publish import generation, retention

    parser = Words(prog="doit generations", add_help=False)
    parser.add_argument("name", nargs="?")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    names = [_known(site, asked.name)] if asked.name else list(site.config.chroots)
    found = {name: generation.kept(site.layout.binhost(name)) for name in names}
    if asked.json:
        say(
            json.dumps(
                [g for name in names for g in retention.as_json(name, found[name])], indent=1
            )
        )
    else:
        say("\n".join(retention.text(name, found[name]) for name in names))


def diff(site: Site, words: list[str]) -> None:
    """`doit diff NAME [N [M]] [--json]`: what a client of N meets when it is given M.

    Without N the current one and what was current before it; without M, N and the current one.
    """
    from tasks.publish import diff as diffs
    from tasks.publish import generation

    parser = Words(prog="doit diff", add_help=False)
    parser.add_argument("name")
    parser.add_argument("numbers", nargs="*")
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args(words)
    if len(asked.numbers) > 2:
        parser.error("two generations are compared, not more")
    name = _known(site, asked.name)
    binhost = site.layout.binhost(name)
    first, second = ([*asked.numbers, "", ""])[:2]
    old = _number(site, name, first, generation.current(binhost, previous=True))
    new = _number(site, name, second, generation.current(binhost))
    found = diffs.compare(_released(site, name, old), _released(site, name, new))
    say(json.dumps(diffs.as_json(found), indent=1) if asked.json else diffs.text(found, name))


def _released(site: Site, name: str, number: int) -> Released:
    """All packages of a generation, whatever their group, and what each was built from."""
    from tasks.publish import provenance, published
    from tasks.publish.diff import Released

    folder = published.place(site.layout.binhost(name), number)
    files = published.files(folder)
    stanzas = {s["PATH"]: s for found in gate.stanzas_of(folder).values() for s in found}
    return Released(
        number,
        [
            {**stanza, **provenance.built_from(files[path].origin, stanza.get("REPO", ""))}
            for path, stanza in stanzas.items()
        ],
        published.facts_in(folder)["revisions"],
    )


def _number(site: Site, name: str, word: str, otherwise: int | None) -> int:
    """The generation or candidate that is meant; raises BinmillError if there is none."""
    from tasks.publish import published

    binhost = site.layout.binhost(name)
    known = [*published.numbers(binhost), *published.numbers(binhost, published.CANDIDATES)]
    if word and word.isdecimal() and int(word) in known:
        return int(word)
    if not word and otherwise is not None:
        return otherwise
    raise BinmillError(
        f"there is no generation {word[:40]!r} of {name}"
        if word
        else f"{name} has no other generation to take",
        f"doit generations {name} lists them: {', '.join(map(str, known)) or 'none'}",
    )


def _stamp(site: Site, name: str, number: int) -> int:
    from tasks.publish import published

    return int(published.facts(site.layout.binhost(name), number)["timestamp"])


def _newest_set(site: Site, name: str, now: int | None) -> str:
    """The set that a rollback is instead of: the newest one that was built."""
    from tasks.publish import published

    if site.layout.record(f"binpkgs:{name}").exists():
        return str(records.read(site.layout, f"binpkgs:{name}")["set"])
    return str(published.facts(site.layout.binhost(name), now)["set"]) if now is not None else ""


def _known(site: Site, name: str) -> str:
    """A chroot's name; raises BinmillError where there is none of that name."""
    if name not in site.config.chroots:
        known = ", ".join(site.config.chroots)
        raise BinmillError(f"there is no chroot {name[:80]!r}", f"one of: {known}")
    return name
