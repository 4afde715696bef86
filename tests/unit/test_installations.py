"""Installations that tasks keep: what their records say of them, also after a kill."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.flow.installations import Installation
from tasks.publish import install_root
from tasks.publish.install_root import InstallRoot
from tests.kit.packages import stanza

STANZAS = [stanza("a-b/x-1", SHA512="a" * 128), stanza("a-b/y-1", SHA512="b" * 128)]


def begun(folder: Path, number: int) -> Installation:
    """The installation of a generation, with what the runs before have kept."""
    chroot: Any = SimpleNamespace(layout=SimpleNamespace(trash=folder / "trash"))
    place = folder / "root"
    wanted = InstallRoot("a" * 128, "b" * 64, number, {})
    old = install_root.read(place)
    return Installation(chroot, place, folder / "log", STANZAS, wanted, old)


def keep(folder: Path, installation: Installation) -> None:
    upper = folder / "upper"
    upper.mkdir()
    (upper / "file").write_text(f"{installation.wanted.generation}")
    root: Any = SimpleNamespace(upper=upper)
    installation.keep(root, ["a-b/x-1"])


def test_install_root_has_the_digests_of_what_is_installed(tmp_path: Path) -> None:
    keep(tmp_path, begun(tmp_path, 1))
    keep(tmp_path, begun(tmp_path, 3))
    root = install_root.read(tmp_path / "root")
    assert root is not None
    assert (root.generation, root.packages, root.upgrades) == (3, {"a-b/x-1": "a" * 128}, 1)


def test_run_that_was_killed_after_it_kept_leaves_the_same_record(tmp_path: Path) -> None:
    first = begun(tmp_path, 1)
    keep(tmp_path, first)
    again = begun(tmp_path, 1)
    assert first.upgraded_from == again.upgraded_from == 0
    second = begun(tmp_path, 2)
    keep(tmp_path, second)
    again = begun(tmp_path, 2)
    assert second.upgraded_from == again.upgraded_from == 1
    keep(tmp_path, again)
    assert begun(tmp_path, 3).upgraded_from == 2


@pytest.mark.parametrize("fresh", [True, False])
def test_sandbox_has_the_layers_to_upgrade_on_top(tmp_path: Path, *, fresh: bool) -> None:
    from tasks.system.sandbox import Sandbox

    keep(tmp_path, begun(tmp_path, 1))
    seed = Sandbox("x", (tmp_path / "seed",), tmp_path, (), {}, network=False)
    installation = begun(tmp_path, 2)
    layers = installation.old.paths(installation.place) if installation.old else ()
    if fresh:
        installation, layers = replace(installation, old=None), ()
    assert installation.over(seed).layers == (*layers, *seed.layers)
