"""Real keys and signatures, good and bad, before the real gpgv."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.system.gpgv import Role, verify_clearsigned, verify_detached

DATA = b"the bytes of a snapshot\n"
YEAR = 365 * 86400


@dataclass(frozen=True)
class Gpg:
    """A GnuPG home of the test session, with one key of each kind."""

    home: Path

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", at: float = 0) -> bytes:
        clock = ["--faked-system-time", f"{int(at)}!"] if at else []
        return subprocess.run(
            ["gpg", "--homedir", self.home, "--batch", "--quiet", "--no-options", "--yes",
             "--pinentry-mode", "loopback", "--passphrase", "", *clock, *arguments],
            input=stdin, capture_output=True, check=True,
        ).stdout  # fmt: skip

    def new(self, name: str, *, expires: str = "never", at: float = 0) -> None:
        self("--quick-gen-key", f"{name} <{name}@test.example>", "ed25519", "sign", expires, at=at)

    def fingerprint(self, name: str) -> str:
        lines = self("--with-colons", "--list-keys", f"={name} <{name}@test.example>").decode()
        return next(x.split(":")[9] for x in lines.splitlines() if x.startswith("fpr:"))

    def sign(self, *how: str, who: str, data: bytes = DATA, at: float = 0) -> bytes:
        users = [word for name in who.split() for word in ("-u", self.fingerprint(name) + "!")]
        return self(*users, "--output", "-", *(how or ("--detach-sign",)), stdin=data, at=at)


@pytest.fixture(scope="session")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("gnupg")
    home.chmod(0o700)
    made = Gpg(home)
    now = time.time()
    for name in ("good", "other", "stranger", "revoked"):
        made.new(name, at=now - YEAR)
    made.new("expired", expires="1d", at=now - YEAR)
    revocation = home / "openpgp-revocs.d" / f"{made.fingerprint('revoked')}.rev"
    made.sign(who="revoked")  # while it still can
    (home / "revoked.sig").write_bytes(made.sign(who="revoked"))
    # gpg puts a colon before the armor so that nobody imports it by accident
    made("--import", stdin=revocation.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
    yield made
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture
def role(gpg: Gpg, tmp_path: Path) -> Role:
    """A key file with every key but the stranger's; only `good` is pinned (and what must fail)."""
    names = ("good", "other", "expired", "revoked")
    keyfile = tmp_path / "role.gpg"
    keyfile.write_bytes(gpg("--export", *(gpg.fingerprint(name) for name in names)))
    pinned = tuple(gpg.fingerprint(name) for name in ("good", "expired", "revoked"))
    return Role("snapshots", keyfile, pinned)


@pytest.fixture
def check(role: Role, tmp_path: Path) -> Callable[[bytes], str]:
    """Verify a detached signature over DATA; returns the signer."""

    def verify(signature: bytes, data: bytes = DATA) -> str:
        (tmp_path / "x.tar").write_bytes(data)
        (tmp_path / "x.tar.sig").write_bytes(signature)
        return verify_detached(role, tmp_path / "x.tar", tmp_path / "x.tar.sig").signer

    return verify


Check = Callable[..., str]


def test_good(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign(who="good")) == gpg.fingerprint("good")


def test_good_in_armor(gpg: Gpg, check: Check) -> None:
    assert check(gpg.sign("--armor", "--detach-sign", who="good")) == gpg.fingerprint("good")


def test_when_it_was_made(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    made = int(time.time()) - 1000
    (tmp_path / "x").write_bytes(DATA)
    (tmp_path / "x.sig").write_bytes(gpg.sign(who="good", at=made))
    assert verify_detached(role, tmp_path / "x", tmp_path / "x.sig").made == made


def test_one_flipped_byte(gpg: Gpg, check: Check) -> None:
    with pytest.raises(NotTrusted, match="does not fit the bytes"):
        check(gpg.sign(who="good"), data=DATA.replace(b"snap", b"snip"))


def test_a_signature_over_another_file(gpg: Gpg, check: Check) -> None:
    with pytest.raises(NotTrusted, match="does not fit the bytes"):
        check(gpg.sign(who="good", data=b"last year's"))


Signature = Callable[[Gpg, float], bytes]


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda gpg, _: gpg.sign(who="stranger"), "key that is not in the key file"),
        (lambda gpg, now: gpg.sign(who="expired", at=now - YEAR + 60), "key .* has expired"),
        (lambda gpg, _: (gpg.home / "revoked.sig").read_bytes(), "was revoked"),
        (
            lambda gpg, now: gpg.sign(
                "--default-sig-expire", "1d", "--detach-sign", who="good", at=now - 9 * 86400
            ),
            "the signature has expired",
        ),
        (
            lambda gpg, _: gpg.sign("--digest-algo", "SHA1", "--detach-sign", who="good"),
            "not trusted",
        ),
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
        "unknown key", "expired key", "revoked key", "expired signature", "SHA-1", "SHA-224",
        "future", "wrong role", "two signatures", "two signatures, other first", "and a stranger's",
        "many signatures", "empty", "HTML", "inline", "inline over other bytes", "clearsigned",
        "clearsigned over other bytes", "truncated",
    ],
)  # fmt: skip
def test_refused(gpg: Gpg, check: Check, make: Signature, reason: str) -> None:
    with pytest.raises(NotTrusted, match=reason):
        check(make(gpg, time.time()))


def test_a_subkey_counts_as_its_primary(gpg: Gpg, role: Role, tmp_path: Path) -> None:
    gpg.new("primary")
    primary = gpg.fingerprint("primary")
    gpg("--quick-add-key", primary, "ed25519", "sign")
    role.keyfile.write_bytes(gpg("--export", primary))
    (tmp_path / "x").write_bytes(DATA)
    (tmp_path / "x.sig").write_bytes(gpg("-u", primary, "--detach-sign", stdin=DATA))
    pinned = Role(role.name, role.keyfile, (primary,))
    assert verify_detached(pinned, tmp_path / "x", tmp_path / "x.sig").signer == primary


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
        lambda gpg: gpg.sign("--clear-sign", who="stranger", data=b"evil\n")
        + gpg.sign("--clear-sign", who="good"),
        lambda gpg: gpg.sign("--clear-sign", who="good").split(b"-----BEGIN PGP SIG")[0],
        lambda gpg: gpg.sign(who="good"),
        lambda gpg: gpg("--store", "--compress-algo", "none", "--output", "-", stdin=b"evil\n")
        + gpg.sign("--sign", "--compress-algo", "none", who="good"),
        lambda gpg: gpg.sign("--sign", "--compress-algo", "none", who="good")
        + gpg("--store", "--compress-algo", "none", "--output", "-", stdin=b"evil\n"),
    ],
    ids=["plain", "empty", "stranger", "wrong role", "twice", "evil and good", "no signature",
         "detached", "unsigned then signed", "signed then unsigned"],
)  # fmt: skip
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
