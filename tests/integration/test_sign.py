"""Signing keys with the real gpg; signed packages; the keyring of a client."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import CommandFailed, HostLacks, NotTrusted
from tasks.portage import keyring
from tasks.portage.gpkg import metadata
from tasks.portage.keyring import PublicKey
from tasks.publish import client, sign
from tasks.system.gpgv import Role, verify_detached
from tasks.system.sandbox import Bind, Sandbox, workspace
from tests.kit.gpg import YEAR, Gpg
from tests.kit.packages import VALUES, gpkg, manifest, parts
from tests.kit.processes import eventually, processes_naming
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.programs import sign_in_sandbox


def end(home: Path) -> None:
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    gpg, now = Gpg(home), time.time()
    for name in ("good", "other", "revoked", "public"):
        gpg.new(name, at=now - YEAR)
    gpg.new("expired", expires="1d", at=now - YEAR)
    gpg("--quick-gen-key", "certify <certify@test.example>", "ed25519", "cert", "never")
    subkeyed = "subkey <subkey@test.example>"
    gpg("--quick-gen-key", subkeyed, "ed25519", "cert", "never")
    gpg("--quick-add-key", gpg.fingerprint("subkey"), "ed25519", "sign", "never")
    revocation = home / "openpgp-revocs.d" / f"{gpg.fingerprint('revoked')}.rev"
    gpg("--import", stdin=revocation.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    listed = gpg("--with-colons", "--with-keygrip", "--list-keys", gpg.fingerprint("public"))
    grip = next(x.split(":")[9] for x in listed.decode().splitlines() if x.startswith("grp"))
    (home / "private-keys-v1.d" / f"{grip}.key").unlink()
    end(home)
    yield gpg
    end(home)


@pytest.mark.parametrize("name", ["good", "subkey"])
def test_public_half_is_exported(keys: Gpg, name: str) -> None:
    end(keys.home)
    armored = sign.public_key(keys.home, keys.fingerprint(name))
    assert armored.startswith(b"-----BEGIN PGP PUBLIC KEY BLOCK-----")
    assert b"PRIVATE" not in armored
    assert processes_naming(keys.home) == []


@pytest.mark.parametrize("name", ["expired", "revoked", "public", "certify"])
def test_key_that_cannot_sign_is_refused(keys: Gpg, name: str) -> None:
    key = keys.fingerprint(name)
    end(keys.home)
    with refused(HostLacks, "signing-key-unusable", key=key):
        sign.public_key(keys.home, key)
    assert processes_naming(keys.home) == []


def test_missing_key_or_home_is_refused(keys: Gpg, tmp_path: Path) -> None:
    with refused(HostLacks, "signing-key-not-set"):
        sign.public_key(keys.home, None)
    with refused(HostLacks, "signing-home-missing"):
        sign.public_key(tmp_path / "none", "A" * 40)
    with refused(HostLacks, "signing-key-unusable"):
        sign.public_key(keys.home, "A" * 40)
    (tmp_path / "empty").mkdir(mode=0o700)
    with refused(HostLacks, "signing-key-unusable"):
        sign.public_key(tmp_path / "empty", keys.fingerprint("good"))
    assert processes_naming(tmp_path / "empty") == []


def test_socket_of_a_dead_agent_does_not_matter(keys: Gpg, tmp_path: Path) -> None:
    """A signing sandbox leaves sockets without a listener."""
    home = tmp_path / "home"
    shutil.copytree(keys.home, home, ignore=shutil.ignore_patterns("S.*", "*.lock", ".#*"))
    os.mknod(home / "S.gpg-agent", stat.S_IFSOCK | 0o600)
    home.chmod(0o700)
    assert sign.public_key(home, keys.fingerprint("good"))
    assert processes_naming(home) == []


def test_disabled_primary_and_revoked_subkey_have_no_grip() -> None:
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


Detached = Callable[..., dict[str, bytes]]
FILES = {"0": b"an index\n", "1": b"\x1f\x8b another"}


@pytest.fixture
def detached(needs_sandbox: None, keys: Gpg, tmp_path: Path) -> Iterator[Detached]:  # noqa: ARG001
    """Signatures over FILES by the named key, made in a sandbox over this host's root."""

    def make(who: str, *binds: Bind, home: Path = keys.home) -> dict[str, bytes]:
        folder = tmp_path / "to-sign"
        folder.mkdir()
        for name, data in FILES.items():
            (folder / name).write_bytes(data)
        with workspace(tmp_path / "work", "sign", tmp_path / "trash") as space:
            signer = Sandbox(
                "sign",
                (Path("/"),),
                space,
                (
                    Bind(str(home), sign.KEY_HOME, writable=True),
                    Bind(str(folder), sign.PACKAGES, writable=True),
                    *binds,
                ),
                {"PATH": "/usr/bin:/bin"},
            )
            log = tmp_path / "log"
            sign.sign_files(signer, folder, list(FILES), keys.fingerprint(who), log)
        return {path.name: path.read_bytes() for path in folder.iterdir()}

    yield make
    end(keys.home)


@pytest.mark.parametrize("name", ["good", "subkey"])
def test_detached_signature_verifies(
    keys: Gpg, detached: Detached, tmp_path: Path, name: str
) -> None:
    end(keys.home)
    files = detached(name)
    assert files.keys() == {*FILES, "0.asc", "1.asc"}
    public = tmp_path / "public.asc"
    public.write_bytes(sign.public_key(keys.home, keys.fingerprint(name)))
    for number, data in FILES.items():
        assert files[number] == data
        proof = tmp_path / "to-sign" / f"{number}.asc"
        assert proof.read_bytes().startswith(b"-----BEGIN PGP SIGNATURE-----")
        role = Role("binhost", public, (keys.fingerprint(name),))
        with (tmp_path / "to-sign" / number).open("rb") as stream:
            assert verify_detached(role, stream, number, proof).signer == keys.fingerprint(name)
        other = tmp_path / "to-sign" / f"{1 - int(number)}"
        with (
            other.open("rb") as stream,
            pytest.raises(NotTrusted, match="does not match the content"),
        ):
            verify_detached(role, stream, number, proof)
    assert processes_naming(keys.home) == []


@pytest.mark.parametrize("name", ["expired", "revoked", "public", "certify"])
def test_unusable_key_signs_nothing(keys: Gpg, detached: Detached, name: str) -> None:
    end(keys.home)
    with refused(CommandFailed, "signing-failed") as failure:
        detached(name)
    assert "\n" not in failure.value.message
    assert processes_naming(keys.home) == []


def test_detached_signing_ignores_the_socket_of_a_dead_agent(
    keys: Gpg, detached: Detached, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    shutil.copytree(keys.home, home, ignore=shutil.ignore_patterns("S.*", "*.lock", ".#*"))
    home.chmod(0o700)
    os.mknod(home / "S.gpg-agent", stat.S_IFSOCK | 0o600)
    assert "0.asc" in detached("good", home=home)
    assert processes_naming(home) == []


def test_agent_that_cannot_start_is_an_error(keys: Gpg, detached: Detached) -> None:
    with refused(CommandFailed, "signing-failed"):
        detached("good", Bind("/bin/false", os.path.realpath("/usr/bin/gpg-agent")))
    assert processes_naming(keys.home) == []


def test_key_with_a_passphrase_is_an_error(detached: Detached, tmp_path: Path) -> None:
    home = Gpg(tmp_path / "locked")
    home.home.mkdir(mode=0o700)
    home("--passphrase", "secret", "--quick-gen-key", "good <good@test.example>", "ed25519", "sign")
    end(home.home)
    with refused(CommandFailed, "signing-failed"):
        detached("good", home=home.home)
    assert processes_naming(home.home) == []


@pytest.mark.usefixtures("needs_sandbox")
def test_agent_ends_when_the_run_is_killed(keys: Gpg, tmp_path: Path) -> None:
    """Killed while gpg signs: the kernel ends the processes of the sandbox."""
    end(keys.home)
    folder = tmp_path / "to-sign"
    folder.mkdir()
    for number in range(500):
        (folder / str(number)).write_bytes(b"x")
    words = python(sign_in_sandbox, keys.home, folder, keys.fingerprint("good"))
    with subprocess.Popen(words, cwd=PROJECT) as run:
        assert eventually(lambda: list(folder.glob("*.asc")))
        assert any("gpg-agent" in words for words in processes_naming(Path(sign.KEY_HOME)))
        run.kill()
    assert eventually(lambda: not processes_naming(Path(sign.KEY_HOME)))
    assert len(list(folder.glob("*.asc"))) < 500


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


def test_signed_package_verifies(package: Package, role: Role) -> None:
    path = package("good")
    assert metadata(path, role) == VALUES
    assert metadata(path) == VALUES  # a Manifest's armor does not hide its lines
    sign.verify_packages([path, path], role)


@pytest.mark.parametrize("who", ["", "other"])
def test_package_signed_by_another_key_is_refused(package: Package, role: Role, who: str) -> None:
    with pytest.raises(NotTrusted, match="not trusted as binhost"):
        sign.verify_packages([package("good"), package(who)], role)


def test_lines_outside_the_signature_are_refused(keys: Gpg, role: Role, tmp_path: Path) -> None:
    good, evil = parts(), parts({**VALUES, "USE": "evil"})
    signed = keys.sign("--clear-sign", who="good", data=manifest(good))
    for listed in (manifest(evil) + signed, signed + manifest(evil)):
        with pytest.raises(NotTrusted):
            metadata(gpkg(tmp_path / "x.gpkg.tar", evil, listed=listed), role)


def test_member_changed_after_signing_is_refused(keys: Gpg, role: Role, tmp_path: Path) -> None:
    signed = keys.sign("--clear-sign", who="good", data=manifest(parts()))
    changed = parts({**VALUES, "USE": "evil"})
    with pytest.raises(NotTrusted, match="does not match the Manifest"):
        metadata(gpkg(tmp_path / "x.gpkg.tar", changed, listed=signed), role)


@pytest.mark.parametrize("length", [1, 200])
def test_client_keyring_has_one_trusted_key(keys: Gpg, tmp_path: Path, length: int) -> None:
    """Also below a path that is longer than a socket's may be."""
    home, key = tmp_path / ("x" * length) / "gnupg", keys.fingerprint("good")
    home.parent.mkdir()
    keyring.write(PublicKey(sign.public_key(keys.home, key), key), home)
    assert processes_naming(home) == []
    modes = {path.name: path.stat().st_mode & 0o7777 for path in [home, *home.rglob("*")]}
    assert modes.pop("gnupg") == 0o755
    assert {"pubring.kbx", "trustdb.gpg"} <= set(modes)
    folders = {path.name for path in home.rglob("*") if path.is_dir()}
    assert all(mode == (0o755 if name in folders else 0o644) for name, mode in modes.items())
    listed = subprocess.run(
        ["gpg", "--homedir", home, "--batch", "--no-autostart", "--with-colons", "--list-keys"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    primaries = [line.split(":") for line in listed if line.startswith("pub:")]
    assert [(row[1], row[8]) for row in primaries] == [("u", "u")]  # ultimately trusted
    assert not list(home.glob("private-keys-v1.d/*"))


def test_client_installs_binary_packages_only() -> None:
    words = client.command(["b/b", "a/a"])
    assert {"--getbinpkg", "--usepkgonly"} < set(words)
    assert words[-3:] == ["@world", "a/a", "b/b"]
