"""The gate upgrades the installed candidate before, as clients do, with the real Portage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks import records
from tasks.publish import install_root
from tasks.publish.install_root import InstallRoot
from tasks.records import GATE, GateRecord
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite, tasks_run

pytestmark = pytest.mark.usefixtures("stocked_store")

NAMES = ("lamp", "table", "chair", "shelf", "stool", "bench")


def ebuild(text: str, *files: str, more: str = "") -> str:
    """An ebuild that installs files below /usr/share/cases, with a text in them."""
    lines = "".join(f"\techo '{text}' > {name} || die; doins {name}\n" for name in files)
    return f"{more}\nsrc_install() {{\n\tinsinto /usr/share/cases\n{lines}}}"


class Site:
    """A site with one overlay, which changes from one gate to the next."""

    def __init__(self, site: LabSite, overlay: Path) -> None:
        self.site, self._overlay = site, overlay
        self.ebuilds = {f"{name}-1": ebuild("first", name) for name in NAMES}
        self._written: dict[str, str] = {}
        self.log, self.seconds = "", 0.0

    def gate(self, *words: str, names: tuple[str, ...] = NAMES, code: int = 0) -> str:
        """Run the gate after a change of the overlay, or of what the chroot installs."""
        self.write()
        self.site.change(**{"chroots.base": {"packages": [f"{CATEGORY}/{name}" for name in names]}})
        self.site.doit("lock")
        self.site.doit("candidate:base")
        output = self.site.doit("gate:base", *words, code=code)
        self.log = (self.site.layout.logs / "latest/gate.base.log").read_text()
        ended = self.site.last_run()["gate:base"].ended
        assert ended is not None
        self.seconds = ended.seconds
        if code == 0:  # else the next candidate is signed anew
            self.site.doit("publish:base")
        return output

    def write(self) -> None:
        """Commit the ebuilds to the overlay, if they have changed."""
        for pf in self._written.keys() - self.ebuilds.keys():
            (self._overlay / CATEGORY / pf.rpartition("-")[0] / f"{pf}.ebuild").unlink()
        if self._written != self.ebuilds:
            write_overlay(self._overlay, "cases", self.ebuilds, {})
        self._written = dict(self.ebuilds)

    @property
    def record(self) -> GateRecord:
        return records.load(self.site.layout, GATE("base"))

    @property
    def root(self) -> InstallRoot:
        root = install_root.read(self.folder)
        assert root is not None
        return root

    @property
    def folder(self) -> Path:
        return self.site.layout.install_root("base")

    @property
    def merged(self) -> set[str]:
        """The packages that the last gate installed, by its log."""
        return set(re.findall(r"^>>> Installing \(\d+ of \d+\) (\S+?)::", self.log, re.MULTILINE))

    def installed(self, path: str) -> str | None:
        """The text of a file of the install root."""
        for layer in self.root.paths(self.folder):
            if (layer / path).is_file():
                return (layer / path).read_text()
        return None


@pytest.fixture(scope="module")
def site(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A site whose first candidate has passed the gate."""
    overlay = tmp_path_factory.mktemp("cases")
    site = Site(lab_site, overlay)
    site.write()
    lab_site.change(
        build={"packages": 2},
        binhost={"fresh_install_every": 5},
        **{"overlays.cases": {"url": str(overlay)}},
    )
    lab_site.change(**{"chroots.base": {"overlays": ["cases"], "package_use": {}}})
    site.gate()
    assert site.record.upgraded_from == 0
    return site


def facts(ebuilds: Mapping[str, str]) -> set[str]:
    return {f"{CATEGORY}/{pf}" for pf in ebuilds}


def test_upgrade_installs_what_has_changed_and_replaces_nothing_below(site: Site) -> None:
    fresh, before = site.seconds, site.root
    assert facts(site.ebuilds) <= site.merged
    site.ebuilds["lamp-2"] = ebuild("second", "lamp")
    del site.ebuilds["lamp-1"]
    output = site.gate()
    assert "was upgraded offline to candidate" in output
    assert site.merged == {f"{CATEGORY}/lamp-2"}
    assert site.record.upgraded_from == before.generation
    assert site.root.layers[1:] == before.layers
    assert site.installed("usr/share/cases/lamp") == "second\n"
    assert not list(install_root.flaws(site.folder, site.root))
    assert site.seconds < fresh / 2, (site.seconds, fresh)
    print(f"fresh {fresh:.1f} s, upgrade {site.seconds:.1f} s")
    assert tasks_run(site.site.doit("gate:base")) == set()


def test_rebuilt_package_of_the_same_version_is_upgraded_too(site: Site) -> None:
    site.ebuilds["table-1"] = ebuild("rebuilt", "table")
    site.gate()
    assert site.merged == {f"{CATEGORY}/table-1"}
    assert site.installed("usr/share/cases/table") == "rebuilt\n"


def test_package_that_left_the_set_is_removed(site: Site) -> None:
    site.gate(names=NAMES[:-1])
    assert f"{CATEGORY}/bench-1" not in site.root.packages
    assert site.record.upgraded_from
    assert re.search(r"^>>> Unmerging .*app-cases/bench-1", site.log, re.MULTILINE)


def test_new_package_that_takes_a_file_of_an_older_build_is_refused(site: Site) -> None:
    """The candidate has no collision, but a client merges the new package before the other."""
    before = site.root
    site.ebuilds["rug-1"] = ebuild("rug", "rug", "chair")
    site.ebuilds["chair-2"] = ebuild("second", "seat", more=f'RDEPEND="{CATEGORY}/rug"')
    del site.ebuilds["chair-1"]
    output = site.gate(names=NAMES[:-1], code=1)
    sentence = (
        f"collision: {CATEGORY}/rug-1 was not merged, because the installed {CATEGORY}/chair-1"
        " has /usr/share/cases/chair (1 path)"
    )
    assert sentence in output
    assert site.root == before
    assert not list(install_root.flaws(site.folder, before))
    # a fresh installation has no such problem, and someone may decide that this is enough
    output = site.site.doit("gate:base", "--fresh")
    assert "a fresh installation, as requested" in output
    assert site.record.upgraded_from == 0
    assert len(site.root.layers) == 1


def test_damaged_root_is_not_used(site: Site) -> None:
    (layer,) = site.root.paths(site.folder)
    (layer / "usr/share/cases/shelf").write_text("damaged\n")
    assert "/usr/share/cases/shelf: other content" in site.site.doit("fsck", code=1)
    site.ebuilds["shelf-1"] = ebuild("rebuilt", "shelf")
    output = site.gate(names=NAMES[:-1])
    assert "a fresh installation, because the install root is damaged: " in output
    assert "shelf: other content" in output
    assert site.record.upgraded_from == 0
    assert "install root of base" not in site.site.doit("fsck")


def test_clean_deletes_the_root(site: Site) -> None:
    assert "gate/base" not in site.site.doit("gc")
    site.site.doit("clean", "gate:base")
    assert not site.folder.exists()
