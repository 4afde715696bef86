"""Publishing handmade packages, signed and verified by the Portage of a real stage."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import records
from tasks.chroot import sandboxes
from tasks.config import load
from tasks.domain import Package
from tasks.errors import HostLacks
from tasks.flow import candidate, etc, publish, signing
from tasks.portage import index
from tasks.publish import client, generation, release_manifest, sign
from tasks.records import (
    BINPKGS,
    CANDIDATE,
    ETC,
    GATE,
    PUBLISH,
    TREE,
    BinpkgsRecord,
    Inputs,
    Key,
    PublishRecord,
    Request,
)
from tasks.site import Chroot, Site
from tasks.system import sandbox
from tasks.system.files import sha512
from tasks.system.gpgv import Role, verify_detached
from tasks.system.sandbox import Bind
from tests.kit.files import names
from tests.kit.gpg import Gpg
from tests.kit.lab_site import LabSite
from tests.kit.packages import VALUES, gpkg
from tests.kit.processes import processes_naming
from tests.kit.project import PROJECT

PROGRAM = PROJECT / "tests/programs/portage_accepts.py"
INSIDE = "/run/binmill"
ACCESS = {
    "groups": ["role:java"],
    "restricted": "role:java",
    "free": ["GPL-2"],
    "packages": {"app-misc/ours": "role:java"},
}


class Binhost:
    """A site with a real seed and tree, and handmade sets."""

    def __init__(self, lab_site: LabSite) -> None:
        self.lab_site = lab_site

    @property
    def site(self) -> Site:
        return Site(self.lab_site.layout, load.read_config(self.lab_site.layout))

    @property
    def chroot(self) -> Chroot:
        return self.site.chroot("base")

    @property
    def inputs(self) -> Inputs:
        """The inputs of candidate:base and publish:base, named on the command line."""
        keys: list[Key[Any]] = [BINPKGS("base"), ETC("base"), CANDIDATE("base"), GATE("base")]
        declared = frozenset([*keys, *sandboxes.seed_keys(self.chroot)])
        return Inputs(self.site.layout, declared, request=Request(named=True))

    @property
    def place(self) -> Path:
        return self.chroot.binhost

    @property
    def home(self) -> Path:
        return self.site.signing_home

    def write_set(self, *some: tuple[str, int, str]) -> None:
        """Write a set as binpkgs leaves it, from the name, build number and licence of each."""
        packages, text = list[Package](), "VERSION: 0\nARCH: amd64\nTTL: 999999\n\n"
        scratch = self.site.layout.binpkgs("base") / "made"
        shutil.rmtree(scratch, ignore_errors=True)
        for name, build_id, licence in some:
            path = f"app-misc/{name}/{name}-1-{build_id}.gpkg.tar"
            values = {**VALUES, "PF": f"{name}-1", "BUILD_ID": str(build_id)}
            gpkg(scratch / path, values=values)
            size, digest = (scratch / path).stat().st_size, sha512(scratch / path)
            packages.append(
                Package(f"app-misc/{name}-1", build_id, "0", "", "gentoo", path, size, digest)
            )
            text += (
                f"BUILD_ID: {build_id}\nBUILD_TIME: 1795622179\nCPV: app-misc/{name}-1\n"
                f"LICENSE: {licence}\nPATH: {path}\nREPO: gentoo\nSIZE: 1\nUSE: nls\n\n"
            )
        (scratch / "Packages").write_text(text)
        identity = hashlib.sha256(text.encode()).hexdigest()[:32]
        target = scratch.with_name(identity)
        if not target.exists():
            scratch.rename(target)
        record = BinpkgsRecord(identity, tuple(packages))
        records.save(self.site.layout, BINPKGS("base"), record)

    def publish(self) -> PublishRecord:
        """Run the tasks candidate and publish; the gate has tests of its own."""
        layout = self.site.layout
        records.save(layout, CANDIDATE("base"), candidate.prepare(self.chroot, self.inputs))
        record = publish.publish_candidate(self.chroot, self.inputs)
        records.save(layout, PUBLISH("base"), record)
        return record

    def view(self, name: str = "public") -> Path:
        return self.place / "current" / name


@pytest.fixture(scope="module")
def seeded_site(lab_site: LabSite) -> LabSite:
    """A site with a seed and a tree, on which nothing was built."""
    lab_site.doit("chroot:base", "etc:base", "tree")
    return lab_site


@pytest.fixture
def binhost(seeded_site: LabSite) -> Iterator[Binhost]:
    """The site after everything that a test before has published was deleted."""
    layout, config = seeded_site.layout, seeded_site.layout.config.read_text()
    yield Binhost(seeded_site)
    layout.config.write_text(config)
    for folder in (layout.binhost("base"), layout.binpkgs("base")):
        shutil.rmtree(folder, ignore_errors=True)
    for key in (BINPKGS("base"), CANDIDATE("base"), PUBLISH("base")):
        layout.record(key.task).unlink(missing_ok=True)


@pytest.fixture
def role(binhost: Binhost, tmp_path: Path) -> Role:
    key = str(binhost.site.config.binhost.signing_key)
    (tmp_path / "key.asc").write_bytes(sign.public_key(binhost.home, key))
    return Role("binhost", tmp_path / "key.asc", (key,))


def two_groups(binhost: Binhost) -> PublishRecord:
    """Publish to two groups, as the first generation."""
    binhost.lab_site.change(access=ACCESS, serve={"certificate": "x", "certificate_key": "x"})
    binhost.write_set(("one", 1, "GPL-2"), ("two", 1, "Oracle"), ("ours", 1, "GPL-2"))
    return binhost.publish()


def test_two_groups_have_signed_views(binhost: Binhost, role: Role) -> None:
    record = two_groups(binhost)
    assert record == PublishRecord(1, record.set, {"public": 1, "role.java": 3})
    for view, count in record.views.items():
        folder = binhost.view(view)
        for name in ("Packages", "Packages.gz", release_manifest.NAME):
            with (folder / name).open("rb") as stream:
                verify_detached(role, stream, name, folder / f"{name}.asc")
        assert (
            gzip.decompress((folder / "Packages.gz").read_bytes())
            == (folder / "Packages").read_bytes()
        )
        manifest = json.loads((folder / release_manifest.NAME).read_text())
        for name, sums in manifest["files"].items():
            assert sums["sha512"] == sha512(folder / name)
        assert {"Packages", "provenance.jsonl", "sbom.cdx.json"} < set(manifest["files"])
        lock, tree = manifest["lock"], records.load(binhost.site.layout, TREE())
        assert lock["tree"] == {"name": "gentoo", "tag": tree.tag, "commit": tree.commit}
        assert manifest["format"] == 2
        header, stanzas = index.parse((folder / "Packages").read_text())
        assert manifest["timestamp"] == int(header["TIMESTAMP"])
        assert len(stanzas) == manifest["packages"] == count
        assert "TTL" not in header
        paths = {str(path.relative_to(folder)) for path in folder.rglob("*.gpkg.tar")}
        assert {stanza["PATH"] for stanza in stanzas} == paths
        sign.verify_packages([folder / path for path in paths], role)
    assert processes_naming(binhost.home) == processes_naming(Path(sign.KEY_HOME)) == []


def test_only_new_packages_are_signed(binhost: Binhost, monkeypatch: pytest.MonkeyPatch) -> None:
    two_groups(binhost)
    before = {path: path.stat().st_ino for path in binhost.view("role.java").rglob("*.gpkg.tar")}
    binhost.write_set(
        ("one", 1, "GPL-2"), ("two", 1, "Oracle"), ("ours", 1, "GPL-2"), ("new", 1, "GPL-2")
    )
    signed: list[str] = []
    real = sign.sign_packages

    def recording(*arguments: Any) -> None:
        signed.extend(arguments[2])
        real(*arguments)

    monkeypatch.setattr(sign, "sign_packages", recording)
    assert binhost.publish().views == {"public": 2, "role.java": 4}
    assert signed == ["app-misc/new/new-1-1.gpkg.tar"]
    for path, inode in before.items():
        assert path.stat().st_ino == inode
    lines = (binhost.view("role.java") / "provenance.jsonl").read_text().splitlines()
    subjects = {json.loads(line)["subject"][0]["name"]: json.loads(line) for line in lines}
    for path, statement in subjects.items():
        digest = sha512(binhost.view("role.java") / path)
        assert statement["subject"][0]["digest"] == {"sha512": digest}
        assert statement["predicate"]["buildDefinition"]["externalParameters"]["chroot"] == "base"


def test_change_of_policy_signs_no_package_again(binhost: Binhost, capsys: Any) -> None:
    two_groups(binhost)
    first = generation.load(binhost.place, 1).issue.timestamp
    binhost.lab_site.change(access={**ACCESS, "packages": {"app-misc/ours": "public"}})
    before = (binhost.view("role.java") / "app-misc/ours/ours-1-1.gpkg.tar").read_bytes()
    assert binhost.publish().views == {"public": 2, "role.java": 3}
    assert (binhost.view() / "app-misc/ours/ours-1-1.gpkg.tar").read_bytes() == before
    assert generation.load(binhost.place, 2).issue.timestamp > first
    binhost.lab_site.change(access={**ACCESS, "restricted": "role:java", "free": ["MIT"]})
    assert binhost.publish().views == {"public": 0, "role.java": 3}
    assert capsys.readouterr().out
    assert binhost.publish().generation == 3  # nothing changed: the same


def test_unusable_key_publishes_nothing(binhost: Binhost, tmp_path: Path) -> None:
    """Nothing is published unsigned, nothing is switched, and one line gives the reason."""
    two_groups(binhost)
    binhost.write_set(("one", 1, "GPL-2"), ("late", 1, "GPL-2"))
    now, good = generation.current(binhost.place), binhost.home
    assert now is not None
    spoilt = tmp_path / "spoilt"
    shutil.copytree(good, spoilt, ignore=shutil.ignore_patterns("S.*"))
    spoilt.chmod(0o700)
    key = str(binhost.site.config.binhost.signing_key)
    binhost.lab_site.change(binhost={"signing_home": str(spoilt)})
    try:
        keys = Gpg(spoilt)
        keys("--quick-set-expire", key, "seconds=1")
        subprocess.run(["gpgconf", "--homedir", spoilt, "--kill", "all"], check=True)
        subprocess.run(["sleep", "2"], check=True)
        for path in (spoilt / "nothing", spoilt / "private-keys-v1.d", spoilt):
            shutil.rmtree(path, ignore_errors=True)
            with pytest.raises(HostLacks) as excinfo:
                binhost.publish()
            assert "\n" not in excinfo.value.message
            assert generation.current(binhost.place) == now
            assert names(binhost.place / "gen") == [str(n) for n in range(1, now + 1)]
    finally:
        binhost.lab_site.change(binhost={"signing_home": "secrets/gnupg"})
    assert processes_naming(spoilt) == []
    assert binhost.publish().generation == now + 1


class Client:
    """A client's Portage, that trusts only the site's key."""

    def __init__(self, binhost: Binhost, space: Path) -> None:
        self.binhost, self.space, self.work = binhost, space, space / "asked"
        self.work.mkdir()
        self.sandbox = sandboxes.from_seed(
            binhost.chroot,
            binhost.inputs,
            space,
            files=etc.portage_files(binhost.chroot, features=(), variables=client.VARIABLES),
            trusted=signing.signing_key(binhost.site),
            binds=(
                Bind(str(self.work), INSIDE),
                Bind(str(PROGRAM), f"{INSIDE}.py"),
                Bind(str(binhost.place), "/binhost"),
            ),
        )

    def verify(self, flips: int, *packages: str) -> dict[str, Any]:
        """Ask Portage to verify packages, and one of the binhost with single bits flipped."""
        view = self.binhost.view("role.java").resolve()
        stanza = index.parse((view / "Packages").read_text())[1][0]
        inside = f"/binhost/gen/{view.parent.name}/role.java/{stanza['PATH']}"
        request = {
            "package": inside,
            "seed": 1,
            "flips": flips,
            "packages": [inside, *packages],
            "digests": {"size": int(stanza["SIZE"]), "MD5": stanza["MD5"], "SHA1": stanza["SHA1"]},
        }
        (self.work / "request.json").write_text(json.dumps(request))
        command = ["python3", "-I", f"{INSIDE}.py", f"{INSIDE}/request.json"]
        printed = sandbox.run(self.sandbox, command, timeout=900).stdout
        verdicts: dict[str, Any] = json.loads(printed.splitlines()[-1])
        assert verdicts["packages"].pop(inside), "the published package must be accepted"
        assert verdicts["whole"]
        return verdicts


@pytest.fixture
def portage(binhost: Binhost) -> Iterator[Client]:
    two_groups(binhost)
    with binhost.chroot.workspace("client-accepts") as space:
        yield Client(binhost, space)


def flips_are_refused(portage: Client, count: int) -> None:
    verdicts = portage.verify(count)
    assert verdicts["flips"] == count
    assert verdicts["both"] == verdicts["index"] == 0
    # no signature covers the padding between the members of a tar
    print(f"the signature alone accepted {verdicts['signature']} of {count}")
    assert verdicts["signature"] < count / 2


def test_package_with_a_flipped_bit_is_refused(portage: Client) -> None:
    flips_are_refused(portage, 200)


@pytest.mark.soak
def test_thousand_packages_with_a_flipped_bit_are_refused(portage: Client) -> None:
    flips_are_refused(portage, 1000)


def test_package_without_the_sites_signature_is_refused(
    portage: Client, tmp_path: Path, binhost: Binhost
) -> None:
    """Unsigned, or signed by another key."""
    other = Gpg(tmp_path / "other")
    other.home.mkdir(mode=0o700)
    other.new("other")
    subprocess.run(["gpgconf", "--homedir", other.home, "--kill", "all"], check=True)
    for name in ("unsigned", "strangers", "ours"):
        gpkg(portage.work / f"{name}.gpkg.tar")
    signed_by(binhost, portage.work / "ours.gpkg.tar")
    key = str(binhost.site.config.binhost.signing_key)
    stranger = {"signing_home": str(other.home), "signing_key": other.fingerprint("other")}
    binhost.lab_site.change(binhost=stranger)
    try:
        signed_by(binhost, portage.work / "strangers.gpkg.tar")
    finally:
        binhost.lab_site.change(binhost={"signing_home": "secrets/gnupg", "signing_key": key})
    paths = [f"{INSIDE}/{name}.gpkg.tar" for name in ("unsigned", "strangers", "ours")]
    assert list(portage.verify(0, *paths)["packages"].values()) == [False, False, True]


def signed_by(binhost: Binhost, package: Path) -> None:
    """Sign one package as a site does, with the key in its present config."""
    with binhost.chroot.workspace("sign-one") as space:
        folder = space / "packages"
        folder.mkdir()
        shutil.move(package, folder / package.name)
        signer = signing._sandbox(binhost.chroot, binhost.inputs, folder, space)
        sign.sign_packages(signer, folder, [package.name], binhost.chroot.log("sign-one"))
        shutil.move(folder / package.name, package)
