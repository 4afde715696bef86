"""Which mirror's archive is taken, and what is left of the others: take() and seen() alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.errors import BinmillError, Busy, DownloadFailed, NotTrusted
from tasks.snapshot import mirror as mirrors
from tasks.snapshot.mirror import Source, Tarball, seen, take
from tasks.system.gpgv import Role
from tasks.system.http import Missing
from tests.kit.files import names
from tests.kit.mirrors import NEXT, PAGE, PASSWORD, Signed, World, flipped, tag, wrong_md5
from tests.kit.scripted_server import Handler, in_turn, status
from tests.kit.snapshots import DAY, made_at

DEAD = "http://127.0.0.1:1"  # tcpmux: nobody listens
ARCHIVE = "gentoo-20260116.tar.xz"


def source(world: World, *mirrors: str) -> Source:
    role = Role("snapshots", world.keys.ring, (world.keys.fingerprint("good"),))
    urls = tuple(each if "//" in each else world.url(each) for each in mirrors)
    return Source(urls, "gentoo", role, world.folder / "downloads")


def content(tarball: Tarball) -> bytes:
    tarball.stream.seek(0)
    return tarball.stream.read()


def left(world: World) -> list[str]:
    folder = world.folder / "downloads"
    return names(folder) if folder.exists() else []


def test_what_is_handed_over(world: World) -> None:
    right = world.publish("one", world.signed())

    def accept(tarball: Tarball) -> str:
        assert content(tarball) == right.archive
        assert tarball.path == world.folder / "downloads" / ARCHIVE
        assert tarball.url == world.server.url(world.path("one"))
        assert tarball.sha512 == tarball.digest() == hashlib.sha512(right.archive).hexdigest()
        assert tarball.signature.signer == world.keys.fingerprint("good")
        assert tarball.signature.made == made_at(NEXT) + 900
        assert left(world) == [ARCHIVE, f"{ARCHIVE}.gpgsig"]
        assert tarball.path.parent.stat().st_mode & 0o777 == 0o700
        return "made of it"

    assert take(source(world, "one/"), NEXT, accept) == "made of it"
    assert left(world) == []


LIES: dict[str, Callable[[Signed], Signed]] = {
    "flipped byte": lambda right: right._replace(archive=flipped(right.archive, 99)),
    "html": lambda right: right._replace(archive=PAGE),
    "empty signature": lambda right: right._replace(signature=b""),
    "huge signature": lambda right: right._replace(signature=bytes(1 << 20)),
    "no signature": lambda right: right._replace(signature=None),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_the_first_mirror_lies(world: World, lie: Callable[[Signed], Signed]) -> None:
    right = world.publish("two", world.signed())
    world.publish("one", lie(right))
    assert take(source(world, "one", "two"), NEXT, content) == right.archive
    assert left(world) == []
    with pytest.raises(BinmillError) as refused:
        take(source(world, "one"), NEXT, content)
    assert "\n" not in refused.value.message
    assert world.url("one") in refused.value.message
    assert left(world) == []


@pytest.mark.parametrize("answer", [status(404), status(403), status(503)])
def test_a_signature_and_no_archive(world: World, answer: Callable[[Handler], None]) -> None:
    right = world.publish("two", world.signed())
    world.publish("one", right)
    world.answer(answer, "one")
    assert take(source(world, "one", "two"), NEXT, content) == right.archive
    with pytest.raises(DownloadFailed, match=r"gave gentoo-20260116\.tar\.xz: .* HTTP [45]"):
        take(source(world, "one"), NEXT, content)
    assert left(world) == []


@pytest.mark.parametrize("first", [DEAD, "one"])
def test_the_first_mirror_has_nothing(world: World, first: str) -> None:
    right = world.publish("two", world.signed())
    assert take(source(world, first, "two"), NEXT, content) == right.archive
    assert world.said() == ""  # it may just be behind
    assert world.server.asked[-2:] == [world.path("two"), world.path("two", NEXT, ".md5sum")]


@pytest.mark.parametrize(
    ("answer", "lies", "kind"),
    [
        (status(403), False, DownloadFailed),
        (status(404), False, Missing),
        (status(403), True, NotTrusted),
        (status(404), True, NotTrusted),
    ],
)
def test_nobody_has_it(
    world: World, answer: Callable[[Handler], None], lies: bool, kind: type[BinmillError]
) -> None:
    """Whoever looks for days goes on to the next where one mirror says that there is none."""
    right = world.signed()
    world.answer(answer, "one", NEXT, ".gpgsig")
    if lies:
        world.publish("two", right._replace(archive=flipped(right.archive, 99)))
    else:
        world.answer(status(500), "two", NEXT, ".gpgsig")
    urls = [
        each.replace("//", f"//me:{PASSWORD}@")
        for each in (DEAD, world.url("one"), world.url("two"))
    ]
    with pytest.raises(BinmillError) as failed:
        take(source(world, *urls), NEXT, content)
    assert type(failed.value) is kind
    assert "\n" not in failed.value.message
    assert failed.value.hint
    for each in (DEAD, world.url("one"), world.url("two")):
        assert each in failed.value.message
    assert PASSWORD not in str(failed.value)
    assert left(world) == []


def test_what_the_block_refuses_is_the_mirror_s_fault(world: World) -> None:
    for each in ("one", "two"):
        world.publish(each, world.signed())

    def accept(tarball: Tarball) -> str:
        if tarball.url.startswith(world.url("one")):
            raise NotTrusted("mine", "my hint")
        return tarball.url

    assert take(source(world, "one", "two"), NEXT, accept) == world.server.url(world.path("two"))
    assert world.said() == f"  passed over: {world.url('one')}: mine\n"
    with pytest.raises(NotTrusted) as refused:
        take(source(world, "one"), NEXT, accept)
    assert (refused.value.message, refused.value.hint) == (f"{world.url('one')}: mine", "my hint")
    assert left(world) == []


def test_any_other_error_in_the_block_ends_it(world: World) -> None:
    for each in ("one", "two"):
        world.publish(each, world.signed())
    tried: list[str] = []

    def accept(tarball: Tarball) -> None:
        tried.append(tarball.url)
        raise Busy("somebody works there", "wait")

    with pytest.raises(Busy):
        take(source(world, "one", "two"), NEXT, accept)
    assert len(tried) == 1
    assert left(world) == []


MD5 = pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"0" * 32, b"\xff\xfe", b"D41D8CD98F00B204E9800998ECF8427E  x\n"],
    ids=["empty", "html", "zeros", "odd", "of nothing"],
)


@MD5
def test_9_a_mirror_whose_md5sum_does_not_fit_is_asked_last(world: World, text: bytes) -> None:
    right = world.signed()
    world.publish("one", right._replace(md5sum=text))
    world.publish("two", right)
    where = take(source(world, "one", "two"), NEXT, lambda tarball: tarball.url)
    assert where == world.server.url(world.path("two"))
    assert take(source(world, "one"), NEXT, content) == right.archive
    assert left(world) == []


def test_9_several_of_them(world: World) -> None:
    """In their order, once each of the others was asked, and each only once more."""
    right = world.signed()
    for each in ("one", "two"):
        world.publish(each, wrong_md5(right))
    where = take(source(world, "one", "two", "three"), NEXT, lambda tarball: tarball.url)
    assert where == world.server.url(world.path("one"))
    assert world.archives() == [f"{each}/{tag(NEXT)}" for each in ("one", "two", "one")]


@pytest.mark.parametrize("what", ["md5sum fits", "no md5sum", "md5sum cannot be had"])
def test_9_nothing_is_wrong(world: World, what: str) -> None:
    right = world.signed()
    md5 = hashlib.md5(right.archive, usedforsecurity=False).hexdigest().encode()
    world.publish("one", right._replace(md5sum=md5 + b"  x\n") if "fits" in what else right)
    if "cannot" in what:
        world.answer(status(503), "one", NEXT, ".md5sum")
    assert take(source(world, "one", "two"), NEXT, content) == right.archive
    assert world.said() == ""
    assert world.archives() == [f"one/{tag(NEXT)}"]


def half(world: World, mirror: str, body: bytes) -> None:
    """The archive breaks off in the middle, and then the mirror has gone away."""
    world.answer(in_turn(world.plain(body, pieces=len(body) // 2), status(503)), mirror)


def test_half_an_archive_stays_for_a_later_run(world: World) -> None:
    right = world.publish("one", world.signed())
    half(world, "one", right.archive)
    with pytest.raises(DownloadFailed):
        take(source(world, "one"), NEXT, content)
    assert left(world) == [f".{ARCHIVE}.partial", ARCHIVE]
    world.publish("one", right)
    world.server.ranges.clear()
    assert take(source(world, "one"), NEXT, content) == right.archive
    assert world.server.ranges[1][0] == f"bytes={len(right.archive) // 2}-"
    assert left(world) == []


def test_half_of_a_lie_discredits_nobody(world: World) -> None:
    """The right rest behind a liar's half is refused; then the honest mirror is asked for all."""
    right = world.publish("two", world.signed())
    world.publish("one", right)
    half(world, "one", flipped(right.archive, 9))
    assert take(source(world, "one", "two"), NEXT, content) == right.archive
    assert world.said() == ""
    middle = f"bytes={len(right.archive) // 2}-"
    asked = [wanted for wanted, _ in world.server.ranges if wanted]
    assert asked == [middle, middle, middle]  # twice the liar, once the other one
    assert left(world) == []


def test_half_of_the_truth_is_continued_elsewhere(world: World) -> None:
    right = world.publish("two", world.signed())
    world.publish("one", right)
    half(world, "one", right.archive)
    assert take(source(world, "one", "two"), NEXT, content) == right.archive
    assert world.archives()[-1] == f"two/{tag(NEXT)}"
    assert [wanted for wanted, _ in world.server.ranges if wanted] != []


def test_an_archive_larger_than_one_can_be(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    right = world.publish("one", world.signed())
    monkeypatch.setattr(mirrors, "_TARBALL_LIMIT", len(right.archive) - 1)
    with pytest.raises(DownloadFailed, match="too large"):
        take(source(world, "one"), NEXT, content)
    assert left(world) == []


def test_when_a_mirror_got_it(world: World) -> None:
    world.publish("two", world.signed())
    asked = source(world, DEAD, "one", "two")
    assert seen(asked, NEXT) == datetime(2026, 1, 17, 0, 45, tzinfo=UTC)
    assert seen(asked, DAY) is None
    assert world.archives() == []
    assert left(world) == []


@pytest.mark.parametrize("header", ["Last-Modified: yesterday", "X: y"])
def test_a_mirror_that_does_not_say_when(world: World, header: str) -> None:
    world.answer(
        lambda handler: handler.head(200, "Content-Length: 0", header), "one", NEXT, ".gpgsig"
    )
    assert seen(source(world, "one"), NEXT) is None


def test_a_key_file_that_is_not_there(world: World, tmp_path: Path) -> None:
    """No mirror is to blame, so no other one is asked."""
    for each in ("one", "two"):
        world.publish(each, world.signed())
    role = Role("snapshots", tmp_path / "gone.asc", ("A" * 40,))
    mirrors_ = (world.url("one"), world.url("two"))
    with pytest.raises(BinmillError, match="key file of snapshots cannot be read") as failed:
        take(Source(mirrors_, "gentoo", role, world.folder / "downloads"), NEXT, content)
    assert not isinstance(failed.value, NotTrusted)
    assert world.archives() == [f"one/{tag(NEXT)}"]
    assert left(world) == []
