"""Signing keys, good and bad, before the real gpg; signed packages; a client's keyring."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.build.gpkg import metadata
from tasks.errors import HostLacks, NotTrusted
from tasks.publish import client, sign
from tasks.system.gpgv import Role
from tests.handmade import VALUES, gpkg, manifest, parts
from tests.integration.test_gpgv import YEAR, Gpg


def agents(home: Path) -> list[str]:
    """Processes of any kind that were started for a GnuPG home."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(home) in words:
            found.append(b" ".join(words).decode())
    return found


def end(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    made, now = Gpg(home), time.time()
    for name in ("good", "other", "revoked", "public"):
        made.new(name, at=now - YEAR)
    made.new("expired", expires="1d", at=now - YEAR)
    made("--quick-gen-key", "certify <certify@test.example>", "ed25519", "cert", "never")
    subkeyed = "subkey <subkey@test.example>"
    made("--quick-gen-key", subkeyed, "ed25519", "cert", "never")
    made("--quick-add-key", made.fingerprint("subkey"), "ed25519", "sign", "never")
    revocation = home / "openpgp-revocs.d" / f"{made.fingerprint('revoked')}.rev"
    made("--import", stdin=revocation.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    listed = made("--with-colons", "--with-keygrip", "--list-keys", made.fingerprint("public"))
    grip = next(x.split(":")[9] for x in listed.decode().splitlines() if x.startswith("grp"))
    (home / "private-keys-v1.d" / f"{grip}.key").unlink()
    end(home)
    yield made
    end(home)


@pytest.mark.parametrize("name", ["good", "subkey"])
def test_the_public_half(keys: Gpg, name: str) -> None:
    end(keys.home)
    armored = sign.public_key(keys.home, keys.fingerprint(name))
    assert armored.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert b"PRIVATE" not in armored
    assert agents(keys.home) == []


@pytest.mark.parametrize("name", ["expired", "revoked", "public", "certify"])
def test_a_key_that_cannot_sign(keys: Gpg, name: str) -> None:
    key = keys.fingerprint(name)
    end(keys.home)
    with pytest.raises(HostLacks, match=f"{key} is missing in .*expired or revoked") as refused:
        sign.public_key(keys.home, key)
    assert "--quick-gen-key" in refused.value.hint
    assert "\n" not in refused.value.message
    assert agents(keys.home) == []


def test_no_key(keys: Gpg, tmp_path: Path) -> None:
    with pytest.raises(HostLacks, match="never published unsigned"):
        sign.public_key(keys.home, None)
    with pytest.raises(HostLacks, match="does not exist"):
        sign.public_key(tmp_path / "none", "A" * 40)
    with pytest.raises(HostLacks, match="is missing"):
        sign.public_key(keys.home, "A" * 40)
    (tmp_path / "empty").mkdir(mode=0o700)
    with pytest.raises(HostLacks, match="is missing"):
        sign.public_key(tmp_path / "empty", keys.fingerprint("good"))
    assert agents(tmp_path / "empty") == []


def test_a_home_whose_agent_is_dead(keys: Gpg, tmp_path: Path) -> None:
    """What a signing sandbox leaves: sockets that nobody listens on."""
    home = tmp_path / "home"
    shutil.copytree(keys.home, home, ignore=shutil.ignore_patterns("S.*", "*.lock", ".#*"))
    os.mknod(home / "S.gpg-agent", stat.S_IFSOCK | 0o600)
    home.chmod(0o700)
    assert sign.public_key(home, keys.fingerprint("good"))
    assert agents(home) == []


def test_a_disabled_primary_or_a_revoked_subkey() -> None:
    def listing(primary: str, flags: str, sub: str) -> str:
        return (
            f"tru::1:1:0:3:1:5\npub:{primary}:255:22:AAAA:1:::u:::{flags}:::::ed25519:::0:\n"
            "fpr:::::::::F:\ngrp:::::::::ONE:\nuid:u::::1::H::x::::::::::0:\n"
            f"sub:{sub}:255:22:BBBB:1::::::s:::::ed25519::\nfpr:::::::::G:\ngrp:::::::::TWO:\n"
        )

    assert sign.signing_grips(listing("u", "scSC", "u")) == ["ONE", "TWO"]
    assert sign.signing_grips(listing("u", "cSC", "u")) == ["TWO"]
    assert sign.signing_grips(listing("u", "scSC", "r")) == ["ONE"]
    assert sign.signing_grips(listing("u", "scSCD", "u")) == []
    assert sign.signing_grips(listing("e", "sc", "u")) == []
    assert sign.signing_grips("") == []


@pytest.fixture
def role(keys: Gpg, tmp_path: Path) -> Role:
    path = tmp_path / "binhost.asc"
    names = ("good", "other", "expired", "revoked")
    path.write_bytes(keys("--armor", "--export", *(keys.fingerprint(name) for name in names)))
    return Role("binhost", path, (keys.fingerprint("good"),))


Package = Callable[[str], Path]


@pytest.fixture
def package(keys: Gpg, tmp_path: Path) -> Iterator[Package]:
    """A package whose Manifest is signed by the named key."""

    def make(who: str) -> Path:
        listed = manifest(parts())
        signed = keys.sign("--clear-sign", who=who, data=listed) if who else listed
        return gpkg(tmp_path / "x.gpkg.tar", listed=signed)

    yield make
    end(keys.home)


def test_a_signed_package(package: Package, role: Role) -> None:
    path = package("good")
    assert metadata(path, role) == VALUES
    assert metadata(path) == VALUES  # a Manifest's armor does not hide its lines
    sign.verify([path, path], role)


@pytest.mark.parametrize("who", ["", "other"])
def test_a_package_that_is_not_signed_by_the_role(package: Package, role: Role, who: str) -> None:
    with pytest.raises(NotTrusted, match="not trusted as binhost"):
        sign.verify([package("good"), package(who)], role)


def test_lines_outside_of_the_signature_do_not_count(keys: Gpg, role: Role, tmp_path: Path) -> None:
    good, evil = parts(), parts({**VALUES, "USE": "evil"})
    signed = keys.sign("--clear-sign", who="good", data=manifest(good))
    for listed in (manifest(evil) + signed, signed + manifest(evil)):
        with pytest.raises(NotTrusted):
            metadata(gpkg(tmp_path / "x.gpkg.tar", evil, listed=listed), role)


def test_a_member_changed_after_signing(keys: Gpg, role: Role, tmp_path: Path) -> None:
    signed = keys.sign("--clear-sign", who="good", data=manifest(parts()))
    changed = parts({**VALUES, "USE": "evil"})
    with pytest.raises(NotTrusted, match="does not fit"):
        metadata(gpkg(tmp_path / "x.gpkg.tar", changed, listed=signed), role)


def test_a_client_s_keyring(keys: Gpg, tmp_path: Path) -> None:
    home, key = tmp_path / "gnupg", keys.fingerprint("good")
    client.keyring(sign.public_key(keys.home, key), key, home)
    assert agents(home) == []
    modes = {path.name: path.stat().st_mode & 0o7777 for path in [home, *home.rglob("*")]}
    assert modes.pop("gnupg") == 0o755
    assert {"pubring.kbx", "trustdb.gpg"} <= set(modes)
    folders = {path.name for path in home.rglob("*") if path.is_dir()}
    assert all(mode == (0o755 if name in folders else 0o644) for name, mode in modes.items())
    listed = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--no-autostart", "--with-colons", "--list-keys"],
        check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    primaries = [line.split(":") for line in listed if line.startswith("pub:")]
    assert [(row[1], row[8]) for row in primaries] == [("u", "u")]  # ultimately trusted
    assert not list(home.glob("private-keys-v1.d/*"))


def test_a_client_refuses_what_is_not_signed() -> None:
    text = client.binrepos("java", "http://127.0.0.1:1/java")
    assert "verify-signature = true\n" in text
    assert "sync-uri = http://127.0.0.1:1/java\n" in text
    words = client.command(["b/b", "a/a"])
    assert {"--getbinpkg", "--usepkgonly"} < set(words)
    assert words[-3:] == ["@world", "a/a", "b/b"]
