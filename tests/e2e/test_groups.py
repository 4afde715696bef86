"""Groups, from a restricted distfile to clients of each group, with the real Portage and nginx."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
import tomli
import tomli_w

from lab import upstream
from tasks import graph, records, site
from tasks.chroot import sandboxes
from tasks.errors import BinmillError
from tasks.flow import access_test, etc, gate, signing
from tasks.publish import client as clients
from tasks.publish import generation
from tasks.records import CANDIDATE, Inputs
from tasks.serve import certificates, nginx
from tasks.serve.ephemeral import CREDENTIALS, FETCH_COMMAND, EphemeralServer
from tasks.site import CONFIG_VARIABLE, Chroot
from tasks.system.sandbox import Bind, Sandbox
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.project import PROJECT
from tests.kit.refused import refused

pytestmark = pytest.mark.usefixtures("stocked_store")

ROLE = "role:java"
FREE = ["GPL-2", "GPL-3", "BSD", "ZLIB", "BZIP2", "ISC", "public-domain", "metapackage"]


@dataclass(frozen=True)
class GroupSite:
    """A site with a base and two stacks that need one restricted file; `java` is in its group.

    `refusal` is the output of a build of `java` before the file was on the mirror.
    """

    lab_site: LabSite
    refusal: str

    def record(self, task: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(self.lab_site.layout.record(task).read_text())
        return record

    def log(self, task: str) -> str:
        """The log of the newest run of a task."""
        name = f"{task.replace(':', '.')}.log"
        newest = max(self.lab_site.layout.logs.glob(f"*/{name}"), key=lambda p: p.stat().st_mtime)
        return newest.read_text(errors="replace")


def restricted_file(lab_site: LabSite) -> Path:
    """The archive that an administrator has to add, from the lab's upstream."""
    return next((upstream.Upstream(lab_site.lab).local / "distfiles").rglob("jattach-*"))


@pytest.fixture(scope="module")
def group_site(lab_site: LabSite) -> GroupSite:
    """The site with `java` built: first without the restricted file, then with it."""
    raw = tomli.loads(lab_site.layout.config.read_text())
    base = {key: raw["chroots"]["base"][key] for key in ("seed", "profile")}
    stack = {"base": "base", "overlays": ["java"], "packages": ["dev-java/jattach"]}
    # with the same USE flags, it would take the package that `java` has built
    outside = {**stack, "package_use": {"dev-java/jattach": ["shared"]}}
    raw["chroots"] = {"base": base, "java": {**stack, "groups": [ROLE]}, "outside": outside}
    raw["mirrors"].pop("local", None)
    raw["access"] = {"groups": [ROLE, "site:acme"], "restricted": ROLE, "free": FREE}
    tls = certificates.self_signed(lab_site.layout.site / "secrets/tls")
    raw["serve"] = {"certificate": str(tls.certificate), "certificate_key": str(tls.key)}
    lab_site.layout.config.write_text(tomli_w.dumps(raw))
    lab_site.doit("binpkgs:base", "overlay:java")
    refusal = lab_site.doit("binpkgs:java", code=1)
    assert list(lab_site.layout.work.iterdir()) == []
    lab_site.doit("distfile", "add", str(restricted_file(lab_site)), "--group", ROLE)
    lab_site.doit("binpkgs:java")
    return GroupSite(lab_site, refusal)


@pytest.fixture(scope="module")
def published_site(group_site: GroupSite) -> GroupSite:
    """The site with `java` and `base` published and their access tested."""
    group_site.lab_site.doit("members:java", "members:base")
    return group_site


@pytest.fixture
def java(published_site: GroupSite, monkeypatch: pytest.MonkeyPatch) -> Chroot:
    """The published chroot `java`, with a log folder of its own."""
    config = published_site.lab_site.layout.config
    monkeypatch.setenv(CONFIG_VARIABLE, str(config))
    chroot = site.load(PROJECT).chroot("java")
    chroot.layout.run_logs.mkdir(parents=True, exist_ok=True)
    return chroot


def inputs_of(task: str, chroot: Chroot) -> Inputs:
    """The inputs that the graph declares for a task."""
    return records.reading(chroot.layout, graph.artifacts(chroot.site)[task].reads)


def test_missing_restricted_file_is_reported_with_the_command_to_add_it(
    group_site: GroupSite,
) -> None:
    assert "[distfiles-not-fetched]" in group_site.refusal
    assert "jattach" in group_site.refusal
    assert f"doit distfile add FILE --group {ROLE}" in group_site.refusal


def test_build_in_a_group_fetches_the_restricted_file(group_site: GroupSite) -> None:
    log, layout = group_site.log("binpkgs:java"), group_site.lab_site.layout
    # nginx refuses the first request: wget(1) sends its password only to a server that asks
    url = re.search(r"https://127\.0\.0\.1:\d+/mirror/role\.java/distfiles/\w+/jattach\S+", log)
    assert url, log
    assert "401 Unauthorized" in log
    assert "200 OK" in log
    packages = group_site.record("binpkgs:java")["packages"]
    assert any(package["cpv"].startswith("dev-java/jattach") for package in packages)
    name = restricted_file(group_site.lab_site).name
    assert (layout.restricted_distfiles("java") / name).exists()
    assert not (layout.distfiles / name).exists()


def test_build_in_a_group_leaves_no_password(group_site: GroupSite) -> None:
    state = group_site.lab_site.layout.state
    texts = [f for f in state.rglob("*") if f.is_file() and f.stat().st_size < 1 << 20]
    assert not [f for f in texts if f.name == ".netrc" or b"login java" in f.read_bytes()]
    assert list((state / "etc/java").rglob("mirrors")) == []


def test_build_outside_of_the_group_cannot_fetch_the_file(group_site: GroupSite) -> None:
    output = group_site.lab_site.doit("binpkgs:outside", code=1)
    assert "binpkgs:outside: FAILED: 1 package of outside failed" in output
    assert "dev-java/jattach-2.1: cannot fetch a distfile: " in output
    assert not group_site.lab_site.layout.record("binpkgs:outside").exists()


def test_member_installs_and_others_are_refused(published_site: GroupSite) -> None:
    """The real emerge as each kind of client, over TLS, signatures required."""
    java, base = published_site.record("members:java"), published_site.record("members:base")
    assert java["group"] == ROLE
    assert java["refused"] == ["stranger", "outsider"]
    assert any(cpv.startswith("dev-java/jattach") for cpv in java["installed"])
    log = published_site.log("members:java")
    assert "/java@role.java/Packages" in log
    assert re.search(r"^\[binary +N g +\] dev-java/jattach", log, re.MULTILINE)  # g: from there
    assert (base["group"], base["refused"]) == ("public", [])
    assert tasks_run(published_site.lab_site.doit("members:java", "members:base")) == set()


def test_gate_refuses_a_package_in_the_view_of_another_group(java: Chroot) -> None:
    inputs = inputs_of("gate:java", java)
    number = inputs[CANDIDATE("java")].generation
    packages = generation.folder_of(java.binhost, number) / "public/Packages"
    text, current = packages.read_text(), generation.current(java.binhost)
    changed, count = re.subn(r"^LICENSE: ZLIB$", "LICENSE: all-rights-reserved", text, flags=re.M)
    assert count == 1
    try:
        packages.write_text(changed)
        with refused(BinmillError, "candidate-refused", candidate=number) as excinfo:
            gate.check_candidate(java, inputs)
    finally:
        packages.write_text(text)
    violations = excinfo.value.fields["violations"]
    assert isinstance(violations, list)
    [licence] = [violation for violation in violations if violation.startswith("licence: ")]
    assert licence.startswith("licence: sys-libs/zlib-")
    assert licence.endswith("public")
    assert generation.current(java.binhost) == current


def test_access_test_fails_where_the_guard_is_missing(
    java: Chroot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An nginx that guards no location serves a stranger, and the test notices it."""
    monkeypatch.setattr(nginx, "PUBLIC", ROLE)
    with refused(BinmillError, "client-not-refused", user="stranger", chroot="java"):
        access_test.prove_access(java, inputs_of("members:java", java))


@contextlib.contextmanager
def serving(lab_site: LabSite) -> Iterator[str]:
    """Run the real `doit serve` for the length of the block; yields its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{probe.getsockname()[1]}"
    lab_site.change(binhost={"listen": listen})
    with lab_site.start("serve", PYTHONUNBUFFERED="1") as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C ends it" in line for line in process.stdout)
            yield f"https://{listen}"
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


@contextlib.contextmanager
def client_with_certificate(java: Chroot, url: str, pem: Path) -> Iterator[Sandbox]:
    """A fresh client with a certificate, set up as docs/serving.md says."""
    server = EphemeralServer(
        url, (java.site.layout.site / "secrets/tls/server.pem").read_text(), {}
    )
    inside = f"{CREDENTIALS}/{pem.name}"
    options = f" --certificate={inside} --private-key={inside} -t 3"
    fetch = FETCH_COMMAND.replace(" -t 3", options)
    with java.workspace("certificate") as space:
        server.write_credentials("", space / "access")
        shutil.copy(pem, space / "access")
        yield sandboxes.from_seed(
            java,
            inputs_of("members:java", java),
            space,
            files=etc.portage_files(
                java,
                features=(),
                variables=clients.VARIABLES,
                binrepos=clients.binrepos("java", f"{url}/java@role.java", fetch, fetch),
            ),
            trusted=signing.signing_key(java.site),
            network=True,
            binds=(Bind(str(space / "access"), CREDENTIALS),),
        )


def test_removed_certificate_no_longer_gives_access(
    published_site: GroupSite, java: Chroot, tmp_path: Path
) -> None:
    """A client installs from the real `doit serve` until its user is removed."""
    lab_site, pem, log = published_site.lab_site, tmp_path / "jill.pem", tmp_path / "log"
    lab_site.doit("user", "add", "jill", "--group", ROLE, "--certificate")
    shutil.copy(lab_site.layout.certificates / "jill.pem", pem)
    trusted = str(lab_site.layout.site / "secrets/tls/server.pem")
    with serving(lab_site) as url:

        def status() -> int:
            address = f"{url}/java@role.java/Packages"
            return requests.get(address, cert=str(pem), verify=trusted, timeout=20).status_code

        with client_with_certificate(java, url, pem) as sandbox:
            installed = clients.install(sandbox, ["dev-java/jattach"], log)
        assert any(cpv.startswith("dev-java/jattach") for cpv in installed)
        lab_site.doit("user", "remove", "jill")
        deadline = time.monotonic() + 30
        while status() != 401:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with client_with_certificate(java, url, pem) as sandbox:
            clients.expect_refusal(sandbox, "jill", ["dev-java/jattach"], log)
