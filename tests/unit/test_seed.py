"""Pointers, digests, and the look for files inside a tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.seed.download import Build, read_pointer, read_sha512
from tasks.seed.sanity import exists_inside
from tests.kit.project import PROJECT
from tests.kit.refused import refused

STEM = "stage3-amd64-openrc"
GOOD = "20261116T170200Z/stage3-amd64-openrc-20261116T170200Z.tar.xz"
POINTER = f"""\
# Latest as of Mon, 16 Nov 2026 17:30:00 +0000
# ts=1795195800
{GOOD} 294912345
"""


@pytest.mark.parametrize(
    "text",
    [
        POINTER,
        POINTER.replace(" 294912345", "\t294912345  "),
        f"x/stage3-amd64-openrc2-1.tar.xz 5\n{POINTER}",
        f"x/stage3-amd64-openrc.tar.xz 5\n{POINTER}",
        f"../{GOOD} 5\n/{GOOD} 5\n{GOOD}\n{GOOD} many\n{GOOD} 5 6\n{POINTER}",
        POINTER.replace("\n", "\r\n"),
    ],
)
def test_read_pointer_returns_path_and_size(text: str) -> None:
    assert read_pointer(text, STEM) == Build(GOOD, 294912345)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# ts=1\n",
        "<html><body>404</body></html>",
        f"{GOOD.replace('openrc', 'systemd')} 5\n",
        "../stage3-amd64-openrc-1.tar.xz 5\n",
        "a/../../stage3-amd64-openrc-1.tar.xz 5\n",
        "a/b/stage3-amd64-openrc-1.tar.xz 5\n",
        ".a/stage3-amd64-openrc-1.tar.xz 5\n",
        "http://evil.example/stage3-amd64-openrc-1.tar.xz 5\n",
        "a/stage3-amd64-openrc-1.tar.xz?x 5\n",
        "a/stage3-amd64-openrc-1.tar.xz -5\n",
        "a/stage3-amd64-openrc-1 .tar.xz 5\n",
    ],
)
def test_read_pointer_without_a_usable_line_is_refused(text: str) -> None:
    with refused(NotTrusted, "stage-pointer-empty", stage=STEM):
        read_pointer(text, STEM)


NAME = "stage3-amd64-openrc-1.tar.xz"
A, B, C, D = (letter * 128 for letter in "abcd")
DIGESTS = f"""\
# BLAKE2B HASH
{B}  {NAME}
# SHA512 HASH
{C}  {NAME}.CONTENTS.gz
{D}  sub/{NAME}
{D}  x{NAME}
{A}  {NAME}
# BLAKE2B HASH
{B}  {NAME}
"""


@pytest.mark.parametrize(
    "text",
    [
        DIGESTS,
        DIGESTS.replace("  ", "\t"),
        f"# SHA512 HASH\n{C}  {NAME}.CONTENTS.gz\n{DIGESTS}",
        f"# SHA512\n{A} {NAME}\n",
    ],
)
def test_read_sha512_returns_the_digest_of_the_name(text: str) -> None:
    assert read_sha512(text, NAME) == A


@pytest.mark.parametrize(
    "text",
    [
        "",
        f"{A}  {NAME}\n",
        f"# BLAKE2B HASH\n{A}  {NAME}\n",
        f"# SHA512 HASH\n{A}  {NAME}.asc\n",
        f"# SHA512 HASH\n{A}  x/{NAME}\n",
        f"# SHA512 HASH\n{A[:-1]}  {NAME}\n",
        f"# SHA512 HASH\n{A.upper()}  {NAME}\n",
        f"# SHA512 HASH\n{'g' * 128}  {NAME}\n",
        f"# SHA512 HASH\n{A} * {NAME}\n",
        f"# SHA512 HASH\n# SHA256 HASH\n{A}  {NAME}\n",
        "# \n#\n# SHA512 HASH\n",
    ],
)
def test_read_sha512_without_a_usable_line_is_refused(text: str) -> None:
    with refused(NotTrusted, "stage-digests-lack-file", name=NAME):
        read_sha512(text, NAME)


def link(root: Path, at: str, to: str) -> None:
    (root / at).parent.mkdir(parents=True, exist_ok=True)
    (root / at).symlink_to(to)


def test_exists_inside_follows_links_inside_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "usr/bin/sh").write_text("")
    (tmp_path / "outside").write_text("")
    link(root, "bin", "usr/bin")
    link(root, "absolute", "/usr/bin/sh")
    link(root, "up", "../../../../usr/bin/sh")
    link(root, "out", str(tmp_path / "outside"))
    link(root, "climbs", "../outside")
    link(root, "chain", "bin/../bin/./sh")
    link(root, "a", "b")
    link(root, "b", "a")
    link(root, "self", "self/x")
    link(root, "gone", "nowhere")
    exists = {
        name: exists_inside(root, name)
        for name in (
            "bin/sh",
            "/bin//sh",
            "absolute",
            "up",
            "chain",
            "usr/../bin/sh",
            "out",
            "climbs",
            "a",
            "self",
            "gone",
            "bin/none",
            "usr/bin/sh/x",
        )
    }
    assert [name for name, there in exists.items() if there] == [
        "bin/sh",
        "/bin//sh",
        "absolute",
        "up",
        "chain",
        "usr/../bin/sh",
    ]


def test_exists_inside_gives_up_on_a_long_chain_of_links(tmp_path: Path) -> None:
    (tmp_path / "end").write_text("")
    for number in range(30):
        link(tmp_path, f"l{number}", "end" if number == 0 else f"l{number - 1}")
    assert exists_inside(tmp_path, "l10")
    assert not exists_inside(tmp_path, "l29")


def test_seed_is_imported_by_other_packages_through_two_modules_only() -> None:
    entry_points = {"tasks.seed.download", "tasks.seed.extract"}
    for path in (PROJECT / "tasks").rglob("*.py"):
        if path.parent.name != "seed":
            imports = re.findall(
                r"^\s*from (tasks\.seed(?:\.\w+)?) import (\w+)", path.read_text(), re.MULTILINE
            )
            for module, name in imports:
                assert module in entry_points or f"{module}.{name}" in entry_points, path
