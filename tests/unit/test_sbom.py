"""Bills of materials, checked against the schema of CycloneDX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tasks.publish import sbom

STANZA = {
    "CPV": "app-misc/hello-2.10-r1",
    "SLOT": "0/2",
    "USE": "nls amd64",
    "REPO": "gentoo",
    "LICENSE": "|| ( GPL-3 MIT )",
    "DESC": 'says "hello" \u2028 \x07',
}


def path_of(number: int) -> str:
    return f"app-misc/hello/hello-2.10-r1-{number}.gpkg.tar"


def bill(folder: Path, count: int, **more: Any) -> bytes:
    stanzas = {path_of(n): STANZA for n in range(1, count + 1)}
    texts = sbom.components(stanzas, dict.fromkeys(stanzas, "a" * 128))
    fields = {"name": "base/public", "version": "7", "created": 1795622179, **more}
    sbom.write(folder, (texts[path] for path in sorted(stanzas)), **fields)
    return (folder / "sbom.cdx.json").read_bytes()


def test_bill_of_any_size_satisfies_the_schema(tmp_path: Path) -> None:
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    for count in (0, 1, 3, 205):
        text = bill(tmp_path, count).decode()
        assert validator.validate_str(text) is None, count
        assert len(json.loads(text)["components"]) == count
    broken = text.replace('"type": "library"', '"type": "shelf"', 1)
    assert validator.validate_str(broken) is not None


def test_component_has_the_fields_of_its_stanza(tmp_path: Path) -> None:
    bom = json.loads(bill(tmp_path, 2))
    assert bom["components"][1] == {
        "bom-ref": path_of(2),
        "type": "library",
        "group": "app-misc",
        "name": "hello",
        "version": "2.10-r1",
        "description": STANZA["DESC"],
        "purl": "pkg:ebuild/app-misc/hello@2.10-r1",
        "hashes": [{"alg": "SHA-512", "content": "a" * 128}],
        "licenses": [{"license": {"name": "|| ( GPL-3 MIT )"}}],
        "properties": [
            {"name": "binmill:repository", "value": "gentoo"},
            {"name": "binmill:slot", "value": "0/2"},
            {"name": "binmill:use", "value": "nls amd64"},
        ],
    }
    assert bom["metadata"]["component"]["name"] == "base/public"
    assert bom["metadata"]["component"]["version"] == "7"
    assert bom["metadata"]["timestamp"] == "2026-11-25T15:56:19+00:00"


def test_unknown_fields_are_left_out(tmp_path: Path) -> None:
    texts = sbom.components(
        {path_of(1): {"CPV": "app-misc/hello-2.10-r1"}}, {path_of(1): "a" * 128}
    )
    component = json.loads(texts[path_of(1)])
    assert not {"licenses", "description", "properties"} & set(component)
    sbom.write(tmp_path, texts.values(), name="base/public", version="1", created=1)
    text = (tmp_path / "sbom.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    first = bill(tmp_path, 3)
    assert bill(tmp_path, 3) == first
    assert bill(tmp_path, 3, version="8") != first
    other = json.loads(bill(tmp_path, 3, name="base/role.java"))["serialNumber"]
    assert other != json.loads(first)["serialNumber"]
