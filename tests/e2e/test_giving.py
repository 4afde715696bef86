"""Groups, from a restricted distfile to clients of each role, with the real Portage and nginx.

The tests of this module follow one another on one site.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
import tomli
import tomli_w

from tasks import site
from tasks.errors import BinmillError
from tasks.flow import members
from tasks.lab import upstream
from tasks.serve import certificates, nginx
from tasks.site import CONFIG_VARIABLE
from tests.e2e.conftest import PROJECT, Factory, ran

ROLE = "role:java"
FREE = ["GPL-2", "GPL-3", "BSD", "ZLIB", "BZIP2", "ISC", "public-domain", "metapackage"]


def restricted(factory: Factory) -> Path:
    """The archive that only a person may hand over, as the lab's upstream has it."""
    return next((upstream.Upstream(factory.lab).local / "distfiles").rglob("jattach-*"))


def test_a_site_with_groups(factory: Factory) -> None:
    """One base, and two stacks that want the same restricted package; one is in its group."""
    raw = tomli.loads(factory.layout.config.read_text())
    base = {key: raw["chroots"]["base"][key] for key in ("seed", "profile")}
    stack = {"base": "base", "overlays": ["java"], "packages": ["dev-java/jattach"]}
    raw["chroots"] = {"base": base, "java": {**stack, "groups": [ROLE]}, "outside": stack}
    raw["mirrors"].pop("local", None)
    raw["access"] = {"groups": [ROLE, "site:acme"], "restricted": ROLE, "free": FREE}
    tls = certificates.throwaway(factory.layout.site / "secrets/tls")
    raw["serve"] = {"certificate": str(tls.certificate), "certificate_key": str(tls.key)}
    factory.layout.config.write_text(tomli_w.dumps(raw))
    factory.doit("binpkgs:base", "overlay:java")
    assert factory.layout.record("binpkgs:base").exists()


def test_without_the_file_it_is_said_what_to_do(factory: Factory) -> None:
    printed = factory.doit("binpkgs:java", code=1)
    assert "java could not fetch what it needs" in printed
    assert "jattach" in printed
    assert f"doit distfile add FILE --group {ROLE}" in printed
    assert list(factory.layout.work.iterdir()) == []


def test_a_chroot_fetches_what_is_its_roles(factory: Factory) -> None:
    factory.doit("distfile", "add", str(restricted(factory)), "--group", ROLE)
    factory.doit("binpkgs:java")
    log = (factory.layout.logs / "latest" / "binpkgs.java.log").read_text(errors="replace")
    # nginx refused it first: wget(1) tells its password only to who asks for it
    asked = re.search(r"https://127\.0\.0\.1:\d+/mirror/role\.java/distfiles/\w+/jattach\S+", log)
    assert asked, log
    assert "401 Unauthorized" in log
    assert "200 OK" in log
    made = json.loads(factory.layout.record("binpkgs:java").read_text())
    assert any(p["cpv"].startswith("dev-java/jattach") for p in made["packages"])
    fetched = [path.name for path in factory.layout.restricted_distfiles("java").iterdir()]
    assert restricted(factory).name in fetched
    assert not (factory.layout.distfiles / restricted(factory).name).exists()


def test_no_password_is_left(factory: Factory) -> None:
    state = factory.layout.state
    texts = [f for f in state.rglob("*") if f.is_file() and f.stat().st_size < 1 << 20]
    assert not [f for f in texts if f.name == ".netrc" or b"login java" in f.read_bytes()]
    mirrors = (state / "etc/java").rglob("mirrors")
    assert list(mirrors) == []


def test_a_chroot_without_the_role_does_not(factory: Factory) -> None:
    printed = factory.doit("binpkgs:outside", code=1)
    assert "binpkgs:outside: FAILED" in printed
    assert "fetch restriction" in printed or "jattach" in printed
    assert not factory.layout.record("binpkgs:outside").exists()


def test_a_member_installs_and_others_are_refused(factory: Factory) -> None:
    """A client of each kind, with the real emerge, over TLS, signatures required."""
    factory.doit("members:java", "members:base")
    java = json.loads(factory.layout.record("members:java").read_text())
    assert java["group"] == ROLE
    assert java["refused"] == ["stranger", "outsider"]
    assert any(cpv.startswith("dev-java/jattach") for cpv in java["installed"])
    log = (factory.layout.logs / "latest" / "members.java.log").read_text(errors="replace")
    assert "/java@role.java/Packages" in log
    assert re.search(r"https://127\.0\.0\.1:\d+/java@role\.java/dev-java/jattach/\S+gpkg", log)
    base = json.loads(factory.layout.record("members:base").read_text())
    assert (base["group"], base["refused"]) == ("public", [])
    assert ran(factory.doit("members:java", "members:base")) == set()


def test_a_generation_that_is_open_to_all_is_noticed(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proof can fail: an nginx without the guard of its doors lets a stranger in."""
    monkeypatch.setattr(os, "environ", {**os.environ, CONFIG_VARIABLE: str(factory.layout.config)})
    monkeypatch.setattr(nginx, "PUBLIC", ROLE)
    made = site.load(PROJECT)
    with pytest.raises(BinmillError, match="stranger was not refused by the binhost of java"):
        members.members(made, "java")
