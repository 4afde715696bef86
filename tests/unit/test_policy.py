"""Whom a package belongs to, and which door leads where."""

from __future__ import annotations

import re

import pytest

from tasks.config.access import Access
from tasks.serve import policy

ACCESS = Access(
    groups=["site:acme", "role:java"],
    restricted="role:java",
    free=["GPL-2", "MIT", "BSD"],
    binhosts={"java": "role:java"},
    packages={"app-misc/ours": "site:acme", "app-misc/told": "public"},
)


def of(cp: str, licence: str = "MIT", restrict: str = "", access: Access = ACCESS) -> str | None:
    category, _, name = cp.partition("/")
    return policy.group_of(
        {"CATEGORY": category, "PN": name, "LICENSE": licence, "RESTRICT": restrict}, access
    )


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
        ("mit", "", False),  # a licence's name has a case
        ("MIT )", "", False),
        ("( MIT", "", False),
        ("|| MIT", "", False),
        ("MIT ||", "", False),
        ("|| ( )", "", False),
        ("( )", "", False),
        ("ssl? ( MIT )", "", False),  # it should have been evaluated
    ],
)
def test_a_package_is_free_only_if_it_is_known_to_be(
    licence: str, restrict: str, free: bool
) -> None:
    assert of("app-misc/x", licence, restrict) == ("public" if free else "role:java")


def test_what_installs_nothing_of_anybodys() -> None:
    for category in ("virtual", "acct-user", "acct-group"):
        assert of(f"{category}/x", "") == "public"
        assert of(f"{category}/x", "Oracle") == "role:java"
        assert of(f"{category}/x", "", "bindist") == "role:java"


def test_what_the_config_says_comes_first() -> None:
    assert of("app-misc/ours", "MIT") == "site:acme"
    assert of("app-misc/told", "Oracle", "fetch") == "public"


def test_without_a_restricted_group_it_is_nobodys() -> None:
    assert of("app-misc/x", "Oracle", access=Access(free=["MIT"])) is None
    assert of("app-misc/x", "MIT", access=Access(free=["MIT"])) == "public"
    assert of("app-misc/x", "MIT", access=Access()) is None  # no licence is free unless said so


def test_nothing_known_is_restricted() -> None:
    assert policy.group_of({}, ACCESS) == "role:java"


PACKAGES = {
    "a": {"CATEGORY": "app-misc", "PN": "a", "LICENSE": "MIT"},
    "b": {"CATEGORY": "app-misc", "PN": "ours", "LICENSE": "MIT"},
    "c": {"CATEGORY": "app-misc", "PN": "c", "LICENSE": "Oracle"},
}


def test_each_group_sees_what_is_public_and_its_own() -> None:
    found = policy.views(PACKAGES, ACCESS, "base")
    assert found == ({"public": ["a"], "site:acme": ["a", "b"], "role:java": ["a", "c"]}, [])
    alone = Access(groups=["site:acme"], free=["MIT"])
    found = policy.views(PACKAGES, alone, "base")
    assert found == ({"public": ["a", "b"], "site:acme": ["a", "b"]}, ["c"])


def test_a_whole_binhost_is_one_groups_alone() -> None:
    assert policy.views(PACKAGES, ACCESS, "java") == ({"role:java": ["a", "c"]}, ["b"])


def test_without_an_access_table_there_is_one_view_with_everything() -> None:
    assert policy.views(PACKAGES, Access(), "base") == ({"public": ["a", "b", "c"]}, [])


def test_nothing_free_is_nothing_public() -> None:
    nothing = Access(groups=["site:acme"])
    groups, nobodys = policy.views(PACKAGES, nothing, "base")
    assert groups == {"public": [], "site:acme": []}
    assert nobodys == ["a", "b", "c"]


@pytest.mark.parametrize("chroot", ["base", "java"])
def test_no_view_has_what_its_group_may_not_have(chroot: str) -> None:
    stanzas = {
        name: {"CPV": name, "PATH": f"{each['CATEGORY']}/{each['PN']}/x", **each}
        for name, each in PACKAGES.items()
    }
    groups, _ = policy.views(PACKAGES, ACCESS, chroot)
    for group, names in groups.items():
        assert policy.misplaced([stanzas[name] for name in names], group, ACCESS) == []


def test_the_doors() -> None:
    found = {(d.path, d.folder, d.group) for d in policy.doors(ACCESS, ["base", "java"])}
    assert found == {
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
        for d in policy.doors(ACCESS, ["java"], ["stable"])
        if ".stable" in d.path
    }
    top = "binhost/java/channel.stable"
    assert channels == {
        ("java.stable", f"{top}/role.java", f"{top}.previous/role.java"),
        ("java.stable@role.java", f"{top}/role.java", f"{top}.previous/role.java"),
        ("java.stable@site.acme", f"{top}/site.acme", f"{top}.previous/site.acme"),
    }
    earlier = {d.earlier for d in policy.doors(ACCESS, ["base"])}
    assert earlier == {
        "",
        *(f"binhost/base/previous/{view}" for view in ("public", "site.acme", "role.java")),
    }


@pytest.mark.parametrize(
    ("files", "path", "there"),
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
def test_what_may_be_asked_for(files: tuple[str, ...], path: str, there: bool) -> None:
    assert any(re.fullmatch(form, path) for form in files) == there


def test_an_index_that_gives_too_much() -> None:
    def stanza(name: str, **more: str) -> dict[str, str]:
        return {"CPV": f"a-b/{name}-1", "PATH": f"a-b/{name}/{name}-1-1.gpkg.tar", **more}

    stanzas = [
        stanza("free", LICENSE="MIT"),
        stanza("closed", LICENSE="Oracle"),
        stanza("bound", LICENSE="MIT", RESTRICT="bindist"),
        stanza("untold"),
        {"CPV": "broken"},
    ]
    told = ["a-b/bound-1", "a-b/closed-1", "a-b/untold-1", "broken"]
    assert policy.misplaced(stanzas, "public", ACCESS) == told
    assert policy.misplaced(stanzas, "site:acme", ACCESS) == told
    assert policy.misplaced(stanzas, "role:java", ACCESS) == []
    assert policy.misplaced(stanzas[:1], "public", ACCESS) == []
    nobodys = Access(groups=["role:java"], free=["MIT"])
    assert policy.misplaced(stanzas, "role:java", nobodys) == told
    ours = {"PATH": "app-misc/ours/ours-1-1.gpkg.tar", "CPV": "app-misc/ours-1", "LICENSE": "MIT"}
    assert policy.misplaced([ours], "public", ACCESS) == ["app-misc/ours-1"]
    assert policy.misplaced([ours], "site:acme", ACCESS) == []
