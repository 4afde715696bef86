"""fetch() and received_at(): the mirror whose archive is accepted, and the files of the others."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.errors import BinmillError, Busy, DownloadFailed, NotTrusted
from tasks.snapshot import download
from tasks.snapshot.download import Source, VerifiedArchive, fetch, received_at
from tasks.system.gpgv import Role
from tasks.system.http import NotOnMirrors
from tests.kit.fake_upstream import (
    NEXT,
    PAGE,
    PASSWORD,
    FakeUpstream,
    Signed,
    flip_bit,
    tag,
    wrong_md5,
)
from tests.kit.files import names
from tests.kit.refused import refused
from tests.kit.scripted_server import Handler, in_turn, status
from tests.kit.snapshots import DAY, snapshot_time

DEAD = "http://127.0.0.1:1"  # tcpmux: nothing listens
ARCHIVE = "gentoo-20260116.tar.xz"


def source(fake_upstream: FakeUpstream, *mirrors: str) -> Source:
    role = Role("snapshots", fake_upstream.keys.ring, (fake_upstream.keys.fingerprint("good"),))
    urls = tuple(each if "//" in each else fake_upstream.url(each) for each in mirrors)
    return Source(urls, "gentoo", role, fake_upstream.folder / "downloads")


def content(tarball: VerifiedArchive) -> bytes:
    tarball.stream.seek(0)
    return tarball.stream.read()


def downloads(fake_upstream: FakeUpstream) -> list[str]:
    folder = fake_upstream.folder / "downloads"
    return names(folder) if folder.exists() else []


def test_fetch_passes_the_verified_archive(fake_upstream: FakeUpstream) -> None:
    right = fake_upstream.publish("one", fake_upstream.signed())

    def accept(tarball: VerifiedArchive) -> str:
        assert content(tarball) == right.archive
        assert tarball.path == fake_upstream.folder / "downloads" / ARCHIVE
        assert tarball.url == fake_upstream.server.url(fake_upstream.path("one"))
        assert tarball.sha512 == tarball.digest() == hashlib.sha512(right.archive).hexdigest()
        assert tarball.signature.signer == fake_upstream.keys.fingerprint("good")
        assert tarball.signature.signed_at == snapshot_time(NEXT) + 900
        assert downloads(fake_upstream) == [ARCHIVE, f"{ARCHIVE}.gpgsig"]
        assert tarball.path.parent.stat().st_mode & 0o777 == 0o700
        return "result"

    assert fetch(source(fake_upstream, "one/"), NEXT, accept) == "result"
    assert downloads(fake_upstream) == []


BAD: dict[str, Callable[[Signed], Signed]] = {
    "flip_bit byte": lambda right: right._replace(archive=flip_bit(right.archive, 99)),
    "html": lambda right: right._replace(archive=PAGE),
    "empty signature": lambda right: right._replace(signature=b""),
    "huge signature": lambda right: right._replace(signature=bytes(1 << 20)),
    "no signature": lambda right: right._replace(signature=None),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=list(BAD))
def test_bad_archive_of_the_first_mirror_is_skipped(
    fake_upstream: FakeUpstream, bad: Callable[[Signed], Signed]
) -> None:
    right = fake_upstream.publish("two", fake_upstream.signed())
    fake_upstream.publish("one", bad(right))
    assert fetch(source(fake_upstream, "one", "two"), NEXT, content) == right.archive
    assert downloads(fake_upstream) == []
    with pytest.raises(BinmillError) as error:
        fetch(source(fake_upstream, "one"), NEXT, content)
    assert error.value.code == "no-mirror-accepted"
    assert "\n" not in error.value.message
    assert fake_upstream.url("one") in error.value.message
    assert downloads(fake_upstream) == []


@pytest.mark.parametrize("answer", [status(404), status(403), status(503)])
def test_mirror_with_a_signature_only_is_skipped(
    fake_upstream: FakeUpstream, answer: Callable[[Handler], None]
) -> None:
    right = fake_upstream.publish("two", fake_upstream.signed())
    fake_upstream.publish("one", right)
    fake_upstream.answer(answer, "one")
    assert fetch(source(fake_upstream, "one", "two"), NEXT, content) == right.archive
    with pytest.raises(DownloadFailed, match=r"gentoo-20260116\.tar\.xz: .* HTTP [45]"):
        fetch(source(fake_upstream, "one"), NEXT, content)
    assert downloads(fake_upstream) == []


@pytest.mark.parametrize("first", [DEAD, "one"])
def test_mirror_without_the_day_is_skipped_silently(
    fake_upstream: FakeUpstream, first: str
) -> None:
    right = fake_upstream.publish("two", fake_upstream.signed())
    assert fetch(source(fake_upstream, first, "two"), NEXT, content) == right.archive
    assert fake_upstream.output() == ""  # it may just be behind
    assert fake_upstream.server.paths[-2:] == [
        fake_upstream.path("two"),
        fake_upstream.path("two", NEXT, ".md5sum"),
    ]


@pytest.mark.parametrize(
    ("answer", "bad", "kind"),
    [
        (status(403), False, DownloadFailed),
        (status(404), False, NotOnMirrors),
        (status(403), True, NotTrusted),
        (status(404), True, NotTrusted),
    ],
)
def test_error_tells_missing_from_refused(
    fake_upstream: FakeUpstream,
    answer: Callable[[Handler], None],
    bad: bool,
    kind: type[BinmillError],
) -> None:
    """NotOnMirrors lets a search for days continue with the next one."""
    right = fake_upstream.signed()
    fake_upstream.answer(answer, "one", NEXT, ".gpgsig")
    if bad:
        fake_upstream.publish("two", right._replace(archive=flip_bit(right.archive, 99)))
    else:
        fake_upstream.answer(status(500), "two", NEXT, ".gpgsig")
    urls = [
        each.replace("//", f"//me:{PASSWORD}@")
        for each in (DEAD, fake_upstream.url("one"), fake_upstream.url("two"))
    ]
    with pytest.raises(BinmillError) as excinfo:
        fetch(source(fake_upstream, *urls), NEXT, content)
    assert type(excinfo.value) is kind
    assert "\n" not in excinfo.value.message
    assert excinfo.value.hint
    for each in (DEAD, fake_upstream.url("one"), fake_upstream.url("two")):
        assert each in excinfo.value.message
    assert PASSWORD not in str(excinfo.value)
    assert downloads(fake_upstream) == []


def test_archive_that_accept_refuses_is_refused(fake_upstream: FakeUpstream) -> None:
    for each in ("one", "two"):
        fake_upstream.publish(each, fake_upstream.signed())

    def accept(tarball: VerifiedArchive) -> str:
        if tarball.url.startswith(fake_upstream.url("one")):
            raise NotTrusted("snapshot-modified", archive="x")
        return tarball.url

    assert fetch(source(fake_upstream, "one", "two"), NEXT, accept) == fake_upstream.server.url(
        fake_upstream.path("two")
    )
    reason = f"{fake_upstream.url('one')}: x was modified while it was read"
    assert fake_upstream.output() == f"  refused: {reason}\n"
    advice = "find out which process writes to it"
    with refused(NotTrusted, "no-mirror-accepted", causes=[reason], advice=advice):
        fetch(source(fake_upstream, "one"), NEXT, accept)
    assert downloads(fake_upstream) == []


def test_other_error_of_accept_ends_the_search(fake_upstream: FakeUpstream) -> None:
    for each in ("one", "two"):
        fake_upstream.publish(each, fake_upstream.signed())
    tried: list[str] = []

    def accept(tarball: VerifiedArchive) -> None:
        tried.append(tarball.url)
        raise Busy("locked-by-another-run", what="x", holder="y")

    with pytest.raises(Busy):
        fetch(source(fake_upstream, "one", "two"), NEXT, accept)
    assert len(tried) == 1
    assert downloads(fake_upstream) == []


MD5 = pytest.mark.parametrize(
    "text",
    [b"", b"<html>", b"0" * 32, b"\xff\xfe", b"D41D8CD98F00B204E9800998ECF8427E  x\n"],
    ids=["empty", "html", "zeros", "odd", "of nothing"],
)


@MD5
def test_mirror_with_a_wrong_md5sum_is_tried_last(fake_upstream: FakeUpstream, text: bytes) -> None:
    right = fake_upstream.signed()
    fake_upstream.publish("one", right._replace(md5sum=text))
    fake_upstream.publish("two", right)
    where = fetch(source(fake_upstream, "one", "two"), NEXT, lambda tarball: tarball.url)
    assert where == fake_upstream.server.url(fake_upstream.path("two"))
    assert fetch(source(fake_upstream, "one"), NEXT, content) == right.archive
    assert downloads(fake_upstream) == []


def test_mirrors_with_wrong_md5sums_are_tried_again_in_order(fake_upstream: FakeUpstream) -> None:
    """Each only once more, after all others."""
    right = fake_upstream.signed()
    for each in ("one", "two"):
        fake_upstream.publish(each, wrong_md5(right))
    where = fetch(source(fake_upstream, "one", "two", "three"), NEXT, lambda tarball: tarball.url)
    assert where == fake_upstream.server.url(fake_upstream.path("one"))
    assert fake_upstream.requested_archives() == [
        f"{each}/{tag(NEXT)}" for each in ("one", "two", "one")
    ]


@pytest.mark.parametrize("what", ["md5sum matches", "no md5sum", "md5sum fails"])
def test_right_or_missing_md5sum_changes_nothing(fake_upstream: FakeUpstream, what: str) -> None:
    right = fake_upstream.signed()
    md5 = hashlib.md5(right.archive, usedforsecurity=False).hexdigest().encode()
    fake_upstream.publish(
        "one", right._replace(md5sum=md5 + b"  x\n") if "matches" in what else right
    )
    if "fails" in what:
        fake_upstream.answer(status(503), "one", NEXT, ".md5sum")
    assert fetch(source(fake_upstream, "one", "two"), NEXT, content) == right.archive
    assert fake_upstream.output() == ""
    assert fake_upstream.requested_archives() == [f"one/{tag(NEXT)}"]


def half(fake_upstream: FakeUpstream, mirror: str, body: bytes) -> None:
    """The archive ends in the middle, and then the mirror is gone."""
    fake_upstream.answer(
        in_turn(fake_upstream.plain(body, pieces=len(body) // 2), status(503)), mirror
    )


def test_partial_archive_is_resumed_by_a_later_run(fake_upstream: FakeUpstream) -> None:
    right = fake_upstream.publish("one", fake_upstream.signed())
    half(fake_upstream, "one", right.archive)
    with pytest.raises(DownloadFailed):
        fetch(source(fake_upstream, "one"), NEXT, content)
    assert downloads(fake_upstream) == [f".{ARCHIVE}.partial", ARCHIVE]
    fake_upstream.publish("one", right)
    fake_upstream.server.ranges.clear()
    assert fetch(source(fake_upstream, "one"), NEXT, content) == right.archive
    assert fake_upstream.server.ranges[1][0] == f"bytes={len(right.archive) // 2}-"
    assert downloads(fake_upstream) == []


def test_partial_bad_archive_does_not_discredit_the_next_mirror(
    fake_upstream: FakeUpstream,
) -> None:
    """The right rest after a bad half is refused; then the good mirror is asked for everything."""
    right = fake_upstream.publish("two", fake_upstream.signed())
    fake_upstream.publish("one", right)
    half(fake_upstream, "one", flip_bit(right.archive, 9))
    assert fetch(source(fake_upstream, "one", "two"), NEXT, content) == right.archive
    assert fake_upstream.output() == ""
    middle = f"bytes={len(right.archive) // 2}-"
    ranges = [wanted for wanted, _ in fake_upstream.server.ranges if wanted]
    assert ranges == [middle, middle, middle]  # the bad mirror twice, the good one once
    assert downloads(fake_upstream) == []


def test_partial_archive_is_resumed_at_another_mirror(fake_upstream: FakeUpstream) -> None:
    right = fake_upstream.publish("two", fake_upstream.signed())
    fake_upstream.publish("one", right)
    half(fake_upstream, "one", right.archive)
    assert fetch(source(fake_upstream, "one", "two"), NEXT, content) == right.archive
    assert fake_upstream.requested_archives()[-1] == f"two/{tag(NEXT)}"
    assert [wanted for wanted, _ in fake_upstream.server.ranges if wanted] != []


def test_too_large_archive_is_refused(
    fake_upstream: FakeUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = fake_upstream.publish("one", fake_upstream.signed())
    monkeypatch.setattr(download, "_ARCHIVE_LIMIT", len(right.archive) - 1)
    with pytest.raises(DownloadFailed, match="too large"):
        fetch(source(fake_upstream, "one"), NEXT, content)
    assert downloads(fake_upstream) == []


def test_received_at_is_the_time_of_the_first_mirror_that_has_the_day(
    fake_upstream: FakeUpstream,
) -> None:
    fake_upstream.publish("two", fake_upstream.signed())
    mirrors = source(fake_upstream, DEAD, "one", "two")
    assert received_at(mirrors, NEXT) == datetime(2026, 1, 17, 0, 45, tzinfo=UTC)
    assert received_at(mirrors, DAY) is None
    assert fake_upstream.requested_archives() == []
    assert downloads(fake_upstream) == []


@pytest.mark.parametrize("header", ["Last-Modified: yesterday", "X: y"])
def test_received_at_is_none_without_a_date(fake_upstream: FakeUpstream, header: str) -> None:
    fake_upstream.answer(
        lambda handler: handler.head(200, "Content-Length: 0", header), "one", NEXT, ".gpgsig"
    )
    assert received_at(source(fake_upstream, "one"), NEXT) is None


def test_missing_key_file_ends_the_search(fake_upstream: FakeUpstream, tmp_path: Path) -> None:
    """No mirror is to blame, so no other one is tried."""
    for each in ("one", "two"):
        fake_upstream.publish(each, fake_upstream.signed())
    role = Role("snapshots", tmp_path / "gone.asc", ("A" * 40,))
    mirrors_ = (fake_upstream.url("one"), fake_upstream.url("two"))
    with pytest.raises(BinmillError, match="key file of snapshots cannot be read") as excinfo:
        fetch(Source(mirrors_, "gentoo", role, fake_upstream.folder / "downloads"), NEXT, content)
    assert not isinstance(excinfo.value, NotTrusted)
    assert fake_upstream.requested_archives() == [f"one/{tag(NEXT)}"]
    assert downloads(fake_upstream) == []
