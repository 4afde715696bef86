"""Buildroots of failed packages, kept and entered, with the real Portage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.system.files import mounts_below
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite

pytestmark = pytest.mark.usefixtures("stocked_store")

EBUILDS = {
    "tool-1": """
src_install() {
	printf '#!/bin/sh\\necho hammer\\n' > tool || die
	dobin tool
}""",
    "broken-1": f"""
BDEPEND="{CATEGORY}/tool"
IUSE="+flag"
OWN="a value of the ebuild"
src_unpack() {{ mkdir "${{P}}" || die; }}
S="${{WORKDIR}}/${{P}}"
src_configure() {{ CONFIGURED="by src_configure"; echo done > config || die; }}
own_function() {{ echo "${{OWN}}, ${{CONFIGURED}}"; }}
src_compile() {{ tool > half-way || die; [[ -e fix ]] || die "it cannot work"; }}
src_install() {{ insinto /usr/share/broken; doins half-way; }}
""",
}
BROKEN = f"{CATEGORY}/broken-1"


@pytest.fixture(scope="module")
def site(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    """A site on which a package has failed, without and with --keep-failed."""
    overlay = tmp_path_factory.mktemp("cases")
    write_overlay(overlay, "cases", EBUILDS, {})
    lab_site.change(**{"overlays.cases": {"url": str(overlay)}})
    lab_site.change(**{"chroots.base": {"overlays": ["cases"], "packages": [f"{CATEGORY}/broken"]}})
    lab_site.doit("binpkgs:base", code=1)
    assert not (lab_site.layout.state / "failed").exists()
    output = lab_site.doit("binpkgs:base", "--keep-failed", code=1)
    assert f"its buildroot was kept; to enter it, run: doit enter base --failed {BROKEN}" in output
    return lab_site


def enter(site: LabSite, script: str, code: int = 0) -> str:
    return site.doit("enter", "base", "--failed", BROKEN, "--", "eval", script, code=code)


def folder(site: LabSite) -> Path:
    return site.layout.failed_buildroot("base", *BROKEN.split("/"))


def test_it_is_entered_in_the_state_and_environment_of_the_failure(site: LabSite) -> None:
    script = """
        echo "${PWD##*/portage/}"; own_function; cat half-way config; tool; ls /sys/class/net
        emake --version > /dev/null 2>&1 && echo emake
        [[ -w /var/db/repos/cases ]] || echo sealed"""
    assert enter(site, script).splitlines() == [
        f"{BROKEN}/work/broken-1",
        "a value of the ebuild, by src_configure",
        *("hammer", "done", "hammer", "lo", "emake", "sealed"),
    ]
    assert folder(site).parents[2].stat().st_mode & 0o077 == 0
    assert mounts_below(site.layout.state) == []
    assert list(site.layout.work.iterdir()) == []


def test_failed_phase_is_repeated_and_changes_stay_until_the_next_failure(site: LabSite) -> None:
    shell = site.doit("enter", "base", "--failed", f"{CATEGORY}/broken")
    repeat = f"ebuild /var/db/repos/cases/{CATEGORY}/broken/broken-1.ebuild compile"
    assert f"next: to repeat it, run: {repeat}" in shell
    assert "it cannot work" in enter(site, repeat, code=1)
    enter(site, f"touch fix && {repeat} && exit 7", code=7)
    assert enter(site, "ls") == "config\nfix\nhalf-way\n"
    before = site.records()
    site.doit("binpkgs:base", "--keep-failed", code=1)
    assert enter(site, "ls") == "config\nhalf-way\n"
    assert site.records() == before


def test_buildroot_is_not_replaced_while_it_is_in_use(site: LabSite) -> None:
    words = ("enter", "base", "--failed", BROKEN, "--", "eval", "echo inside; sleep 1000")
    shell = site.start(*words)
    assert shell.stdout is not None
    assert shell.stdout.readline() == "inside\n"
    try:
        output = site.doit("binpkgs:base", "--keep-failed", code=1)
        assert f"the failed buildroot of {BROKEN} is locked by another run" in output
        assert "[locked-by-another-run]" in site.doit(*words[:4], code=1)
    finally:
        shell.terminate()
        shell.communicate(timeout=60)
    assert enter(site, "ls") == "config\nhalf-way\n"


def test_package_without_a_failed_buildroot_is_refused(site: LabSite) -> None:
    output = site.doit("enter", "base", "--failed", "app-misc/other", code=1)
    assert "[failed-buildroot-unknown]" in output
    assert BROKEN in output
    site.doit("enter", "base", "--failed", BROKEN, "--scratch", code=3)


def test_clean_and_gc_delete_it(site: LabSite) -> None:
    assert f"failed/base/{BROKEN}: the buildroot of a failed package" in site.doit("gc")
    site.doit("clean", "binpkgs:base")
    assert not folder(site).exists()
    site.doit("binpkgs:base", "--keep-failed", code=1)
    assert folder(site).exists()
    site.doit("gc", "--yes")
    assert not folder(site).exists()
    assert "it has: none" in site.doit("enter", "base", "--failed", BROKEN, code=1)
