"""Every rule for the status lines of gpgv, without gpgv."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tasks.system.gpgv import Role, Signature, check_status
from tests.kit.refused import distrusted

PRIMARY, SUBKEY, OTHER = "A" * 40, "B" * 24 + "0123456789ABCDEF", "C" * 40
NOW = 1_800_000_000
ROLE = Role("snapshots", Path("/keys/release.gpg"), (PRIMARY, "D" * 40))

NEWSIG = "[GNUPG:] NEWSIG"
GOODSIG = f"[GNUPG:] GOODSIG {SUBKEY[-16:]} Some One <some@one.example>"


def valid(
    *, created: int | str = NOW - 60, algorithm: int = 10, primary: str = PRIMARY, key: str = SUBKEY
) -> str:
    return f"[GNUPG:] VALIDSIG {key} 2027-01-15 {created} 0 4 0 22 {algorithm} 00 {primary}"


GOOD = [NEWSIG, "[GNUPG:] KEY_CONSIDERED X 0", "[GNUPG:] SIG_ID x 2027-01-15 1", GOODSIG, valid()]


def text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_good_signature_is_accepted() -> None:
    assert check_status(text(GOOD), 0, ROLE, "x", NOW) == Signature(PRIMARY, NOW - 60)


@pytest.mark.parametrize("algorithm", [8, 9, 10])
def test_strong_hash_is_accepted(algorithm: int) -> None:
    check_status(text([NEWSIG, GOODSIG, valid(algorithm=algorithm)]), 0, ROLE, "x", NOW)


def test_clock_may_differ_by_ten_minutes() -> None:
    check_status(text([NEWSIG, GOODSIG, valid(created=NOW + 600)]), 0, ROLE, "x", NOW)


def test_expired_key_elsewhere_in_the_ring_is_ignored() -> None:
    check_status(text([*GOOD, "[GNUPG:] KEYEXPIRED 1600000000"]), 0, ROLE, "x", NOW)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "signature-not-single"),
        (GOOD[1:], "signature-not-single"),
        ([NEWSIG, valid()], "signature-not-single"),
        ([NEWSIG, GOODSIG], "signature-not-single"),
        ([*GOOD, NEWSIG], "signature-not-single"),
        ([*GOOD, GOODSIG], "signature-not-single"),
        ([*GOOD, valid()], "signature-not-single"),
        (GOOD * 2, "signature-not-single"),
        ([*GOOD, "gpgv: hello"], "gpgv-line-unknown"),
        ([*GOOD, ""], "gpgv-line-unknown"),
        ([*GOOD, "[GNUPG:]"], "gpgv-line-unknown"),
        ([NEWSIG, GOODSIG, valid(key="E" * 40)], "gpgv-inconsistent"),
        ([NEWSIG, "[GNUPG:] GOODSIG", valid()], "gpgv-inconsistent"),
        ([NEWSIG, GOODSIG, f"[GNUPG:] VALIDSIG {SUBKEY} 2027-01-15"], "gpgv-inconsistent"),
        ([NEWSIG, GOODSIG, valid(created="20270115T000000")], "gpgv-inconsistent"),
        ([NEWSIG, GOODSIG, valid(primary=OTHER)], "signing-key-not-pinned"),
        ([NEWSIG, GOODSIG, valid(primary=PRIMARY.lower())], "signing-key-not-pinned"),
        ([NEWSIG, GOODSIG, valid(primary=PRIMARY[-16:])], "signing-key-not-pinned"),
        *(
            ([NEWSIG, GOODSIG, valid(algorithm=weak)], "signature-hash-weak")
            for weak in (0, 1, 2, 3, 11)
        ),
        ([NEWSIG, GOODSIG, valid(created=NOW + 601)], "signature-from-the-future"),
    ],
)
def test_status_that_breaks_a_rule_is_refused(lines: list[str], reason: str) -> None:
    with distrusted(reason, file="x.tar", role="snapshots") as error:
        check_status(text(lines), 0, ROLE, "x.tar", NOW)
    assert "\n" not in error.value.message


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("BADSIG", "signature-wrong"),
        ("ERRSIG", "signature-unreadable"),
        ("EXPSIG", "signature-expired"),
        ("EXPKEYSIG", "signing-key-expired"),
        ("REVKEYSIG", "signing-key-revoked"),
        ("KEYREVOKED", "signing-key-revoked"),
        ("NO_PUBKEY", "signing-key-unknown"),
        ("NODATA", "signature-absent"),
        ("FAILURE", "gpgv-reports"),
        ("ERROR", "gpgv-reports"),
        ("UNEXPECTED", "gpgv-reports"),
    ],
)
def test_fatal_line_beside_a_good_signature_is_refused(word: str, reason: str) -> None:
    with distrusted(reason):
        check_status(text([*GOOD, f"[GNUPG:] {word} x"]), 0, ROLE, "x", NOW)


def test_most_specific_of_several_fatal_lines_is_the_reason() -> None:
    lines = ["FAILURE gpgv-exit 1", "ERRSIG 0 22 8 00 1 9", "NO_PUBKEY 0"]
    with distrusted("signing-key-unknown"):
        check_status(text([f"[GNUPG:] {line}" for line in lines]), 2, ROLE, "x", NOW)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ("0123456789ABCDEF 22 2 00 1 5 X", "signature-hash-weak"),
        ("0123456789ABCDEF 22 1 00 1 5", "signature-hash-weak"),
        ("0123456789ABCDEF 22 8 00 1 9 X", "signature-unreadable"),
        ("0123456789ABCDEF 22", "signature-unreadable"),
        ("", "signature-unreadable"),
    ],
)
def test_signature_that_gpgv_does_not_check_is_refused(fields: str, reason: str) -> None:
    """Of a weak signature gpgv reports only ERRSIG and its hash."""
    with distrusted(reason):
        check_status(text([NEWSIG, f"[GNUPG:] ERRSIG {fields}"]), 2, ROLE, "x", NOW)


@pytest.mark.parametrize("returncode", [1, 2, -9])
def test_exit_code_must_agree(returncode: int) -> None:
    with distrusted("gpgv-failed"):
        check_status(text(GOOD), returncode, ROLE, "x", NOW)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_user_id_cannot_contain_status_lines(separator: str) -> None:
    injected = GOODSIG + separator + valid()
    with distrusted("signature-not-single"):
        check_status(text([NEWSIG, injected]), 0, ROLE, "x", NOW)


DAY = date(2027, 1, 15)
MIDNIGHT = 1799971200  # as DAY begins, in UTC
WAS_GOOD = Role(ROLE.name, ROLE.keyfile, ROLE.fingerprints, accept_expired_before=DAY)
EXPKEYSIG = GOODSIG.replace("GOODSIG", "EXPKEYSIG")


def listing(
    primary: str = "e", subkey: str = "e", ends: tuple[int | str, int | str] = (NOW, NOW)
) -> str:
    """A listing of gpg: validity and end of a primary and the subkey that signed."""
    return (
        f"pub:{primary}:255:22:X:1600000000:{ends[0]}::-:::c:::::ed25519:::0:\n"
        f"fpr:::::::::{PRIMARY}:\n"
        f"uid:{primary}::::1600000000::X::Some One::::::::::0:\n"
        f"sub:{subkey}:255:22:Y:1600000000:{ends[1]}:::::s:::::ed25519::\n"
        f"fpr:::::::::{SUBKEY}:\n"
    )


OTHERS = f"pub:r:255:22:Z:1600000000:1600000001::-:::c:::::ed25519:::0:\nfpr:::::::::{OTHER}:\n"


@pytest.mark.parametrize(
    ("created", "keys"),
    [
        (MIDNIGHT - 1, listing()),
        (MIDNIGHT - 1, listing(ends=(MIDNIGHT, MIDNIGHT))),
        (MIDNIGHT - 1, listing(primary="-", ends=("", NOW))),
        (MIDNIGHT - 1, OTHERS + listing() + OTHERS),
    ],
    ids=["both", "just before", "the subkey alone", "others do not count"],
)
def test_expired_key_is_accepted_where_the_role_says_so(created: int, keys: str) -> None:
    status = text([NEWSIG, "[GNUPG:] KEYEXPIRED 1600000001", EXPKEYSIG, valid(created=created)])
    assert check_status(status, 0, WAS_GOOD, "x", NOW, keys=keys) == Signature(PRIMARY, created)
    with distrusted("signing-key-expired"):
        check_status(status, 0, ROLE, "x", NOW, keys=keys)


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ([EXPKEYSIG, valid(created=MIDNIGHT)], listing()),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing(ends=(MIDNIGHT - 1, NOW))),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing(ends=(NOW, MIDNIGHT - 1))),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing(primary="r")),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing(subkey="r")),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing(primary="i")),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], listing() + listing(primary="r")),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], OTHERS),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1)], ""),
        ([EXPKEYSIG, valid(created="20270114T000000")], listing()),
        ([EXPKEYSIG], listing()),
    ],
    ids=[
        "too late",
        "after the primary's end",
        "after the subkey's end",
        "revoked",
        "revoked subkey",
        "invalid",
        "two copies, one revoked",
        "not listed",
        "no listing",
        "no time",
        "no VALIDSIG",
    ],
)
def test_expired_key_is_refused_otherwise(lines: list[str], keys: str) -> None:
    with distrusted("signing-key-expired"):
        check_status(text([NEWSIG, *lines]), 0, WAS_GOOD, "x", NOW, keys=keys)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1), "[GNUPG:] REVKEYSIG x"], "signing-key-revoked"),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1), "[GNUPG:] BADSIG x"], "signature-wrong"),
        ([EXPKEYSIG, EXPKEYSIG, valid(created=MIDNIGHT - 1)], "signature-not-single"),
        ([EXPKEYSIG, GOODSIG, valid(created=MIDNIGHT - 1)], "signature-not-single"),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1), valid()], "signature-not-single"),
        ([EXPKEYSIG, valid(created=MIDNIGHT - 1, algorithm=2)], "signature-hash-weak"),
    ],
)
def test_other_rules_hold_for_an_expired_key(lines: list[str], reason: str) -> None:
    with distrusted(reason):
        check_status(text([NEWSIG, *lines]), 0, WAS_GOOD, "x", NOW, keys=listing())


def test_expired_key_of_another_role_is_refused() -> None:
    role = Role(ROLE.name, ROLE.keyfile, (OTHER,), accept_expired_before=DAY)
    with distrusted("signing-key-not-pinned"):
        check_status(
            text([NEWSIG, EXPKEYSIG, valid(created=MIDNIGHT - 1)]),
            0,
            role,
            "x",
            NOW,
            keys=listing(),
        )


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_user_id_cannot_contain_a_listing(separator: str) -> None:
    forged = "".join(f"{separator}pub:e:::::{NOW}:{separator}fpr:::::::::{PRIMARY}:")
    keys = listing(primary="r").replace("Some One", f"Some One{forged}")
    status = text([NEWSIG, EXPKEYSIG, valid(created=MIDNIGHT - 1)])
    with distrusted("signing-key-expired"):
        check_status(status, 0, WAS_GOOD, "x", NOW, keys=keys)
