"""The main job on the lab, by plain doit; what `make demo` runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from lab import builder, mirror, site
from lab.upstream import GROUP, LAB, OVERLAY, Upstream, default_directory
from tasks.errors import BinmillError, HostLacks
from tasks.site import CONFIG_VARIABLE
from tasks.system import preflight
from tasks.system.command import started
from tasks.system.files import locked

PORT = 8470
_PROJECT = LAB.parent
_LAB_PROGRAMS = ("mmdebstrap",)


def site_directory(lab: Path) -> Path:
    """The demo's site: its config, lock and state."""
    return lab / "site"


def run(lab: Path | None = None, port: int = PORT, tasks: Sequence[str] = ()) -> int:
    """Make the lab and its site, run doit there, print what came of it; doit's exit code.

    `tasks` are handed to doit; none means its defaults, the whole job.
    Raises HostLacks, before any work, where the machine withholds what chroots need.
    """
    directory = (lab or default_directory()).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    preflight.check(directory, (*preflight.PROGRAMS, *_LAB_PROGRAMS))
    builder.build_lab(directory)
    place = site_directory(directory)
    with locked(directory / "demo.lock", "the demo"):
        config = site.write_config(directory, port, place)
        with mirror.serving(directory, port):
            code = _doit(config, tasks) if tasks else _whole_job(directory, config)
    if code == 0 and not tasks:
        print(_summary(place, config), flush=True)
    return code


def _whole_job(lab: Path, config: Path) -> int:
    """Plain doit, once a person has handed over what no build may fetch by itself."""
    there = config.parent / "state" / "mirror" / GROUP.replace(":", ".") / "distfiles"
    restricted = Upstream(lab).restricted()
    if missing := [str(file) for file in restricted if not (there / file.name).is_file()]:
        for words in (
            ("tree", f"overlay:{OVERLAY}"),
            ("distfile", "add", *missing, "--group", GROUP),
        ):
            if code := _doit(config, words):
                return code
    return _doit(config, ())


def _doit(config: Path, tasks: Sequence[str]) -> int:
    """Plain `doit` with the demo's site, as a person would type it."""
    program = Path(sys.executable).with_name("doit")
    if not program.exists():
        raise HostLacks("doit is not installed beside this Python", "run: make setup")
    os.environ[CONFIG_VARIABLE] = str(config)
    with started(program, *tasks, cwd=_PROJECT, stdin=subprocess.DEVNULL, stdout=None) as process:
        return process.wait()


def _summary(place: Path, config: Path) -> str:
    """What was made, where, and what to type next."""
    state = place / "state"
    shown = os.path.relpath(config)
    lines = ["", "What was made:"]
    try:
        tree = json.loads((state / "records" / "tree.json").read_text())
        lines.append(f"  tree     {tree['tag']} frozen as {tree['commit'][:12]}")
        for record in sorted((state / "records").glob("client.*.json")):
            name = record.name.split(".")[1]
            made = json.loads(record.read_text())
            lines.append(
                f"  {name:<8} generation {made['generation']}, installed by a fresh client: "
                f"{len(made['installed'])} packages"
            )
            admitted = json.loads((state / "records" / f"members.{name}.json").read_text())
            if admitted["refused"]:
                lines.append(
                    f"  {'':<8} over TLS by a member of {admitted['group']}: "
                    f"{len(admitted['installed'])} packages; refused: "
                    f"{', '.join(admitted['refused'])}"
                )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise BinmillError(
            f"the demo's records cannot be read ({error})",
            f"delete {state / 'records'}, then run it again",
        ) from error
    lines += [
        f"  packages {os.path.relpath(state)}/binhost/NAME/current/public",
        f"  logs     {os.path.relpath(state)}/logs",
        "",
        "What to type next:",
        "  . .venv/bin/activate",
        f"  export {CONFIG_VARIABLE}={shown}",
        "  doit list --all --status       every task of this site",
        "  doit status                    what is fresh, what is stale and why",
        "  doit enter java                a shell in the java chroot",
        "  doit user add anna --group role:java",
        "  doit serve                     the binhosts over TLS, to whom they are for",
        "  make lab-next-day              let a day pass on the lab's mirror; then take it:",
        "  make demo TASKS='snapshot lock' && make demo",
    ]
    return "\n".join(lines)
