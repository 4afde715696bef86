"""Configs of sites, as data."""

from __future__ import annotations

import copy
from typing import Any

FINGERPRINT = "0123456789ABCDEF" * 2 + "01234567"
THREE_CHROOTS: dict[str, Any] = {
    "keys": {"release": {"file": "keys/release.asc", "fingerprints": [FINGERPRINT]}},
    "mirrors": {"gentoo": ["https://mirror.example/gentoo"]},
    "tree": {"key": "release"},
    "overlays": {"ours": {"url": "https://git.example/ours.git"}},
    "seeds": {"amd64": {"flavour": "amd64-openrc", "key": "release"}},
    "chroots": {
        "base": {
            "seed": "amd64",
            "profile": "default/linux/amd64/23.0",
            "packages": ["app-misc/one"],
            "use": ["ssl", "-gtk"],
            "package_use": {"dev-lang/python": ["sqlite"]},
            "env": {"CFLAGS": "-O2 -pipe", "TONE": "base"},
            "features": ["-news"],
        },
        "java": {
            "base": "base",
            "overlays": ["ours"],
            "packages": ["dev-java/two"],
            "use": ["-ssl"],
            "package_use": {"dev-lang/python": ["-sqlite"], "x/y": ["z"]},
            "env": {"TONE": "java"},
        },
        "tomcat": {"base": "java", "use": ["ssl"], "packages": ["www-servers/three"]},
    },
}


def three_chroots_with(*changes: tuple[str, Any]) -> dict[str, Any]:
    """GOOD with values put at dotted places; None removes one."""
    raw = copy.deepcopy(THREE_CHROOTS)
    for place, value in changes:
        *tables, key = place.split(".")
        table = raw
        for name in tables:
            table = table.setdefault(name, {})
        if value is None:
            del table[key]
        else:
            table[key] = value
    return raw


BASE: dict[str, Any] = {"seed": "openrc", "profile": "default/linux/amd64/23.0"}
ONE_CHROOT: dict[str, Any] = {
    "keys": {"k": {"file": "k.asc", "fingerprints": ["A" * 40]}},
    "mirrors": {"gentoo": ["http://mirror.example"]},
    "tree": {"key": "k"},
    "seeds": {"openrc": {"flavour": "openrc", "key": "k"}},
    "chroots": {"base": BASE},
}
FOUR_CHROOTS: dict[str, Any] = {
    "keys": {
        "k": {"file": "k.asc", "fingerprints": ["A" * 40]},
        "l": {"file": "l.asc", "fingerprints": ["A" * 40]},
    },
    "mirrors": {"gentoo": ["http://mirror.example"]},
    "tree": {"key": "k"},
    "overlays": {
        "ours": {"url": "https://me:one@git.example/ours.git"},
        "more": {"url": "https://git.example/more.git"},
    },
    "seeds": {
        "s": {"flavour": "openrc", "key": "k"},
        "t": {"flavour": "musl", "key": "k"},
        "own": {"file": "own.tar.xz", "sha512": "e" * 128},
    },
    "access": {"groups": ["role:java"]},
    "serve": {"certificate": "cert.pem", "certificate_key": "key.pem"},
    # two bases, a stack on the first, a stack on that
    "chroots": {
        "base": {"seed": "s", "profile": "default/linux", "packages": ["a/base"]},
        "other": {"seed": "t", "profile": "default/linux"},
        "java": {"base": "base", "overlays": ["ours"]},
        "tomcat": {"base": "java"},
    },
}
