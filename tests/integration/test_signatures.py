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
from tasks.flow import snapshots
from tasks.snapshot import mirror as mirrors
from tasks.snapshot.freeze import newest, read
from tasks.system.gpgv import verify_detached
from tests.kit.gpg import BEFORE, ENDED
from tests.kit.mirrors import NEXT, PAGE, PASSWORD, Signed, World, digest, flipped, tag, wrong_md5
from tests.kit.repositories import git, references
from tests.kit.scripted_server import file, status
from tests.kit.snapshots import DAY, FILES, made_at

LAST_YEAR = DAY - timedelta(days=365)
FAR = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
EVIL = {**FILES, "app-misc/evil/evil-1.ebuild": b"EAPI=8\n"}

Make = Callable[[World], Signed]


def signed_by(*how: str, **more: Any) -> Make:
    return lambda world: world.signed(NEXT, *how, **more)


def but(change: Callable[[World, Signed], dict[str, bytes]]) -> Make:
    """The right snapshot, but for these files."""

    def make(world: World) -> Signed:
        right = world.signed()
        return right._replace(**change(world, right))

    return make


def sealed(*how: str) -> Make:
    """A signature that has the archive in it, where one that is apart from it belongs."""
    return but(
        lambda world, right: {
            "signature": world.keys.sign(*how, who="good", data=right.archive, at=made_at(NEXT))
        }
    )


# What a mirror has under the name of the newest day, and what is said of it.
FAULTS: dict[str, tuple[Make, str]] = {
    "6 a page for an archive": (but(lambda *_: {"archive": PAGE}), "does not fit the bytes"),
    "6 a page for everything": (lambda _: Signed(PAGE, PAGE, PAGE), "there is no signature in it"),
    "6 a page that is signed": (
        lambda world: Signed(PAGE, world.keys.sign(who="good", data=PAGE)),
        "not .* a whole",
    ),
    "8 the time of another day, other bytes": (
        signed_by(timestamp=made_at(DAY), files=EVIL),
        r"gentoo 20260115 is already frozen with other content \(commit .*, now .*\); somebody lie",
    ),
    "11 a flipped byte": (
        but(lambda _, right: {"archive": flipped(right.archive, 99)}),
        "does not fit the bytes",
    ),
    "11 cut short": (
        but(lambda _, right: {"archive": right.archive[:-1]}),
        "does not fit the bytes",
    ),
    "11 empty": (but(lambda *_: {"archive": b""}), "does not fit the bytes"),
    "11 bad signature": (
        but(lambda _, right: {"signature": flipped(right.signature, -1)}),
        "does not fit the bytes",
    ),
    "12 unknown key": (signed_by(who="stranger"), "by a key that is not in the key file"),
    "13 expired key": (signed_by(who="expired"), "the key that signed it has expired"),
    "13 expired key, signed after its end": (
        signed_by(who="expired", at=ENDED + 86400),
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
            lambda world, right: {
                "archive": world.keys.sign("--sign", who="good", data=right.archive)
            }
        ),
        "does not fit the bytes",
    ),
    "19 another file's signature": (
        but(lambda world, _: {"signature": world.signed(DAY).signature or b""}),
        "does not fit the bytes",
    ),
    "19 two signatures": (signed_by(who="good other"), "gpgv saw NEWSIG 2 times"),
    "20 last year's": (
        lambda world: world.signed(LAST_YEAR),
        "gentoo-20260116.tar.xz is really from 2025-01-16 00:45 UTC: an old snapshot under a new",
    ),
    "20 the day before's, which is frozen": (
        lambda world: world.signed(DAY),
        "gentoo-20260116.tar.xz is really from 2026-01-16 00:45 UTC: an old snapshot under a new",
    ),
}


@pytest.fixture(params=FAULTS.values(), ids=list(FAULTS))
def fault(request: pytest.FixtureRequest) -> tuple[Make, str]:
    found: tuple[Make, str] = request.param
    return found


def test_refused_until_another_mirror_has_it(begun: World, fault: tuple[Make, str]) -> None:
    make, cause = fault
    site = begun.site("one", "two")
    first = newest(site.layout.tree)
    begun.publish("one", make(begun))
    error = begun.refused(site, NotTrusted)
    says = f"{begun.url('one')}: .*{cause}.*"
    assert re.fullmatch(f"nothing newer was accepted: {says}", error.message)
    assert newest(site.layout.tree) == first

    right = begun.publish("two", begun.signed())
    record, said = begun.snapshot(site)
    assert record["tag"] == "20260116"
    assert record["sha512"] == digest(right)
    passed, frozen = said.splitlines()
    assert re.fullmatch(f"  passed over: {says}", passed)
    assert frozen.startswith("  frozen gentoo 20260116 as ")
    noted = git(site.layout.tree, "log", "-1", "--format=%b", "main")
    assert f"mirror: {begun.server.url(begun.path('two'))}\n" in noted
    assert references(begun.remote) == references(site.layout.tree)


def test_a_mirror_that_was_mended(begun: World) -> None:
    site = begun.site()
    right = begun.signed()
    begun.publish("one", right._replace(archive=flipped(right.archive, 99)))
    begun.refused(site, NotTrusted)
    begun.publish("one", right)
    assert begun.snapshot(site)[0]["sha512"] == digest(right)
    assert references(begun.remote) == references(site.layout.tree)


def test_6_a_captive_portal(begun: World) -> None:
    """Whatever is asked for, there is a page."""
    begun.server.answers["*"] = file(PAGE)
    error = begun.refused(begun.site("one", "two"), NotTrusted)
    assert error.message.count("there is no signature in it") == 2
    begun.server.answers["*"] = status(404)
    begun.publish("one", begun.signed())
    assert begun.snapshot(begun.site("one", "two"))[0]["tag"] == "20260116"


def test_an_older_day_that_is_new_is_better_than_none(world: World) -> None:
    """Fault 19: a mirror alone must not be able to hold us up by junk for a day to come."""
    site = world.site("one", "two")
    world.publish("one", Signed(PAGE, PAGE))
    world.publish("two", world.signed(DAY), DAY)
    record, said = world.snapshot(site)
    assert record["tag"] == "20260115"
    refused, frozen = said.splitlines()
    assert refused.startswith(f"  20260116 was refused: {world.url('one')}: gentoo-20260116.tar.xz")
    assert "there is no signature in it; no mirror gave " in refused  # the other one lacks it
    assert frozen.startswith("  frozen gentoo 20260115 as ")
    error = world.refused(site, NotTrusted)
    assert error.message.startswith(f"nothing newer was accepted: {world.url('one')}: gentoo-20260")


def test_a_day_without_a_signature_is_not_there(world: World) -> None:
    site = world.site("one", "two")
    world.publish("one", world.signed()._replace(signature=None))
    world.publish("two", world.signed(DAY), DAY)
    assert world.snapshot(site)[0]["tag"] == "20260115"
    assert world.archives() == ["two/20260115"]
    assert "no newer snapshot than 20260115" in world.snapshot(site)[1]


def test_8_another_machine_froze_other_bytes(world: World) -> None:
    """Both are well signed: whoever comes second raises the alarm, and nothing is overwritten."""
    world.publish("one", world.signed())
    world.publish("two", world.signed(files=EVIL))
    world.snapshot(world.site("one"))
    other = world.site("two", name="other")
    theirs = references(world.remote)
    with pytest.raises(NotTrusted, match="has another 20260116 ") as alarm:
        snapshots.snapshot(other, asked=True)
    assert "find out who froze other bytes" in alarm.value.hint
    assert PASSWORD not in str(alarm.value)
    assert world.said().startswith("  frozen gentoo 20260116 as ")
    assert references(world.remote) == theirs


def test_9_a_wrong_md5sum_and_another_mirror(world: World) -> None:
    site = world.site("one", "two")
    world.publish("one", wrong_md5(world.signed(files=EVIL)))
    right = world.signed()
    md5 = hashlib.md5(right.archive, usedforsecurity=False).hexdigest()
    world.publish("two", right._replace(md5sum=f"{md5}  gentoo-20260116.tar.xz\n".encode()))
    record, said = world.snapshot(site)
    assert record["sha512"] == digest(right)
    doubt = "the .md5sum beside gentoo-20260116.tar.xz does not fit; asking another mirror"
    assert said.splitlines()[0] == f"  {world.url('one')}: {doubt}"
    assert world.archives() == ["one/20260116", "two/20260116"]


@pytest.mark.parametrize("other", [None, wrong_md5, "bad"], ids=["none", "wrong, too", "it lies"])
def test_9_a_wrong_md5sum_and_no_other_mirror(world: World, other: Any) -> None:
    """The signature decides."""
    site = world.site("one", "two")
    signed = world.publish("one", wrong_md5(world.signed()))
    if other is wrong_md5:
        world.publish("two", wrong_md5(world.signed()))
    elif other:
        world.publish("two", signed._replace(archive=PAGE))
    record, said = world.snapshot(site)
    assert record["sha512"] == digest(signed)
    assert f"  {world.url('one')}: the .md5sum beside" in said
    assert references(world.remote) == references(site.layout.tree)


EVE = DAY - timedelta(days=1)
EARLY = EVE - timedelta(days=1)


@pytest.mark.parametrize(
    ("asked", "other"),
    [(EVE, NEXT), (EARLY, EVE), (EVE, EARLY)],
    ids=["a newer one", "the next", "the one before"],
)
def test_20_another_day_s_under_the_name_that_was_asked_for(
    begun: World, asked: date, other: date
) -> None:
    right = begun.publish("two", begun.signed(asked), asked)
    begun.publish("one", begun.signed(other), asked)
    error = begun.refused(begun.site("one"), NotTrusted, day=tag(asked))
    assert f"gentoo-{tag(asked)}.tar.xz is really " in error.message
    site = begun.site("one", "two")
    record, said = begun.snapshot(site, day=tag(asked))
    assert record["tag"] == "20260115"
    assert f"  passed over: {begun.url('one')}: gentoo-{tag(asked)}.tar.xz is really " in said
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

    monkeypatch.setattr(mirrors, "verify_detached", verify)


def test_22_another_file_takes_the_name(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verified bytes are used."""
    evil = world.folder / "evil"
    evil.write_bytes(world.signed(files=EVIL).archive)
    right = world.publish("one", world.signed())
    swapping(monkeypatch, evil.replace)
    site = world.site()
    record, _ = world.snapshot(site)
    assert not evil.exists()
    assert record["sha512"] == digest(right)
    listed = git(site.layout.tree, "ls-tree", "-r", "--name-only", record["commit"])
    assert "evil" not in listed


@pytest.mark.parametrize("other", ["another mirror", "none"])
def test_22_other_bytes_in_the_same_file(
    world: World, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    evil = world.signed(files=EVIL).archive
    right = world.publish("one", world.signed())
    site = world.site("one", "two")
    swapping(monkeypatch, lambda path: path.write_bytes(evil))
    cause = f"{world.url('one')}: gentoo-20260116.tar.xz was changed while it was read"
    if other == "none":
        assert cause in world.refused(site, NotTrusted).message
    else:
        world.publish("two", right)
    record, said = world.snapshot(site)
    assert record["sha512"] == digest(right)
    assert (f"  passed over: {cause}" in said) == (other != "none")


@pytest.mark.parametrize(
    ("who", "made", "accept"),
    [
        ("expired", BEFORE, date(2026, 1, 18)),
        ("expired", ENDED + 86400, date(2026, 2, 1)),
        ("lapsed", BEFORE, date(2026, 1, 19)),
        ("revoked", BEFORE, date(2026, 1, 19)),
    ],
    ids=["made too late", "made after the key's end", "revoked, and expired since", "revoked"],
)
def test_13_an_old_day_whose_key_has_expired(
    world: World, who: str, made: int, accept: date
) -> None:
    """It takes a date, which is about keys that were good once, and about no other fault."""
    world.publish("one", world.signed(NEXT), NEXT)
    world.snapshot(world.site())
    world.publish("one", world.signed(DAY, who=who, at=made), DAY)
    for given in (None, accept):
        error = world.refused(world.site(accept=given), NotTrusted, day="20260115")
        assert re.search("has expired|was revoked", error.message)
    right = world.publish("one", world.signed(DAY, who="expired", at=BEFORE), DAY)
    assert "has expired" in world.refused(world.site(), NotTrusted, day="20260115").message
    site = world.site(accept=date(2026, 1, 19))
    record, said = world.snapshot(site, day="20260115")
    assert record["tag"] == "20260116"
    assert said.startswith("  frozen gentoo 20260115 as ")
    frozen = read(site.layout.tree, "20260115")
    assert frozen is not None
    assert frozen.sha512 == digest(right)
    assert frozen.signer == world.keys.fingerprint("expired")
