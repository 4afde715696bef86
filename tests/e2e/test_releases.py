"""Gate, rollback, promotion and diff, with packages that the real Portage built and installs.

Every test starts with the same two generations. Their set is as small as one can be: @system.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks import records
from tasks.chroot import sandboxes
from tasks.config import load
from tasks.errors import BinmillError
from tasks.flow import client, gate, publish
from tasks.portage import index
from tasks.publish import bundle, generation, retention
from tasks.publish import candidate as candidates
from tasks.publish.published import SignedPackage
from tasks.records import BINPKGS, CANDIDATE, ETC, Inputs, Key, Request
from tasks.serve import policy
from tasks.serve.nginx_process import serving
from tasks.site import Chroot, Site
from tasks.system import sandbox
from tasks.system.files import sha512
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.refused import refused

pytestmark = pytest.mark.usefixtures("stocked_store")

EMERGE = ["emerge", "--oneshot", "--getbinpkgonly", "--usepkgonly", "--color=n", "--nospinner"]
ZLIB = "sys-libs/zlib"


@pytest.fixture(scope="module")
def two_generations(lab_site: LabSite) -> LabSite:
    """A site with two generations of `base`: the second has another USE flag of zlib."""
    lab_site.change(
        binhost={"channels": ["testing", "stable"]}, **{"chroots.base": {"packages": []}}
    )
    assert "gate:base" in tasks_run(lab_site.doit("publish:base"))
    lab_site.change(**{"chroots.base.package_use": {ZLIB: ["-static-libs"]}})
    lab_site.doit("publish:base")
    return lab_site


@pytest.fixture
def base(two_generations: LabSite, tmp_path: Path) -> Iterator[Chroot]:
    """The chroot of that site; afterwards its binhost, records and doit's memory are as before."""
    layout = two_generations.layout
    parts = (layout.binhost("base"), layout.records, layout.database, layout.config)
    for part in parts:
        subprocess.run(["cp", "-a", part, tmp_path / part.name], check=True)
    yield Site(layout, load.read_config(layout)).chroot("base")
    for part in parts:
        subprocess.run(["rm", "-rf", part], check=True)
        subprocess.run(["cp", "-a", tmp_path / part.name, part], check=True)


def current(base: Chroot) -> int:
    number = generation.current(base.binhost)
    assert number is not None
    return number


class Client:
    """A client that keeps its packages, set up from the bundle of a generation."""

    def __init__(self, base: Chroot, url: str, space: Path) -> None:
        files = bundle.unpack((base.binhost / "current/public" / bundle.NAME).read_bytes())
        self.sandbox = client._sandbox(base, inputs(base), files, url, space)
        self.log = space / "log"

    def install(self) -> int:
        """Install zlib from the binhost; returns its build number."""
        sandbox.run(self.sandbox, [*EMERGE, ZLIB], log=self.log, timeout=300)
        [number] = (self.sandbox.upper / "var/db/pkg/sys-libs").glob("zlib-*/BUILD_ID")
        return int(number.read_text())


@pytest.fixture
def portage(base: Chroot) -> Iterator[Client]:
    with (
        base.workspace("client-releases") as space,
        serving(
            [policy.binhost_location("base", policy.PUBLIC)], base.layout.state, space / "nginx"
        ) as server,
    ):
        yield Client(base, server.url, space)


def test_diff_shows_the_rebuilt_package_and_its_causes(base: Chroot, lab_site: LabSite) -> None:
    printed = lab_site.doit("diff", "base")
    assert "base generation 1 -> 2: " in printed
    assert "cause: USE -static-libs" in printed
    plain = json.loads(lab_site.doit("diff", "base", "1", "2", "--json"))
    (zlib,) = [package for package in plain["rebuilt"] if package["name"] == ZLIB]
    assert zlib["use"] == ["-static-libs"]
    assert zlib["why"] == ["USE -static-libs"]
    assert "[generation-unknown]" in lab_site.doit("diff", "base", "9", code=1)
    assert "[chroot-unknown]" in lab_site.doit("diff", "bose", code=1)
    assert len(json.loads(lab_site.doit("generations", "--json"))) == 2
    assert current(base) == 2


def test_client_sees_a_rollback_until_it_ends(
    base: Chroot, lab_site: LabSite, portage: Client
) -> None:
    newest = portage.install()
    printed = lab_site.doit("rollback", "base")
    assert "generation 3 is current, with the packages of generation 1" in printed
    assert portage.install() < newest
    stamps = [generation.load(base.binhost, n).issue.timestamp for n in (1, 2, 3)]
    assert stamps == sorted(set(stamps))
    views = [base.binhost / "gen" / n / "public" for n in ("1", "3")]
    for path in views[0].rglob("*.gpkg.tar"):
        assert (views[1] / path.relative_to(views[0])).read_bytes() == path.read_bytes()

    # held: other tasks leave it alone, publish:base ends it
    assert "current, rollback to 1, held" in lab_site.doit("generations", "base")
    assert tasks_run(lab_site.doit("gate:base")) == set()
    assert "publish:base" not in lab_site.doit("why", "client:base").split("it has not")[0]
    assert "[rollback-nothing-earlier]" in lab_site.doit("rollback", "base", code=1)
    assert "[rollback-target-current]" in lab_site.doit("rollback", "base", "--to", "3", code=1)
    assert tasks_run(lab_site.doit("publish:base")) == {"publish:base"}
    assert portage.install() == newest
    assert current(base) == 4


def test_channel_changes_only_on_request(base: Chroot, lab_site: LabSite) -> None:
    binhost = base.binhost
    assert "[channel-unknown]" in lab_site.doit("promote", "base", "--to", "stabel", code=1)
    assert "[generation-no-other]" in lab_site.doit("promote", "base", "--to", "stable", code=1)
    lab_site.doit("promote", "base", "2")
    lab_site.doit("promote", "base", "--to", "stable")
    assert generation.current(binhost, "testing") == generation.current(binhost, "stable") == 2
    assert "[channel-has-generation]" in lab_site.doit("promote", "base", "--to", "stable", code=1)
    lab_site.doit("promote", "base", "1", "--to", "stable")  # older: issued again
    assert generation.current(binhost, "stable") == 3
    assert generation.current(binhost, "stable", previous=True) == 2
    assert current(base) == 2
    for location in policy.locations(
        base.site.config.access, ["base"], base.site.config.binhost.channels
    ):
        if location.path.startswith("base"):
            assert (base.layout.state / location.folder / "Packages").is_file(), location


@pytest.fixture
def candidate(base: Chroot) -> Iterator[Path]:
    """A candidate of the newest set that has not passed the gate, beside the real one."""
    record = records.load(base.layout, CANDIDATE("base"))
    content = candidates.read_content(publish.place(base, record))

    def sign(files: Any) -> None:
        for file in files:
            file.with_name(f"{file.name}.asc").write_text("the gate does not read it")

    number = candidates.prepare(base.binhost, content, sign, base.layout.trash, valid_days=30)
    records.save(base.layout, CANDIDATE("base"), replace(record, generation=number))
    yield generation.folder_of(base.binhost, number) / "public"
    records.save(base.layout, CANDIDATE("base"), record)


def inputs(base: Chroot) -> Inputs:
    keys: list[Key[Any]] = [CANDIDATE("base"), BINPKGS("base"), ETC("base")]
    return records.reading(base.layout, [*keys, *sandboxes.seed_keys(base)])


def violations(base: Chroot, *, fresh: bool = False) -> str:
    before, request = current(base), Request(named=True, options={"fresh": fresh})
    with refused(BinmillError, "candidate-refused") as failure:
        gate.check_candidate(base, replace(inputs(base), request=request))
    assert current(base) == before
    return failure.value.message


def of(view: Path, name: str) -> Path:
    """A package of a view, copied, so that its other hard links keep their content."""
    (path,) = view.glob(f"*/{name}/*.gpkg.tar")
    shutil.copy2(path, path.with_name("copy"))
    path.with_name("copy").replace(path)
    return path


def rewrite(view: Path, **changes: dict[str, str]) -> None:
    """Change stanzas of the index; an empty CPV removes the package."""
    header, stanzas = index.parse((view / "Packages").read_text())
    new_stanzas = []
    for stanza in stanzas:
        change = changes.get(stanza["CPV"].split("/")[1].split("-")[0], {})
        if change != {"CPV": ""}:
            new_stanzas.append({**stanza, **change})
    (view / "Packages").write_text("".join(map(index.render, [header, *new_stanzas])))


def test_gate_lists_all_violations(base: Chroot, candidate: Path) -> None:
    rewrite(candidate, zlib={"CPV": ""}, bzip2={"REQUIRES": "x86_64: libc.so.6 libnone.so.7"})
    message = violations(base)
    assert "is not published, for 2 reasons" in message
    assert f"missing: {ZLIB}-" in message
    assert "needs libnone.so.7 (x86_64), which nothing provides" in message
    assert candidate.is_dir()


def test_gate_finds_files_of_two_packages(base: Chroot, candidate: Path) -> None:
    zlib = of(candidate, "zlib")
    shutil.copy2(zlib, of(candidate, "bzip2"))
    rewrite(candidate, bzip2={"SHA512": sha512(zlib)})
    message = violations(base)
    assert "collision: app-arch/bzip2-" in message
    assert "both install /usr/include/zconf.h (" in message
    # packages that block each other are never installed together, says the chroot's own Portage
    rewrite(candidate, bzip2={"RDEPEND": "!!<sys-libs/zlib-99"})
    assert "collision" not in violations(base, fresh=True)
    rewrite(candidate, bzip2={"RDEPEND": "!!>sys-libs/zlib-99"})
    assert "collision" in violations(base)


def test_gate_refuses_an_unsigned_package(base: Chroot, candidate: Path) -> None:
    """An unsigned package, with an index that matches it."""
    record = records.load(base.layout, BINPKGS("base"))
    path = of(candidate, "zlib")
    shutil.copy2(base.collected(record) / path.relative_to(candidate), path)
    sums = SignedPackage.read(path, "").sums
    rewrite(candidate, zlib=index.complete({}, sums))
    assert "install: " in violations(base)


def test_client_installs_during_switches(base: Chroot, portage: Client) -> None:
    switched_under(base, portage, 10)


@pytest.mark.soak
def test_client_installs_during_200_switches(base: Chroot, portage: Client) -> None:
    switched_under(base, portage, 200)


def switched_under(base: Chroot, portage: Client, switches: int) -> None:
    """Let a client install in a loop while the two builds of zlib become current in turns."""
    binhost = base.binhost
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
        # the generations of the two builds; each reissue gets a new number
        turns = [1, 2]
        for count in range(switches):
            earlier = generation.load(binhost, turns[count % 2])
            turns[count % 2] = publish.reissue(base, inputs(base), earlier)
            retention.prune(binhost, (), keep=1, keep_days=0, trash=base.layout.trash)
            if failed:
                break
            if count % 5 == 4:  # each build in turn is current here: let the client install it
                enough = len(builds) + 2  # the first of them may have begun before
                while len(builds) < enough and installing.is_alive():
                    time.sleep(0.1)
    finally:
        done.set()
        installing.join(300)
    assert not failed, f"{failed[0]}; {portage.log.read_text()[-2000:]}"
    assert len(set(builds)) == 2, "it has seen both"
    assert current(base) >= switches
