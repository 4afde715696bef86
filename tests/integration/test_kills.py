"""Kills at random moments: nothing is left on the host, and the next run succeeds.

What is random is drawn from a seed that is printed with what went wrong; the
long version runs with `make soak`.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.kit import stub_site
from tests.kit.files import names
from tests.kit.random_kills import WAYS, Work, is_first, kill_runs

pytestmark = pytest.mark.usefixtures("needs_sandbox")

SLEEPER = "setsid sleep 600 & (sleep 600 &) ; touch /root/here; sleep 600"
WORKS = (
    Work(["mount:java"], then=["mount:java"], again=["mount:java"]),
    Work(["enter", "java", "--", "sh", "-c", SLEEPER], then=["enter", "java", "--", "true"]),
    Work(["enter", "java"], then=["enter", "java", "--", "true"], keys="sleep 600 & sleep 600\r"),
    Work(
        ["-n", "2", "mount:java", "mount:appliance"],
        then=["mount:java", "mount:appliance"],
        again=["chroot:java", "mount:java", "mount:appliance"],
    ),
)


def kills(folder: Path, count: int, seed: int) -> None:
    site = stub_site.create(folder)
    outcomes = kill_runs(site.layout.config, WORKS, count, seed)
    assert len(outcomes) == count
    wrong = [json.dumps(asdict(kill), indent=1) for kill in outcomes if kill.wrong]
    assert not wrong, "\n".join([f"BINMILL_SEED={seed}", *wrong])
    assert any(is_first(kill.hit) for kill in outcomes)
    assert names(site.layout.work) == names(site.layout.trash) == []
    assert not list(site.layout.state.rglob("*.before"))
    assert len({kill.way for kill in outcomes}) == len(WAYS)


def test_kills_at_random_moments(tmp_path: Path) -> None:
    kills(tmp_path / "site", len(WORKS) * len(WAYS), seed=20260310)


@pytest.mark.soak
def test_five_hundred_kills(tmp_path: Path) -> None:
    """Another seed each time; BINMILL_SEED repeats one."""
    kills(tmp_path / "site", 500, seed=int(os.environ.get("BINMILL_SEED", time.time())))
