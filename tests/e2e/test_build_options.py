"""Options of [build] and of a chroot for single packages, with the real Portage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite

pytestmark = pytest.mark.usefixtures("stocked_store")

EBUILDS = {
    "tool-1": """
src_install() {
	printf '#!/bin/sh\\necho hammer\\n' > tool || die
	dobin tool
}""",
    "undeclared-1": """
src_compile() { tool > out || die; }
src_install() { insinto /usr/share/cases; newins out undeclared; }
""",
    "limited-1": """
src_compile() {
	echo "${MAKEOPTS} $(stat -f -c %T .)" > out || die
	dd if=/dev/zero of=big bs=1M count=16 || die
}
src_install() { insinto /usr/share/cases; newins out limited; }
""",
    "tested-1": f"""
IUSE="test"
RESTRICT="!test? ( test )"
BDEPEND="test? ( {CATEGORY}/tool )"
src_compile() {{ echo untested > out || die; }}
src_test() {{ tool > out || die; }}
src_install() {{ insinto /usr/share/cases; newins out tested; }}
""",
}
PACKAGES = [f"{CATEGORY}/{name}" for name in ("tested", "undeclared", "limited", "tool")]


def installed(site: LabSite) -> dict[str, set[str]]:
    """The content of the files in /usr/share/cases of all layers in the store, by name."""
    contents: dict[str, set[str]] = {}
    for path in Path(site.layout.store / "layers").glob("*/usr/share/cases/*"):
        contents.setdefault(path.name, set()).add(path.read_text())
    return contents


def test_options_apply_to_their_packages(lab_site: LabSite, tmp_path: Path) -> None:
    overlay = tmp_path / "cases"
    write_overlay(overlay, "cases", EBUILDS, {})
    lab_site.change(**{"overlays.cases": {"url": str(overlay)}})
    lab_site.change(**{"chroots.base": {"overlays": ["cases"], "packages": PACKAGES}})
    lab_site.change(build={"jobs": 2, "limits": {f"{CATEGORY}/l*": {"tmpfs_mb": 8, "jobs": 7}}})
    output = lab_site.doit("binpkgs:base", code=1)
    assert f"{CATEGORY}/undeclared-1: " in output
    assert "missing, probably an undeclared dependency: command tool" in output
    full = (
        f"{CATEGORY}/limited-1: the disk was full in phase compile: its work directory was a tmpfs"
    )
    assert f"{full} of 8.0 MB ([build] tmpfs_mb)" in output
    assert installed(lab_site) == {"tested": {"untested\n"}}

    extra = {"app-*/undeclared": [f"{CATEGORY}/absent"]}
    lab_site.change(build={"extra_build_deps": extra})
    assert "[extra-dependency-not-planned]" in lab_site.doit("binpkgs:base", code=1)
    extra = {"app-*/undeclared": [f"{CATEGORY}/tool"]}
    lab_site.change(build={"extra_build_deps": extra, "limits": {PACKAGES[2]: {"tmpfs_mb": 64}}})
    lab_site.change(**{"chroots.base": {"test": [f"{CATEGORY}/absent"]}})
    assert f"{CATEGORY}/absent" in lab_site.doit("check:base", code=1)
    lab_site.change(**{"chroots.base": {"test": [PACKAGES[0]]}})
    output = lab_site.doit("binpkgs:base")
    assert installed(lab_site) == {
        "tested": {"untested\n", "hammer\n"},
        "undeclared": {"hammer\n"},
        "limited": {"-j2 tmpfs\n"},
    }
    assert f"built {CATEGORY}/tool" not in output  # what the tests of another need is no change
    lab_site.change(build={"extra_build_deps": {}})
    assert f"{CATEGORY}/undeclared-1" in lab_site.doit("binpkgs:base", code=1)
