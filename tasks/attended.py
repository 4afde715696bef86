"""The tasks for a person at a terminal: they look, ask, serve or tidy, and leave no record."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from doit.task import Task

from tasks.engine.backend import remembered
from tasks.engine.step import Step, interactive
from tasks.flow import enter, etc, mirror, releases, serve, snapshots
from tasks.site import Site
from tasks.upkeep import fsck, gc
from tasks.upkeep.reachable import Artifact


def build(site: Site, steps: Sequence[Step]) -> Iterator[Any]:
    """All of them; `steps` are those that leave artifacts."""
    yield _log(site)
    yield _enter(site)
    yield _show(site)
    yield from _releases(site)
    yield from _giving(site)
    yield from _upkeep(site, steps)


def _log(site: Site) -> dict[str, Any]:
    doc = "show what changed between two frozen days: doit log [DAY [DAY]] [--json]"
    json = {"name": "json", "long": "json", "type": bool, "default": False, "help": "as JSON"}
    return {
        "basename": "log",
        **interactive(partial(snapshots.log, site), doc),
        "pos_arg": "words",
        "params": [json],
    }


def _enter(site: Site) -> dict[str, Any]:
    doc = "a shell in a chroot: doit enter NAME [--scratch | --reset] [-- COMMAND]"
    said = {"scratch": "throw away what is changed", "reset": "throw away what was kept before"}
    params = [
        {"name": name, "long": name, "type": bool, "default": False, "help": text}
        for name, text in said.items()
    ]
    return {
        "basename": "enter",
        **interactive(partial(enter.enter, site), doc),
        "pos_arg": "words",
        "params": params,
    }


def _show(site: Site) -> dict[str, Any]:
    doc = "print the generated /etc/portage of a chroot: doit show NAME [FILE]"
    return {"basename": "show", **interactive(partial(etc.show, site), doc), "pos_arg": "words"}


def _releases(site: Site) -> Iterator[Any]:
    """What people do with what was published."""
    json = {"name": "json", "long": "json", "type": bool, "default": False, "help": "as JSON"}
    to = {"name": "to", "long": "to", "default": "", "help": "the generation, or the channel"}
    told = {
        "rollback": (
            releases.rollback,
            "bring an earlier generation back: doit rollback:NAME [--to N]",
            to,
        ),
        "promote": (
            releases.promote,
            "a tested generation to a channel: doit promote NAME [N] [--to CHANNEL]",
            to,
        ),
        "generations": (
            releases.generations,
            "list what is kept: doit generations [NAME] [--json]",
            json,
        ),
        "diff": (releases.diff, "compare two generations: doit diff NAME [N [M]] [--json]", json),
    }
    for name, (action, doc, option) in told.items():
        yield {
            "basename": name,
            **interactive(partial(action, site), doc),
            "pos_arg": "words",
            "params": [option],
        }
    for name in site.config.chroots:
        back = partial(_named, partial(releases.rollback, site), name)
        task = Task(
            f"rollback:{name}",
            params=[to],
            **interactive(back, f"bring an earlier generation of {name} back: --to N"),
        )
        task.subtask_of = "rollback"
        yield task


def _named(action: Callable[[list[str]], None], name: str, words: list[str]) -> None:
    action([name, *words])


def _giving(site: Site) -> Iterator[dict[str, Any]]:
    """What is for people who give packages to others."""
    show = {
        "name": "print",
        "long": "print",
        "type": bool,
        "default": False,
        "help": "print nginx's server block for a web server of your own",
    }
    told = {
        "serve": (serve.serve, "serve binhosts and mirror to whom they are for, until Ctrl-C"),
        "user": (serve.user, "who may fetch: doit user add NAME --group GROUP, remove NAME, list"),
        "distfile": (mirror.distfile, "the mirror: doit distfile add FILE --group GROUP, sync"),
    }
    for name, (action, doc) in told.items():
        yield {
            "basename": name,
            **interactive(partial(action, site), doc),
            "pos_arg": "words",
            "params": [show] if name == "serve" else [],
        }


def _upkeep(site: Site, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    """What looks after all that was made."""
    artifacts = {"snapshot": Artifact(), "lock": Artifact()} | {
        step.task: Artifact(step.results, step.owned or step.results) for step in steps
    }
    told: dict[str, tuple[Any, str, str]] = {
        "fsck": (
            partial(fsck.fsck, site, artifacts, remembered),
            "repair",
            "read and hash all that records name; --repair marks what is damaged",
        ),
        "gc": (
            partial(gc.gc, site, artifacts),
            "yes",
            "list what nothing needs any more; --yes deletes it",
        ),
    }
    for name, (action, flag, doc) in told.items():
        option = {"name": flag, "long": flag, "type": bool, "default": False, "help": doc}
        yield {"basename": name, **interactive(action, doc), "params": [option], "pos_arg": "words"}
