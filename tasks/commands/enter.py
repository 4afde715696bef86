"""enter: a shell in a chroot, whose changes are kept as a layer of it, or in a failed buildroot."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tasks import records
from tasks.chroot import sandboxes
from tasks.commands.site_command import Parser, SiteCommand
from tasks.records import CHROOT, MOUNT
from tasks.site import Chroot, Site
from tasks.system.files import locked
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.system.sandbox import Sandbox


class Enter(SiteCommand):
    """doit enter NAME [--scratch | --reset | --failed PACKAGE] [-- COMMAND]."""

    name = "enter"
    doc_purpose = "open a shell in a chroot, or run a command there"
    doc_description = (
        "Changes are kept as a layer of the chroot, and everything that depends on it is rebuilt\n"
        "with them. The exit code is that of the command.\n"
        "With --failed: the buildroot of a package that failed in doit binpkgs:NAME --keep-failed\n"
        "is entered in the state and environment of the failure. Changes there stay there."
    )

    def add_arguments(self, parser: Parser) -> None:
        parser.usage = "doit enter NAME [--scratch | --reset | --failed PACKAGE] [-- COMMAND]"
        parser.add_argument("name", metavar="NAME", help="the chroot")
        parser.add_argument(
            "--scratch", action="store_true", help="discard the changes when you leave"
        )
        parser.add_argument(
            "--reset", action="store_true", help="discard the changes of earlier shells"
        )
        parser.add_argument(
            "--failed", metavar="PACKAGE", help="enter the buildroot in which that package failed"
        )

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Options stand before the command, which may have options of its own."""
        own, command = _split(words)
        parser = self.parser()
        arguments = parser.parse_args(own)
        if arguments.reset and (command or arguments.scratch):
            parser.error("--reset takes neither a command nor --scratch")
        if arguments.failed is not None and (arguments.scratch or arguments.reset):
            parser.error("--failed takes neither --scratch nor --reset")
        arguments.command = command
        return arguments

    def run(self, site: Site, arguments: argparse.Namespace) -> int:
        chroot = site.chroot(arguments.name)
        if arguments.failed is not None:
            return enter_failed(chroot, arguments.failed, arguments.command)
        # one at a time: a second one would delete the layer of the first
        with locked(site.layout.task_lock(f"enter:{chroot.name}"), f"a shell in {chroot.name}"):
            if arguments.reset:
                return reset(chroot)
            return enter(chroot, arguments.command, keep=not arguments.scratch)


def _split(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The words of this command, and those of the command to run."""
    rest, own, named = list(words), list[str](), False
    while rest and (rest[0].startswith("-") or not named or own[-1] == "--failed"):
        word = rest.pop(0)
        if word == "--":
            break
        named = named or not (word.startswith("-") or own[-1:] == ["--failed"])
        own.append(word)
    return own, rest


def enter(chroot: Chroot, command: Sequence[str], *, keep: bool) -> int:
    """Run a command (or a shell) in a chroot; returns its exit code.

    With `keep`, what it writes becomes a layer of the chroot.
    """
    from tasks.chroot import manual_changes
    from tasks.system import sandbox

    keys = (*sandboxes.own_keys(chroot), MOUNT(chroot.name))
    inputs = records.reading(chroot.layout, keys)
    _ = inputs[MOUNT(chroot.name)]  # that task has tested that the chroot can be entered
    layers = inputs[CHROOT(chroot.name)].unmodified(chroot.name)
    before = manual_changes.read_mark(chroot.layout, chroot.name)
    if before and before.over != layers:
        before = None  # they belong to an earlier chroot of that name
    with chroot.workspace("enter") as space:
        if before:
            manual_changes.copy_layer(space / "upper", chroot.layout.state / before.layer)
        inside = sandboxes.own(
            chroot,
            inputs,
            space,
            layers=layers,
            network=True,
            variables={
                "TERM": os.environ.get("TERM", "dumb"),
                "PS1": f"[{chroot.name}] \\w \\$ ",
                "HISTFILE": "",
            },
        )
        if not command:
            say(_greeting(chroot.name, keep=keep, modified=before is not None))
        ended = False
        try:
            code = sandbox.enter(inside, command or ["/bin/bash", "--login"])
            ended = True
        finally:
            # the work in a shell whose terminal is gone is kept; half a command is not
            if keep and (ended or not command):
                _keep(chroot, inside, layers)
    return code


def enter_failed(chroot: Chroot, package: str, command: Sequence[str]) -> int:
    """Run a command (or a shell) where a package failed, without network; returns its exit code."""
    from tasks.buildroot import failed_buildroot
    from tasks.system import sandbox

    layout, name = chroot.layout, chroot.name
    failed = failed_buildroot.find(layout, name, package)
    with failed_buildroot.hold(layout, name, failed):
        inside, argv = failed_buildroot.entrance(layout, name, failed, command)
        if not command:
            phase = failed.phase or "unknown"
            say(
                f"{failed.cpv} failed here in phase {phase}; the environment is that of the phase\n"
                f"  next: to repeat it, run: ebuild {failed.ebuild} {failed.phase or 'compile'}\n"
                "  your changes stay in this buildroot until the package fails again"
            )
        terminal = {"TERM": os.environ.get("TERM", "dumb"), "HISTFILE": ""}
        return sandbox.enter(replace(inside, environment={**inside.environment, **terminal}), argv)


def _keep(chroot: Chroot, inside: Sandbox, layers: Sequence[str]) -> None:
    from tasks.chroot import manual_changes

    mounts = [bind.target for bind in inside.binds]
    if manual_changes.commit(chroot.layout, chroot.name, inside.upper, layers, mounts):
        say(
            f"chroot {chroot.name} is modified by hand: everything that depends on it is rebuilt "
            f"with your changes\n  next: to discard them, run: doit enter {chroot.name} --reset"
        )


def _greeting(name: str, *, keep: bool, modified: bool) -> str:
    if not keep:
        return f"chroot {name}: your changes are discarded when you leave"
    state = "modified by hand" if modified else "unmodified"
    return f"chroot {name}, {state}: your changes are kept (--scratch discards them)"


def reset(chroot: Chroot) -> int:
    """Discard the manual changes of a chroot."""
    from tasks.chroot import manual_changes

    if os.path.lexists(chroot.layout.manual_changes(chroot.name)):
        manual_changes.discard(chroot.layout, chroot.name)
        say(
            f"the manual changes in {chroot.name} are discarded; "
            "the next run rebuilds it without them"
        )
    else:
        say(f"{chroot.name} has no manual changes")
    return 0
