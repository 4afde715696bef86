"""Paths of a site: single components only, for names from any source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.layout import Layout

LAYOUT = Layout(Path("/site"), Path("/site/state"))
PATHS_BY_NAME: list[Callable[[str], Path]] = [
    LAYOUT.record,
    LAYOUT.task_lock,
    LAYOUT.log,
    LAYOUT.overlay,
    LAYOUT.export,
    LAYOUT.seed,
    LAYOUT.etc,
    LAYOUT.binpkgs,
    LAYOUT.binhost,
    lambda name: LAYOUT.install_root("client", name),
    LAYOUT.manual_changes,
    LAYOUT.package_logs,
    lambda name: LAYOUT.layer("base", name),
    lambda name: LAYOUT.layer(name, "0"),
    lambda name: LAYOUT.build(name, "0"),
    LAYOUT.store_entry,
    LAYOUT.store_output,
    LAYOUT.store_package,
    LAYOUT.store_layer,
    LAYOUT.store_listing,
    LAYOUT.store_verified,
    lambda name: LAYOUT.store_numbers(name, "x-1"),
    lambda name: LAYOUT.store_numbers("a-b", name),
    LAYOUT.failed_buildroots,
    lambda name: LAYOUT.failed_buildroot(name, "a-b", "x-1"),
    lambda name: LAYOUT.failed_buildroot("base", name, "x-1"),
    lambda name: LAYOUT.failed_buildroot("base", "a-b", name),
    lambda name: LAYOUT.own_inputs(name, "a-b", "x", "0"),
    lambda name: LAYOUT.own_inputs("base", name, "x", "0"),
    lambda name: LAYOUT.own_inputs("base", "a-b", name, "0"),
    lambda name: LAYOUT.own_inputs("base", "a-b", "x", name),
]


@pytest.mark.parametrize("make", PATHS_BY_NAME)
@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "../x", "/etc", "-x", "a\nb", "a\0b", "x\n"]
)
def test_nothing_climbs_out(make: Callable[[str], Path], name: str) -> None:
    with pytest.raises(ValueError, match="not a file name"):
        make(name)


@pytest.mark.parametrize("make", PATHS_BY_NAME)
def test_everything_lies_below_state(make: Callable[[str], Path]) -> None:
    assert make("java").is_relative_to(LAYOUT.state)


def test_a_task_with_a_colon_has_one_record() -> None:
    assert LAYOUT.record("chroot:java") == Path("/site/state/records/chroot.java.json")
