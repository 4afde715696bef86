"""Decisions of a download that need no network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks.errors import DownloadFailed
from tasks.system.http import NotOnMirrors, download
from tasks.system.network_errors import explain
from tasks.system.resumable import date_of
from tests.kit.refused import refused


def _redirecting(monkeypatch: pytest.MonkeyPatch, hops: dict[str, str]) -> list[str]:
    urls: list[str] = []

    def send(_: Any, request: requests.PreparedRequest, **__: Any) -> requests.Response:
        answer = requests.Response()
        answer.raw = io.BytesIO()
        answer.url = request.url or ""
        urls.append(answer.url)
        answer.status_code = 302 if answer.url in hops else 404
        if answer.url in hops:
            answer.headers["Location"] = hops[answer.url]
        return answer

    monkeypatch.setattr(requests.Session, "send", send)
    return urls


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
def test_redirect_from_https_to_http_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hops: dict[str, str]
) -> None:
    urls = _redirecting(monkeypatch, hops)
    with refused(DownloadFailed, "download-failed", codes=["mirror-redirect-insecure"]):
        download(["https://a.test/x"], tmp_path / "x", limit=9)
    assert all(url.startswith("https:") for url in urls)


def test_redirect_to_https_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urls = _redirecting(monkeypatch, {"http://a.test/x": "HTTPS://b.test/x"})
    with pytest.raises(NotOnMirrors):
        download(["http://a.test/x"], tmp_path / "x", limit=9)
    assert len(urls) == 2


def test_message_holds_no_password_of_a_url_without_a_path(tmp_path: Path) -> None:
    with pytest.raises(DownloadFailed) as excinfo:
        download(["gopher://user:sesame@a.test"], tmp_path / "x", limit=9)
    assert excinfo.value.message.startswith("no mirror delivered a.test: ")
    assert "sesame" not in str(excinfo.value)


@pytest.mark.parametrize(
    ("header", "date"),
    [
        ("Thu, 15 Jan 2026 00:45:00 GMT", "2026-01-15T00:45:00+00:00"),
        ("Thu, 15 Jan 2026 00:45:00 +0200", "2026-01-14T22:45:00+00:00"),
        ("Thursday, 15-Jan-26 00:45:00 GMT", "2026-01-15T00:45:00+00:00"),
        ("Thu Jan 15 00:45:00 2026", "2026-01-15T00:45:00+00:00"),
    ],
)
def test_date_of_reads_every_form(header: str, date: str) -> None:
    parsed = date_of({"Last-Modified": header}, "Last-Modified")
    assert parsed is not None
    assert parsed.isoformat() == date


@pytest.mark.parametrize(
    "header",
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
def test_date_of_is_none_for_anything_else(header: str) -> None:
    assert date_of({"Last-Modified": header}, "Last-Modified") is None
    assert date_of({}, "Last-Modified") is None


def test_explain_ends_where_causes_go_in_circles() -> None:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    assert explain(one).fields == {"reason": "two"}
    assert explain(ValueError()).fields == {"reason": "ValueError"}
