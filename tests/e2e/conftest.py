"""The lab for end-to-end tests: one upstream for all, a mirror and a site of each module's own.

A module whose tests are not about the packages of `base` uses `stocked_store`: they are built once.
"""

from __future__ import annotations

import os
import shutil
import subprocess
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


@pytest.fixture(scope="session")
def base_store(built_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a site whose `base` is built, by the first process of this run that needs it."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # a folder of the run: those above it are shared
        folder = folder.parent
    store = folder / "base-store"
    with locked(folder / "base-store.lock", "the store of base", wait=True):
        if not store.exists():
            with lab_site_in(built_lab, tmp_path_factory.mktemp("base")) as site:
                site.doit("binpkgs:base")
                shutil.rmtree(site.layout.store / "own")  # what a chroot was built from
                site.layout.store.rename(store)
    return store


@pytest.fixture(scope="module")
def stocked_store(lab_site: LabSite, base_store: Path) -> None:
    """Give the module's site the packages of `base`; they will be reused."""
    lab_site.layout.state.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", base_store, lab_site.layout.store], check=True)
