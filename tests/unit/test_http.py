"""What a download decides without a network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import requests

from tasks.errors import DownloadFailed
from tasks.system.http import Missing, download


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
    ],
)
def test_no_redirect_leaves_https(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hops: dict[str, str]
) -> None:
    asked = _redirecting(monkeypatch, hops)
    with pytest.raises(DownloadFailed, match="redirects from https to http"):
        download(["https://a.test/x"], tmp_path / "x", limit=9)
    assert all(url.startswith("https:") for url in asked)


def test_a_redirect_to_https_is_followed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _redirecting(monkeypatch, {"http://a.test/x": "HTTPS://b.test/x"})
    with pytest.raises(Missing):
        download(["http://a.test/x"], tmp_path / "x", limit=9)
    assert len(asked) == 2
