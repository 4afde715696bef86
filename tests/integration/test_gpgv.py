"""Real keys and signatures, good and bad, before the real gpgv."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.system.gpgv import Role, Signature, verify_clearsigned, verify_detached
from tests.kit.gpg import BEFORE_EXPIRY, DATA, KEYS_CREATED, KEYS_EXPIRED, Gpg, Keys


@pytest.fixture
def gpg(keys: Keys) -> Gpg:
    return keys


@pytest.fixture
def role(keys: Keys, tmp_path: Path) -> Role:
    """A key file with every key but the stranger's; only `good` is pinned (and what must fail)."""
    keyfile = tmp_path / "role.gpg"
    keyfile.write_bytes(keys.ring.read_bytes())
    pinned = ("good", "expired", "revoked", "lapsed", "weak")
    return Role("snapshots", keyfile, tuple(map(keys.fingerprint, pinned)))


@pytest.fixture
def check(role: Role, tmp_path: Path) -> Callable[[bytes], str]:
    """Verify a detached signature over DATA; returns the signer."""

    def verify(signature: bytes, data: bytes = DATA) -> str:
        return verified(role, tmp_path, signature, data).signer

    return verify


Check = Callable[..., str]


def verified(role: Role, folder: Path, signature: bytes, data: bytes = DATA) -> Signature:
    (folder / "x.tar").write_bytes(data)
    (folder / "x.tar.sig").write_bytes(signature)
    with (folder / "x.tar").open("rb") as stream:
        return verify_detached(role, stream, "x.tar", folder / "x.tar.sig")


def test_good(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


def test_good_in_armor(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign("--armor", "--detach-sign", who="good")) == gpg.fingerprint("good")


def test_when_it_was_made(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    made = int(time.time()) - 1000
    assert verified(role, tmp_path, gpg.sign(who="good", at=made)).made == made


def test_the_name_that_it_is_called_by(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """The open file is verified; what it is called is for the person who reads of it."""
    (tmp_path / "x.sig").write_bytes(gpg.sign(who="stranger"))
    with tempfile.TemporaryFile() as stream:
        stream.write(DATA)
        with pytest.raises(NotTrusted, match=r"^gentoo-1\.tar\.xz is not trusted as snapshots: "):
            verify_detached(role, stream, "gentoo-1.tar.xz", tmp_path / "x.sig")


def test_wherever_the_open_file_stands(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """gpgv reads the descriptor, which is ahead of what was read from it."""
    (tmp_path / "x").write_bytes(DATA)
    (tmp_path / "x.sig").write_bytes(gpg.sign(who="good"))
    with (tmp_path / "x").open("rb") as stream:
        for _ in range(2):
            assert stream.read(3) == DATA[:3]
            accepted = verify_detached(role, stream, "x", tmp_path / "x.sig")
            assert accepted.signer == gpg.fingerprint("good")
            stream.seek(0)


def test_the_open_file_counts_and_not_its_name(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """Fault 22: another file took the name meanwhile."""
    for name, data in (("x", DATA), ("y", b"evil")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.sig").write_bytes(gpg.sign(who="good", data=data))
    with (tmp_path / "x").open("rb") as stream:
        (tmp_path / "y").replace(tmp_path / "x")
        with pytest.raises(NotTrusted, match="does not fit the bytes"):
            verify_detached(role, stream, "x", tmp_path / "y.sig")
        verify_detached(role, stream, "x", tmp_path / "x.sig")
        assert stream.read() == b""  # whoever reads on begins at the start


def test_one_flipped_byte(gpg: Gpg, check: Check) -> None:
    with pytest.raises(NotTrusted, match="does not fit the bytes"):
        check(gpg.sign(who="good"), data=DATA.replace(b"snap", b"snip"))


def test_a_signature_over_another_file(gpg: Gpg, check: Check) -> None:
    with pytest.raises(NotTrusted, match="does not fit the bytes"):
        check(gpg.sign(who="good", data=b"last year's"))


Make = Callable[[Gpg, float], bytes]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda gpg, _: gpg.sign(who="stranger"), "key that is not in the key file"),
        (lambda gpg, _: gpg.sign(who="expired", at=BEFORE_EXPIRY), "key .* has expired"),
        (lambda gpg, _: gpg.sign(who="revoked"), "was revoked"),
        (
            lambda gpg, now: gpg.sign(
                "--default-sig-expire", "1d", "--detach-sign", who="good", at=now - 9 * 86400
            ),
            "the signature has expired",
        ),
        (
            lambda gpg, _: gpg.sign("--digest-algo", "SHA1", "--detach-sign", who="good"),
            r"hash algorithm \(number 2\) is too weak",
        ),
        (lambda gpg, _: gpg.sign(who="weak"), "in an unknown way"),
        (
            lambda gpg, _: gpg.sign(
                "--digest-algo", "SHA224", "--allow-weak-digest-algos", "--detach-sign", who="good"
            ),
            r"hash algorithm \(number 11\) is too weak",
        ),
        (lambda gpg, now: gpg.sign(who="good", at=now + 3600), "signed in the future"),
        (lambda gpg, _: gpg.sign(who="other"), "which is not pinned for this role"),
        (lambda gpg, _: gpg.sign(who="good other"), "NEWSIG 2 times"),
        (lambda gpg, _: gpg.sign(who="other good"), "NEWSIG 2 times"),
        (lambda gpg, _: gpg.sign(who="good") + gpg.sign(who="stranger"), "not in the key file"),
        (lambda gpg, _: gpg.sign(who="good") * 400, "NEWSIG 400 times"),
        (lambda _gpg, _: b"", "not trusted"),
        (lambda _gpg, _: b"<html>not found</html>", "no signature in it"),
        (lambda gpg, _: gpg.sign("--sign", who="good"), "not trusted"),
        (lambda gpg, _: gpg.sign("--sign", who="good", data=b"other"), "not trusted"),
        (lambda gpg, _: gpg.sign("--clear-sign", who="good"), "not trusted"),
        (lambda gpg, _: gpg.sign("--clear-sign", who="good", data=b"other"), "not trusted"),
        (lambda gpg, _: gpg.sign(who="good")[:-9], "not trusted"),
    ],
    ids=[
        "unknown key",
        "expired key",
        "revoked key",
        "expired signature",
        "SHA-1",
        "a key by SHA-1",
        "SHA-224",
        "future",
        "wrong role",
        "two signatures",
        "two signatures, other first",
        "and a stranger's",
        "many signatures",
        "empty",
        "HTML",
        "inline",
        "inline over other bytes",
        "clearsigned",
        "clearsigned over other bytes",
        "truncated",
    ],
)
def test_refused(gpg: Gpg, check: Check, make: Make, reason: str) -> None:
    with pytest.raises(NotTrusted, match=reason):
        check(make(gpg, time.time()))


def test_a_subkey_counts_as_its_primary(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    gpg.new("primary")
    primary = gpg.fingerprint("primary")
    gpg("--quick-add-key", primary, "ed25519", "sign")
    role.keyfile.write_bytes(gpg("--export", primary))
    pinned = Role(role.name, role.keyfile, (primary,))
    signature = gpg("-u", primary, "--detach-sign", stdin=DATA)
    assert verified(pinned, tmp_path, signature).signer == primary


@pytest.mark.parametrize(
    "case",
    [
        ("expired", BEFORE_EXPIRY, None, "the key that signed it has expired"),
        ("expired", BEFORE_EXPIRY, date(2026, 1, 19), ""),
        ("expired", BEFORE_EXPIRY, date(2026, 1, 18), "has expired"),
        ("expired", KEYS_EXPIRED - 1, date(2026, 1, 21), ""),
        ("expired", KEYS_EXPIRED, date(2026, 1, 21), "has expired"),
        ("expired", KEYS_EXPIRED + 86400, date(2026, 2, 1), "has expired"),
        ("lapsed", BEFORE_EXPIRY, None, "has expired"),  # gpgv does not say that it was revoked
        ("lapsed", BEFORE_EXPIRY, date(2026, 1, 19), "has expired"),
        ("revoked", BEFORE_EXPIRY, date(2026, 1, 19), "was revoked"),
        ("stranger", BEFORE_EXPIRY, date(2026, 1, 19), "not in the key file"),
        ("other", BEFORE_EXPIRY, date(2026, 1, 19), "not pinned"),
        ("good", KEYS_EXPIRED + 86400, date(2026, 1, 19), ""),
    ],
)
def test_a_key_that_has_expired_since(
    keys: Keys, role: Role, tmp_path: Path, case: tuple[str, int, date | None, str]
) -> None:
    """Fault 13: it may count for what it signed before a day that a person names."""
    who, made, before, reason = case
    role = dataclasses.replace(role, accept_expired_before=before)
    signature = keys.sign(who=who, at=made)
    if not reason:
        assert verified(role, tmp_path, signature).signer == keys.fingerprint(who)
        with pytest.raises(NotTrusted, match="does not fit the bytes"):
            verified(role, tmp_path, signature, b"evil")
        return
    with pytest.raises(NotTrusted, match=reason):
        verified(role, tmp_path, signature)


def test_of_several_subkeys_that_which_signed_counts(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """Another one may have expired long ago; a revoked one is refused, whatever gpgv says of it."""
    life = f"seconds={KEYS_EXPIRED - KEYS_CREATED}"
    gpg("--quick-gen-key", "many <many@test.example>", "ed25519", "cert", life, at=KEYS_CREATED)
    primary = gpg.fingerprint("many")
    for seconds in ("seconds=86400", life, life):
        gpg("--quick-add-key", primary, "ed25519", "sign", seconds, at=KEYS_CREATED)
    listing = gpg("--with-colons", "--list-keys", primary).decode().splitlines()
    subkeys = [line.split(":")[9] for line in listing if line.startswith("fpr:")][1:]
    signatures = [
        gpg("-u", f"{key}!", "--detach-sign", stdin=DATA, at=at)
        for key, at in zip(subkeys, (KEYS_CREATED + 60, BEFORE_EXPIRY, BEFORE_EXPIRY), strict=True)
    ]
    gpg(
        "--no-tty",
        "--command-fd",
        "0",
        "--edit-key",
        primary,
        at=BEFORE_EXPIRY + 60,
        stdin=b"key 3\nrevkey\ny\n0\n\ny\nsave\n",
    )
    role.keyfile.write_bytes(gpg("--export", primary))
    role = Role(role.name, role.keyfile, (primary,), accept_expired_before=date(2026, 1, 19))
    for signature in signatures[:2]:
        assert verified(role, tmp_path, signature).signer == primary
    with pytest.raises(NotTrusted, match="has expired"):
        verified(role, tmp_path, signatures[2])


@pytest.mark.parametrize("armor", [False, True])
@pytest.mark.parametrize("before", [b"", b"\n\n"])
def test_key_files_binary_and_armored(
    gpg: Gpg, role: Role, check: Check, armor: bool, before: bytes
) -> None:
    keys = gpg("--export", *(["--armor"] if armor else []), gpg.fingerprint("good"))
    role.keyfile.write_bytes(before + keys if armor else keys)
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


def test_armored_blocks_one_after_the_other(gpg: Gpg, role: Role, check: Check) -> None:
    names = ("other", "good")
    blocks = [gpg("--export", "--armor", gpg.fingerprint(name)) for name in names]
    role.keyfile.write_bytes(b"".join(blocks))
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


@pytest.mark.parametrize("content", [None, b"", b"not keys", b"-----BEGIN nonsense", b"<html>"])
def test_a_key_file_of_no_use(gpg: Gpg, role: Role, check: Check, content: bytes | None) -> None:
    role.keyfile.unlink()
    if content is not None:
        role.keyfile.write_bytes(content)
    with pytest.raises(BinmillError) as refused:
        check(gpg.sign(who="good"))
    assert "\n" not in refused.value.message


def clear(role: Role, path: Path, document: bytes) -> tuple[str, str]:
    path.write_bytes(document)
    signature, text = verify_clearsigned(role, path)
    return signature.signer, text


def test_of_a_clearsigned_text_only_what_was_signed_is_returned(
    gpg: Gpg, role: Role, tmp_path: Path
) -> None:
    signed = gpg.sign("--clear-sign", who="good", data=b"one\n- two\nFrom three\n")
    document = b"before\n" + signed + b"after\n"
    signer, text = clear(role, tmp_path / "x.txt", document)
    assert signer == gpg.fingerprint("good")
    assert text == "one\n- two\nFrom three\n"


def test_a_changed_clearsigned_text(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    signed = gpg.sign("--clear-sign", who="good", data=b"stage3-1.tar.xz 7\n")
    with pytest.raises(NotTrusted, match="does not fit the bytes"):
        clear(role, tmp_path / "x.txt", signed.replace(b"stage3-1", b"stage3-2"))


@pytest.mark.parametrize(
    "make",
    [
        lambda _gpg: b"plain text\n",
        lambda _gpg: b"",
        lambda gpg: gpg.sign("--clear-sign", who="stranger"),
        lambda gpg: gpg.sign("--clear-sign", who="other"),
        lambda gpg: gpg.sign("--clear-sign", who="good") * 2,
        lambda gpg: (
            gpg.sign("--clear-sign", who="stranger", data=b"evil\n")
            + gpg.sign("--clear-sign", who="good")
        ),
        lambda gpg: gpg.sign("--clear-sign", who="good").split(b"-----BEGIN PGP SIG")[0],
        lambda gpg: gpg.sign(who="good"),
        lambda gpg: (
            gpg("--store", "--compress-algo", "none", "--output", "-", stdin=b"evil\n")
            + gpg.sign("--sign", "--compress-algo", "none", who="good")
        ),
        lambda gpg: (
            gpg.sign("--sign", "--compress-algo", "none", who="good")
            + gpg("--store", "--compress-algo", "none", "--output", "-", stdin=b"evil\n")
        ),
    ],
    ids=[
        "plain",
        "empty",
        "stranger",
        "wrong role",
        "twice",
        "evil and good",
        "no signature",
        "detached",
        "unsigned then signed",
        "signed then unsigned",
    ],
)
def test_no_clearsigned_text(
    gpg: Gpg, role: Role, tmp_path: Path, make: Callable[[Gpg], bytes]
) -> None:
    with pytest.raises(NotTrusted):
        clear(role, tmp_path / "x.txt", make(gpg))


def test_the_caller_s_gnupg_home_is_not_asked(
    gpg: Gpg, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))  # holds the stranger's key
    with pytest.raises(NotTrusted, match="not in the key file"):
        check(gpg.sign(who="stranger"))
