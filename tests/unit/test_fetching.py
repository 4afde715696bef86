"""The DISTDIR of a chroot, and the credentials of a client."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.load import Config
from tasks.flow import fetching
from tasks.flow.ephemeral import FETCH, RESUME, Admission
from tasks.layout import Layout
from tasks.portage.etc_portage import DISTDIR
from tasks.records import reading
from tasks.site import Site
from tests.kit.configs import three_chroots_with
from tests.kit.files import names


@pytest.fixture
def site(layout: Layout) -> Site:
    raw = three_chroots_with(
        ("access", {"groups": ["role:java"]}),
        ("serve", {"certificate": "cert.pem", "certificate_key": "key.pem"}),
        ("chroots.java.groups", ["role:java"]),
    )
    return Site(layout, Config.model_validate(raw))


def test_chroot_without_groups_uses_the_shared_distdir(site: Site) -> None:
    distdir = fetching.distdir(site.chroot("base"))
    assert distdir.folder == site.layout.distfiles
    assert [(b.source, b.target, b.writable) for b in distdir.binds] == [
        (str(site.layout.distfiles), DISTDIR, True)
    ]
    assert distdir.variables == {}


@pytest.mark.parametrize("name", ["java", "tomcat"])  # a stack inherits its base's groups
def test_chroot_in_a_group_has_a_distdir_of_its_own(site: Site, name: str) -> None:
    distdir = fetching.distdir(site.chroot(name))
    assert distdir.folder == site.layout.state / "inside/restricted" / name
    own, shared = distdir.binds
    assert (own.source, own.target, own.writable) == (str(distdir.folder), DISTDIR, True)
    assert (shared.source, shared.writable) == (str(site.layout.distfiles), False)
    assert distdir.variables == {"PORTAGE_RO_DISTDIRS": shared.target}


def test_chroot_without_groups_fetches_nothing_in_advance(site: Site, tmp_path: Path) -> None:
    fetching.fetch(site.chroot("base"), reading(site.layout, ()), (), tmp_path / "log")
    assert not site.layout.state.exists()


def test_credentials_are_for_root_alone(tmp_path: Path) -> None:
    server = Admission("https://127.0.0.1:1", "PEM", {"java": "secret"})
    server.hand_over("java", tmp_path / "java")
    assert names(tmp_path / "java") == [".netrc", "server.pem"]
    netrc = tmp_path / "java/.netrc"
    assert netrc.read_text() == "machine 127.0.0.1 login java password secret\n"
    assert netrc.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "java").stat().st_mode & 0o777 == 0o700
    server.hand_over("stranger", tmp_path / "stranger")
    assert names(tmp_path / "stranger") == ["server.pem"]


def test_fetch_command_has_no_secret() -> None:
    for command in (FETCH, RESUME):
        assert command.endswith('-O "${DISTDIR}/${FILE}" "${URI}"')
        assert "password" not in command
    assert "wget -c " in RESUME
