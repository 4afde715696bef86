"""The configured proxy: when it counts, and for which hosts."""

from __future__ import annotations

import pytest

from tasks.system import proxy
from tasks.system.proxy import Proxy, proxies, use_proxy, variables

CALLER = {"HTTP_PROXY": "http://old.test", "all_proxy": "socks5://old.test", "NO_PROXY": "*"}


@pytest.fixture(autouse=True)
def caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set proxies in the caller's environment, and configure none."""
    monkeypatch.setattr(proxy, "_configured", None)
    for name in (*proxy.VARIABLES, *(name.upper() for name in proxy.VARIABLES)):
        monkeypatch.delenv(name, raising=False)
    for name, value in CALLER.items():
        monkeypatch.setenv(name, value)


def of_proxies() -> dict[str, str]:
    return {name: value for name, value in variables().items() if name.lower().endswith("_proxy")}


def test_configured_proxy_replaces_the_caller_s_variables() -> None:
    use_proxy("http://proxy.test:3128", ["a.test", "10.0.0.0/8"])
    assert of_proxies() == {
        "http_proxy": "http://proxy.test:3128",
        "https_proxy": "http://proxy.test:3128",
        "no_proxy": "a.test,10.0.0.0/8",
    }
    assert proxies("http://b.test/") == {
        "http": "http://proxy.test:3128",
        "https": "http://proxy.test:3128",
        "all": "",
    }
    use_proxy("http://other.test")
    assert of_proxies() == {"http_proxy": "http://other.test", "https_proxy": "http://other.test"}


def test_caller_s_variables_count_without_a_configured_proxy() -> None:
    use_proxy(None, ["a.test"])
    assert of_proxies() == CALLER
    assert proxies("http://b.test/") is None


@pytest.mark.parametrize(
    ("bypass", "url", "direct"),
    [
        ("a.test", "http://a.test/x", True),
        ("a.test", "http://A.test:8080/x", True),
        ("a.test", "https://user:sesame@b.a.test/x", True),
        (".a.test", "http://b.a.test/x", True),
        ("A.test", "http://b.a.test/x", True),
        ("a.test", "http://ba.test/x", False),
        ("a.test", "http://a.test.example/x", False),
        ("a.test:80", "http://a.test:80/x", True),
        ("a.test:80", "http://a.test:81/x", False),
        ("10.0.0.0/8", "http://10.1.2.3/x", True),
        ("10.0.0.0/8", "http://11.1.2.3/x", False),
        ("127.0.0.1", "http://127.0.0.1:8080/x", True),
        ("::1", "http://[::1]:8080/x", True),
        ("*", "http://a.test/x", True),
        ("b.test", "http://a.test/x", False),
        ("", "http://a.test/x", False),
    ],
)
def test_bypassed(bypass: str, url: str, direct: bool) -> None:
    assert Proxy("http://proxy.test", (bypass,)).bypassed(url) is direct
