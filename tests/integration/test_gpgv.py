"""Real keys and signatures, good and bad, with the real gpgv."""

from __future__ import annotations

import dataclasses
import re
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.system.gpgv import Role, Signature, verify_clearsigned, verify_detached
from tests.kit.gpg import BEFORE_EXPIRY, DATA, KEYS_CREATED, KEYS_EXPIRED, Gpg, Keys
from tests.kit.refused import distrusted, refused


@pytest.fixture
def gpg(keys: Keys) -> Gpg:
    return keys


@pytest.fixture
def role(keys: Keys, tmp_path: Path) -> Role:
    """A key file with every key but the stranger's; `good` and keys that must fail are pinned."""
    keyfile = tmp_path / "role.gpg"
    keyfile.write_bytes(keys.ring.read_bytes())
    pinned = ("good", "expired", "revoked", "lapsed", "weak")
    return Role("snapshots", keyfile, tuple(map(keys.fingerprint, pinned)))


@pytest.fixture
def check(role: Role, tmp_path: Path) -> Callable[[bytes], str]:
    """Verify a detached signature over DATA; returns the signer."""

    def verify(signature: bytes, data: bytes = DATA) -> str:
        return verify_data(role, tmp_path, signature, data).signer

    return verify


Check = Callable[..., str]


def verify_data(role: Role, folder: Path, signature: bytes, data: bytes = DATA) -> Signature:
    (folder / "x.tar").write_bytes(data)
    (folder / "x.tar.sig").write_bytes(signature)
    with (folder / "x.tar").open("rb") as stream:
        return verify_detached(role, stream, "x.tar", folder / "x.tar.sig")


def test_good_signature_is_accepted(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


def test_armored_signature_is_accepted(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign("--armor", "--detach-sign", who="good")) == gpg.fingerprint("good")


def test_signature_has_the_time_of_signing(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    moment = int(time.time()) - 1000
    assert verify_data(role, tmp_path, gpg.sign(who="good", at=moment)).signed_at == moment


def test_error_names_the_file_as_the_caller_does(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    (tmp_path / "x.sig").write_bytes(gpg.sign(who="stranger"))
    with tempfile.TemporaryFile() as stream:
        stream.write(DATA)
        with distrusted("signing-key-unknown", file="gentoo-1.tar.xz", role="snapshots"):
            verify_detached(role, stream, "gentoo-1.tar.xz", tmp_path / "x.sig")


def test_position_of_the_open_file_does_not_matter(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """gpgv reads the descriptor, whose position differs from that of the buffer."""
    (tmp_path / "x").write_bytes(DATA)
    (tmp_path / "x.sig").write_bytes(gpg.sign(who="good"))
    with (tmp_path / "x").open("rb") as stream:
        for _ in range(2):
            assert stream.read(3) == DATA[:3]
            accepted = verify_detached(role, stream, "x", tmp_path / "x.sig")
            assert accepted.signer == gpg.fingerprint("good")
            stream.seek(0)


def test_open_file_counts_and_not_its_name(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    for name, data in (("x", DATA), ("y", b"evil")):
        (tmp_path / name).write_bytes(data)
        (tmp_path / f"{name}.sig").write_bytes(gpg.sign(who="good", data=data))
    with (tmp_path / "x").open("rb") as stream:
        (tmp_path / "y").replace(tmp_path / "x")
        with distrusted("signature-wrong"):
            verify_detached(role, stream, "x", tmp_path / "y.sig")
        verify_detached(role, stream, "x", tmp_path / "x.sig")
        assert stream.read() == b""  # the next reader must seek first


def test_changed_content_is_refused(gpg: Gpg, check: Check) -> None:
    with distrusted("signature-wrong"):
        check(gpg.sign(who="good"), data=DATA.replace(b"snap", b"snip"))


def test_signature_of_another_file_is_refused(gpg: Gpg, check: Check) -> None:
    with distrusted("signature-wrong"):
        check(gpg.sign(who="good", data=b"last year's"))


Make = Callable[[Gpg, float], bytes]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda gpg, _: gpg.sign(who="stranger"), "signing-key-unknown"),
        (lambda gpg, _: gpg.sign(who="expired", at=BEFORE_EXPIRY), "signing-key-expired"),
        (lambda gpg, _: gpg.sign(who="revoked"), "signing-key-revoked"),
        (
            lambda gpg, now: gpg.sign(
                "--default-sig-expire", "1d", "--detach-sign", who="good", at=now - 9 * 86400
            ),
            "signature-expired",
        ),
        (
            lambda gpg, _: gpg.sign("--digest-algo", "SHA1", "--detach-sign", who="good"),
            "signature-hash-weak",
        ),
        (lambda gpg, _: gpg.sign(who="weak"), "signature-unreadable"),
        (
            lambda gpg, _: gpg.sign(
                "--digest-algo", "SHA224", "--allow-weak-digest-algos", "--detach-sign", who="good"
            ),
            "signature-hash-weak",
        ),
        (lambda gpg, now: gpg.sign(who="good", at=now + 3600), "signature-from-the-future"),
        (lambda gpg, _: gpg.sign(who="other"), "signing-key-not-pinned"),
        (lambda gpg, _: gpg.sign(who="good other"), "signature-not-single"),
        (lambda gpg, _: gpg.sign(who="other good"), "signature-not-single"),
        (lambda gpg, _: gpg.sign(who="good") + gpg.sign(who="stranger"), "signing-key-unknown"),
        (lambda gpg, _: gpg.sign(who="good") * 400, "signature-not-single"),
        (lambda _gpg, _: b"", ".*"),
        (lambda _gpg, _: b"<html>not found</html>", "signature-absent"),
        (lambda gpg, _: gpg.sign("--sign", who="good"), ".*"),
        (lambda gpg, _: gpg.sign("--sign", who="good", data=b"other"), ".*"),
        (lambda gpg, _: gpg.sign("--clear-sign", who="good"), ".*"),
        (lambda gpg, _: gpg.sign("--clear-sign", who="good", data=b"other"), ".*"),
        (lambda gpg, _: gpg.sign(who="good")[:-9], ".*"),
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
def test_signature_is_refused(gpg: Gpg, check: Check, make: Make, reason: str) -> None:
    with refused(NotTrusted, "signature-not-trusted") as error:
        check(make(gpg, time.time()))
    assert re.fullmatch(reason, str(error.value.fields["reason"]))


def test_subkey_counts_as_its_primary(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    gpg.new("primary")
    primary = gpg.fingerprint("primary")
    gpg("--quick-add-key", primary, "ed25519", "sign")
    role.keyfile.write_bytes(gpg("--export", primary))
    pinned = Role(role.name, role.keyfile, (primary,))
    signature = gpg("-u", primary, "--detach-sign", stdin=DATA)
    assert verify_data(pinned, tmp_path, signature).signer == primary


@pytest.mark.parametrize(
    "case",
    [
        ("expired", BEFORE_EXPIRY, None, "signing-key-expired"),
        ("expired", BEFORE_EXPIRY, date(2026, 1, 19), ""),
        ("expired", BEFORE_EXPIRY, date(2026, 1, 18), "signing-key-expired"),
        ("expired", KEYS_EXPIRED - 1, date(2026, 1, 21), ""),
        ("expired", KEYS_EXPIRED, date(2026, 1, 21), "signing-key-expired"),
        ("expired", KEYS_EXPIRED + 86400, date(2026, 2, 1), "signing-key-expired"),
        (
            "lapsed",
            BEFORE_EXPIRY,
            None,
            "signing-key-expired",
        ),  # revoked, too
        ("lapsed", BEFORE_EXPIRY, date(2026, 1, 19), "signing-key-expired"),
        ("revoked", BEFORE_EXPIRY, date(2026, 1, 19), "signing-key-revoked"),
        ("stranger", BEFORE_EXPIRY, date(2026, 1, 19), "signing-key-unknown"),
        ("other", BEFORE_EXPIRY, date(2026, 1, 19), "signing-key-not-pinned"),
        ("good", KEYS_EXPIRED + 86400, date(2026, 1, 19), ""),
    ],
)
def test_expired_key_counts_before_the_day_of_the_role(
    keys: Keys, role: Role, tmp_path: Path, case: tuple[str, int, date | None, str]
) -> None:
    who, signed_at, before, reason = case
    role = dataclasses.replace(role, accept_expired_before=before)
    signature = keys.sign(who=who, at=signed_at)
    if not reason:
        assert verify_data(role, tmp_path, signature).signer == keys.fingerprint(who)
        with distrusted("signature-wrong"):
            verify_data(role, tmp_path, signature, b"evil")
        return
    with distrusted(reason):
        verify_data(role, tmp_path, signature)


def test_subkey_that_signed_decides(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    """Another subkey may have expired long ago; a revoked one is refused."""
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
        assert verify_data(role, tmp_path, signature).signer == primary
    with distrusted("signing-key-expired"):
        verify_data(role, tmp_path, signatures[2])


@pytest.mark.parametrize("armor", [False, True])
@pytest.mark.parametrize("before", [b"", b"\n\n"])
def test_key_file_may_be_binary_or_armored(
    gpg: Gpg, role: Role, check: Check, armor: bool, before: bytes
) -> None:
    keys = gpg("--export", *(["--armor"] if armor else []), gpg.fingerprint("good"))
    role.keyfile.write_bytes(before + keys if armor else keys)
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


def test_key_file_may_have_several_armored_blocks(gpg: Gpg, role: Role, check: Check) -> None:
    names = ("other", "good")
    blocks = [gpg("--export", "--armor", gpg.fingerprint(name)) for name in names]
    role.keyfile.write_bytes(b"".join(blocks))
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


@pytest.mark.parametrize("content", [None, b"", b"not keys", b"-----BEGIN nonsense", b"<html>"])
def test_key_file_without_keys_is_refused(
    gpg: Gpg, role: Role, check: Check, content: bytes | None
) -> None:
    role.keyfile.unlink()
    if content is not None:
        role.keyfile.write_bytes(content)
    with pytest.raises(BinmillError) as error:
        check(gpg.sign(who="good"))
    assert "\n" not in error.value.message


def clear(role: Role, path: Path, document: bytes) -> tuple[str, str]:
    path.write_bytes(document)
    signature, text = verify_clearsigned(role, path)
    return signature.signer, text


def test_clearsigned_text_is_returned_without_the_rest(
    gpg: Gpg, role: Role, tmp_path: Path
) -> None:
    signed = gpg.sign("--clear-sign", who="good", data=b"one\n- two\nFrom three\n")
    document = b"before\n" + signed + b"after\n"
    signer, text = clear(role, tmp_path / "x.txt", document)
    assert signer == gpg.fingerprint("good")
    assert text == "one\n- two\nFrom three\n"


def test_changed_clearsigned_text_is_refused(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    signed = gpg.sign("--clear-sign", who="good", data=b"stage3-1.tar.xz 7\n")
    with distrusted("signature-wrong"):
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
def test_other_document_is_no_clearsigned_text(
    gpg: Gpg, role: Role, tmp_path: Path, make: Callable[[Gpg], bytes]
) -> None:
    with pytest.raises(NotTrusted):
        clear(role, tmp_path / "x.txt", make(gpg))


def test_gnupg_home_of_the_caller_is_not_used(
    gpg: Gpg, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GNUPGHOME", str(gpg.home))  # holds the stranger's key
    with distrusted("signing-key-unknown"):
        check(gpg.sign(who="stranger"))
