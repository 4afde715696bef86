"""What there is to know about a site at this moment, as plain data: what `doit status` shows.

Reads only: no lock is taken, no program started, nothing asked of the network. What cannot be
read is a line in `problems`, never an error.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import lock as lock_file
from tasks import records
from tasks.engine import runs
from tasks.engine.why import first_cause
from tasks.errors import BinmillError
from tasks.layout import Layout

VERSION = 1
_DISK_SECONDS = 0.4
# In the order of the flow: the first one that is not fresh is the reason for the rest.
_OF_CHROOT = ("chroot", "etc", "mount", "binpkgs", "candidate", "gate", "publish", "client")
_HOLDER = re.compile(r"process (\d+)(?: since (.+))?")


def overview(
    layout: Layout, chroots: list[str], tasks: Mapping[str, Any], causes: dict[str, str]
) -> dict[str, Any]:
    """Everything at once; docs/operate.md describes the keys, which stay as they are."""
    problems: list[str] = []
    last = last_run(layout)
    lock = _lock(layout, problems)
    found = {
        "version": VERSION,
        "lock": lock,
        "newer": _newer(layout, lock),
        "chroots": {name: _chroot(layout, name, causes, last) for name in chroots},
        "tasks": {name: causes.get(name) for name, task in tasks.items() if task.targets},
        "last_run": last,
        "generations": {name: _generations(layout, name) for name in chroots},
        "disk": disk(layout.state, time.monotonic() + _DISK_SECONDS),
        "problems": problems,
    }
    for name, task in tasks.items():
        if str(layout.record(name)) in task.targets:
            problems += _damage(layout, name)
    return found


def last_run(layout: Layout) -> dict[str, Any] | None:
    """The newest run that did something: its tasks, and its outcome in one word."""
    folder = next(iter(runs.folders(layout)), None)
    if folder is None:
        return None
    entries = runs.journal(folder)
    outcomes = {str(entry["task"]): str(entry.get("outcome", "")) for entry in entries}
    for task, outcome in outcomes.items():
        if not outcome:
            outcomes[task] = "running" if holder(layout, task) else "interrupted"
    ranked = ("running", "bug", "failed", "interrupted", "done")
    return {
        "name": folder.name,
        "logs": str(folder),
        "outcome": next((word for word in ranked if word in outcomes.values()), "unknown"),
        "tasks": outcomes,
        "began": min((e["began"] for e in entries if _number(e.get("began"))), default=None),
        "ended": max((e["ended"] for e in entries if _number(e.get("ended"))), default=None),
    }


def holder(layout: Layout, task: str) -> dict[str, Any] | None:
    """The process that is making an artifact and since when; asked of the kernel, without a lock.

    /proc/locks (proc(5)) has the process and the inode; the file's text must name the same one.
    """
    path = layout.busy(task)
    with contextlib.suppress(OSError, ValueError, IndexError):
        inode = path.stat().st_ino
        held = _HOLDER.match(path.read_text(encoding="utf-8", errors="replace"))
        for line in Path("/proc/locks").read_text(encoding="ascii").splitlines():
            fields = line.split()
            place = fields[5].rpartition(":")[2] if fields[1] == "FLOCK" else ""
            if held and place == str(inode) and fields[4] == held[1]:
                return {"process": int(held[1]), "since": held[2]}
    return None


def disk(state: Path, until: float) -> dict[str, Any]:
    """Bytes below each part of state/; not `complete` when the time was up or some were closed."""
    sizes: dict[str, int] = {}
    complete = True

    def closed(_error: OSError) -> None:
        nonlocal complete
        complete = False

    with contextlib.suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        for part in sorted(state.iterdir()):
            seen: set[int] = set()
            sizes[part.name] = part.lstat().st_blocks * 512
            if part.is_symlink() or not part.is_dir():
                continue
            for place, _, files in os.walk(part, onerror=closed):
                if time.monotonic() > until:
                    complete = False
                    break
                for file in files:
                    with contextlib.suppress(OSError):
                        found = Path(place, file).lstat()
                        if found.st_ino not in seen:  # generations share files
                            seen.add(found.st_ino)
                            sizes[part.name] += found.st_blocks * 512
    return {"bytes": sizes, "total": sum(sizes.values()), "complete": complete}


def _lock(layout: Layout, problems: list[str]) -> dict[str, Any] | None:
    try:
        lock = lock_file.load(layout)
    except BinmillError as error:
        problems.append(error.message)
        return None
    if lock is None:
        return None
    age = None
    with contextlib.suppress(ValueError):
        day = datetime.strptime(lock.tree.tag, "%Y%m%d").replace(tzinfo=UTC)
        age = (datetime.now(UTC) - day).days
    return {
        "tree": lock.tree.tag,
        "commit": lock.tree.commit,
        "age_days": age,
        "overlays": {name: pin.commit for name, pin in lock.overlays.items()},
        "seeds": {name: pin.path for name, pin in lock.seeds.items()},
    }


def _newer(layout: Layout, lock: dict[str, Any] | None) -> list[str]:
    """What earlier runs have learned of and the lock does not have."""
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        frozen = str(json.loads(layout.record("snapshot").read_text(encoding="utf-8"))["tag"])
        if lock and frozen > lock["tree"]:
            found.append(f"the tree of {frozen} is frozen; `doit lock` pins it")
    for name, commit in (lock or {"overlays": {}})["overlays"].items():
        if said := records.news(layout, f"overlay:{name}", commit):
            found.append(f"overlay {said}; `doit lock` follows")
    for name, path in (lock or {"seeds": {}})["seeds"].items():
        if said := records.news(layout, f"seed:{name}", path):
            found.append(f"seed {said}; `doit lock` follows")
    return found


def _chroot(
    layout: Layout, name: str, causes: dict[str, str], last: dict[str, Any] | None
) -> dict[str, Any]:
    tasks = [f"{kind}:{name}" for kind in _OF_CHROOT]
    stale = [task for task in tasks if task in causes]
    said: dict[str, Any] = {
        "state": "stale" if stale else "fresh",
        "task": stale[0] if stale else None,
        "cause": first_cause(stale[0], causes) if stale else None,
        "process": None,
        "since": None,
        "touched": os.path.lexists(layout.touched(name)) or _on_touched(layout, name),
    }
    failed = [t for t in stale if last and last["tasks"].get(t) in ("failed", "bug")]
    if failed:
        said |= {"state": "failed", "task": failed[0]}
    for task in tasks:
        if held := holder(layout, task):
            said |= {"state": "building", "task": task, **held}
    return said


def _on_touched(layout: Layout, name: str) -> bool:
    """Whether a chroot was made on another one that somebody has changed by hand."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        record = json.loads(layout.record(f"chroot:{name}").read_bytes())
        return bool(record.get("touched"))
    return False


def _generations(layout: Layout, name: str) -> dict[str, Any]:
    """`held`: a rollback is current, and the set that it took out of use is still the newest."""
    binhost = layout.binhost(name)
    current, kept, held = None, [], False
    with contextlib.suppress(OSError, ValueError):
        current = int((binhost / "current").readlink().name)
    with contextlib.suppress(OSError):
        kept = sorted(int(p.name) for p in (binhost / "gen").iterdir() if p.name.isdigit())
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        told = json.loads((binhost / "gen" / str(current) / "generation.json").read_bytes())
        made = json.loads(layout.record(f"binpkgs:{name}").read_bytes())
        held = told["instead_of"] == made["set"]
    return {"current": current, "kept": kept, "held": held}


def _damage(layout: Layout, task: str) -> list[str]:
    path = layout.record(task)
    try:
        sound = isinstance(json.loads(path.read_bytes()), dict)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"{path} cannot be read: {error.strerror}"]
    except ValueError:
        sound = False
    return [] if sound else [f"{path} is damaged; `doit {task}` makes it again"]


def _number(value: Any) -> bool:
    return isinstance(value, (int, float))
