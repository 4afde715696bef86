"""Every rule by which gpgv's status lines are judged, without gpgv."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from tasks.errors import NotTrusted
from tasks.system.gpgv import Role, Signature, judge

PRIMARY, SUBKEY, OTHER = "A" * 40, "B" * 24 + "0123456789ABCDEF", "C" * 40
NOW = 1_800_000_000
ROLE = Role("snapshots", Path("/keys/release.gpg"), (PRIMARY, "D" * 40))

NEWSIG = "[GNUPG:] NEWSIG"
GOODSIG = f"[GNUPG:] GOODSIG {SUBKEY[-16:]} Some One <some@one.example>"


def valid(
    *, made: int | str = NOW - 60, algorithm: int = 10, primary: str = PRIMARY, key: str = SUBKEY
) -> str:
    return f"[GNUPG:] VALIDSIG {key} 2027-01-15 {made} 0 4 0 22 {algorithm} 00 {primary}"


GOOD = [NEWSIG, "[GNUPG:] KEY_CONSIDERED X 0", "[GNUPG:] SIG_ID x 2027-01-15 1", GOODSIG, valid()]


def text(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def test_a_good_signature() -> None:
    assert judge(text(GOOD), 0, ROLE, "x", NOW) == Signature(PRIMARY, NOW - 60)


@pytest.mark.parametrize("algorithm", [8, 9, 10])
def test_strong_hashes(algorithm: int) -> None:
    judge(text([NEWSIG, GOODSIG, valid(algorithm=algorithm)]), 0, ROLE, "x", NOW)


def test_a_clock_may_differ_by_ten_minutes() -> None:
    judge(text([NEWSIG, GOODSIG, valid(made=NOW + 600)]), 0, ROLE, "x", NOW)


def test_an_expired_key_elsewhere_in_the_ring_does_no_harm() -> None:
    judge(text([*GOOD, "[GNUPG:] KEYEXPIRED 1600000000"]), 0, ROLE, "x", NOW)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([], "NEWSIG 0 times"),
        (GOOD[1:], "NEWSIG 0 times"),
        ([NEWSIG, valid()], "GOODSIG 0 times"),
        ([NEWSIG, GOODSIG], "VALIDSIG 0 times"),
        ([*GOOD, NEWSIG], "NEWSIG 2 times"),
        ([*GOOD, GOODSIG], "GOODSIG 2 times"),
        ([*GOOD, valid()], "VALIDSIG 2 times"),
        (GOOD * 2, "NEWSIG 2 times"),
        ([*GOOD, "gpgv: hello"], "something unknown"),
        ([*GOOD, ""], "something unknown"),
        ([*GOOD, "[GNUPG:]"], "something unknown"),
        ([NEWSIG, GOODSIG, valid(key="E" * 40)], "does not fit together"),
        ([NEWSIG, "[GNUPG:] GOODSIG", valid()], "does not fit together"),
        ([NEWSIG, GOODSIG, f"[GNUPG:] VALIDSIG {SUBKEY} 2027-01-15"], "does not fit together"),
        ([NEWSIG, GOODSIG, valid(made="20270115T000000")], "does not fit together"),
        ([NEWSIG, GOODSIG, valid(primary=OTHER)], f"signed by {OTHER}, which is not pinned"),
        ([NEWSIG, GOODSIG, valid(primary=PRIMARY.lower())], "not pinned"),
        ([NEWSIG, GOODSIG, valid(primary=PRIMARY[-16:])], "not pinned"),
        *(
            ([NEWSIG, GOODSIG, valid(algorithm=weak)], f"(number {weak}) is too weak")
            for weak in (0, 1, 2, 3, 11)
        ),
        ([NEWSIG, GOODSIG, valid(made=NOW + 601)], "signed in the future"),
    ],
)
def test_refused(lines: list[str], reason: str) -> None:
    with pytest.raises(NotTrusted) as refused:
        judge(text(lines), 0, ROLE, "x.tar", NOW)
    assert reason in refused.value.message
    assert refused.value.message.startswith("x.tar is not trusted as snapshots: ")
    assert "\n" not in refused.value.message


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("BADSIG", "does not fit the bytes"),
        ("ERRSIG", "not in the key file, or in an unknown way"),
        ("EXPSIG", "signature has expired"),
        ("EXPKEYSIG", "key that signed it has expired"),
        ("REVKEYSIG", "was revoked"),
        ("KEYREVOKED", "was revoked"),
        ("NO_PUBKEY", "not in the key file"),
        ("NODATA", "no signature in it"),
        ("FAILURE", "FAILURE"),
        ("ERROR", "ERROR"),
        ("UNEXPECTED", "UNEXPECTED"),
    ],
)
def test_one_fatal_word_spoils_a_good_signature(word: str, reason: str) -> None:
    with pytest.raises(NotTrusted, match=reason):
        judge(text([*GOOD, f"[GNUPG:] {word} x"]), 0, ROLE, "x", NOW)


def test_of_several_fatal_words_the_most_telling_is_told() -> None:
    lines = ["FAILURE gpgv-exit 1", "ERRSIG 0 22 8 00 1 9", "NO_PUBKEY 0"]
    with pytest.raises(NotTrusted, match="signed by a key that is not in the key file\n"):
        judge(text([f"[GNUPG:] {line}" for line in lines]), 2, ROLE, "x", NOW)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("0123456789ABCDEF 22 2 00 1 5 X", "its hash algorithm (number 2) is too weak"),
        ("0123456789ABCDEF 22 1 00 1 5", "its hash algorithm (number 1) is too weak"),
        ("0123456789ABCDEF 22 8 00 1 9 X", "not in the key file, or in an unknown way"),
        ("0123456789ABCDEF 22", "not in the key file, or in an unknown way"),
        ("", "not in the key file, or in an unknown way"),
    ],
)
def test_what_gpgv_would_not_even_check(said: str, reason: str) -> None:
    """Fault 16: of a weak signature it says no more than ERRSIG, and which hash it has."""
    with pytest.raises(NotTrusted) as refused:
        judge(text([NEWSIG, f"[GNUPG:] ERRSIG {said}"]), 2, ROLE, "x", NOW)
    assert refused.value.message.endswith(reason)


@pytest.mark.parametrize("returncode", [1, 2, -9])
def test_the_exit_code_must_agree(returncode: int) -> None:
    with pytest.raises(NotTrusted, match=f"ended with {returncode}"):
        judge(text(GOOD), returncode, ROLE, "x", NOW)


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r"])
def test_a_user_id_cannot_write_status_lines(separator: str) -> None:
    injected = GOODSIG + separator + valid()
    with pytest.raises(NotTrusted, match="VALIDSIG 0 times"):
        judge(text([NEWSIG, injected]), 0, ROLE, "x", NOW)


DAY = date(2027, 1, 15)
MIDNIGHT = 1799971200  # as DAY begins, in UTC
WAS_GOOD = Role(ROLE.name, ROLE.keyfile, ROLE.fingerprints, accept_expired_before=DAY)
EXPKEYSIG = GOODSIG.replace("GOODSIG", "EXPKEYSIG")


def listing(
    primary: str = "e", subkey: str = "e", ends: tuple[int | str, int | str] = (NOW, NOW)
) -> str:
    """What gpg says of the key that signed: validity and end of the primary and its subkey."""
    return (
        f"pub:{primary}:255:22:X:1600000000:{ends[0]}::-:::c:::::ed25519:::0:\n"
        f"fpr:::::::::{PRIMARY}:\n"
        f"uid:{primary}::::1600000000::X::Some One::::::::::0:\n"
        f"sub:{subkey}:255:22:Y:1600000000:{ends[1]}:::::s:::::ed25519::\n"
        f"fpr:::::::::{SUBKEY}:\n"
    )


OTHERS = f"pub:r:255:22:Z:1600000000:1600000001::-:::c:::::ed25519:::0:\nfpr:::::::::{OTHER}:\n"


@pytest.mark.parametrize(
    ("made", "keys"),
    [
        (MIDNIGHT - 1, listing()),
        (MIDNIGHT - 1, listing(ends=(MIDNIGHT, MIDNIGHT))),
        (MIDNIGHT - 1, listing(primary="-", ends=("", NOW))),
        (MIDNIGHT - 1, OTHERS + listing() + OTHERS),
    ],
    ids=["both", "just before", "the subkey alone", "others do not count"],
)
def test_an_expired_key_that_is_asked_for(made: int, keys: str) -> None:
    said = text([NEWSIG, "[GNUPG:] KEYEXPIRED 1600000001", EXPKEYSIG, valid(made=made)])
    assert judge(said, 0, WAS_GOOD, "x", NOW, keys=keys) == Signature(PRIMARY, made)
    with pytest.raises(NotTrusted, match="the key that signed it has expired"):
        judge(said, 0, ROLE, "x", NOW, keys=keys)


@pytest.mark.parametrize(
    ("lines", "keys"),
    [
        ([EXPKEYSIG, valid(made=MIDNIGHT)], listing()),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing(ends=(MIDNIGHT - 1, NOW))),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing(ends=(NOW, MIDNIGHT - 1))),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing(primary="r")),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing(subkey="r")),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing(primary="i")),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], listing() + listing(primary="r")),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], OTHERS),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1)], ""),
        ([EXPKEYSIG, valid(made="20270114T000000")], listing()),
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
def test_an_expired_key_that_counts_for_nothing(lines: list[str], keys: str) -> None:
    with pytest.raises(NotTrusted, match="the key that signed it has expired"):
        judge(text([NEWSIG, *lines]), 0, WAS_GOOD, "x", NOW, keys=keys)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1), "[GNUPG:] REVKEYSIG x"], "was revoked"),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1), "[GNUPG:] BADSIG x"], "does not fit the bytes"),
        ([EXPKEYSIG, EXPKEYSIG, valid(made=MIDNIGHT - 1)], "GOODSIG 2 times"),
        ([EXPKEYSIG, GOODSIG, valid(made=MIDNIGHT - 1)], "GOODSIG 2 times"),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1), valid()], "VALIDSIG 2 times"),
        ([EXPKEYSIG, valid(made=MIDNIGHT - 1, algorithm=2)], "too weak"),
    ],
)
def test_all_other_rules_hold_for_an_expired_key(lines: list[str], reason: str) -> None:
    with pytest.raises(NotTrusted, match=reason):
        judge(text([NEWSIG, *lines]), 0, WAS_GOOD, "x", NOW, keys=listing())


def test_an_expired_key_of_another_role() -> None:
    role = Role(ROLE.name, ROLE.keyfile, (OTHER,), accept_expired_before=DAY)
    with pytest.raises(NotTrusted, match="not pinned"):
        judge(
            text([NEWSIG, EXPKEYSIG, valid(made=MIDNIGHT - 1)]), 0, role, "x", NOW, keys=listing()
        )


@pytest.mark.parametrize("separator", ["\u2028", "\x85", "\x0c", "\x1c"])
def test_a_user_id_cannot_write_a_listing(separator: str) -> None:
    forged = "".join(f"{separator}pub:e:::::{NOW}:{separator}fpr:::::::::{PRIMARY}:")
    keys = listing(primary="r").replace("Some One", f"Some One{forged}")
    said = text([NEWSIG, EXPKEYSIG, valid(made=MIDNIGHT - 1)])
    with pytest.raises(NotTrusted, match="has expired"):
        judge(said, 0, WAS_GOOD, "x", NOW, keys=keys)
