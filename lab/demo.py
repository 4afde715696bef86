"""The demo: run plain doit on the lab, from snapshot to installed client; `make demo` runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from lab import builder, mirror, site
from lab.upstream import GROUP, LAB, OVERLAY, Upstream, default_directory
from tasks import journal, messages, records
from tasks.errors import HostLacks
from tasks.layout import Layout
from tasks.records import CLIENT, MEMBERS, TREE
from tasks.site import CONFIG_VARIABLE
from tasks.system import preflight
from tasks.system.command import started
from tasks.system.files import locked
from tasks.text import count

PORT = 8470
_PROJECT = LAB.parent
_LAB_PROGRAMS = ("mmdebstrap",)


def site_directory(lab: Path) -> Path:
    """Return the directory of the demo's site: its config, lock and state."""
    return lab / "site"


def run(lab: Path | None = None, port: int = PORT, arguments: Sequence[str] = ()) -> int:
    """Build the lab and its site, run doit there, print a summary; return doit's exit status.

    Without `arguments` for doit, all default tasks run. Raises HostLacks, before any work, if the
    machine does not support chroots.
    """
    directory = (lab or default_directory()).resolve()
    directory.mkdir(parents=True, exist_ok=True)
    preflight.check(directory, (*preflight.PROGRAMS, *_LAB_PROGRAMS))
    builder.build_lab(directory)
    home = site_directory(directory)
    with locked(directory / "demo.lock", "the demo"):
        config = site.write_config(directory, port, home)
        with mirror.serving(directory, port):
            status = _doit(config, arguments) if arguments else _whole_job(directory, config)
    if status == 0 and not arguments:
        print(summary(Layout(site=home, state=home / "state")), flush=True)
    return status


def _whole_job(lab: Path, config: Path) -> int:
    """Run plain doit, after adding the distfiles that no build may fetch."""
    group = config.parent / "state" / "mirror" / GROUP.replace(":", ".") / "distfiles"
    restricted = Upstream(lab).restricted()
    if missing := [str(file) for file in restricted if not (group / file.name).is_file()]:
        for words in (
            ("tree", f"overlay:{OVERLAY}"),
            ("distfile", "add", *missing, "--group", GROUP),
        ):
            if status := _doit(config, words):
                return status
    return _doit(config, ())


def _doit(config: Path, words: Sequence[str]) -> int:
    """Run doit on the demo's site, as a person would."""
    program = Path(sys.executable).with_name("doit")
    if not program.exists():
        raise HostLacks("lab-without-doit")
    environment = {**os.environ, CONFIG_VARIABLE: str(config)}
    with started(
        program, *words, cwd=_PROJECT, env=environment, stdin=subprocess.DEVNULL, stdout=None
    ) as process:
        return process.wait()


def summary(layout: Layout) -> str:
    """Describe the results, their places, and the next commands."""
    state = os.path.relpath(layout.state)
    return "\n".join(
        (
            "",
            "Results:",
            *_results(layout),
            *_builds(layout),
            f"  packages {state}/binhost/NAME/current/public",
            f"  logs     {state}/logs",
            "",
            "Next commands:",
            "  . .venv/bin/activate",
            f"  export {CONFIG_VARIABLE}={os.path.relpath(layout.config)}",
            "  doit list --all --status       all tasks of this site",
            "  doit status                    the state of the site on one screen",
            "  doit enter java                a shell in the java chroot",
            "  doit user add anna --group role:java",
            "  doit serve                     serve the binhosts over TLS to authorised clients",
            "  make lab-next-day              publish the next day on the lab's mirror; to use it:",
            "  make demo TASKS='snapshot lock' && make demo",
        )
    )


def _builds(layout: Layout) -> Iterator[str]:
    """Say what the last run built and did not, for each set that it made."""
    for run in journal.task_runs(layout.logs / "latest"):
        for note in run.notes:
            if note.code == "build-account":
                account = messages.sentence(note.code, note.fields)
                yield f"  {run.task.partition(':')[2]:<8} {account}"


def _results(layout: Layout) -> Iterator[str]:
    tree = records.load(layout, TREE())
    yield f"  tree     {tree.tag} frozen as {tree.commit[:12]}"
    for path in sorted(layout.record("tree").parent.glob("client.*.json")):
        name = path.name.split(".")[1]
        client = records.load(layout, CLIENT(name))
        yield (
            f"  {name:<8} generation {client.generation}, "
            f"{count(len(client.installed), 'package')} installed by a client"
        )
        access = records.load(layout, MEMBERS(name))
        if access.refused:
            yield (
                f"  {'':<8} {count(len(access.installed), 'package')} installed over TLS "
                f"by a member of {access.group}; refused: {', '.join(access.refused)}"
            )
