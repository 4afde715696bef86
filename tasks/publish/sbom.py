"""The bill of materials of a view, in CycloneDX 1.6 as JSON: `sbom.cdx.json`.

cyclonedx-python-lib writes it. The component of a package is generated once, when the package is
first published, and stored beside its digests: generating those of a whole view takes the library
longer than all other steps together.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.portage.index import Stanza
from tasks.system.files import write_parts

if TYPE_CHECKING:
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component

NAME = "sbom.cdx.json"
_BATCH = 100  # the library compares all components of a bill with each other
_PROPERTIES = {"SLOT": "slot", "USE": "use", "REPO": "repository"}


def components(stanzas: Mapping[str, Stanza], sha512: Mapping[str, str]) -> dict[str, str]:
    """Generate the component of each package, as JSON, by path; `sha512` is of the signed files."""
    from cyclonedx.model.bom import Bom

    components, paths = dict[str, str](), sorted(stanzas)
    for start in range(0, len(paths), _BATCH):
        batch = paths[start : start + _BATCH]
        bill = Bom(components=[_component(path, stanzas[path], sha512[path]) for path in batch])
        # the library has an order of its own; a component's reference is the path
        by_path = {each["bom-ref"]: each for each in _json(bill)["components"]}
        components |= {path: json.dumps(by_path[path], sort_keys=True) for path in batch}
    return components


def write(folder: Path, texts: Iterable[str], *, name: str, version: str, created: int) -> None:
    """Write the bill of a view from the `components` of its packages, in the order given.

    `name` and `version` are the view's, `created` is in epoch seconds. Equal arguments give equal
    bytes.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType

    own = Component(name=name, version=version, type=ComponentType.OPERATING_SYSTEM, bom_ref=name)
    bill = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:binmill:{name}:{version}:{created}"),
        metadata=BomMetaData(component=own, timestamp=datetime.fromtimestamp(created, UTC)),
    )
    head = json.dumps(_json(bill), sort_keys=True).removesuffix("}")
    write_parts(folder / NAME, _splice(f'{head},\n"components": [', texts, "\n]}\n"))


def _splice(head: str, texts: Iterable[str], tail: str) -> Iterator[bytes]:
    yield head.encode()
    for number, text in enumerate(texts):
        yield f"{',' if number else ''}\n{text}".encode()
    yield tail.encode()


def _component(path: str, stanza: Stanza, sha512: str) -> Component:
    from cyclonedx.model import HashAlgorithm, HashType, Property
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.model.license import DisjunctiveLicense
    from packageurl import PackageURL

    category, name, _ = path.split("/")
    version = stanza["CPV"].removeprefix(f"{category}/{name}-")
    licence = stanza.get("LICENSE", "")
    return Component(
        type=ComponentType.LIBRARY,
        bom_ref=path,
        group=category,
        name=name,
        version=version,
        description=stanza.get("DESC"),
        hashes=[HashType(alg=HashAlgorithm.SHA_512, content=sha512)],
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],  # Gentoo's name, not SPDX's
        purl=PackageURL("ebuild", category, name, version),
        properties=[
            Property(name=f"binmill:{name}", value=stanza[key])
            for key, name in _PROPERTIES.items()
            if stanza.get(key)
        ],
    )


def _json(bill: Bom) -> dict[str, Any]:
    from cyclonedx.output.json import JsonV1Dot6

    data: dict[str, Any] = json.loads(JsonV1Dot6(bill).output_as_string())
    return data
