"""Sandboxes without overlayfs: a copy has the same results, and a note reports it."""

from __future__ import annotations

import os
import stat
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.system import copy_fallback
from tasks.system.sandbox import Bind, Sandbox, run, workspace
from tests.kit import stub_site
from tests.kit.files import names
from tests.kit.programs import PROGRAMS, python, shell
from tests.kit.project import PROJECT
from tests.programs import enter_changed_chroots

pytestmark = pytest.mark.usefixtures("needs_sandbox")

PATH = {"PATH": "/bin"}
CHANGES = (PROGRAMS / "change_tree.sh").read_text()


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ...]:
    """Three layers; the topmost hides, replaces and deletes entries of the others."""
    top, middle = tmp_path_factory.mktemp("top"), tmp_path_factory.mktemp("middle")
    seed = stub_site.copy_programs(tmp_path_factory.mktemp("seed"), stub_site.SITE_PROGRAMS)
    for name in ("file", "doomed", "mode", "lower", "moved", "of-seed"):
        (seed / "srv").mkdir(exist_ok=True)
        (seed / "srv" / name).write_text(name)
    for place in ("srv/folder/a", "srv/again/a", "opt", "gone", "hidden/a", "opaque/a"):
        (seed / place).mkdir(parents=True)
    for place in ("opt", "srv", "replaced"):
        (middle / place).mkdir()
    (middle / "opt/of-middle").write_text("middle")
    (middle / "srv/of-seed").write_text("middle's")
    (top / "opt").mkdir()
    (top / "opt/of-top").write_text("top")
    os.mknod(top / "hidden", stat.S_IFCHR, 0)
    (top / "opaque").mkdir()
    os.setxattr(top / "opaque", "trusted.overlay.opaque", b"y")
    (top / "replaced").write_text("a file where a folder was")
    os.setxattr(top / "replaced", "user.note", b"kept")
    return top, middle, seed


def shape(folder: Path) -> dict[str, tuple[object, ...]]:
    """The entries of a folder, by path: kind, mode, owner, content or target."""
    entries: dict[str, tuple[object, ...]] = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        what: object = status.st_rdev if stat.S_ISCHR(status.st_mode) else ""
        if path.is_symlink():
            what = str(path.readlink())
        elif path.is_file():
            what = path.read_bytes()
        mode = 0 if stat.S_ISCHR(status.st_mode) else status.st_mode
        entries[str(path.relative_to(folder))] = mode, status.st_uid, what
    return entries


def visible(box: Sandbox) -> str:
    look = "ls -lnR /srv /opt /opaque; ls -d /*; cat /srv/* /replaced"
    return run(box, ["sh", "-c", look], check=False).stdout


def test_overlay_and_copy_have_the_same_results(layers: tuple[Path, ...], tmp_path: Path) -> None:
    """The copy must give the same output and the same upper layer as the overlay."""
    outputs, shapes = [], []
    for way in ("overlay", "copy"):
        with workspace(tmp_path, way, tmp_path / "trash") as space:
            (space / "upper/opt").mkdir()
            (space / "upper/opt/begun").write_text("before")
            box = Sandbox("box", layers, space, environment=PATH)
            if way == "copy":
                copy_fallback.copy_layers(layers, space)
            lines = [visible(box), run(box, ["sh", "-ec", CHANGES]).stdout, visible(box)]
            assert run(box, ["cat", "/opt/begun"]).stdout == "before"
            outputs.append([line for line in "".join(lines).splitlines() if "total" not in line])
            shapes.append(shape(box.upper))
    dates = [
        [
            " ".join(word for n, word in enumerate(line.split()) if n not in (1, 4, 5, 6, 7))
            for line in lines
        ]
        for lines in outputs
    ]
    assert dates[1] == dates[0]
    assert "srv/doomed" in shapes[0]
    # overlayfs marks a recreated folder as opaque; the copy has a whiteout for each deleted entry
    assert shapes[1].pop("srv/again/a") == shapes[0]["srv/doomed"]
    assert shapes[1] == shapes[0]


def test_layer_of_a_copy_works_with_an_overlay_and_a_copy(
    layers: tuple[Path, ...], tmp_path: Path
) -> None:
    with workspace(tmp_path, "one", tmp_path / "trash") as space:
        copy_fallback.copy_layers(layers, space)
        run(Sandbox("box", layers, space, environment=PATH), ["sh", "-ec", CHANGES])
        (space / "upper").rename(tmp_path / "made")
    outputs = []
    for way in ("overlay", "copy"):
        with workspace(tmp_path, way, tmp_path / "trash") as space:
            box = Sandbox("box", (tmp_path / "made", *layers), space, environment=PATH)
            if way == "copy":
                copy_fallback.copy_layers(box.layers, space)
            outputs.append(run(box, ["sh", "-c", "ls /srv /srv/* /opt /; cat /srv/file"]).stdout)
    assert outputs[0] == outputs[1]
    assert "doomed" not in outputs[0]
    assert "changed" in outputs[0]


def test_no_layer_is_written_to(layers: tuple[Path, ...], tmp_path: Path) -> None:
    before = [shape(layer) for layer in layers]
    with workspace(tmp_path, "box", tmp_path / "trash") as space:
        copy_fallback.copy_layers(layers, space)
        box = Sandbox(
            "box",
            layers,
            space,
            environment=PATH,
            binds=(Bind(str(PROJECT / "docs"), "/mnt/docs"),),
        )
        run(box, ["sh", "-ec", CHANGES])
        assert run(box, ["sh", "-c", ": > /mnt/docs/x"], check=False).returncode != 0
        assert run(replace(box, network=True), ["cat", "/srv/new"]).stdout == "new\n"
    assert [shape(layer) for layer in layers] == before
    assert names(tmp_path) == ["trash"]


def test_a_whole_site_where_overlayfs_is_refused(tmp_path: Path) -> None:
    """The kernel refuses an upper layer that is itself on an overlay, as in many containers."""
    result = subprocess.run(
        [
            "unshare",
            "--mount",
            "--propagation",
            "private",
            *shell("on_overlay.sh", tmp_path),
            *python(enter_changed_chroots, tmp_path / "site"),
        ],
        cwd=PROJECT,
        text=True,
        capture_output=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "appliance: no overlayfs for" in result.stdout
    assert "its layers are copied, which takes time and disk" in result.stdout
    assert "entered appliance" in result.stdout
    assert "mine" in result.stdout
