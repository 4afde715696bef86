"""Clients of a real nginx while generations are published, rolled back and pruned."""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest

from tasks.config.access import Access
from tasks.portage.index import parse
from tasks.publish import candidate, generation, published
from tasks.publish.generation import Rollback
from tasks.serve import policy
from tasks.serve.nginx_process import serving
from tests.kit.binhost import SIGNER, SampleBinhost, sign
from tests.kit.files import names

LARGE = 32 << 20  # bytes: more than the sockets on the way take in


@pytest.fixture
def site(tmp_path: Path) -> SampleBinhost:
    return SampleBinhost(tmp_path)


@pytest.fixture
def url(site: SampleBinhost) -> Iterator[str]:
    locations = policy.locations(Access(), ["base"], ["stable"])
    site.place.chmod(0o755)
    with serving(locations, site.place, site.place / "nginx") as server:
        yield server.url


def reissue(site: SampleBinhost, number: int, channel: str = "") -> int:
    """Roll back without real signatures."""
    new = candidate.prepare(
        site.binhost,
        candidate.read_content(generation.folder_of(site.binhost, number)),
        sign,
        site.trash,
        valid_days=30,
        rollback=Rollback(number),
    )
    candidate.promote_candidate(site.binhost, new)
    generation.switch(site.binhost, new, channel)
    return new


def get(url: str) -> bytes:
    with urlopen(url) as answer:  # noqa: S310 - of this test's own server
        return bytes(answer.read())


def test_slow_download_survives_pruning(site: SampleBinhost, url: str) -> None:
    site.publish(site.build_set(("x", 1, b"\x01" * LARGE)))
    place = urlsplit(url)
    with socket.create_connection((str(place.hostname), place.port or 80)) as plug:
        path = "/base/a-b/x/x-1-1.gpkg.tar"
        plug.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = http.client.HTTPResponse(plug)
        answer.begin()
        first_part = answer.read(1000)
        for number in (2, 3):
            site.publish(site.build_set(("x", number, b"%d" % number)))
        assert site.prune(1) == [1]
        assert names(site.binhost / "gen") == ["2", "3"]
        body = first_part + answer.read()
    assert len(body) == LARGE + len(b" signed 1")
    assert hashlib.sha512(body).digest() == hashlib.sha512(b"\x01" * LARGE + b" signed 1").digest()
    with pytest.raises(OSError, match="404"):
        get(f"{url}{path}")


def test_urls_of_the_previous_index_still_answer(site: SampleBinhost, url: str) -> None:
    """After a rollback, and with as few generations kept as possible."""
    site.publish(site.build_set(("x", 1, b"one"), ("y", 1, b"old")))
    site.publish(site.build_set(("x", 1, b"one"), ("y", 2, b"new")))
    before = parse(get(f"{url}/base/Packages").decode())
    assert reissue(site, 1) == 3
    site.prune(1)
    header, stanzas = parse(get(f"{url}/base/Packages").decode())
    assert int(header["TIMESTAMP"]) > int(before[0]["TIMESTAMP"])
    assert [s["PATH"] for s in stanzas] != [s["PATH"] for s in before[1]]
    for stanza in [*before[1], *stanzas]:
        body = get(f"{url}/base/{stanza['PATH']}")
        assert hashlib.sha512(body).hexdigest() == stanza["SHA512"]


def test_rollback_has_the_same_packages_and_says_so(site: SampleBinhost) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    first = site.client_files()
    site.publish(site.build_set(("x", 2, b"two")))
    number = reissue(site, 1)
    second = site.client_files()
    path = "a-b/x/x-1-1.gpkg.tar"
    assert second[path] == first[path]
    assert second["provenance.jsonl"] == first["provenance.jsonl"]
    stanzas = [parse(files["Packages"].decode())[1] for files in (first, second)]
    assert stanzas[0] == stanzas[1]
    once = generation.load(site.binhost, number)
    assert (once.source.set, once.source.signer, once.first) == ("set1", SIGNER, 1)
    assert once.issue.rollback == Rollback(1)
    twice = generation.load(site.binhost, reissue(site, number))
    assert (twice.issue.rollback, twice.first) == (Rollback(number), 1)


def test_channel_has_its_own_url_and_keeps_its_generation(site: SampleBinhost, url: str) -> None:
    with pytest.raises(OSError, match="404"):
        get(f"{url}/base.stable/Packages")
    site.publish(site.build_set(("x", 1, b"one")))
    generation.switch(site.binhost, 1, "stable")
    for number in range(2, 6):
        site.publish(site.build_set(("x", number, b"%d" % number)))
    assert site.prune(1) == [2, 3]
    assert get(f"{url}/base.stable/Packages") == site_text(site, 1)
    assert get(f"{url}/base.stable/a-b/x/x-1-1.gpkg.tar") == b"one signed 1"
    generation.switch(site.binhost, 4, "stable")
    assert get(f"{url}/base.stable/Packages") == site_text(site, 4)
    assert get(f"{url}/base.stable/a-b/x/x-1-1.gpkg.tar") == b"one signed 1"  # of the one before
    assert get(f"{url}/base/Packages") == site_text(site, 5)


def site_text(site: SampleBinhost, number: int) -> bytes:
    return (site.binhost / f"gen/{number}/public/Packages").read_bytes()


def test_candidate_is_not_served(site: SampleBinhost, url: str) -> None:
    site.publish(site.build_set(("x", 1, b"one")))
    before = site.client_files()
    number = candidate.prepare(
        site.binhost,
        site.content(site.build_set(("x", 2, b"two"))),
        sign,
        site.trash,
        valid_days=30,
    )
    assert number == 2
    assert candidate.is_next(site.binhost, 2)
    assert site.client_files() == before
    assert parse(get(f"{url}/base/Packages").decode())[1][0]["BUILD_ID"] == "1"
    for path in (
        "/base/a-b/x/x-1-2.gpkg.tar",
        "/base/candidate/2/public/Packages",
        "/candidate/2/public/Packages",
        "/base/../base/candidate/2/Packages",
    ):
        with pytest.raises(OSError, match=r"40[04]"):
            get(url + path)
    assert published.read_paths(site.binhost).keys() == {"a-b/x/x-1-1.gpkg.tar"}
    # a newer generation came in between: the candidate would be older than what clients have
    assert reissue(site, 1) == 3
    assert not candidate.is_next(site.binhost, 2)
    assert names(site.binhost / "candidate") == []
