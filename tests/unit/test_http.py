"""What a download decides without a network."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks.errors import DownloadFailed
from tasks.system.http import Missing, download, public, use_proxy
from tasks.system.network_errors import explained
from tasks.system.resumable import date_of
from tasks.system.terminal import Progress


def _redirecting(monkeypatch: pytest.MonkeyPatch, hops: dict[str, str]) -> list[str]:
    asked: list[str] = []

    def send(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
        answer = requests.Response()
        answer.raw = io.BytesIO()
        answer.url = request.url or ""
        asked.append(answer.url)
        answer.status_code = 302 if answer.url in hops else 404
        if answer.url in hops:
            answer.headers["Location"] = hops[answer.url]
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    return asked


@pytest.mark.parametrize(
    "hops",
    [
        {"https://a.test/x": "http://b.test/x"},
        {"https://a.test/x": "https://b.test/x", "https://b.test/x": "http://c.test/x"},
        {"https://a.test/x": "http://b.test/x", "http://b.test/x": "https://c.test/x"},
        {"https://a.test/x": "HTTPS://b.test/x", "https://b.test/x": "HTTP://c.test/x"},
        {"https://a.test/x": "//user@b.test/x", "https://user@b.test/x": "http://c.test/x"},
    ],
)
def test_no_redirect_leaves_https(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hops: dict[str, str]
) -> None:
    """Fault 5: a redirect from https to http."""
    asked = _redirecting(monkeypatch, hops)
    with pytest.raises(DownloadFailed, match="redirects from https to http"):
        download(["https://a.test/x"], tmp_path / "x", limit=9)
    assert all(url.startswith("https:") for url in asked)


def test_a_redirect_to_https_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _redirecting(monkeypatch, {"http://a.test/x": "HTTPS://b.test/x"})
    with pytest.raises(Missing):
        download(["http://a.test/x"], tmp_path / "x", limit=9)
    assert len(asked) == 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://a.test/x", "https://a.test/x"),
        ("https://user:sesame@a.test/x", "https://a.test/x"),
        ("https://user:se@same@a.test", "https://a.test"),
        ("ssh://git@a.test/x@y", "ssh://a.test/x@y"),
        (
            "lost: http://u:p@a.test/x, http://u:p@b.test/y",
            "lost: http://a.test/x, http://b.test/y",
        ),
    ],
)
def test_public(url: str, shown: str) -> None:
    assert public(url) == shown


def test_a_url_that_is_all_password(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as failed:
        download(["gopher://user:sesame@a.test"], tmp_path / "x", limit=9)
    assert failed.value.message.startswith("no mirror gave a.test: ")
    assert "sesame" not in str(failed.value)


@pytest.fixture
def environ(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    before = {"HTTP_PROXY": "http://old.test", "all_proxy": "socks5://old.test", "NO_PROXY": "*"}
    monkeypatch.setattr(os, "environ", dict(before))
    return before


def proxies() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}


@pytest.mark.usefixtures("environ")
def test_a_proxy_replaces_what_the_environment_says() -> None:
    use_proxy("http://proxy.test:3128", ["a.test", "10.0.0.0/8"])
    assert proxies() == {
        "http_proxy": "http://proxy.test:3128",
        "https_proxy": "http://proxy.test:3128",
        "no_proxy": "a.test,10.0.0.0/8",
    }
    use_proxy("http://other.test")
    assert proxies() == {"http_proxy": "http://other.test", "https_proxy": "http://other.test"}


def test_without_a_proxy_the_environment_counts(environ: dict[str, str]) -> None:
    use_proxy(None, ["a.test"])
    assert proxies() == environ


def test_what_is_continued_counts_as_done(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress("file", 10 << 20, done=4 << 20) as progress:
        progress.advance(1 << 20)
        task = progress._bar.tasks[0]
        assert (task.completed, task.total) == (5 << 20, 10 << 20)


@pytest.mark.parametrize(
    ("said", "date"),
    [
        ("Thu, 15 Jan 2026 00:45:00 GMT", "2026-01-15T00:45:00+00:00"),
        ("Thu, 15 Jan 2026 00:45:00 +0200", "2026-01-14T22:45:00+00:00"),
        ("Thursday, 15-Jan-26 00:45:00 GMT", "2026-01-15T00:45:00+00:00"),
        ("Thu Jan 15 00:45:00 2026", "2026-01-15T00:45:00+00:00"),
    ],
)
def test_dates(said: str, date: str) -> None:
    found = date_of({"Last-Modified": said}, "Last-Modified")
    assert found is not None
    assert found.isoformat() == date


@pytest.mark.parametrize(
    "said",
    [
        "",
        " ",
        ",",
        "now",
        "0",
        "Thu, 41 Jan 2026 00:45:00 GMT",
        "Thu, 15 Jan 2026 00:45:61 GMT",
        "Fri, 31 Dec 9999 23:59:59 -2359",
        "Thu, 15 Jan 99999999999999 00:00:00 GMT",
        "1.2.3.4 5",
        "\xb2, \xb2 \xb2 \xb2 \xb2:\xb2:\xb2 \xb2",
    ],
)
def test_no_dates(said: str) -> None:
    assert date_of({"Last-Modified": said}, "Last-Modified") is None
    assert date_of({}, "Last-Modified") is None


def test_the_reason_of_an_error_that_goes_in_circles() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert explained(one) == "two"
    assert explained(ValueError()) == "ValueError"
