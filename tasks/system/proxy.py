"""The proxy of config.toml: set once when a run starts, for downloads and git alike.

Where it is not set, the caller's variables count, as curl, git and requests read them.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

VARIABLES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@dataclass(frozen=True)
class Proxy:
    """A proxy for http and https, and the hosts, domains and networks reached without it."""

    url: str
    bypass: tuple[str, ...] = ()

    def environment(self) -> dict[str, str]:
        """Variables that make a program use it."""
        result = {"http_proxy": self.url, "https_proxy": self.url}
        return {**result, "no_proxy": ",".join(self.bypass)} if self.bypass else result

    def bypassed(self, url: str) -> bool:
        """Tell whether a URL is reached without it, by the host, a domain above it, its network."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        names = (host, parts.netloc.rpartition("@")[2].lower())  # the second with a port
        for each in (entry.lstrip(".").lower() for entry in self.bypass):
            if each == "*" or _in_network(host, each):
                return True
            if any(f".{name}".endswith(f".{each}") for name in names):
                return True
        return False


_configured: Proxy | None = None


def use_proxy(url: str | None, bypass: Sequence[str] = ()) -> None:
    """Set the proxy of this process; None leaves that to the caller's variables."""
    global _configured  # noqa: PLW0603 - configuration: set once, at the start
    _configured = None if url is None else Proxy(url, tuple(bypass))


def variables() -> dict[str, str]:
    """The caller's environment with the configured proxy, for a program that uses the network."""
    environment = dict(os.environ)
    if _configured is None:
        return environment
    for name in VARIABLES:
        environment.pop(name, None)
        environment.pop(name.upper(), None)
    return {**environment, **_configured.environment()}


def proxies(url: str) -> dict[str, str] | None:
    """The argument `proxies` of requests for a URL; None: the caller's variables count."""
    if _configured is None:
        return None
    # Empty values, too, keep requests from taking the caller's variables.
    proxy = "" if _configured.bypassed(url) else _configured.url
    return {"http": proxy, "https": proxy, "all": ""}


def _in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network)
    except ValueError:
        return False
