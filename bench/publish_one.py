"""Publish the set that a site's record names: python -m bench.publish_one, with BINMILL_CONFIG.

What `doit` does between a build and the switch, but for the gate, which installs everything.
"""

from __future__ import annotations

from pathlib import Path

from tasks import records, site
from tasks.flow import candidate, publish

if __name__ == "__main__":
    own = site.load(Path(__file__).parents[1])
    records.write(own.layout, "candidate:base", candidate.candidate(own, "base"))
    made = publish.publish(own, "base", asked=True)
    records.write(own.layout, "publish:base", made)
