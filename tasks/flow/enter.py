"""enter: a person in a chroot. What they change is kept, and the chroot is called touched."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from tasks import records
from tasks.errors import BinmillError
from tasks.flow import chroots
from tasks.site import Site
from tasks.system.files import locked
from tasks.system.terminal import say

_USAGE = "doit enter NAME [--scratch | --reset] [-- COMMAND]"


class _Words(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise BinmillError(f"doit enter: {message}", _USAGE)


def enter(site: Site, words: Sequence[str]) -> int:
    """`doit enter NAME [--scratch] [-- COMMAND]`: a shell or a command; its exit code.

    What it writes becomes a layer of this chroot, unless `--scratch` throws it away;
    `doit enter NAME --reset` throws away what was kept.
    """
    asked, command = _asked(list(words))
    name = asked.name
    if name not in site.config.chroots:
        known = ", ".join(site.config.chroots)
        raise BinmillError(f"there is no chroot {name!r}", f"{_USAGE}, NAME one of: {known}")
    # one at a time: the second would sweep the first one's layer away
    with locked(site.layout.busy(f"enter:{name}"), f"a shell in {name}"):
        return _reset(site, name) if asked.reset else _enter(site, name, command, asked.scratch)


def _asked(words: list[str]) -> tuple[Any, list[str]]:
    """The options, which stand before the command, and the command."""
    ours: list[str] = []
    while words and (words[0].startswith("-") or all(word.startswith("-") for word in ours)):
        word = words.pop(0)
        if word == "--":
            break
        ours.append(word)
    parser = _Words(add_help=False, allow_abbrev=False)
    parser.add_argument("name", nargs="?", default="")
    parser.add_argument("--scratch", action="store_true")
    parser.add_argument("--reset", action="store_true")
    asked = parser.parse_args(ours)
    if asked.reset and (words or asked.scratch):
        raise BinmillError("doit enter: --reset takes neither a command nor --scratch", _USAGE)
    return asked, words


def _enter(site: Site, name: str, command: list[str], scratch: bool) -> int:
    from tasks.chroot import manual_changes
    from tasks.system import sandbox

    records.read(site.layout, f"mount:{name}")  # that task has proved that it can be entered
    made = chroots.without_hand(site, name)
    before = manual_changes.marked(site.layout, name)
    if before and list(before.over) != made:
        before = None  # it was done to another chroot of that name: see flow.chroots.chroot
    shell = not command
    with chroots.workspace(site, f"enter-{name}") as space:
        if before:
            manual_changes.begin(space / "upper", site.layout.state / before.layer)
        inside = chroots.plan(
            site,
            name,
            space,
            network=True,
            layers=[site.layout.state / part for part in made],
            variables={
                "TERM": os.environ.get("TERM", "dumb"),
                "PS1": f"[{name}] \\w \\$ ",
                "HISTFILE": "",
            },
        )
        if shell:
            say(_greeting(name, scratch=scratch, touched=before is not None))
        ended = False
        try:
            code = sandbox.enter(inside, command or ["/bin/bash", "--login"])
            ended = True
        finally:
            # a shell whose terminal has gone was somebody's work; half a command was not
            if not scratch and (ended or shell):
                _keep(site, name, inside, made)
    return code


def _keep(site: Site, name: str, inside: Any, made: list[str]) -> None:
    from tasks.chroot import manual_changes

    mounts = [bind.target for bind in inside.binds]
    if manual_changes.keep(site.layout, name, inside.upper, made, mounts):
        say(
            f"chroot {name} is touched by hand: what depends on it is made again with what you did "
            f"there\n  next: to throw it away: doit enter {name} --reset"
        )


def _greeting(name: str, *, scratch: bool, touched: bool) -> str:
    if scratch:
        return f"chroot {name}: what you change here is thrown away when you leave"
    state = "touched by hand before" if touched else "as it was made"
    return f"chroot {name}, {state}: what you change here is kept (--scratch throws it away)"


def _reset(site: Site, name: str) -> int:
    from tasks.chroot import manual_changes

    if os.path.lexists(site.layout.touched(name)):
        manual_changes.forget(site.layout, name)
        say(f"what was done by hand in {name} is thrown away; the next run makes it as it was")
    else:
        say(f"nobody has touched {name}")
    return 0
