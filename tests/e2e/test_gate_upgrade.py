"""Gate, client and access test upgrade what they have installed, with the real Portage."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tasks import records
from tasks.publish import install_root
from tasks.publish.install_root import InstallRoot
from tasks.records import CLIENT, GATE, MEMBERS, GateRecord
from tasks.serve import certificates
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite, tasks_run

pytestmark = pytest.mark.usefixtures("stocked_store")

ROLE, PROOFS = "role:java", ("client", "members")
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

    def prove(self, *words: str) -> str:
        """Run the client and the access test of what is published."""
        return self.site.doit("client:base", *words, "members:base", *words)

    def fetched(self, task: str) -> set[str]:
        """The packages that Portage has installed in the newest run of client or access test."""
        log = (self.site.layout.logs / f"latest/{task}.base.log").read_text()
        return set(re.findall(r"^>>> Installing \(\d+ of \d+\) (\S+?)::", log, re.MULTILINE))

    def kept(self, task: str) -> InstallRoot:
        """The install root of a task; it has no flaw."""
        folder = self.site.layout.install_root(task, "base")
        root = install_root.read(folder)
        assert root is not None
        assert not list(install_root.flaws(folder, root))
        return root

    def published(self, name: str) -> Path:
        """The file of a package that clients fetch."""
        view = self.site.layout.binhost("base") / "current" / "role.java"
        (path,) = view.glob(f"{CATEGORY}/{name}/*.gpkg.tar")
        return path

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
        return self.site.layout.install_root("gate", "base")

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
    """A site whose first generation has passed the gate, and is installed by its clients."""
    overlay = tmp_path_factory.mktemp("cases")
    site = Site(lab_site, overlay)
    site.write()
    lab_site.change(
        build={"packages": 2},
        binhost={"fresh_install_every": 9},
        **{"overlays.cases": {"url": str(overlay)}},
    )
    lab_site.change(**{"chroots.base": {"overlays": ["cases"], "package_use": {}}})
    groups = {"groups": [ROLE, "site:acme"], "restricted": ROLE, "binhosts": {"base": ROLE}}
    tls = certificates.self_signed(lab_site.layout.site / "secrets/tls")
    serve = {"certificate": str(tls.certificate), "certificate_key": str(tls.key)}
    lab_site.change(access=groups, serve=serve)
    site.gate()
    assert site.record.upgraded_from == 0
    site.prove()
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


def test_clients_upgrade_to_what_is_published(site: Site) -> None:
    """Over HTTP, and over TLS as a member; others are refused as before."""
    fresh = {task: site.kept(task) for task in PROOFS}
    for root in fresh.values():
        assert facts(site.ebuilds) - {f"{CATEGORY}/lamp-2"} <= root.packages.keys()
        assert root.upgrades == 0
    output = site.prove()
    assert "was upgraded from generation 1 to 2" in output
    assert "a member of role:java was upgraded from generation 1 of base over TLS" in output
    for task in PROOFS:
        assert site.fetched(task) == {f"{CATEGORY}/lamp-2"}
        assert site.kept(task).layers[1:] == fresh[task].layers
        assert f"{CATEGORY}/lamp-2" in site.kept(task).packages
        assert not list(site.site.layout.install_root(task, "base").rglob(".netrc"))
    client = records.load(site.site.layout, CLIENT("base"))
    members = records.load(site.site.layout, MEMBERS("base"))
    assert client.upgraded_from == members.upgraded_from == 1
    assert set(client.installed) == set(members.installed) >= facts(site.ebuilds)
    assert members.refused == ("stranger", "outsider")
    assert tasks_run(site.prove()) == set()


def test_published_package_that_an_upgrade_does_not_fetch_is_compared(site: Site) -> None:
    before = {task: site.kept(task) for task in PROOFS}
    path = site.published("bench")
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        for task in PROOFS:
            site.site.layout.record(f"{task}:base").unlink()
            site.site.doit(f"{task}:base", code=1)
            assert site.site.error(f"{task}:base").code == "package-served-differs"
    finally:
        path.write_bytes(good)
    assert {task: site.kept(task) for task in PROOFS} == before
    site.prove()


def test_rebuilt_package_of_the_same_version_is_upgraded_too(site: Site) -> None:
    site.ebuilds["table-1"] = ebuild("rebuilt", "table")
    site.gate()
    assert site.merged == {f"{CATEGORY}/table-1"}
    assert site.installed("usr/share/cases/table") == "rebuilt\n"


def test_client_refuses_a_changed_package_with_a_wrong_signature(site: Site) -> None:
    """Portage verifies what an upgrade fetches; one that failed is not kept."""
    before, path = site.kept("client"), site.published("table")
    good = path.read_bytes()
    try:
        path.write_bytes(good.replace(b"-----BEGIN PGP SIGNATURE-----\n", b"", 1))
        assert path.stat().st_size != len(good)
        site.site.doit("client:base", code=1)
        assert site.site.error("client:base").code == "client-install-failed"
    finally:
        path.write_bytes(good)
    assert site.kept("client") == before
    site.prove()
    assert site.fetched("client") == site.fetched("members") == {f"{CATEGORY}/table-1"}


def test_client_refuses_an_index_with_a_wrong_signature(site: Site) -> None:
    index = site.published("table").parents[2] / "Packages"
    good = index.read_bytes()
    try:
        index.write_bytes(good + b"\n")
        site.site.layout.record("client:base").unlink()
        site.site.doit("client:base", code=1)
        assert site.site.error("client:base").code == "client-check-refused"
    finally:
        index.write_bytes(good)
    site.prove()


def test_package_that_left_the_set_is_removed(site: Site) -> None:
    site.gate(names=NAMES[:-1])
    assert f"{CATEGORY}/bench-1" not in site.root.packages
    assert site.record.upgraded_from
    assert re.search(r"^>>> Unmerging .*app-cases/bench-1", site.log, re.MULTILINE)
    site.prove()
    assert f"{CATEGORY}/bench-1" not in site.kept("client").packages
    log = (site.site.layout.logs / "latest/client.base.log").read_text()
    assert re.search(r"^>>> Unmerging .*app-cases/bench-1", log, re.MULTILINE)


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
    assert "install root of" not in site.site.doit("fsck")


def test_clean_deletes_the_root(site: Site) -> None:
    leftovers = site.site.doit("gc")
    for task in ("gate", *PROOFS):
        assert f"{task}/base" not in leftovers
        site.site.doit("clean", f"{task}:base")
        assert not site.site.layout.install_root(task, "base").exists()
