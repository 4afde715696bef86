"""A flat layer shows what its layers show, on top of whatever lies below."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import threading
from collections.abc import Callable, Sequence
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


def test_flat_layers_are_needed_as_long_as_all_of_their_layers(tmp_path: Path, root: Path) -> None:
    layers = [changed(tmp_path, str(n), [root], f"mkdir /d; echo >/d/{n}") for n in range(4)]
    cache, trash, names = tmp_path / "flat", tmp_path / "trash", {layer.name for layer in layers}
    (flat,) = flat_layers.mountable(layers, [root], cache, trash, most=1)
    (older,) = flat_layers.mountable(layers[:2], [root], cache, trash, most=1)
    assert flat != older
    assert list(flat_layers.unneeded(cache, names.__contains__)) == []
    of_flat = [flat, flat.with_name(f"{flat.name}.deleted"), flat.with_name(f"{flat.name}.state")]
    assert list(flat_layers.unneeded(cache, (names - {"3"}).__contains__)) == of_flat
    of_flat[2].unlink()
    assert list(flat_layers.unneeded(cache, names.__contains__)) == of_flat[:2]


def add_file(flat: Path) -> None:
    (flat / "d/more").touch()


def replace_file(flat: Path) -> None:
    """Another file with the same attributes."""
    path = next(path for path in (flat / "d").iterdir() if path.is_file())
    path.rename(flat.parent / "aside")
    subprocess.run(["cp", "-a", flat.parent / "aside", path], check=True)


FLAT_DAMAGE: dict[str, Callable[[Path], object]] = {
    "more": add_file,
    "less": lambda flat: next((flat / "d").iterdir()).unlink(),
    "other": replace_file,
    "mode": lambda flat: (flat / "d").chmod(0o777),
    "opaque": lambda flat: os.setxattr(flat / "d", "trusted.overlay.opaque", b"y"),
    "white folders": lambda flat: flat.with_name(f"{flat.name}.deleted").write_bytes(b"d"),
    "no white folders": lambda flat: flat.with_name(f"{flat.name}.deleted").unlink(),
    "no state": lambda flat: flat.with_name(f"{flat.name}.state").unlink(),
    "state": lambda flat: flat.with_name(f"{flat.name}.state").write_bytes(b"\xff"),
}


@pytest.mark.parametrize("how", FLAT_DAMAGE)
def test_flat_layer_that_was_changed_is_not_used(tmp_path: Path, root: Path, how: str) -> None:
    layers = [changed(tmp_path, str(n), [root], f"mkdir /d; echo >/d/{n}") for n in range(3)]
    cache, trash = tmp_path / "flat", tmp_path / "trash"
    (flat,) = flat_layers.mountable(layers, [root], cache, trash, most=1)
    FLAT_DAMAGE[how](flat)
    (other,) = flat_layers.mountable(layers, [root], cache, trash, most=1)
    assert other != flat
    assert flat.is_dir()  # a buildroot may have it mounted
    assert sorted(path.name for path in (other / "d").iterdir()) == ["0", "1", "2"]
    assert (other / "d").stat().st_mode & 0o777 == 0o755
    assert flat_layers.mountable(layers, [root], cache, trash, most=1) == (other,)


def test_flat_layer_of_layers_that_were_replaced_is_not_used(tmp_path: Path, root: Path) -> None:
    layers = [changed(tmp_path, str(n), [root], f"mkdir /d; echo >/d/{n}") for n in range(2)]
    cache, trash = tmp_path / "flat", tmp_path / "trash"
    (flat,) = flat_layers.mountable(layers, [root], cache, trash, most=1)
    layers[0].rename(tmp_path / "old")
    subprocess.run(["cp", "-a", tmp_path / "old", layers[0]], check=True)
    (other,) = flat_layers.mountable(layers, [root], cache, trash, most=1)
    assert other != flat
    assert (other / "d/0").samefile(layers[0] / "d/0")


def test_file_with_as_many_names_as_possible_is_copied(tmp_path: Path, root: Path) -> None:
    layers = [changed(tmp_path, str(n), [root], f"mkdir /d; echo {n} >/d/{n}") for n in range(2)]
    full = layers[0] / "d/0"
    os.setxattr(full, "user.own", b"y")
    names = tmp_path / "names"
    names.mkdir()
    try:
        for number in range(70_000):
            os.link(full, names / str(number))
    except OSError as error:
        assert error.errno == errno.EMLINK
    else:
        pytest.skip("this file system has no such limit")
    (flat,) = flat_layers.mountable(layers, [root], tmp_path / "flat", tmp_path / "trash", most=1)
    copy = flat / "d/0"
    assert (copy.read_text(), copy.stat().st_nlink) == ("0\n", 1)
    assert os.getxattr(copy, "user.own") == b"y"
    assert copy.stat().st_mtime_ns == full.stat().st_mtime_ns
    assert (flat / "d/1").samefile(layers[1] / "d/1")


def test_many_layers_with_long_names_are_mounted(tmp_path: Path, root: Path) -> None:
    """Absolute names of these would not fit into a page."""
    folder = tmp_path / ("long" * 30)
    layers = [folder / f"{n:032}" for n in range(100)]
    for layer in layers:
        (layer / "top").mkdir(parents=True)
        (layer / "top" / layer.name).write_text("x\n")
    assert os.sysconf("SC_PAGE_SIZE") < sum(len(str(layer)) for layer in layers)
    assert len(shown(tmp_path, [root, *layers])) == 101
