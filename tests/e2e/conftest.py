"""The lab for end-to-end tests: one upstream for all, a mirror and a site of each module's own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import builder, mirror, site, upstream
from tasks.layout import Layout
from tasks.system.files import locked
from tests.kit.lab_site import BASE_SET, LabSite, without_groups


@pytest.fixture(scope="session")
def built_lab(needs_sandbox: None) -> Path:  # noqa: ARG001
    """The lab's upstream, built once per checkout, whoever of those that run tests comes first."""
    folder = upstream.default_directory()
    with locked(folder / "tests.lock", "the lab", wait=True):
        return builder.build_lab(folder).directory


@pytest.fixture(scope="module")
def lab_site(built_lab: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabSite]:
    """A site and a mirror of its own, with day 1 published, whatever was done to the shared lab."""
    place = tmp_path_factory.mktemp("factory")
    lab = upstream.Upstream(place / "lab")
    original = upstream.Upstream(built_lab)
    shutil.copytree(original.upstream, lab.upstream, copy_function=os.link, symlinks=True)
    # git must not write through the links, and every module's lab begins on day 1
    for repository in (original.tree, original.overlay):
        copy = lab.upstream / repository.relative_to(original.upstream)
        shutil.rmtree(copy)
        shutil.copytree(repository, copy)
    shutil.rmtree(lab.tree)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", lab.tree], check=True)
    second = lab.facts().days[1]
    lab.upcoming.mkdir(parents=True, exist_ok=True)
    for file in lab.snapshots.glob(f"gentoo-{second}.*"):
        file.rename(lab.upcoming / file.name)
    home = place / "site"
    with mirror.serving(lab.directory, 0) as address:
        site.write_config(lab.directory, int(address.rsplit(":", 1)[1]), home)
        made = LabSite(Layout(site=home, state=home / "state"), lab.directory)
        without_groups(made.layout.config, f"{address}/local")
        made.change(**{"chroots.base": {"packages": BASE_SET}})
        yield made
