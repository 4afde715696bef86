"""Gate, rollback, promotion and diff, with packages that the real Portage built and installs.

The tests of this module follow one another on one site. Its set is as small as one can be: what is
in @system.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks import records
from tasks.config import load
from tasks.errors import BinmillError
from tasks.flow import chroots, client, gate, publish
from tasks.portage import index
from tasks.publish import bundle, generation, published
from tasks.serve import policy
from tasks.serve.nginx_process import serving
from tasks.site import Site
from tasks.system import sandbox
from tests.kit.lab_site import LabSite, tasks_run

EMERGE = ["emerge", "--oneshot", "--getbinpkgonly", "--usepkgonly", "--color=n", "--nospinner"]
ZLIB = "sys-libs/zlib"


@pytest.fixture(scope="module")
def site(lab_site: LabSite) -> Site:
    """A site with two generations: the second one has another USE flag of zlib."""
    lab_site.change(
        binhost={"channels": ["testing", "stable"]}, **{"chroots.base": {"packages": []}}
    )
    assert "gate:base" in tasks_run(lab_site.doit("publish:base"))
    lab_site.change(**{"chroots.base.package_use": {ZLIB: ["-static-libs"]}})
    lab_site.doit("publish:base")
    return loaded(lab_site)


def loaded(factory: LabSite) -> Site:
    return Site(factory.layout, load.load(factory.layout))


def current(site: Site) -> int:
    number = generation.current(site.layout.binhost("base"))
    assert number is not None
    return number


class Client:
    """A client that keeps what it has, set up from the bundle of a generation."""

    def __init__(self, site: Site, here: str, space: Path) -> None:
        view = site.layout.binhost("base") / "current/public"
        given = bundle.unpacked((view / bundle.NAME).read_bytes())
        self.room = client.room_of(site, "base", given, here, space)
        self.log = space / "log"

    def install(self) -> int:
        """Install zlib from the binhost; returns its build number."""
        sandbox.run(self.room, [*EMERGE, ZLIB], log=self.log, timeout=300)
        (entry,) = (self.room.upper / "var/db/pkg/sys-libs").glob("zlib-*")
        return int((entry / "BUILD_ID").read_text())


@pytest.fixture
def portage(site: Site) -> Iterator[Client]:
    with (
        chroots.workspace(site, "client-releases") as space,
        serving(
            [policy.binhost_location("base", policy.PUBLIC)], site.layout.state, space / "nginx"
        ) as server,
    ):
        yield Client(site, server.url, space)


def test_what_changed_is_told(site: Site, lab_site: LabSite) -> None:
    printed = lab_site.doit("diff", "base")
    assert "base generation 1 -> 2: " in printed
    assert "because of USE -static-libs" in printed
    told = json.loads(lab_site.doit("diff", "base", "1", "2", "--json"))
    (zlib,) = [package for package in told["rebuilt"] if package["name"] == ZLIB]
    assert zlib["use"] == ["-static-libs"]
    assert "other /etc/portage" in zlib["why"]
    assert "there is no generation '9'" in lab_site.doit("diff", "base", "9", code=1)
    assert "one of: base" in lab_site.doit("diff", "bose", code=1)
    assert len(json.loads(lab_site.doit("generations", "--json"))) == 2
    assert current(site) == 2


def test_a_client_sees_a_rollback(site: Site, lab_site: LabSite, portage: Client) -> None:
    """Fault 62."""
    newest = portage.install()
    said = lab_site.doit("rollback:base")
    assert "generation 3 is current, with the packages of 1" in said
    assert portage.install() < newest
    stamps = [published.facts(site.layout.binhost("base"), n)["timestamp"] for n in (1, 2, 3)]
    assert stamps == sorted(set(stamps))
    views = [site.layout.binhost("base") / "gen" / n / "public" for n in ("1", "3")]
    for path in views[0].rglob("*.gpkg.tar"):
        assert (views[1] / path.relative_to(views[0])).read_bytes() == path.read_bytes()

    # held: what is not named leaves it alone, what asks for it ends it
    assert "current, rollback to 1, held" in lab_site.doit("generations", "base")
    assert tasks_run(lab_site.doit("gate:base")) == set()
    assert "publish:base" not in lab_site.doit("why", "client:base").split("it has not")[0]
    assert "no generation before 1" in lab_site.doit("rollback:base", code=1)
    assert "is the current one already" in lab_site.doit("rollback", "base", "--to", "3", code=1)
    assert tasks_run(lab_site.doit("publish:base")) == {"publish:base"}
    assert portage.install() == newest
    assert current(site) == 4


def test_a_channel_moves_only_when_told(site: Site, lab_site: LabSite) -> None:
    binhost = site.layout.binhost("base")
    assert "there is no channel 'stabel'" in lab_site.doit(
        "promote", "base", "--to", "stabel", code=1
    )
    assert "no other generation" in lab_site.doit("promote", "base", "--to", "stable", code=1)
    lab_site.doit("promote", "base", "2")
    lab_site.doit("promote", "base", "--to", "stable")
    assert generation.current(binhost, "testing") == generation.current(binhost, "stable") == 2
    assert "stable has generation 2 already" in lab_site.doit(
        "promote", "base", "--to", "stable", code=1
    )
    lab_site.doit("promote", "base", "1", "--to", "stable")  # older: made again
    assert generation.current(binhost, "stable") == 5
    assert generation.current(binhost, "stable", previous=True) == 2
    assert current(site) == 4
    for location in policy.locations(site.config.access, ["base"], site.config.binhost.channels):
        if location.path.startswith("base"):
            assert (site.layout.state / location.folder / "Packages").is_file(), location


@pytest.fixture
def candidate(site: Site) -> Iterator[Path]:
    """A candidate that the gate has not seen, as of the newest set; not the real one."""
    binhost = site.layout.binhost("base")
    held = records.read(site.layout, "candidate:base")
    content = generation.content_of(published.place(binhost, held["generation"]), 30)

    def sign(files: Any) -> None:
        for file in files:
            file.with_name(f"{file.name}.asc").write_text("not looked at by the gate")

    number = generation.prepare(binhost, content, sign, site.layout.trash)
    records.write(site.layout, "candidate:base", {**held, "generation": number})
    yield published.place(binhost, number) / "public"
    records.write(site.layout, "candidate:base", held)


def refused(site: Site) -> str:
    before = current(site)
    with pytest.raises(BinmillError) as no:
        gate.gate(site, "base")
    assert current(site) == before
    return no.value.message


def of(view: Path, name: str) -> Path:
    """A package of a view, as a file of its own: the others' names of it are not touched."""
    (path,) = view.glob(f"*/{name}/*.gpkg.tar")
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)
    return path


def rewrite(view: Path, **changes: dict[str, str]) -> None:
    """Change what the index says of packages; "" takes a package out."""
    header, stanzas = index.parse((view / "Packages").read_text())
    kept = []
    for stanza in stanzas:
        change = changes.get(stanza["CPV"].split("/")[1].split("-")[0], {})
        if change != {"CPV": ""}:
            kept.append({**stanza, **change})
    (view / "Packages").write_text("".join(map(index.render, [header, *kept])))


def test_the_gate_lists_what_is_wrong(site: Site, candidate: Path) -> None:
    rewrite(candidate, zlib={"CPV": ""}, bzip2={"REQUIRES": "x86_64: libc.so.6 libnone.so.7"})
    said = refused(site)
    assert "is not published, for 2 reasons" in said
    assert f"missing: {ZLIB}-" in said
    assert "needs libnone.so.7 (x86_64), which nothing provides" in said
    assert candidate.is_dir()


def test_the_gate_finds_files_of_two_packages(site: Site, candidate: Path) -> None:
    shutil.copy2(of(candidate, "zlib"), of(candidate, "bzip2"))
    said = refused(site)
    assert "collision: app-arch/bzip2-" in said
    assert "both install /usr/include/zconf.h and " in said
    # nobody installs both of two that block each other; by the chroot's own Portage
    rewrite(candidate, bzip2={"RDEPEND": "!!<sys-libs/zlib-99"})
    assert "collision" not in refused(site)
    rewrite(candidate, bzip2={"RDEPEND": "!!>sys-libs/zlib-99"})
    assert "collision" in refused(site)


def test_the_gate_refuses_what_is_not_signed(site: Site, candidate: Path) -> None:
    """Fault 64: a package without a signature slipped in, with an index that fits it."""
    made = records.read(site.layout, "binpkgs:base")
    path = of(candidate, "zlib")
    shutil.copy2(site.layout.binpkgs("base") / made["set"] / path.relative_to(candidate), path)
    sums = published.file_of(path, "").sums
    rewrite(candidate, zlib=index.complete({}, sums))
    assert "install: " in refused(site)


def test_a_client_installs_while_generations_come_and_go(site: Site, portage: Client) -> None:
    switched_under(site, portage, 10)


@pytest.mark.soak
def test_a_client_installs_over_200_switches(site: Site, portage: Client) -> None:
    switched_under(site, portage, 200)


def switched_under(site: Site, portage: Client, switches: int) -> None:
    """Let a client install in a loop while the two builds of zlib become current in turns."""
    binhost = site.layout.binhost("base")
    done, failed, builds = threading.Event(), list[Exception](), list[int]()

    def loop() -> None:
        try:
            while not done.is_set():
                builds.append(portage.install())
        except Exception as error:
            failed.append(error)

    installing = threading.Thread(target=loop)
    installing.start()
    try:
        # numbers of generations that have the one and the other; both go on under new numbers
        turns = [1, 2]
        for count in range(switches):
            turns[count % 2] = publish.again(site, "base", turns[count % 2])
            generation.prune(binhost, (), keep=1, keep_days=0, trash=site.layout.trash)
            if failed:
                break
            if count % 5 == 4:  # both are current in turns here: time to see which
                seen = len(builds) + 2  # the first of them may have begun before
                while len(builds) < seen and installing.is_alive():
                    time.sleep(0.1)
    finally:
        done.set()
        installing.join(300)
    assert not failed, f"{failed[0]}; {portage.log.read_text()[-2000:]}"
    assert len(set(builds)) == 2, "it has seen both"
    assert current(site) >= switches
