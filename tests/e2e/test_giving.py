"""Groups, from a restricted distfile to clients of each role, with the real Portage and nginx.

The tests of this module follow one another on one site.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import tomli
import tomli_w

from lab import upstream
from tasks import records, site
from tasks.errors import BinmillError
from tasks.flow import access_test, chroots, ephemeral, etc, gate
from tasks.portage import etc_portage
from tasks.publish import client as clients
from tasks.publish import generation, published, sign
from tasks.serve import certificates, nginx
from tasks.site import CONFIG_VARIABLE
from tasks.system.sandbox import Bind, Sandbox
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.project import PROJECT
from tests.kit.refused import refused

ROLE = "role:java"
FREE = ["GPL-2", "GPL-3", "BSD", "ZLIB", "BZIP2", "ISC", "public-domain", "metapackage"]


def restricted(factory: LabSite) -> Path:
    """The archive that only a person may hand over, as the lab's upstream has it."""
    return next((upstream.Upstream(factory.lab).local / "distfiles").rglob("jattach-*"))


def test_a_site_with_groups(lab_site: LabSite) -> None:
    """One base, and two stacks that want the same restricted package; one is in its group."""
    raw = tomli.loads(lab_site.layout.config.read_text())
    base = {key: raw["chroots"]["base"][key] for key in ("seed", "profile")}
    stack = {"base": "base", "overlays": ["java"], "packages": ["dev-java/jattach"]}
    raw["chroots"] = {"base": base, "java": {**stack, "groups": [ROLE]}, "outside": stack}
    raw["mirrors"].pop("local", None)
    raw["access"] = {"groups": [ROLE, "site:acme"], "restricted": ROLE, "free": FREE}
    tls = certificates.self_signed(lab_site.layout.site / "secrets/tls")
    raw["serve"] = {"certificate": str(tls.certificate), "certificate_key": str(tls.key)}
    lab_site.layout.config.write_text(tomli_w.dumps(raw))
    lab_site.doit("binpkgs:base", "overlay:java")
    assert lab_site.layout.record("binpkgs:base").exists()


def test_without_the_file_it_is_said_what_to_do(lab_site: LabSite) -> None:
    printed = lab_site.doit("binpkgs:java", code=1)
    assert "java could not fetch its distfiles" in printed
    assert "jattach" in printed
    assert f"doit distfile add FILE --group {ROLE}" in printed
    assert list(lab_site.layout.work.iterdir()) == []


def test_a_chroot_fetches_what_is_its_roles(lab_site: LabSite) -> None:
    lab_site.doit("distfile", "add", str(restricted(lab_site)), "--group", ROLE)
    lab_site.doit("binpkgs:java")
    log = (lab_site.layout.logs / "latest" / "binpkgs.java.log").read_text(errors="replace")
    # nginx refused it first: wget(1) tells its password only to who asks for it
    asked = re.search(r"https://127\.0\.0\.1:\d+/mirror/role\.java/distfiles/\w+/jattach\S+", log)
    assert asked, log
    assert "401 Unauthorized" in log
    assert "200 OK" in log
    made = json.loads(lab_site.layout.record("binpkgs:java").read_text())
    assert any(p["cpv"].startswith("dev-java/jattach") for p in made["packages"])
    fetched = [path.name for path in lab_site.layout.restricted_distfiles("java").iterdir()]
    assert restricted(lab_site).name in fetched
    assert not (lab_site.layout.distfiles / restricted(lab_site).name).exists()


def test_no_password_is_left(lab_site: LabSite) -> None:
    state = lab_site.layout.state
    texts = [f for f in state.rglob("*") if f.is_file() and f.stat().st_size < 1 << 20]
    assert not [f for f in texts if f.name == ".netrc" or b"login java" in f.read_bytes()]
    mirrors = (state / "etc/java").rglob("mirrors")
    assert list(mirrors) == []


def test_a_chroot_without_the_role_does_not(lab_site: LabSite) -> None:
    printed = lab_site.doit("binpkgs:outside", code=1)
    assert "binpkgs:outside: FAILED" in printed
    assert "fetch restriction" in printed or "jattach" in printed
    assert not lab_site.layout.record("binpkgs:outside").exists()


def test_a_member_installs_and_others_are_refused(lab_site: LabSite) -> None:
    """A client of each kind, with the real emerge, over TLS, signatures required."""
    lab_site.doit("members:java", "members:base")
    java = json.loads(lab_site.layout.record("members:java").read_text())
    assert java["group"] == ROLE
    assert java["refused"] == ["stranger", "outsider"]
    assert any(cpv.startswith("dev-java/jattach") for cpv in java["installed"])
    log = (lab_site.layout.logs / "latest" / "members.java.log").read_text(errors="replace")
    assert "/java@role.java/Packages" in log
    assert re.search(r"^\[binary +N g +\] dev-java/jattach", log, re.MULTILINE)  # g: from there
    base = json.loads(lab_site.layout.record("members:base").read_text())
    assert (base["group"], base["refused"]) == ("public", [])
    assert tasks_run(lab_site.doit("members:java", "members:base")) == set()


def test_the_gate_knows_what_a_group_may_have(
    lab_site: LabSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package in a view of a group that may not have it: the last look before clients have it."""
    monkeypatch.setattr(os, "environ", {**os.environ, CONFIG_VARIABLE: str(lab_site.layout.config)})
    made = site.load(PROJECT)
    number = records.read(made.layout, "candidate:java")["generation"]
    packages = published.place(made.layout.binhost("java"), number) / "public/Packages"
    text, before = packages.read_text(), generation.current(made.layout.binhost("java"))
    spoilt, count = re.subn(r"^LICENSE: ZLIB$", "LICENSE: all-rights-reserved", text, flags=re.M)
    assert count == 1
    made.layout.log("gate:java").parent.mkdir(parents=True)
    try:
        packages.write_text(spoilt)
        with pytest.raises(BinmillError) as no:
            gate.gate(made, "java")
    finally:
        packages.write_text(text)
    assert "licence: sys-libs/zlib-" in no.value.message
    assert no.value.message.count("licence: ") == 1
    assert "may not be given to public" in no.value.message
    assert generation.current(made.layout.binhost("java")) == before


def test_a_generation_that_is_open_to_all_is_noticed(
    lab_site: LabSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof can fail: an nginx without the guard of its locations lets a stranger in."""
    monkeypatch.setattr(os, "environ", {**os.environ, CONFIG_VARIABLE: str(lab_site.layout.config)})
    monkeypatch.setattr(nginx, "PUBLIC", ROLE)
    made = site.load(PROJECT)
    with refused(BinmillError, "client-not-refused", user="stranger", chroot="java"):
        access_test.members(made, "java")


@contextlib.contextmanager
def served(factory: LabSite) -> Iterator[str]:
    """The real `doit serve` of the site while the block runs; gives its URL."""
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        listen = f"127.0.0.1:{plug.getsockname()[1]}"
    factory.change(binhost={"listen": listen})
    with factory.start("serve", PYTHONUNBUFFERED="1") as process:
        try:
            assert process.stdout is not None
            assert any("Ctrl-C ends it" in line for line in process.stdout)
            yield f"https://{listen}"
        finally:
            process.terminate()
            process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


@contextlib.contextmanager
def holder(made: site.Site, url: str, pem: Path) -> Iterator[Sandbox]:
    """A fresh client with a certificate, set up as docs/serving.md has it."""
    trusted = (made.layout.site / "secrets/tls/server.pem").read_text()
    inside = f"{ephemeral.ACCESS}/jill.pem"
    fetch = ephemeral.FETCH.replace(" -t 3", f" --certificate={inside} --private-key={inside} -t 3")
    with chroots.workspace(made, "holder") as space:
        ephemeral.Admission(url, trusted, {}).hand_over("", space / "access")
        shutil.copy(pem, space / "access")
        conf = etc.portage_files(
            made,
            "java",
            features=(),
            variables=clients.VARIABLES,
            binrepos=clients.binrepos("java", f"{url}/java@role.java", fetch, fetch),
        )
        link = etc_portage.profile_link(made.config, "java")
        etc_portage.write(conf, link, space / "etc", made.layout.trash)
        key = made.config.binhost.signing_key
        clients.keyring(sign.public_key(made.signing_home, key), str(key), space / "etc/gnupg")
        seed = records.read(made.layout, "seed:lab")["sha512"]
        yield chroots.plan(
            made,
            "java",
            space,
            network=True,
            etc=space / "etc",
            layers=[made.layout.seed(seed)],
            binds=(Bind(str(space / "access"), ephemeral.ACCESS),),
        )


def status(factory: LabSite, url: str, pem: Path) -> int:
    trusted = factory.layout.site / "secrets/tls/server.pem"
    return requests.get(
        f"{url}/java@role.java/Packages", cert=str(pem), verify=str(trusted), timeout=20
    ).status_code


def test_a_client_with_a_certificate(
    lab_site: LabSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the real `doit serve`: it installs; once the user is removed, it gets nothing."""
    monkeypatch.setattr(os, "environ", {**os.environ, CONFIG_VARIABLE: str(lab_site.layout.config)})
    lab_site.doit("user", "add", "jill", "--group", ROLE, "--certificate")
    pem = lab_site.layout.certificates / "jill.pem"
    shutil.copy(pem, tmp_path)
    log = tmp_path / "log"
    with served(lab_site) as url:
        made = site.load(PROJECT)
        with holder(made, url, tmp_path / "jill.pem") as room:
            installed = clients.install(room, ["dev-java/jattach"], log)
        assert any(cpv.startswith("dev-java/jattach") for cpv in installed)
        lab_site.doit("user", "remove", "jill")
        deadline = time.monotonic() + 30
        while status(lab_site, url, tmp_path / "jill.pem") != 401:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with holder(made, url, tmp_path / "jill.pem") as room:
            clients.refused(room, "jill", ["dev-java/jattach"], log)
