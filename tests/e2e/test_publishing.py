"""Publishing packages made by hand, signed and verified by the Portage of a real stage."""

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
from tasks.config import load
from tasks.errors import HostLacks
from tasks.flow import candidate, chroots, etc, publish
from tasks.portage import etc_portage, index
from tasks.publish import client, generation, published, release_manifest, sign
from tasks.site import Site
from tasks.system import sandbox
from tasks.system.files import digests, sha512
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
    """A site with a real seed and tree, and sets that are made by hand."""

    def __init__(self, factory: LabSite) -> None:
        self.factory = factory

    @property
    def site(self) -> Site:
        return Site(self.factory.layout, load.load(self.factory.layout))

    @property
    def place(self) -> Path:
        return self.factory.layout.binhost("base")

    @property
    def home(self) -> Path:
        return self.site.signing_home

    def collected(self, *some: tuple[str, int, str]) -> None:
        """Lay down a set, as binpkgs leaves it: name, build number and licence of each."""
        packages, text = [], "VERSION: 0\nARCH: amd64\nTTL: 999999\n\n"
        scratch = self.site.layout.binpkgs("base") / "made"
        shutil.rmtree(scratch, ignore_errors=True)
        for name, build_id, licence in some:
            path = f"app-misc/{name}/{name}-1-{build_id}.gpkg.tar"
            values = {**VALUES, "PF": f"{name}-1", "BUILD_ID": str(build_id)}
            gpkg(scratch / path, values=values)
            packages.append(
                {
                    "cpv": f"app-misc/{name}-1",
                    "build_id": build_id,
                    "path": path,
                    "slot": "0",
                    "use": "",
                    "repo": "gentoo",
                    "size": (scratch / path).stat().st_size,
                    "sha512": sha512(scratch / path),
                }
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
        made = {"set": identity, "packages": packages}
        records.write(self.site.layout, "binpkgs:base", made)

    def publish(self) -> dict[str, Any]:
        """What the candidate's and the publishing task do; the gate has tests of its own."""
        site = self.site
        records.write(site.layout, "candidate:base", candidate.candidate(site, "base"))
        made = publish.publish(site, "base", asked=True)
        records.write(site.layout, "publish:base", made)
        return made

    def view(self, name: str = "public") -> Path:
        return self.place / "current" / name


@pytest.fixture(scope="module")
def binhost(lab_site: LabSite) -> Binhost:
    lab_site.doit("chroot:base", "etc:base", "tree")
    return Binhost(lab_site)


@pytest.fixture
def role(binhost: Binhost, tmp_path: Path) -> Role:
    key = str(binhost.site.config.binhost.signing_key)
    (tmp_path / "key.asc").write_bytes(sign.public_key(binhost.home, key))
    return Role("binhost", tmp_path / "key.asc", (key,))


def two_groups(binhost: Binhost) -> dict[str, Any]:
    """Publish to two groups, as the first generation."""
    binhost.factory.change(access=ACCESS, serve={"certificate": "x", "certificate_key": "x"})
    binhost.collected(("one", 1, "GPL-2"), ("two", 1, "Oracle"), ("ours", 1, "GPL-2"))
    return binhost.publish()


def test_two_groups_and_all_that_is_signed(binhost: Binhost, role: Role) -> None:
    made = two_groups(binhost)
    assert made == {"generation": 1, "set": made["set"], "views": {"public": 1, "role.java": 3}}
    for view, count in made["views"].items():
        folder = binhost.view(view)
        for name in ("Packages", "Packages.gz", release_manifest.NAME):
            with (folder / name).open("rb") as stream:
                verify_detached(role, stream, name, folder / f"{name}.asc")
        assert (
            gzip.decompress((folder / "Packages.gz").read_bytes())
            == (folder / "Packages").read_bytes()
        )
        manifest = json.loads((folder / release_manifest.NAME).read_text())
        for name, told in manifest["files"].items():
            assert told["sha512"] == sha512(folder / name)
        assert {"Packages", "provenance.jsonl", "sbom.cdx.json"} < set(manifest["files"])
        lock, tree = manifest["lock"], records.read(binhost.site.layout, "tree")
        assert lock["tree"]["commit"] == tree["commit"]
        assert lock["sha256"] == digests(binhost.site.layout.lock, "sha256")["sha256"]
        header, stanzas = index.parse((folder / "Packages").read_text())
        assert manifest["timestamp"] == int(header["TIMESTAMP"])
        assert len(stanzas) == manifest["packages"] == count
        assert "TTL" not in header
        paths = {str(path.relative_to(folder)) for path in folder.rglob("*.gpkg.tar")}
        assert {stanza["PATH"] for stanza in stanzas} == paths
        sign.verify([folder / path for path in paths], role)
    assert processes_naming(binhost.home) == processes_naming(Path(sign.KEY_HOME)) == []


def test_what_is_new_is_signed_and_the_rest_is_linked(
    binhost: Binhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.stat().st_ino for path in binhost.view("role.java").rglob("*.gpkg.tar")}
    binhost.collected(
        ("one", 1, "GPL-2"), ("two", 1, "Oracle"), ("ours", 1, "GPL-2"), ("new", 1, "GPL-2")
    )
    signed: list[str] = []
    real = sign.sign
    monkeypatch.setattr(sign, "sign", lambda *a: signed.extend(a[2]) or real(*a))  # type: ignore[func-returns-value]
    assert binhost.publish()["views"] == {"public": 2, "role.java": 4}
    assert signed == ["app-misc/new/new-1-1.gpkg.tar"]
    for path, inode in before.items():
        assert path.stat().st_ino == inode
    lines = (binhost.view("role.java") / "provenance.jsonl").read_text().splitlines()
    subjects = {json.loads(line)["subject"][0]["name"]: json.loads(line) for line in lines}
    for path, told in subjects.items():
        digest = sha512(binhost.view("role.java") / path)
        assert told["subject"][0]["digest"] == {"sha512": digest}
        assert told["predicate"]["buildDefinition"]["externalParameters"]["chroot"] == "base"


def test_another_policy_signs_nothing_again(binhost: Binhost, capsys: Any) -> None:
    count = published.facts(binhost.place, 2)["timestamp"]
    binhost.factory.change(access={**ACCESS, "packages": {"app-misc/ours": "public"}})
    before = (binhost.view("role.java") / "app-misc/ours/ours-1-1.gpkg.tar").read_bytes()
    assert binhost.publish()["views"] == {"public": 3, "role.java": 4}
    assert (binhost.view() / "app-misc/ours/ours-1-1.gpkg.tar").read_bytes() == before
    assert published.facts(binhost.place, 3)["timestamp"] > count
    binhost.factory.change(access={**ACCESS, "restricted": "role:java", "free": ["MIT"]})
    assert binhost.publish()["views"] == {"public": 0, "role.java": 4}
    assert capsys.readouterr().out
    assert binhost.publish()["generation"] == 4  # nothing changed: the same


def test_a_key_that_is_gone_or_has_expired(binhost: Binhost, tmp_path: Path) -> None:
    """Fault 63: never unsigned, nothing is switched, one line says why."""
    binhost.collected(("one", 1, "GPL-2"), ("late", 1, "GPL-2"))
    now, good = generation.current(binhost.place), binhost.home
    assert now is not None
    spoilt = tmp_path / "spoilt"
    shutil.copytree(good, spoilt, ignore=shutil.ignore_patterns("S.*"))
    spoilt.chmod(0o700)
    key = str(binhost.site.config.binhost.signing_key)
    binhost.factory.change(binhost={"signing_home": str(spoilt)})
    try:
        keys = Gpg(spoilt)
        keys("--quick-set-expire", key, "seconds=1")
        subprocess.run(["gpgconf", "--homedir", spoilt, "--kill", "all"], check=True)
        subprocess.run(["sleep", "2"], check=True)
        for gone in (spoilt / "nothing", spoilt / "private-keys-v1.d", spoilt):
            shutil.rmtree(gone, ignore_errors=True)
            with pytest.raises(HostLacks) as no:
                binhost.publish()
            assert "\n" not in no.value.message
            assert generation.current(binhost.place) == now
            assert names(binhost.place / "gen") == [str(n) for n in range(1, now + 1)]
    finally:
        binhost.factory.change(binhost={"signing_home": "secrets/gnupg"})
    assert processes_naming(spoilt) == []
    assert binhost.publish()["generation"] == now + 1


class Client:
    """A client's Portage, with the site's key as the only one that it trusts."""

    def __init__(self, binhost: Binhost, space: Path) -> None:
        site = binhost.site
        self.binhost, self.space, self.work = binhost, space, space / "asked"
        self.work.mkdir()
        made = etc.portage_files(site, "base", features=(), variables=client.VARIABLES)
        link = etc_portage.profile_link(site.config, "base")
        etc_portage.write(made, link, space / "etc", site.layout.trash)
        key = str(site.config.binhost.signing_key)
        client.keyring(sign.public_key(binhost.home, key), key, space / "etc" / client.GNUPG)
        seed = records.read(site.layout, "seed:lab")["sha512"]
        self.room = chroots.plan(
            site,
            "base",
            space,
            etc=space / "etc",
            layers=[site.layout.seed(seed)],
            binds=(
                Bind(str(self.work), INSIDE),
                Bind(str(PROGRAM), f"{INSIDE}.py"),
                Bind(str(binhost.place), "/binhost"),
            ),
        )

    def asked(self, flips: int, *packages: str) -> dict[str, Any]:
        """What becomes of packages, and of one of the binhost's with single bits flipped."""
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
        printed = sandbox.run(self.room, command, timeout=900).stdout
        found: dict[str, Any] = json.loads(printed.splitlines()[-1])
        assert found["packages"].pop(inside), "the package as it is published must be accepted"
        assert found["whole"]
        return found


@pytest.fixture
def portage(binhost: Binhost) -> Iterator[Client]:
    if generation.current(binhost.place) is None:
        two_groups(binhost)
    with chroots.workspace(binhost.site, "client-accepts") as space:
        yield Client(binhost, space)


def flips_are_refused(portage: Client, count: int) -> None:
    found = portage.asked(count)
    assert found["flips"] == count
    assert found["both"] == found["index"] == 0
    # between a member and the next the tar has padding, which no signature covers
    print(f"the signature alone accepted {found['signature']} of {count}")
    assert found["signature"] < count / 2


def test_no_flipped_package_is_accepted(portage: Client) -> None:
    flips_are_refused(portage, 200)


@pytest.mark.soak
def test_none_of_a_thousand_flipped_packages_is_accepted(portage: Client) -> None:
    flips_are_refused(portage, 1000)


def test_packages_that_slipped_in(portage: Client, tmp_path: Path, binhost: Binhost) -> None:
    """Fault 64: unsigned, or signed by somebody else."""
    other = Gpg(tmp_path / "other")
    other.home.mkdir(mode=0o700)
    other.new("other")
    subprocess.run(["gpgconf", "--homedir", other.home, "--kill", "all"], check=True)
    for name in ("unsigned", "strangers", "ours"):
        gpkg(portage.work / f"{name}.gpkg.tar")
    signed_by(binhost, portage.work / "ours.gpkg.tar")
    key = str(binhost.site.config.binhost.signing_key)
    stranger = {"signing_home": str(other.home), "signing_key": other.fingerprint("other")}
    binhost.factory.change(binhost=stranger)
    try:
        signed_by(binhost, portage.work / "strangers.gpkg.tar")
    finally:
        binhost.factory.change(binhost={"signing_home": "secrets/gnupg", "signing_key": key})
    asked = [f"{INSIDE}/{name}.gpkg.tar" for name in ("unsigned", "strangers", "ours")]
    assert list(portage.asked(0, *asked)["packages"].values()) == [False, False, True]


def signed_by(binhost: Binhost, package: Path) -> None:
    """Sign one package as a site does, with the key that its config names now."""
    site = binhost.site
    with chroots.workspace(site, "sign-one") as space:
        folder = space / "packages"
        folder.mkdir()
        shutil.move(package, folder / package.name)
        room = candidate._signing_room(site, "base", folder, space)
        sign.sign(room, folder, [package.name], site.layout.log("sign-one"))
        shutil.move(folder / package.name, package)
