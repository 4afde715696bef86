"""Snapshots that must not be believed: each fault on the way from a mirror to a frozen day."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import NotTrusted
from tasks.snapshot import download
from tasks.snapshot.frozen_days import newest, read
from tasks.system.gpgv import verify_detached
from tests.kit.fake_upstream import (
    NEXT,
    PAGE,
    PASSWORD,
    FakeUpstream,
    Signed,
    digest,
    flip_bit,
    run_snapshot,
    tag,
    wrong_md5,
)
from tests.kit.gpg import BEFORE_EXPIRY, KEYS_EXPIRED
from tests.kit.repositories import git, refs
from tests.kit.scripted_server import file, status
from tests.kit.snapshots import DAY, FILES, made_at

LAST_YEAR = DAY - timedelta(days=365)
FAR = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
EVIL = {**FILES, "app-misc/evil/evil-1.ebuild": b"EAPI=8\n"}

Make = Callable[[FakeUpstream], Signed]


def signed_by(*how: str, **more: Any) -> Make:
    return lambda fake_upstream: fake_upstream.signed(NEXT, *how, **more)


def but(change: Callable[[FakeUpstream, Signed], dict[str, bytes]]) -> Make:
    """The right snapshot, but for these files."""

    def make(fake_upstream: FakeUpstream) -> Signed:
        right = fake_upstream.signed()
        return right._replace(**change(fake_upstream, right))

    return make


def sealed(*how: str) -> Make:
    """A signature that has the archive in it, where one that is apart from it belongs."""
    return but(
        lambda fake_upstream, right: {
            "signature": fake_upstream.keys.sign(
                *how, who="good", data=right.archive, at=made_at(NEXT)
            )
        }
    )


# What a mirror has under the name of the newest day, and what is said of it.
FAULTS: dict[str, tuple[Make, str]] = {
    "6 a page for an archive": (but(lambda *_: {"archive": PAGE}), "does not fit the bytes"),
    "6 a page for everything": (lambda _: Signed(PAGE, PAGE, PAGE), "there is no signature in it"),
    "6 a page that is signed": (
        lambda fake_upstream: Signed(PAGE, fake_upstream.keys.sign(who="good", data=PAGE)),
        "is not a complete",
    ),
    "8 the time of another day, other bytes": (
        signed_by(timestamp=made_at(DAY), files=EVIL),
        r"gentoo 20260115 is already frozen with other content \(commit .*, now .*\)",
    ),
    "11 a flipped byte": (
        but(lambda _, right: {"archive": flip_bit(right.archive, 99)}),
        "does not fit the bytes",
    ),
    "11 cut short": (
        but(lambda _, right: {"archive": right.archive[:-1]}),
        "does not fit the bytes",
    ),
    "11 empty": (but(lambda *_: {"archive": b""}), "does not fit the bytes"),
    "11 bad signature": (
        but(lambda _, right: {"signature": flip_bit(right.signature, -1)}),
        "does not fit the bytes",
    ),
    "12 unknown key": (signed_by(who="stranger"), "by a key that is not in the key file"),
    "13 expired key": (signed_by(who="expired"), "the key that signed it has expired"),
    "13 expired key, signed after its end": (
        signed_by(who="expired", at=KEYS_EXPIRED + 86400),
        "the key that signed it has expired",
    ),
    "14 revoked key": (signed_by(who="revoked"), "the key that signed it was revoked"),
    "14 revoked key that has expired": (signed_by(who="lapsed"), "that signed it has expired"),
    "15 expired signature": (
        signed_by("--default-sig-expire", "1d", "--detach-sign"),
        "the signature has expired",
    ),
    "16 SHA-1": (
        signed_by("--digest-algo", "SHA1", "--detach-sign"),
        r"its hash algorithm \(number 2\) is too weak",
    ),
    "16 a key by SHA-1": (signed_by(who="weak"), "not in the key file, or in an unknown way"),
    "17 signed in the future": (signed_by(at=FAR), "signed in the future; is this machine's clock"),
    "18 a key of another role": (signed_by(who="other"), "which is not pinned for this role"),
    "19 an empty .gpgsig": (but(lambda *_: {"signature": b""}), "there is no signature in it"),
    "19 inline signed": (sealed("--sign"), "exactly one good signature is wanted"),
    "19 clearsigned": (sealed("--clear-sign"), "exactly one good signature is wanted"),
    "19 the archive itself is signed inline": (
        but(
            lambda fake_upstream, right: {
                "archive": fake_upstream.keys.sign("--sign", who="good", data=right.archive)
            }
        ),
        "does not fit the bytes",
    ),
    "19 another file's signature": (
        but(lambda fake_upstream, _: {"signature": fake_upstream.signed(DAY).signature or b""}),
        "does not fit the bytes",
    ),
    "19 two signatures": (signed_by(who="good other"), "gpgv saw NEWSIG 2 times"),
    "20 last year's": (
        lambda fake_upstream: fake_upstream.signed(LAST_YEAR),
        "gentoo-20260116.tar.xz was made at 2025-01-16 00:45 UTC: its name is that of another day",
    ),
    "20 the day before's, which is frozen": (
        lambda fake_upstream: fake_upstream.signed(DAY),
        "gentoo-20260116.tar.xz was made at 2026-01-16 00:45 UTC, not after what is frozen",
    ),
}


@pytest.fixture(params=FAULTS.values(), ids=list(FAULTS))
def fault(request: pytest.FixtureRequest) -> tuple[Make, str]:
    found: tuple[Make, str] = request.param
    return found


def test_refused_until_another_mirror_has_it(
    frozen_upstream: FakeUpstream, fault: tuple[Make, str]
) -> None:
    make, cause = fault
    site = frozen_upstream.site("one", "two")
    first = newest(site.layout.tree)
    frozen_upstream.publish("one", make(frozen_upstream))
    error = frozen_upstream.refused(site, NotTrusted)
    says = f"{frozen_upstream.url('one')}: .*{cause}.*"
    assert re.fullmatch(f"nothing newer was accepted: {says}", error.message)
    assert newest(site.layout.tree) == first

    right = frozen_upstream.publish("two", frozen_upstream.signed())
    record, said = frozen_upstream.snapshot(site)
    assert record.tag == "20260116"
    assert record.sha512 == digest(right)
    passed, frozen = said.splitlines()
    assert re.fullmatch(f"  refused: {says}", passed)
    assert frozen.startswith("  frozen gentoo 20260116 as ")
    noted = git(site.layout.tree, "log", "-1", "--format=%b", "main")
    assert f"mirror: {frozen_upstream.server.url(frozen_upstream.path('two'))}\n" in noted
    assert refs(frozen_upstream.remote) == refs(site.layout.tree)


def test_a_mirror_that_was_mended(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    right = frozen_upstream.signed()
    frozen_upstream.publish("one", right._replace(archive=flip_bit(right.archive, 99)))
    frozen_upstream.refused(site, NotTrusted)
    frozen_upstream.publish("one", right)
    assert frozen_upstream.snapshot(site)[0].sha512 == digest(right)
    assert refs(frozen_upstream.remote) == refs(site.layout.tree)


def test_6_a_captive_portal(frozen_upstream: FakeUpstream) -> None:
    """Whatever is asked for, there is a page."""
    frozen_upstream.server.answers["*"] = file(PAGE)
    error = frozen_upstream.refused(frozen_upstream.site("one", "two"), NotTrusted)
    assert error.message.count("there is no signature in it") == 2
    frozen_upstream.server.answers["*"] = status(404)
    frozen_upstream.publish("one", frozen_upstream.signed())
    assert frozen_upstream.snapshot(frozen_upstream.site("one", "two"))[0].tag == "20260116"


def test_an_older_day_that_is_new_is_better_than_none(fake_upstream: FakeUpstream) -> None:
    """Fault 19: a mirror alone must not be able to hold us up by junk for a day to come."""
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", Signed(PAGE, PAGE))
    fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    record, said = fake_upstream.snapshot(site)
    assert record.tag == "20260115"
    refused, frozen = said.splitlines()
    assert refused.startswith(
        f"  20260116 was refused: {fake_upstream.url('one')}: gentoo-20260116.tar.xz"
    )
    assert "there is no signature in it; no mirror has " in refused  # the other one lacks it
    assert frozen.startswith("  frozen gentoo 20260115 as ")
    error = fake_upstream.refused(site, NotTrusted)
    assert error.message.startswith(
        f"nothing newer was accepted: {fake_upstream.url('one')}: gentoo-20260"
    )


def test_a_day_without_a_signature_is_not_there(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", fake_upstream.signed()._replace(signature=None))
    fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    assert fake_upstream.snapshot(site)[0].tag == "20260115"
    assert fake_upstream.requested_archives() == ["two/20260115"]
    assert "no newer snapshot than 20260115" in fake_upstream.snapshot(site)[1]


def test_8_another_machine_froze_other_bytes(fake_upstream: FakeUpstream) -> None:
    """Both are well signed: whoever comes second raises the alarm, and nothing is overwritten."""
    fake_upstream.publish("one", fake_upstream.signed())
    fake_upstream.publish("two", fake_upstream.signed(files=EVIL))
    fake_upstream.snapshot(fake_upstream.site("one"))
    other = fake_upstream.site("two", name="other")
    theirs = refs(fake_upstream.remote)
    with pytest.raises(NotTrusted, match="has another 20260116 ") as alarm:
        run_snapshot(other)
    assert "find out who froze other bytes" in alarm.value.hint
    assert PASSWORD not in str(alarm.value)
    assert fake_upstream.output().startswith("  frozen gentoo 20260116 as ")
    assert refs(fake_upstream.remote) == theirs


def test_9_a_wrong_md5sum_and_another_mirror(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", wrong_md5(fake_upstream.signed(files=EVIL)))
    right = fake_upstream.signed()
    md5 = hashlib.md5(right.archive, usedforsecurity=False).hexdigest()
    fake_upstream.publish("two", right._replace(md5sum=f"{md5}  gentoo-20260116.tar.xz\n".encode()))
    record, said = fake_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    doubt = "the .md5sum beside gentoo-20260116.tar.xz does not match; trying another mirror"
    assert said.splitlines()[0] == f"  {fake_upstream.url('one')}: {doubt}"
    assert fake_upstream.requested_archives() == ["one/20260116", "two/20260116"]


@pytest.mark.parametrize("other", [None, wrong_md5, "bad"], ids=["none", "wrong, too", "it lies"])
def test_9_a_wrong_md5sum_and_no_other_mirror(fake_upstream: FakeUpstream, other: Any) -> None:
    """The signature decides."""
    site = fake_upstream.site("one", "two")
    signed = fake_upstream.publish("one", wrong_md5(fake_upstream.signed()))
    if other is wrong_md5:
        fake_upstream.publish("two", wrong_md5(fake_upstream.signed()))
    elif other:
        fake_upstream.publish("two", signed._replace(archive=PAGE))
    record, said = fake_upstream.snapshot(site)
    assert record.sha512 == digest(signed)
    assert f"  {fake_upstream.url('one')}: the .md5sum beside" in said
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


EVE = DAY - timedelta(days=1)
EARLY = EVE - timedelta(days=1)


@pytest.mark.parametrize(
    ("asked", "other", "wrong"),
    [
        (EVE, NEXT, "was made at 2026-01-17 00:45 UTC: its name is that of another day"),
        (EARLY, EVE, "was made at 2026-01-15 00:45 UTC: its name is that of another day"),
        (EVE, EARLY, "is the snapshot of 20260113"),
    ],
    ids=["a newer one", "the next", "the one before"],
)
def test_20_another_day_s_under_the_name_that_was_asked_for(
    frozen_upstream: FakeUpstream, asked: date, other: date, wrong: str
) -> None:
    right = frozen_upstream.publish("two", frozen_upstream.signed(asked), asked)
    frozen_upstream.publish("one", frozen_upstream.signed(other), asked)
    error = frozen_upstream.refused(frozen_upstream.site("one"), NotTrusted, day=tag(asked))
    assert f"gentoo-{tag(asked)}.tar.xz {wrong}" in error.message
    site = frozen_upstream.site("one", "two")
    record, said = frozen_upstream.snapshot(site, day=tag(asked))
    assert record.tag == "20260115"
    assert f"  refused: {frozen_upstream.url('one')}: gentoo-{tag(asked)}.tar.xz {wrong}" in said
    assert f"  frozen gentoo {tag(asked)} as " in said
    assert digest(right) in git(site.layout.tree, "cat-file", "tag", tag(asked))


def swapping(monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], object]) -> None:
    """Do something to the archive's file as soon as its signature was verified, but once."""
    right = verify_detached
    done: list[str] = []

    def verify(role: Any, data: Any, name: str, signature: Path) -> Any:
        accepted = right(role, data, name, signature)
        if not done:
            done.append(name)
            swap(signature.with_name(name))
        return accepted

    monkeypatch.setattr(download, "verify_detached", verify)


def test_22_another_file_takes_the_name(
    fake_upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verified bytes are used."""
    evil = fake_upstream.folder / "evil"
    evil.write_bytes(fake_upstream.signed(files=EVIL).archive)
    right = fake_upstream.publish("one", fake_upstream.signed())
    swapping(monkeypatch, evil.replace)
    site = fake_upstream.site()
    record, _ = fake_upstream.snapshot(site)
    assert not evil.exists()
    assert record.sha512 == digest(right)
    listed = git(site.layout.tree, "ls-tree", "-r", "--name-only", record.commit)
    assert "evil" not in listed


@pytest.mark.parametrize("other", ["another mirror", "none"])
def test_22_other_bytes_in_the_same_file(
    fake_upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    evil = fake_upstream.signed(files=EVIL).archive
    right = fake_upstream.publish("one", fake_upstream.signed())
    site = fake_upstream.site("one", "two")
    swapping(monkeypatch, lambda path: path.write_bytes(evil))
    cause = f"{fake_upstream.url('one')}: gentoo-20260116.tar.xz was modified while it was read"
    if other == "none":
        assert cause in fake_upstream.refused(site, NotTrusted).message
    else:
        fake_upstream.publish("two", right)
    record, said = fake_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    assert (f"  refused: {cause}" in said) == (other != "none")


@pytest.mark.parametrize(
    ("who", "made", "accept"),
    [
        ("expired", BEFORE_EXPIRY, date(2026, 1, 18)),
        ("expired", KEYS_EXPIRED + 86400, date(2026, 2, 1)),
        ("lapsed", BEFORE_EXPIRY, date(2026, 1, 19)),
        ("revoked", BEFORE_EXPIRY, date(2026, 1, 19)),
    ],
    ids=["made too late", "made after the key's end", "revoked, and expired since", "revoked"],
)
def test_13_an_old_day_whose_key_has_expired(
    fake_upstream: FakeUpstream, who: str, made: int, accept: date
) -> None:
    """It takes a date, which is about keys that were good once, and about no other fault."""
    fake_upstream.publish("one", fake_upstream.signed(NEXT), NEXT)
    fake_upstream.snapshot(fake_upstream.site())
    fake_upstream.publish("one", fake_upstream.signed(DAY, who=who, at=made), DAY)
    for given in (None, accept):
        error = fake_upstream.refused(fake_upstream.site(accept=given), NotTrusted, day="20260115")
        assert re.search("has expired|was revoked", error.message)
    right = fake_upstream.publish(
        "one", fake_upstream.signed(DAY, who="expired", at=BEFORE_EXPIRY), DAY
    )
    assert (
        "has expired"
        in fake_upstream.refused(fake_upstream.site(), NotTrusted, day="20260115").message
    )
    site = fake_upstream.site(accept=date(2026, 1, 19))
    record, said = fake_upstream.snapshot(site, day="20260115")
    assert record.tag == "20260116"
    assert said.startswith("  frozen gentoo 20260115 as ")
    frozen = read(site.layout.tree, "20260115")
    assert frozen is not None
    assert frozen.sha512 == digest(right)
    assert frozen.signer == fake_upstream.keys.fingerprint("expired")
