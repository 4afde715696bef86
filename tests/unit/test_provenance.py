"""Provenance statements, as the specifications of in-toto and SLSA have them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.portage.index import Sums
from tasks.publish import provenance
from tasks.publish.pins import PinnedSeed, PinnedTree, Pins
from tasks.publish.published import SignedPackage

PINS = Pins(
    PinnedTree("gentoo", "20260301", "c" * 40),
    {"science": "b" * 40, "java": "a" * 40},
    PinnedSeed("lab", "20260301T1/stage3.tar.xz", "d" * 128),
)
ORIGIN: dict[str, Any] = {
    "chroot": "base",
    "etc": "f" * 32,
    "builder": "https://factory.example",
    "version": "0.1",
}
PATH = "app-misc/hello/hello-2.10-r1-3.gpkg.tar"
STANZA = {
    "CPV": "app-misc/hello-2.10-r1",
    "BUILD_ID": "3",
    "PATH": PATH,
    "USE": "nls amd64",
    "REPO": "gentoo",
    "BUILD_TIME": "1795622179",
}


def package(origin: str) -> SignedPackage:
    sums = Sums(size=1, md5="m" * 32, sha1="s" * 40, sha512="5" * 128, mtime=1)
    return SignedPackage(Path("/nonexistent"), sums, "7" * 128, origin)


def origin(**more: Any) -> str:
    return provenance.origin(**{**ORIGIN, "pins": PINS, **more})


def test_statement_has_subject_parameters_and_builder() -> None:
    statement = provenance.statement(STANZA, package(origin()))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    assert statement["subject"] == [{"name": PATH, "digest": {"sha512": "5" * 128}}]
    assert set(statement) == {"_type", "subject", "predicateType", "predicate"}
    definition = statement["predicate"]["buildDefinition"]
    assert set(definition) == {
        "buildType",
        "externalParameters",
        "internalParameters",
        "resolvedDependencies",
    }
    assert definition["externalParameters"] == {
        "chroot": "base",
        "package": "app-misc/hello-2.10-r1",
        "build_id": 3,
        "use": "nls amd64",
        "repository": "gentoo",
    }
    assert definition["internalParameters"] == {
        "etc_portage": "f" * 32,
        "unsigned": {"sha512": "7" * 128},
    }
    assert statement["predicate"]["runDetails"] == {
        "builder": {"id": "https://factory.example", "version": {"binmill": "0.1"}},
        "metadata": {"finishedOn": "2026-11-25T15:56:19Z"},
    }


def test_statement_lists_the_sources() -> None:
    statement = provenance.statement(STANZA, package(origin()))
    sources = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert [(each["name"], each["digest"]) for each in sources] == [
        ("gentoo", {"gitCommit": "c" * 40}),
        ("java", {"gitCommit": "a" * 40}),
        ("science", {"gitCommit": "b" * 40}),
        ("20260301T1/stage3.tar.xz", {"sha512": "d" * 128}),
    ]
    assert sources[0]["annotations"] == {"tag": "20260301"}


def test_statement_has_the_causes_of_a_build() -> None:
    with_causes = provenance.with_causes(origin(), ["USE +ssl", "its ebuild changed"])
    statement = provenance.statement(STANZA, package(with_causes))
    parameters = statement["predicate"]["buildDefinition"]["internalParameters"]
    assert parameters["causes"] == ["USE +ssl", "its ebuild changed"]
    assert provenance.with_causes(origin(), []) == origin()


def test_equal_origins_have_equal_texts() -> None:
    reordered = replace(PINS, overlays=dict(reversed(list(PINS.overlays.items()))))
    assert origin(pins=reordered) == origin()
    assert origin(etc="e" * 32) != origin()


@pytest.mark.parametrize("time", ["", "soon", "9" * 30, "-9" + "9" * 20, "1e3"])
def test_invalid_build_time_is_left_out(time: str) -> None:
    statement = provenance.statement({**STANZA, "BUILD_TIME": time}, package(origin()))
    assert statement["predicate"]["runDetails"]["metadata"] == {}


def test_file_has_one_line_for_each_package(tmp_path: Path) -> None:
    stanzas = {
        f"a-b/c/c-{n}-1.gpkg.tar": {
            **STANZA,
            "PATH": f"a-b/c/c-{n}-1.gpkg.tar",
            "USE": "\u2028 x\x1f",
        }
        for n in range(3)
    }
    files = {path: replace(package(origin()), collected="8" * 128) for path in stanzas}
    provenance.write(tmp_path, list(stanzas)[1:], stanzas, files)
    raw = (tmp_path / "provenance.jsonl").read_bytes()
    lines = raw.decode("ascii").splitlines()
    assert [json.loads(line)["subject"][0]["name"] for line in lines] == list(stanzas)[1:]
    provenance.write(tmp_path, list(stanzas)[1:], stanzas, files)
    assert (tmp_path / "provenance.jsonl").read_bytes() == raw
    assert not re.search(rb"[\x00-\x09\x0b-\x1f]", raw)
