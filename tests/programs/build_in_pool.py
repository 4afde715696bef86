"""A pool of builds that run programs until a signal ends them.

    python -m tests.programs.build_in_pool CASE FOLDER

Each build makes a file in FOLDER, named like the package, when its programs run; the file has
their process ids. Cases: `polite` programs end at SIGTERM, `stubborn` ones ignore it, `sandboxes`
run in a sandbox each, whose workspaces are in FOLDER/work; many `quick` ones end by themselves.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tasks.builder.pool import Build, Outcome, Pool, Success
from tasks.engine.signals import end_cleanly
from tasks.planner.schedule import Job, Limits
from tasks.system import command, sandbox
from tasks.system.sandbox import Bind, Sandbox, workspace

BUILDS = 3
# a daemon in its process group, and a foreground program
SCRIPTS = {
    "polite": 'sleep 600 & echo "$$ $!" > "$0.new"; mv "$0.new" "$0"; wait',
    "stubborn": 'trap "" TERM; sleep 600 & echo "$$ $!" > "$0.new"; mv "$0.new" "$0"; '
    "while :; do wait; done",
    # a daemon in a session of its own; process ids are those inside
    "quick": 'touch "$0"; sleep 0.02',
    "sandboxes": 'setsid sleep 600 & echo > "$0"; sleep 600',
}


class Programs:
    """Work that runs the script of a case."""

    def __init__(self, case: str, folder: Path) -> None:
        self.case, self.folder = case, folder

    def decide(self, _name: str) -> Build:
        """Build everything."""
        return Build()

    def build(self, name: str) -> Outcome:
        """Run until the run is cancelled."""
        script = SCRIPTS[self.case]
        if self.case != "sandboxes":
            command.run("sh", "-c", script, self.folder / name, log=self.folder / f"{name}.log")
            return Success()
        with workspace(self.folder / "work", name, self.folder / "trash") as space:
            box = Sandbox(
                name,
                (Path("/"),),
                space,
                binds=(Bind(str(self.folder), "/mnt", writable=True),),
                environment={"PATH": os.environ["PATH"]},
            )
            sandbox.run(box, ["sh", "-c", script, f"/mnt/{name}"], log=self.folder / f"{name}.log")
        return Success()

    def phase(self, _name: str) -> str:
        """Unknown."""
        return ""


if __name__ == "__main__":
    end_cleanly()
    count = 500 if sys.argv[1] == "quick" else BUILDS + 1
    jobs = {f"p{number}": Job() for number in range(count)}
    Pool(jobs, Limits(BUILDS), Programs(sys.argv[1], Path(sys.argv[2]))).run()
