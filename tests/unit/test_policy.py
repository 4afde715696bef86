"""The group of a package, the views of groups, and the locations."""

from __future__ import annotations

import re

import pytest

from tasks.config.access import Access
from tasks.serve import policy
from tasks.serve.policy import Views

ACCESS = Access(
    groups=["site:acme", "role:java"],
    restricted="role:java",
    free=["GPL-2", "MIT", "BSD"],
    binhosts={"java": "role:java"},
    packages={"app-misc/ours": "site:acme", "app-misc/public": "public"},
)


def group(cp: str, licence: str = "MIT", restrict: str = "", access: Access = ACCESS) -> str | None:
    stanza = {"PATH": f"{cp}/x-1-1.gpkg.tar", "LICENSE": licence, "RESTRICT": restrict}
    return policy.package_group(stanza, access)


@pytest.mark.parametrize(
    ("licence", "restrict", "free"),
    [
        ("MIT", "", True),
        ("MIT GPL-2", "", True),
        ("|| ( MIT Oracle )", "", True),
        ("|| ( Oracle MIT )", "", True),
        ("|| ( ( MIT Oracle ) BSD )", "", True),
        ("( MIT )", "", True),
        ("MIT", "test strip mirror", True),
        ("MIT", "fetch", False),
        ("MIT", "bindist", False),
        ("MIT", "test bindist", False),
        ("Oracle", "", False),
        ("MIT Oracle", "", False),
        ("|| ( Oracle Other )", "", False),
        ("|| ( ( MIT Oracle ) Other )", "", False),
        ("( MIT Oracle )", "", False),
        ("", "", False),
        ("mit", "", False),  # names of licences are case-sensitive
        ("MIT )", "", False),
        ("( MIT", "", False),
        ("|| MIT", "", False),
        ("MIT ||", "", False),
        ("|| ( )", "", False),
        ("( )", "", False),
        ("ssl? ( MIT )", "", False),  # it should have been evaluated
    ],
)
def test_package_is_public_only_if_it_is_known_to_be_free(
    licence: str, restrict: str, free: bool
) -> None:
    assert group("app-misc/x", licence, restrict) == ("public" if free else "role:java")


def test_package_without_owner_and_licence_is_public() -> None:
    for category in ("virtual", "acct-user", "acct-group"):
        assert group(f"{category}/x", "") == "public"
        assert group(f"{category}/x", "Oracle") == "role:java"
        assert group(f"{category}/x", "", "bindist") == "role:java"


def test_access_packages_overrides_licence_and_restrict() -> None:
    assert group("app-misc/ours", "MIT") == "site:acme"
    assert group("app-misc/public", "Oracle", "fetch") == "public"


def test_restricted_package_without_restricted_group_has_no_group() -> None:
    assert group("app-misc/x", "Oracle", access=Access(free=["MIT"])) is None
    assert group("app-misc/x", "MIT", access=Access(free=["MIT"])) == "public"
    assert group("app-misc/x", "MIT", access=Access()) is None  # no licence is free by default


def test_package_without_metadata_is_restricted() -> None:
    assert policy.package_group({}, ACCESS) == "role:java"


PACKAGES = {
    "a": {"CPV": "a", "PATH": "app-misc/a/x", "LICENSE": "MIT"},
    "b": {"CPV": "b", "PATH": "app-misc/ours/x", "LICENSE": "MIT"},
    "c": {"CPV": "c", "PATH": "app-misc/c/x", "LICENSE": "Oracle"},
}


def test_view_has_public_packages_and_those_of_its_group() -> None:
    views = {"public": ["a"], "site:acme": ["a", "b"], "role:java": ["a", "c"]}
    assert policy.views(PACKAGES, ACCESS, "base") == Views(views, [])
    access = Access(groups=["site:acme"], free=["MIT"])
    views = {"public": ["a", "b"], "site:acme": ["a", "b"]}
    assert policy.views(PACKAGES, access, "base") == Views(views, ["c"])


def test_binhost_of_a_group_has_one_view() -> None:
    assert policy.views(PACKAGES, ACCESS, "java") == Views({"role:java": ["a", "c"]}, ["b"])


def test_without_access_table_one_view_has_everything() -> None:
    assert policy.views(PACKAGES, Access(), "base") == Views({"public": ["a", "b", "c"]}, [])


def test_without_free_licences_nothing_is_public() -> None:
    access = Access(groups=["site:acme"])
    views: dict[str, list[str]] = {"public": [], "site:acme": []}
    assert policy.views(PACKAGES, access, "base") == Views(views, ["a", "b", "c"])


@pytest.mark.parametrize("chroot", ["base", "java"])
def test_no_view_has_a_package_of_another_group(chroot: str) -> None:
    for name, packages in policy.views(PACKAGES, ACCESS, chroot).packages.items():
        stanzas = [PACKAGES[package] for package in packages]
        assert policy.forbidden_packages(stanzas, name, ACCESS) == []


def test_locations_are_binhosts_and_mirrors_of_each_group() -> None:
    locations = {(d.path, d.folder, d.group) for d in policy.locations(ACCESS, ["base", "java"])}
    assert locations == {
        ("base", "binhost/base/current/public", "public"),
        ("base@site.acme", "binhost/base/current/site.acme", "site:acme"),
        ("base@role.java", "binhost/base/current/role.java", "role:java"),
        ("java", "binhost/java/current/role.java", "role:java"),
        ("java@site.acme", "binhost/java/current/site.acme", "site:acme"),
        ("java@role.java", "binhost/java/current/role.java", "role:java"),
        ("mirror/public", "mirror/public", "public"),
        ("mirror/site.acme", "mirror/site.acme", "site:acme"),
        ("mirror/role.java", "mirror/role.java", "role:java"),
    }
    channels = {
        (d.path, d.folder, d.earlier)
        for d in policy.locations(ACCESS, ["java"], ["stable"])
        if ".stable" in d.path
    }
    top = "binhost/java/channel.stable"
    assert channels == {
        ("java.stable", f"{top}/role.java", f"{top}.previous/role.java"),
        ("java.stable@role.java", f"{top}/role.java", f"{top}.previous/role.java"),
        ("java.stable@site.acme", f"{top}/site.acme", f"{top}.previous/site.acme"),
    }
    earlier = {d.earlier for d in policy.locations(ACCESS, ["base"])}
    assert earlier == {
        "",
        *(f"binhost/base/previous/{view}" for view in ("public", "site.acme", "role.java")),
    }


@pytest.mark.parametrize(
    ("files", "path", "exists"),
    [
        (policy.BINHOST_FILES, "Packages", True),
        (policy.BINHOST_FILES, "Packages.gz", True),
        (policy.BINHOST_FILES, "Packages.asc", True),
        (policy.BINHOST_FILES, "Packages.gz.asc", True),
        (policy.BINHOST_FILES, "release.json", True),
        (policy.BINHOST_FILES, "release.json.asc", True),
        (policy.BINHOST_FILES, "release.json.gz", False),
        (policy.BINHOST_FILES, "provenance.jsonl", True),
        (policy.BINHOST_FILES, "sbom.cdx.json", True),
        (policy.BINHOST_FILES, "client.tar", True),
        (policy.BINHOST_FILES, "ledger.json", False),
        (policy.BINHOST_FILES, "a-b/release.json", False),
        (policy.BINHOST_FILES, "a-b/c+/c+-1.2_p3-r1-1.gpkg.tar", True),
        (policy.BINHOST_FILES, "generation.json", False),
        (policy.BINHOST_FILES, "a-b/c/generation.json", False),
        (policy.BINHOST_FILES, "a-b/c/.c-1-1.gpkg.tar", False),
        (policy.BINHOST_FILES, "a-b/../c-1-1.gpkg.tar", False),
        (policy.BINHOST_FILES, "a-b/c-1-1.gpkg.tar", False),
        (policy.BINHOST_FILES, "x/a-b/c/c-1-1.gpkg.tar", False),
        (policy.BINHOST_FILES, "Packages/", False),
        (policy.MIRROR_FILES, "distfiles/layout.conf", True),
        (policy.MIRROR_FILES, "distfiles/one-1.tar.gz", True),
        (policy.MIRROR_FILES, "distfiles/ab/one-1.tar.gz", True),
        (policy.MIRROR_FILES, "distfiles/ab/.one", False),
        (policy.MIRROR_FILES, "distfiles/.one", False),
        (policy.MIRROR_FILES, "distfiles/abc/one", False),
        (policy.MIRROR_FILES, "unreferenced.json", False),
    ],
)
def test_path_exists_only_in_a_known_form(files: tuple[str, ...], path: str, exists: bool) -> None:
    assert any(re.fullmatch(form, path) for form in files) == exists


def test_packages_of_other_groups_in_an_index_are_listed() -> None:
    def stanza(name: str, **more: str) -> dict[str, str]:
        return {"CPV": f"a-b/{name}-1", "PATH": f"a-b/{name}/{name}-1-1.gpkg.tar", **more}

    stanzas = [
        stanza("free", LICENSE="MIT"),
        stanza("closed", LICENSE="Oracle"),
        stanza("bound", LICENSE="MIT", RESTRICT="bindist"),
        stanza("unlicensed"),
        {"CPV": "broken"},
    ]
    restricted = ["a-b/bound-1", "a-b/closed-1", "a-b/unlicensed-1", "broken"]
    assert policy.forbidden_packages(stanzas, "public", ACCESS) == restricted
    assert policy.forbidden_packages(stanzas, "site:acme", ACCESS) == restricted
    assert policy.forbidden_packages(stanzas, "role:java", ACCESS) == []
    assert policy.forbidden_packages(stanzas[:1], "public", ACCESS) == []
    without_restricted = Access(groups=["role:java"], free=["MIT"])
    assert policy.forbidden_packages(stanzas, "role:java", without_restricted) == restricted
    ours = {"PATH": "app-misc/ours/ours-1-1.gpkg.tar", "CPV": "app-misc/ours-1", "LICENSE": "MIT"}
    assert policy.forbidden_packages([ours], "public", ACCESS) == ["app-misc/ours-1"]
    assert policy.forbidden_packages([ours], "site:acme", ACCESS) == []
