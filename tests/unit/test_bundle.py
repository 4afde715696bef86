"""The client bundle: its files, always in the same bytes."""

from __future__ import annotations

import base64
import io
import tarfile
from configparser import ConfigParser
from dataclasses import replace

import pytest

from tasks.errors import NotTrusted
from tasks.flow.bundles import for_clients
from tasks.publish.bundle import ClientView, Repo, dearmor, files, pack, unpack
from tests.kit.packages import tar
from tests.kit.refused import refused

FINGERPRINT = "AB" * 20
RAW = bytes(range(200))
KEY = b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\n%b=abcd\n-----END PGP PUBLIC KEY BLOCK-----\n" % (
    base64.encodebytes(RAW)
)
PLACE = ClientView("java", "role:java", "java@role.java", "https://b.example/java@role.java")
REPOS = (
    Repo("gentoo", "c" * 40, "20260310", "https://git.example/gentoo.git"),
    Repo("java", "d" * 40, "", "ssh://git@git.example/java.git"),
)


def contents() -> dict[str, bytes]:
    return files(PLACE, REPOS, "default/linux/amd64", KEY, FINGERPRINT)


def conf(path: str) -> ConfigParser:
    parser = ConfigParser(interpolation=None)
    parser.read_string(contents()[path].decode())
    return parser


def test_bundle_has_files_for_portage_and_the_check() -> None:
    bundle = contents()
    assert sorted(bundle) == [
        "README",
        "check",
        "fingerprint",
        "key.asc",
        "key.gpg",
        "portage/binrepos.conf/java@role.java.conf",
        "portage/repos.conf/java@role.java.conf",
    ]
    assert bundle["key.gpg"] == RAW
    assert bundle["check"].startswith(b"#!/bin/sh\n")
    binrepos = conf("portage/binrepos.conf/java@role.java.conf")["java@role.java"]
    assert binrepos["sync-uri"] == PLACE.url
    assert binrepos["verify-signature"] == "true"
    repos = conf("portage/repos.conf/java@role.java.conf")
    assert repos["gentoo"]["sync-git-clone-extra-opts"] == "--branch 20260310"
    assert repos["gentoo"]["main-repo"] == "gentoo"
    assert repos["java"]["sync-uri"] == "ssh://git@git.example/java.git"
    readme = bundle["README"].decode()
    assert f"./check {PLACE.url} java role:java" in readme
    assert "checkout --detach 20260310" in readme
    assert "fetch ssh://git@git.example/java.git " + "d" * 40 in readme
    assert "channels" not in readme


def test_bundle_of_a_group_explains_the_password() -> None:
    bundle = contents()
    binrepos = conf("portage/binrepos.conf/java@role.java.conf")["java@role.java"]
    for key, option in (("fetchcommand", ""), ("resumecommand", " -c")):
        assert binrepos[key] == (
            f"env HOME=/etc/portage/access wget{option} -t 3 -T 60 --passive-ftp"
            ' -O "${DISTDIR}/${FILE}" "${URI}"'
        )
    readme = bundle["README"].decode()
    assert "login NAME password PASSWORD" in readme
    assert f"HOME=/etc/portage/access ./check {PLACE.url}" in readme
    public = files(replace(PLACE, group="public", label="java"), REPOS, "p", KEY, FINGERPRINT)
    assert b"fetchcommand" not in public["portage/binrepos.conf/java.conf"]
    assert b"password" not in public["README"]


def test_readme_lists_the_channels() -> None:
    place = replace(PLACE, channels={"stable": "https://b.example/java.stable@role.java"})
    readme = files(place, REPOS, "p", KEY, FINGERPRINT)["README"].decode()
    assert "   stable: https://b.example/java.stable@role.java\n" in readme


@pytest.mark.parametrize(
    ("url", "public"),
    [
        ("https://me:secret@git.example:8443/x.git", "https://git.example:8443/x.git"),
        ("https://token@git.example/x.git", "https://git.example/x.git"),
        ("ssh://git:secret@git.example/x.git", "ssh://git@git.example/x.git"),
        ("git@git.example:x.git", "git@git.example:x.git"),
        ("/srv/git/x.git", ""),
        ("../x.git", ""),
        ("", ""),
    ],
)
def test_remote_is_shown_to_clients_without_secrets(url: str, public: str) -> None:
    assert for_clients(url) == public


def test_tree_without_a_remote_has_a_placeholder() -> None:
    bundle = files(PLACE, [Repo("gentoo", "c" * 40, "20260310")], "p", KEY, FINGERPRINT)
    assert b"sync-uri" not in bundle["portage/repos.conf/java@role.java.conf"]
    assert b"git clone --no-checkout URL-OF-GENTOO" in bundle["README"]


def test_equal_content_gives_equal_bytes() -> None:
    once = pack(contents(), 1000)
    assert once == pack(dict(reversed(contents().items())), 1000)
    assert unpack(once) == contents()
    with tarfile.open(fileobj=io.BytesIO(once)) as archive:
        modes = {m.name: (m.mode, m.mtime, m.uid) for m in archive}
    assert modes["client/check"] == (0o755, 1000, 0)
    assert modes["client/README"] == (0o644, 1000, 0)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x7f" * 2000, "bundle-unreadable"),
        (tar([("client/../x", b"")]), "bundle-entry-refused"),
        (tar([("other/x", b"")]), "bundle-entry-refused"),
    ],
)
def test_other_tar_or_no_tar_is_refused(data: bytes, code: str) -> None:
    with refused(NotTrusted, code):
        unpack(data)


def test_key_that_is_not_armored_is_refused() -> None:
    with refused(NotTrusted, "key-not-armored"):
        dearmor(RAW)
