"""The lab for end-to-end tests: one upstream for all, a mirror and a site of each module's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import builder, upstream
from tasks.system.files import locked
from tests.kit.lab_site import LabSite, lab_site_in


@pytest.fixture(scope="session")
def built_lab(needs_sandbox: None) -> Path:  # noqa: ARG001
    """The lab's upstream, built once per checkout by the first process that needs it."""
    folder = upstream.default_directory()
    with locked(folder / "tests.lock", "the lab", wait=True):
        return builder.build_lab(folder).directory


@pytest.fixture(scope="module")
def lab_site(built_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabSite]:
    """A site of the module's own on which nothing has run, with a mirror that is on day 1."""
    with lab_site_in(built_lab, tmp_path_factory.mktemp("lab")) as site:
        yield site
