"""The factory's configuration for the lab: the shipped shape with the lab's addresses and keys."""

from __future__ import annotations

from pathlib import Path

from tasks.lab.overlay import BRANCH
from tasks.lab.upstream import ARCH, FLAVOUR, PROFILE, SOURCES, Upstream
from tasks.system.files import write_atomic


def write_config(directory: Path, port: int, site: Path) -> Path:
    """Write SITE/config.toml from lab/config.toml.in; returns its path.

    `@NAME@` in the template stands for one of the values below. Raises Stale without a lab.
    """
    lab = Upstream(directory.resolve())
    fingerprints = lab.facts()["fingerprints"]
    values = {
        "MIRROR": f"http://127.0.0.1:{port}",
        "ARCH": ARCH,
        "FLAVOUR": FLAVOUR,
        "PROFILE": PROFILE,
        "TREE_REMOTE": str(lab.tree),
        "OVERLAY": str(lab.overlay),
        "OVERLAY_BRANCH": BRANCH,
        "SNAPSHOTS_KEY": str(lab.key("snapshots")),
        "SNAPSHOTS_FINGERPRINT": fingerprints["snapshots"],
        "STAGES_KEY": str(lab.key("stages")),
        "STAGES_FINGERPRINT": fingerprints["stages"],
    }
    text = (SOURCES / "config.toml.in").read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    target = site / "config.toml"
    write_atomic(target, text)
    return target
