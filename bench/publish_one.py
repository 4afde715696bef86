"""Publish the package set in a site's record: python -m bench.publish_one, with BINMILL_CONFIG set.

It does what `doit` does between a build and the switch, except the gate, which installs everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks import records, site
from tasks.chroot.sandboxes import seed_keys
from tasks.flow import candidate, publish
from tasks.records import BINPKGS, CANDIDATE, ETC, PUBLISH, Inputs, Key, Request

if __name__ == "__main__":
    chroot = site.load(Path(__file__).parents[1]).chroot("base")
    keys: frozenset[Key[Any]] = frozenset([BINPKGS("base"), ETC("base"), CANDIDATE("base")])
    inputs = Inputs(chroot.layout, keys.union(seed_keys(chroot)), request=Request(named=True))
    records.save(chroot.layout, CANDIDATE("base"), candidate.prepare(chroot, inputs))
    records.save(chroot.layout, PUBLISH("base"), publish.publish_candidate(chroot, inputs))
