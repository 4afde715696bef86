"""The bill of materials of a view, CycloneDX 1.6 as JSON: `sbom.cdx.json`.

cyclonedx-python-lib makes it. A package's component is made once, when the package is first
published, and kept with its digests: the library takes longer than all else for a whole view.
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
_AT_ONCE = 100  # the library looks for references between all components of a bill
_KEPT = {"SLOT": "slot", "USE": "use", "REPO": "repository"}


def components(stanzas: Mapping[str, Stanza], sha512: Mapping[str, str]) -> dict[str, str]:
    """The component of each package, as JSON, by path; `sha512` is of the files as published."""
    from cyclonedx.model.bom import Bom

    found, paths = dict[str, str](), sorted(stanzas)
    for start in range(0, len(paths), _AT_ONCE):
        some = paths[start : start + _AT_ONCE]
        made = Bom(components=[_component(path, stanzas[path], sha512[path]) for path in some])
        # by reference, which is the path; the library sorts them in its own way
        texts = {each["bom-ref"]: each for each in _json(made)["components"]}
        found |= {path: json.dumps(texts[path], sort_keys=True) for path in some}
    return found


def write(folder: Path, texts: Iterable[str], *, name: str, told: str, created: int) -> None:
    """Write the bill of a view: what `components` has made of its packages, in their order.

    `name` is the view's, `told` the version that it is, `created` in epoch seconds. The same
    gives the same bytes.
    """
    from cyclonedx.model.bom import Bom, BomMetaData
    from cyclonedx.model.component import Component, ComponentType

    own = Component(name=name, version=told, type=ComponentType.OPERATING_SYSTEM, bom_ref=name)
    bill = Bom(
        serial_number=uuid.uuid5(uuid.NAMESPACE_URL, f"urn:binmill:{name}:{told}:{created}"),
        metadata=BomMetaData(component=own, timestamp=datetime.fromtimestamp(created, UTC)),
    )
    head = json.dumps(_json(bill), sort_keys=True).removesuffix("}")
    write_parts(folder / NAME, _spliced(f'{head},\n"components": [', texts, "\n]}\n"))


def _spliced(head: str, texts: Iterable[str], tail: str) -> Iterator[bytes]:
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
        licenses=[DisjunctiveLicense(name=licence)] if licence else [],  # not in SPDX's words
        purl=PackageURL("ebuild", category, name, version),
        properties=[
            Property(name=f"binmill:{said}", value=stanza[key])
            for key, said in _KEPT.items()
            if stanza.get(key)
        ],
    )


def _json(bill: Bom) -> dict[str, Any]:
    from cyclonedx.output.json import JsonV1Dot6

    loaded: dict[str, Any] = json.loads(JsonV1Dot6(bill).output_as_string())
    return loaded
