"""A flat layer shows what its layers show, on top of whatever lies below."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from tasks.buildroot import flat_layers
from tasks.buildroot.union import Union
from tasks.system.sandbox import Sandbox, run, workspace
from tests.kit.stub_site import copy_programs

pytestmark = pytest.mark.usefixtures("needs_sandbox")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
LIST = (
    "cd /top && find . -printf '%p %y %m %U %l ' \\( -type f -exec cat {} \\; -o -printf '\\n' \\)"
)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    programs = ("sh", "mkdir", "rm", "mv", "ln", "chmod", "chown", "find", "cat", "sort")
    return copy_programs(tmp_path_factory.mktemp("root"), programs)


def changed(tmp_path: Path, name: str, layers: Sequence[Path], script: str) -> Path:
    """The layer that a script leaves on top of others (the topmost last)."""
    with workspace(tmp_path / "work", name, tmp_path / "trash") as space:
        below = tuple(reversed(layers))
        run(Sandbox("box", below, space, environment={"PATH": PATH}), ["sh", "-c", script])
        layer = tmp_path / "layers" / name
        layer.parent.mkdir(exist_ok=True)
        (space / "upper").rename(layer)
    return layer


def shown(tmp_path: Path, layers: Sequence[Path]) -> list[str]:
    with workspace(tmp_path / "work", "list", tmp_path / "trash") as space:
        box = Sandbox("box", tuple(reversed(layers)), space, environment={"PATH": PATH})
        return sorted(run(box, ["sh", "-c", LIST]).stdout.splitlines())


def changes(chance: random.Random) -> str:
    """A script of a few random changes below /top, with names that often meet."""
    names = [f"{a}{b}" for a in ("a", "b", "a/c", "b/c", "a/c/d") for b in ("", "/x", "/y")]
    commands = (
        "mkdir -p {0}",
        "rm -rf {0}",
        "rm -rf {0}; mkdir -p {0}; echo {2} >{0}/new",
        "mv {0} {1}",
        "rm -rf {0}; echo {2} >{0}",
        "echo {2} >>{0}",
        "ln -sfn {1} {0}",
        "chmod {3} {0}",
        "chown {3} {0}",
        "mkdir -p {0}; echo {2} >{0}/{2}",
    )
    lines = [
        chance.choice(commands).format(
            chance.choice(names),
            chance.choice(names),
            chance.randrange(9),
            chance.choice((700, 755)),
        )
        for _ in range(chance.randrange(1, 8))
    ]
    return "mkdir -p /top; cd /top\nexec 2>/dev/null\n" + "\n".join(lines) + "\n:"


@pytest.mark.parametrize("seed", range(12))
def test_random_layers_show_the_same_when_flat(tmp_path: Path, root: Path, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - a test
    layers = [root]
    for number in range(10):
        layers.append(changed(tmp_path, f"{seed}-{number}", layers, changes(chance)))
    expected = shown(tmp_path, layers)
    for most in (1, 2, 4):
        flat = flat_layers.mountable(
            layers[3:], layers[:3], tmp_path / "flat", tmp_path / "trash", most=most
        )
        assert shown(tmp_path, [*layers[:3], *flat]) == expected
    assert shown(tmp_path, layers) == expected


def test_union_finds_what_a_mount_shows(tmp_path: Path, root: Path) -> None:
    chance = random.Random(1)  # noqa: S311 - a test
    layers = [root]
    for number in range(12):
        layers.append(changed(tmp_path, f"{number}", layers, changes(chance)))
    union = Union(tuple(reversed(layers)))
    expected = {line.split(" ")[0] for line in shown(tmp_path, layers) if line.startswith("./")}
    every = {p.relative_to(layer) for layer in layers for p in layer.glob("top/**/*")}
    there = {f"./{path.relative_to('top')}" for path in every if union.find(str(path))}
    assert there == expected


def test_flat_layers_are_shared_and_made_once(tmp_path: Path, root: Path) -> None:
    layers = [changed(tmp_path, str(n), [root], f"mkdir /d; echo >/d/{n}") for n in range(20)]
    cache, trash = tmp_path / "flat", tmp_path / "trash"
    assert len(flat_layers.runs(layers, 4)) <= 4
    first = flat_layers.mountable(layers, [root], cache, trash, most=4)
    inode = (layers[0] / "d/0").stat().st_ino
    assert any((flat / "d/0").stat().st_ino == inode for flat in first if (flat / "d/0").exists())
    times = [flat.stat().st_ctime_ns for flat in first]
    results = []

    def again() -> None:
        results.append(flat_layers.mountable(layers, [root], cache, trash, most=4))

    threads = [threading.Thread(target=again) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [first] * 4
    assert [flat.stat().st_ctime_ns for flat in first] == times
    without_one = flat_layers.mountable(layers[:5] + layers[6:], [root], cache, trash, most=4)
    assert set(without_one) & set(first) or len(without_one) == 1


def test_many_layers_with_long_names_are_mounted(tmp_path: Path, root: Path) -> None:
    """Absolute names of these would not fit into a page."""
    folder = tmp_path / ("long" * 30)
    layers = [folder / f"{n:032}" for n in range(100)]
    for layer in layers:
        (layer / "top").mkdir(parents=True)
        (layer / "top" / layer.name).write_text("x\n")
    assert os.sysconf("SC_PAGE_SIZE") < sum(len(str(layer)) for layer in layers)
    assert len(shown(tmp_path, [root, *layers])) == 101
