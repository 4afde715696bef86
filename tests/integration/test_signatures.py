"""Snapshots that must be refused: each fault between a mirror and a frozen day."""

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
from tasks.system import gpgv
from tasks.system.notes import Note
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
from tests.kit.refused import refused
from tests.kit.repositories import git, refs
from tests.kit.scripted_server import file, status
from tests.kit.snapshots import DAY, FILES, snapshot_time

LAST_YEAR = DAY - timedelta(days=365)
FAR = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
EVIL = {**FILES, "app-misc/evil/evil-1.ebuild": b"EAPI=8\n"}

Make = Callable[[FakeUpstream], Signed]


def signed_by(*how: str, **more: Any) -> Make:
    return lambda fake_upstream: fake_upstream.signed(NEXT, *how, **more)


def but(change: Callable[[FakeUpstream, Signed], dict[str, bytes]]) -> Make:
    """The right snapshot, except for these files."""

    def make(fake_upstream: FakeUpstream) -> Signed:
        right = fake_upstream.signed()
        return right._replace(**change(fake_upstream, right))

    return make


def sealed(*how: str) -> Make:
    """A signature that contains the archive, in place of a detached one."""
    return but(
        lambda fake_upstream, right: {
            "signature": fake_upstream.keys.sign(
                *how, who="good", data=right.archive, at=snapshot_time(NEXT)
            )
        }
    )


# The files that a mirror has under the name of the newest day, and the code of the refusal.
FAULTS: dict[str, tuple[Make, str]] = {
    "a page for an archive": (but(lambda *_: {"archive": PAGE}), "signature-wrong"),
    "a page for everything": (lambda _: Signed(PAGE, PAGE, PAGE), "signature-absent"),
    "a page that is signed": (
        lambda fake_upstream: Signed(PAGE, fake_upstream.keys.sign(who="good", data=PAGE)),
        "archive-header-damaged",
    ),
    "the time of another day, other bytes": (
        signed_by(timestamp=snapshot_time(DAY), files=EVIL),
        "frozen-with-other-content",
    ),
    "a flipped byte": (
        but(lambda _, right: {"archive": flip_bit(right.archive, 99)}),
        "signature-wrong",
    ),
    "cut short": (
        but(lambda _, right: {"archive": right.archive[:-1]}),
        "signature-wrong",
    ),
    "empty": (but(lambda *_: {"archive": b""}), "signature-wrong"),
    "bad signature": (
        but(lambda _, right: {"signature": flip_bit(right.signature, -1)}),
        "signature-wrong",
    ),
    "unknown key": (signed_by(who="stranger"), "signing-key-unknown"),
    "expired key": (signed_by(who="expired"), "signing-key-expired"),
    "expired key, signed after its end": (
        signed_by(who="expired", at=KEYS_EXPIRED + 86400),
        "signing-key-expired",
    ),
    "revoked key": (signed_by(who="revoked"), "signing-key-revoked"),
    "revoked key that has expired": (signed_by(who="lapsed"), "signing-key-expired"),
    "expired signature": (
        signed_by("--default-sig-expire", "1d", "--detach-sign"),
        "signature-expired",
    ),
    "SHA-1": (
        signed_by("--digest-algo", "SHA1", "--detach-sign"),
        "signature-hash-weak",
    ),
    "a key by SHA-1": (signed_by(who="weak"), "signature-unreadable"),
    "signed in the future": (signed_by(at=FAR), "signature-from-the-future"),
    "a key of another role": (signed_by(who="other"), "signing-key-not-pinned"),
    "an empty .gpgsig": (but(lambda *_: {"signature": b""}), "signature-absent"),
    "inline signed": (sealed("--sign"), "signature-not-single"),
    "clearsigned": (sealed("--clear-sign"), "signature-not-single"),
    "the archive itself is signed inline": (
        but(
            lambda fake_upstream, right: {
                "archive": fake_upstream.keys.sign("--sign", who="good", data=right.archive)
            }
        ),
        "signature-wrong",
    ),
    "another file's signature": (
        but(lambda fake_upstream, _: {"signature": fake_upstream.signed(DAY).signature or b""}),
        "signature-wrong",
    ),
    "two signatures": (signed_by(who="good other"), "signature-not-single"),
    "last year's": (
        lambda fake_upstream: fake_upstream.signed(LAST_YEAR),
        "snapshot-time-wrong",
    ),
    "the day before's, which is frozen": (
        lambda fake_upstream: fake_upstream.signed(DAY),
        "snapshot-too-old",
    ),
}


@pytest.mark.parametrize(("make", "reason"), FAULTS.values(), ids=list(FAULTS))
def test_bad_snapshot_is_refused_until_another_mirror_has_the_day(
    frozen_upstream: FakeUpstream, make: Make, reason: str
) -> None:
    site = frozen_upstream.site("one", "two")
    first = newest(site.layout.tree)
    frozen_upstream.publish("one", make(frozen_upstream))
    error = frozen_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
    assert error.fields["codes"] == [reason, "not-on-mirrors"]
    assert str(error.fields["cause"]).startswith(f"{frozen_upstream.url('one')}: ")
    assert newest(site.layout.tree) == first

    right = frozen_upstream.publish("two", frozen_upstream.signed())
    record, notes = frozen_upstream.snapshot(site)
    assert record.tag == "20260116"
    assert record.sha512 == digest(right)
    assert [note.code for note in notes] == ["archive-refused", "frozen-newer", "days-pushed"]
    assert notes[0].fields["reason"] == reason
    body = git(site.layout.tree, "log", "-1", "--format=%b", "main")
    assert f"mirror: {frozen_upstream.server.url(frozen_upstream.path('two'))}\n" in body
    assert refs(frozen_upstream.remote) == refs(site.layout.tree)


def test_repaired_mirror_is_accepted(frozen_upstream: FakeUpstream) -> None:
    site = frozen_upstream.site()
    right = frozen_upstream.signed()
    frozen_upstream.publish("one", right._replace(archive=flip_bit(right.archive, 99)))
    frozen_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
    frozen_upstream.publish("one", right)
    assert frozen_upstream.snapshot(site)[0].sha512 == digest(right)
    assert refs(frozen_upstream.remote) == refs(site.layout.tree)


def test_captive_portal_is_refused(frozen_upstream: FakeUpstream) -> None:
    """Every request is answered with a page."""
    frozen_upstream.server.answers["*"] = file(PAGE)
    site = frozen_upstream.site("one", "two")
    codes = ["signature-absent", "signature-absent"]
    frozen_upstream.refused(site, NotTrusted, "nothing-newer-accepted", codes=codes)
    frozen_upstream.server.answers["*"] = status(404)
    frozen_upstream.publish("one", frozen_upstream.signed())
    assert frozen_upstream.snapshot(site)[0].tag == "20260116"


def test_older_day_is_frozen_where_the_newest_is_refused(fake_upstream: FakeUpstream) -> None:
    """One mirror with junk under a newer name cannot block all days."""
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", Signed(PAGE, PAGE))
    fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    record, notes = fake_upstream.snapshot(site)
    assert record.tag == "20260115"
    assert [note.code for note in notes] == ["day-refused", "frozen-first", "days-pushed"]
    cause = str(notes[0].fields["cause"])
    assert cause.startswith(f"{fake_upstream.url('one')}: gentoo-20260116.tar.xz")
    assert "; no mirror has gentoo-20260116" in cause  # the other one lacks it
    error = fake_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
    assert str(error.fields["cause"]).startswith(f"{fake_upstream.url('one')}: gentoo-20260")


def test_archive_without_a_signature_is_not_requested(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", fake_upstream.signed()._replace(signature=None))
    fake_upstream.publish("two", fake_upstream.signed(DAY), DAY)
    assert fake_upstream.snapshot(site)[0].tag == "20260115"
    assert fake_upstream.requested_archives() == ["two/20260115"]
    assert fake_upstream.snapshot(site)[1][0].code == "nothing-newer-since"


def test_other_bytes_of_another_machine_are_refused(fake_upstream: FakeUpstream) -> None:
    """Both have good signatures: the second machine fails, and nothing is overwritten."""
    fake_upstream.publish("one", fake_upstream.signed())
    fake_upstream.publish("two", fake_upstream.signed(files=EVIL))
    fake_upstream.snapshot(fake_upstream.site("one"))
    other = fake_upstream.site("two", name="other")
    theirs = refs(fake_upstream.remote)
    with refused(NotTrusted, "remote-tag-differs", tag="20260116") as error:
        run_snapshot(other)
    assert PASSWORD not in str(error.value)
    assert refs(fake_upstream.remote) == theirs


def test_wrong_md5sum_makes_another_mirror_preferred(fake_upstream: FakeUpstream) -> None:
    site = fake_upstream.site("one", "two")
    fake_upstream.publish("one", wrong_md5(fake_upstream.signed(files=EVIL)))
    right = fake_upstream.signed()
    md5 = hashlib.md5(right.archive, usedforsecurity=False).hexdigest()
    fake_upstream.publish("two", right._replace(md5sum=f"{md5}  gentoo-20260116.tar.xz\n".encode()))
    record, notes = fake_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    assert notes[0] == Note(
        "md5sum-differs", {"mirror": fake_upstream.url("one"), "archive": "gentoo-20260116.tar.xz"}
    )
    assert fake_upstream.requested_archives() == ["one/20260116", "two/20260116"]


@pytest.mark.parametrize("other", [None, wrong_md5, "bad"], ids=["none", "wrong, too", "bad"])
def test_wrong_md5sum_without_another_mirror_lets_the_signature_decide(
    fake_upstream: FakeUpstream, other: Any
) -> None:
    site = fake_upstream.site("one", "two")
    signed = fake_upstream.publish("one", wrong_md5(fake_upstream.signed()))
    if other is wrong_md5:
        fake_upstream.publish("two", wrong_md5(fake_upstream.signed()))
    elif other:
        fake_upstream.publish("two", signed._replace(archive=PAGE))
    record, notes = fake_upstream.snapshot(site)
    assert record.sha512 == digest(signed)
    assert "md5sum-differs" in [note.code for note in notes]
    assert refs(fake_upstream.remote) == refs(site.layout.tree)


EVE = DAY - timedelta(days=1)
EARLY = EVE - timedelta(days=1)


@pytest.mark.parametrize(
    ("requested", "other", "reason"),
    [
        (EVE, NEXT, "snapshot-time-wrong"),
        (EARLY, EVE, "snapshot-time-wrong"),
        (EVE, EARLY, "snapshot-of-other-day"),
    ],
    ids=["a newer one", "the next", "the one before"],
)
def test_other_day_under_the_requested_name_is_refused(
    frozen_upstream: FakeUpstream, requested: date, other: date, reason: str
) -> None:
    right = frozen_upstream.publish("two", frozen_upstream.signed(requested), requested)
    frozen_upstream.publish("one", frozen_upstream.signed(other), requested)
    code = "no-mirror-accepted"
    site = frozen_upstream.site("one")
    frozen_upstream.refused(site, NotTrusted, code, day=tag(requested), codes=[reason])
    site = frozen_upstream.site("one", "two")
    record, notes = frozen_upstream.snapshot(site, day=tag(requested))
    assert record.tag == "20260115"
    assert (notes[0].code, notes[0].fields["reason"]) == ("archive-refused", reason)
    assert (notes[1].code, notes[1].fields["tag"]) == ("frozen-older", tag(requested))
    assert digest(right) in git(site.layout.tree, "cat-file", "tag", tag(requested))


def swap_after_verification(
    monkeypatch: pytest.MonkeyPatch, swap: Callable[[Path], object]
) -> None:
    """Call `swap` with the archive's path, once, after its signature was verified."""
    verify_detached = gpgv.verify_detached
    swapped: list[str] = []

    def verify(role: Any, data: Any, name: str, signature: Path) -> Any:
        accepted = verify_detached(role, data, name, signature)
        if not swapped:
            swapped.append(name)
            swap(signature.with_name(name))
        return accepted

    monkeypatch.setattr(download, "verify_detached", verify)


def test_file_replaced_after_verification_is_not_read(
    fake_upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verified bytes are used."""
    evil = fake_upstream.folder / "evil"
    evil.write_bytes(fake_upstream.signed(files=EVIL).archive)
    right = fake_upstream.publish("one", fake_upstream.signed())
    swap_after_verification(monkeypatch, evil.replace)
    site = fake_upstream.site()
    record, _ = fake_upstream.snapshot(site)
    assert not evil.exists()
    assert record.sha512 == digest(right)
    listed = git(site.layout.tree, "ls-tree", "-r", "--name-only", record.commit)
    assert "evil" not in listed


@pytest.mark.parametrize("other", ["another mirror", "none"])
def test_file_modified_after_verification_is_refused(
    fake_upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    evil = fake_upstream.signed(files=EVIL).archive
    right = fake_upstream.publish("one", fake_upstream.signed())
    site = fake_upstream.site("one", "two")
    swap_after_verification(monkeypatch, lambda path: path.write_bytes(evil))
    if other == "none":
        error = fake_upstream.refused(site, NotTrusted, "nothing-newer-accepted")
        assert error.fields["codes"] == ["snapshot-modified", "not-on-mirrors"]
    else:
        fake_upstream.publish("two", right)
    record, notes = fake_upstream.snapshot(site)
    assert record.sha512 == digest(right)
    assert (notes[0].code == "archive-refused") == (other != "none")


@pytest.mark.parametrize(
    ("who", "signed_at", "accept"),
    [
        ("expired", BEFORE_EXPIRY, date(2026, 1, 18)),
        ("expired", KEYS_EXPIRED + 86400, date(2026, 2, 1)),
        ("lapsed", BEFORE_EXPIRY, date(2026, 1, 19)),
        ("revoked", BEFORE_EXPIRY, date(2026, 1, 19)),
    ],
    ids=["made too late", "made after the key's end", "revoked, and expired since", "revoked"],
)
def test_old_day_of_an_expired_key_needs_the_option(
    fake_upstream: FakeUpstream, who: str, signed_at: int, accept: date
) -> None:
    """accept_expired_before applies to keys that have expired, not to revoked ones."""
    fake_upstream.publish("one", fake_upstream.signed(NEXT), NEXT)
    fake_upstream.snapshot(fake_upstream.site())
    fake_upstream.publish("one", fake_upstream.signed(DAY, who=who, at=signed_at), DAY)
    code = "no-mirror-accepted"
    for option in (None, accept):
        site = fake_upstream.site(accept=option)
        error = fake_upstream.refused(site, NotTrusted, code, day="20260115")
        assert re.search("has expired|was revoked", error.message)
    right = fake_upstream.signed(DAY, who="expired", at=BEFORE_EXPIRY)
    fake_upstream.publish("one", right, DAY)
    error = fake_upstream.refused(fake_upstream.site(), NotTrusted, code, day="20260115")
    assert "has expired" in error.message
    site = fake_upstream.site(accept=date(2026, 1, 19))
    record, notes = fake_upstream.snapshot(site, day="20260115")
    assert record.tag == "20260116"
    assert notes[0].code == "frozen-older"
    frozen = read(site.layout.tree, "20260115")
    assert frozen is not None
    assert frozen.sha512 == digest(right)
    assert frozen.signer == fake_upstream.keys.fingerprint("expired")
