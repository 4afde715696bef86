"""The DISTDIR of a chroot, and its downloads before a build."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.config.tables import Config
from tasks.flow import fetching
from tasks.layout import Layout
from tasks.portage.etc_portage import DISTDIR
from tasks.records import reading
from tasks.site import Site
from tests.kit.configs import three_chroots_with


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
