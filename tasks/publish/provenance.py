"""Provenance: the origin of each package of a view, in `provenance.jsonl`, one statement a line.

The format is in-toto Statement v1 (https://in-toto.io/Statement/v1) with the predicate of SLSA
provenance v1 (https://slsa.dev/provenance/v1). A package keeps the origin that it was first
published with, whatever the lock pins later. The signed release manifest has the file's digest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.portage.index import Stanza
from tasks.publish.pins import Pins
from tasks.publish.published import SignedPackage
from tasks.system.files import write_parts

NAME = "provenance.jsonl"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:binmill:emerge:1"  # docs/publishing.md describes its parameters


def origin(*, chroot: str, etc: str, builder: str, version: str, pins: Pins) -> str:
    """The origin of the packages of one build, as text: equal origins have equal texts.

    `chroot` built them, `etc` is the id of its /etc/portage, `pins` are those of that chroot.
    """
    sources = [
        {
            "name": pins.tree.name,
            "digest": {"gitCommit": pins.tree.commit},
            "annotations": {"tag": pins.tree.tag},
        },
        *(
            {"name": name, "digest": {"gitCommit": commit}}
            for name, commit in sorted(pins.overlays.items())
        ),
        {"name": pins.seed.path, "digest": {"sha512": pins.seed.sha512}},
    ]
    return json.dumps(
        {
            "chroot": chroot,
            "etc": etc,
            "builder": {"id": builder, "version": {"binmill": version}},
            "sources": sources,
        },
        sort_keys=True,
    )


def write(
    folder: Path,
    paths: Sequence[str],
    stanzas: Mapping[str, Stanza],
    packages: Mapping[str, SignedPackage],
) -> None:
    """Write one statement for each package of a view, in the order of `paths`."""
    lines = (json.dumps(statement(stanzas[path], packages[path]), sort_keys=True) for path in paths)
    write_parts(folder / NAME, (f"{line}\n".encode() for line in lines))


def statement(stanza: Stanza, package: SignedPackage) -> dict[str, Any]:
    """The statement of one package; its subject is the signed file, as it is published."""
    origin = _parse(package.origin)
    return {
        "_type": STATEMENT,
        "subject": [{"name": stanza["PATH"], "digest": {"sha512": package.sums.sha512}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "chroot": origin["chroot"],
                    "package": stanza["CPV"],
                    "build_id": int(stanza["BUILD_ID"]),
                    "use": stanza.get("USE", ""),
                    "repository": stanza.get("REPO", ""),
                },
                "internalParameters": {
                    "etc_portage": origin["etc"],
                    "unsigned": {"sha512": package.collected},
                },
                "resolvedDependencies": origin["sources"],
            },
            "runDetails": {"builder": origin["builder"], "metadata": _times(stanza)},
        },
    }


def built_from(origin: str, repo: str) -> dict[str, str]:
    """The COMMIT of a repository and the ETC (id of /etc/portage) of an origin; "" if unknown."""
    facts: dict[str, Any] = _parse(origin) if origin else {"sources": [], "etc": ""}
    commits = [s["digest"].get("gitCommit", "") for s in facts["sources"] if s["name"] == repo]
    return {"COMMIT": commits[0] if commits else "", "ETC": facts["etc"]}


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(text)
    return data


def _times(stanza: Stanza) -> dict[str, str]:
    """The time of the build, from Portage's BUILD_TIME: the end of src_install."""
    try:
        finished = datetime.fromtimestamp(int(stanza.get("BUILD_TIME", "")), UTC)
    except (ValueError, OverflowError, OSError):  # written by a chroot, so not trusted
        return {}
    return {"finishedOn": finished.strftime("%Y-%m-%dT%H:%M:%SZ")}
