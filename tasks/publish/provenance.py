"""Provenance: where each package of a view comes from; `provenance.jsonl`, one statement a line.

in-toto Statement v1 (https://in-toto.io/Statement/v1) with the predicate of SLSA provenance v1
(https://slsa.dev/provenance/v1). A package keeps the origin that it was first published with,
whatever the lock pins later. The release manifest has the file's digest, and so signs it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.portage.index import Stanza
from tasks.publish.published import File
from tasks.system.files import write_parts

NAME = "provenance.jsonl"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:binmill:emerge:1"  # docs/publishing.md says what its parameters are


def origin(*, chroot: str, etc: str, builder: str, version: str, pins: Mapping[str, Any]) -> str:
    """Where the packages of a build come from, as text: equal origins have equal texts.

    `chroot` is where they were built, `etc` the id of its /etc/portage, `pins` what the lock pinned
    for it: tree (name, tag, commit), overlays (commit by name), seed (name, path, sha512).
    """
    tree, seed = pins["tree"], pins["seed"]
    sources = [
        {
            "name": tree["name"],
            "digest": {"gitCommit": tree["commit"]},
            "annotations": {"tag": tree["tag"]},
        },
        *(
            {"name": name, "digest": {"gitCommit": commit}}
            for name, commit in sorted(pins["overlays"].items())
        ),
        {"name": seed["path"], "digest": {"sha512": seed["sha512"]}},
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
    folder: Path, paths: Sequence[str], stanzas: Mapping[str, Stanza], files: Mapping[str, File]
) -> None:
    """Write the statements of a view's packages."""
    lines = (json.dumps(statement(stanzas[path], files[path]), sort_keys=True) for path in paths)
    write_parts(folder / NAME, (f"{line}\n".encode() for line in lines))


def statement(stanza: Stanza, file: File) -> dict[str, Any]:
    """The statement of one package: its subject is the signed file, as it is published."""
    known = _parsed(file.origin)
    return {
        "_type": STATEMENT,
        "subject": [{"name": stanza["PATH"], "digest": {"sha512": file.sums["sha512"]}}],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "chroot": known["chroot"],
                    "package": stanza["CPV"],
                    "build_id": int(stanza["BUILD_ID"]),
                    "use": stanza.get("USE", ""),
                    "repository": stanza.get("REPO", ""),
                },
                "internalParameters": {
                    "etc_portage": known["etc"],
                    "unsigned": {"sha512": file.collected},
                },
                "resolvedDependencies": known["sources"],
            },
            "runDetails": {"builder": known["builder"], "metadata": _times(stanza)},
        },
    }


def built_from(origin: str, repo: str) -> dict[str, str]:
    """COMMIT of the repository `repo`, and ETC, of an origin; "" where it is not known."""
    known: dict[str, Any] = _parsed(origin) if origin else {"sources": [], "etc": ""}
    commits = [s["digest"].get("gitCommit", "") for s in known["sources"] if s["name"] == repo]
    return {"COMMIT": commits[0] if commits else "", "ETC": known["etc"]}


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def _times(stanza: Stanza) -> dict[str, str]:
    """When it was built, by Portage's BUILD_TIME: the end of src_install."""
    try:
        ended = datetime.fromtimestamp(int(stanza.get("BUILD_TIME", "")), UTC)
    except (ValueError, OverflowError, OSError):  # a chroot wrote it
        return {}
    return {"finishedOn": ended.strftime("%Y-%m-%dT%H:%M:%SZ")}
