"""Provenance: the origin of each package of a view, in `provenance.jsonl`, one statement a line.

The format is in-toto Statement v1 (https://in-toto.io/Statement/v1) with the predicate of SLSA
provenance v1 (https://slsa.dev/provenance/v1). A package keeps the origin that it was first
published with, whatever the lock pins later. The signed release manifest has the file's digest.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Source:
    """A source of a build, a resource descriptor of in-toto: a repository's commit, or a stage."""

    name: str
    digest: Mapping[str, str]
    annotations: Mapping[str, str] | None = None

    @property
    def plain(self) -> dict[str, Any]:
        """Its JSON object, without keys that have no value."""
        return {key: value for key, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Origin:
    """The origin of the packages of one build.

    `chroot` built them, `etc` is the id of its /etc/portage, `builder` is SLSA's, as JSON. `causes`
    says why a package was built, if it was built alone.
    """

    chroot: str
    etc: str
    builder: Mapping[str, Any]
    sources: tuple[Source, ...]
    causes: tuple[str, ...] = ()


def origin(*, chroot: str, etc: str, builder: str, version: str, pins: Pins) -> str:
    """The origin of the packages of one build, as text: equal origins have equal texts.

    `pins` are those of the chroot.
    """
    sources = [
        Source(pins.tree.name, {"gitCommit": pins.tree.commit}, {"tag": pins.tree.tag}),
        *(Source(name, {"gitCommit": commit}) for name, commit in sorted(pins.overlays.items())),
        Source(pins.seed.path, {"sha512": pins.seed.sha512}),
    ]
    return json.dumps(
        {
            "chroot": chroot,
            "etc": etc,
            "builder": {"id": builder, "version": {"binmill": version}},
            "sources": [source.plain for source in sources],
        },
        sort_keys=True,
    )


def with_causes(origin: str, causes: Sequence[str]) -> str:
    """The origin of one package that was built for these causes, as text."""
    if not causes:
        return origin
    return json.dumps({**json.loads(origin), "causes": list(causes)}, sort_keys=True)


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
                    "chroot": origin.chroot,
                    "package": stanza["CPV"],
                    "build_id": int(stanza["BUILD_ID"]),
                    "use": stanza.get("USE", ""),
                    "repository": stanza.get("REPO", ""),
                },
                "internalParameters": {
                    "etc_portage": origin.etc,
                    "unsigned": {"sha512": package.collected},
                    **({"causes": list(origin.causes)} if origin.causes else {}),
                },
                "resolvedDependencies": [source.plain for source in origin.sources],
            },
            "runDetails": {"builder": origin.builder, "metadata": _times(stanza)},
        },
    }


def built_from(origin: str, repo: str) -> dict[str, str]:
    """The COMMIT of a repository and the ETC (id of /etc/portage) of an origin; "" if unknown."""
    if not origin:
        return {"COMMIT": "", "ETC": ""}
    facts = _parse(origin)
    commits = [s.digest.get("gitCommit", "") for s in facts.sources if s.name == repo]
    return {"COMMIT": commits[0] if commits else "", "ETC": facts.etc}


@functools.lru_cache(maxsize=64)
def _parse(text: str) -> Origin:
    data = json.loads(text)
    sources = tuple(Source(**each) for each in data.pop("sources"))
    causes = tuple(data.pop("causes", ()))
    return Origin(**data, sources=sources, causes=causes)


def _times(stanza: Stanza) -> dict[str, str]:
    """The time of the build, from Portage's BUILD_TIME: the end of src_install."""
    try:
        finished = datetime.fromtimestamp(int(stanza.get("BUILD_TIME", "")), UTC)
    except (ValueError, OverflowError, OSError):  # written by a chroot, so not trusted
        return {}
    return {"finishedOn": finished.strftime("%Y-%m-%dT%H:%M:%SZ")}
