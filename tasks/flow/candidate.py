"""candidate: from a set to a signed generation that no client sees yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.chroot import sandboxes
from tasks.flow import bundles, signing
from tasks.flow.chroots import sweep
from tasks.records import BINPKGS, ETC, SEED, TREE, BinpkgsRecord, CandidateRecord, Inputs
from tasks.site import Chroot, identity
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.generation import Content
    from tasks.publish.published import File


def prepare(chroot: Chroot, inputs: Inputs) -> CandidateRecord:
    """Sign what is new in a set, verify it as a client would, index it; no client sees it yet."""
    from tasks.publish import generation, published

    record = inputs[BINPKGS(chroot.name)]
    binhost = chroot.binhost
    asked = _asked(chroot, inputs, record)
    number = generation.current(binhost)
    if number is None or published.facts(binhost, number).get("asked") != asked:
        with chroot.workspace("sign") as space:
            content = _content(chroot, inputs, record, asked, space)
            sign = partial(signing.sign_beside, chroot, inputs, space)
            number = generation.prepare(
                binhost, content, sign, chroot.layout.trash, number=_made_before(binhost, asked)
            )
    folder = chroot.layout.binpkgs(chroot.name)
    sweep(folder, keep={chroot.collected(record)}, trash=chroot.layout.trash)
    views: dict[str, int] = published.facts(binhost, number)["views"]
    counts = [f"{count} for {view}" for view, count in sorted(views.items())]
    note("candidate-ready", chroot=chroot.name, number=number, views=counts)
    return CandidateRecord(number, record.set, views)


def _made_before(binhost: Path, asked: str) -> int | None:
    """The number of a candidate of the same content, which a killed run may have left."""
    from tasks.publish import published

    newest = max(published.numbers(binhost), default=0)
    numbers = (n for n in published.numbers(binhost, published.CANDIDATES) if n > newest)
    return next((n for n in numbers if published.facts(binhost, n).get("asked") == asked), None)


def _asked(chroot: Chroot, inputs: Inputs, record: BinpkgsRecord) -> str:
    """A digest of all that a generation is a function of, except the time."""
    from tasks.publish.release_manifest import FORMAT

    binhost, access = chroot.site.config.binhost, chroot.site.config.access
    return identity(
        [
            record.set,
            binhost.signing_key,
            binhost.valid_days,
            access.model_dump(),
            {**_pins(chroot, inputs), **_modified(record)},
            FORMAT,
            asdict(bundles.settings(chroot)),
        ]
    )


def _pins(chroot: Chroot, inputs: Inputs) -> dict[str, Any]:
    """The locked commits and the seed that a chroot is made of."""
    commits = sandboxes.repositories(chroot, inputs).commits
    tree, seed = inputs[TREE()], inputs[SEED(chroot.seed)]
    main = chroot.site.config.tree.name
    return {
        "tree": {"name": main, "tag": tree.tag, "commit": tree.commit},
        "overlays": {name: commit for name, commit in commits.items() if name != main},
        "seed": {"name": chroot.seed, **asdict(seed)},
    }


def _content(
    chroot: Chroot, inputs: Inputs, record: BinpkgsRecord, asked: str, space: Path
) -> Content:
    """The content of the next generation, with its packages signed."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.publish import published
    from tasks.publish.generation import Content
    from tasks.serve import policy

    site = chroot.site
    key = str(site.config.binhost.signing_key)
    folder = chroot.collected(record)
    written = index.read(folder / INDEX)
    header = next(written, {})
    of_set = index.of_set(written, record.packages)
    groups, nobodys = _views(chroot, of_set)
    given = {path for paths in groups.values() for path in paths}
    packages = [package for package in record.packages if package.path in given]
    held = published.held(chroot.binhost, packages, key)
    new = [package for package in packages if package.path not in held]
    signed = signing.sign_packages(chroot, inputs, folder, [p.path for p in new], space)
    files = held | {p.path: published.file_of(signed / p.path, p.sha512) for p in new}
    files |= _described(chroot, inputs, files, of_set)
    return Content(
        header=header,
        stanzas={path: of_set[path] for path in given},
        files=files,
        views={policy.path_segment(group): paths for group, paths in groups.items()},
        revisions=sandboxes.repositories(chroot, inputs).commits,
        release={
            "name": chroot.name,
            "set": record.set,
            "lock": _pins(chroot, inputs),
            "config": identity([inputs[ETC(chroot.name)].path, chroot.own.packages]),
        },
        valid_days=site.config.binhost.valid_days,
        bundles=bundles.pack(chroot, inputs, map(policy.path_segment, groups)),
        about={
            "set": record.set,
            "signer": key,
            "withheld": len(nobodys),
            "asked": asked,
            **_modified(record),
        },
    )


def _modified(record: BinpkgsRecord) -> dict[str, Any]:
    """The chroots with manual changes that a set was built in; {} of a clean one."""
    return {"touched": list(record.modified)} if record.modified else {}


def _described(
    chroot: Chroot, inputs: Inputs, files: Mapping[str, File], stanzas: Mapping[str, Stanza]
) -> dict[str, File]:
    """Attach provenance and SBOM data to the files that lack them; returns these files."""
    from tasks.publish import sbom

    new = {path: file for path, file in files.items() if not (file.origin and file.component)}
    if not new:
        return {}
    origins = _origins(chroot, inputs)
    digests = {path: file.sums["sha512"] for path, file in new.items()}
    components = sbom.components({path: stanzas[path] for path in new}, digests)
    return {
        path: replace(file, origin=origins[path, file.collected], component=components[path])
        for path, file in new.items()
    }


def _origins(chroot: Chroot, inputs: Inputs) -> dict[tuple[str, str], str]:
    """The origin of each package of a set, by its path and digest.

    A stack starts with its base's packages: the lowest chroot that has the very same package built
    it.
    """
    from importlib.metadata import version

    from tasks.publish import provenance

    origins: dict[tuple[str, str], str] = {}
    for each in chroot.lineage:
        origin = provenance.origin(
            chroot=each.name,
            etc=Path(inputs[ETC(each.name)].path).name,
            builder=chroot.site.config.binhost.builder,
            version=version("binmill"),
            pins=_pins(each, inputs),
        )
        for package in inputs[BINPKGS(each.name)].packages:
            origins.setdefault((package.path, package.sha512), origin)
    return origins


def _views(chroot: Chroot, stanzas: Mapping[str, Stanza]) -> tuple[dict[str, list[str]], list[str]]:
    """The paths of each group's packages, and those of the packages that no group may have."""
    from tasks.serve import policy

    metadata = {path: policy.metadata(stanza) for path, stanza in stanzas.items()}
    groups, nobodys = policy.views(metadata, chroot.site.config.access, chroot.name)
    if nobodys:
        cpvs = [stanzas[path]["CPV"] for path in nobodys]
        note("packages-withheld", chroot=chroot.name, packages=cpvs)
    return groups, nobodys


def withheld(chroot: Chroot, record: BinpkgsRecord) -> list[str]:
    """The paths of a set's packages that no group may have."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.serve import policy

    written = index.read(chroot.collected(record) / INDEX)
    stanzas = index.of_set(written, record.packages)
    metadata = {path: policy.metadata(stanza) for path, stanza in stanzas.items()}
    return policy.views(metadata, chroot.site.config.access, chroot.name)[1]
