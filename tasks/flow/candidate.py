"""candidate: a package set becomes a signed generation that no client sees yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.chroot import sandboxes
from tasks.flow import bundles, signing
from tasks.flow.chroots import sweep
from tasks.records import BINPKGS, ETC, SEED, TREE, BinpkgsRecord, CandidateRecord, Inputs
from tasks.site import Chroot, identity
from tasks.system.notes import note

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.candidate import Content
    from tasks.publish.pins import Pins
    from tasks.publish.published import SignedPackage


def prepare(chroot: Chroot, inputs: Inputs) -> CandidateRecord:
    """Sign the new packages of a set, verify them as a client would, and index them all."""
    from tasks.publish import candidate, generation

    record = inputs[BINPKGS(chroot.name)]
    binhost = chroot.binhost
    digest = _digest(chroot, inputs, record)
    ready = generation.load_current(binhost)
    if ready is None or ready.source.inputs != digest:
        with chroot.workspace("sign") as space:
            content = _content(chroot, inputs, record, digest, space)
            number = candidate.prepare(
                binhost,
                content,
                partial(signing.sign_beside, chroot, inputs, space),
                chroot.layout.trash,
                valid_days=chroot.site.config.binhost.valid_days,
                number=_earlier_number(binhost, digest),
            )
        ready = generation.load(binhost, number)
    folder = chroot.layout.binpkgs(chroot.name)
    sweep(folder, keep={chroot.collected(record)}, trash=chroot.layout.trash)
    views = ready.issue.views
    counts = [f"{count} for {view}" for view, count in sorted(views.items())]
    note("candidate-ready", chroot=chroot.name, number=ready.number, views=counts)
    return CandidateRecord(ready.number, record.set, views)


def _earlier_number(binhost: Path, digest: str) -> int | None:
    """The number of a candidate of the same content, which a killed run may have left."""
    from tasks.publish import generation

    newest = max(generation.numbers(binhost), default=0)
    for number in generation.numbers(binhost, generation.CANDIDATES):
        if number > newest and generation.load(binhost, number).source.inputs == digest:
            return number
    return None


def _digest(chroot: Chroot, inputs: Inputs, record: BinpkgsRecord) -> str:
    """A digest of everything that a generation is a function of, except the time."""
    from tasks.publish.release_manifest import FORMAT

    binhost, access = chroot.site.config.binhost, chroot.site.config.access
    return identity(
        [
            record.set,
            binhost.signing_key,
            binhost.valid_days,
            access.model_dump(),
            _pins(chroot, inputs).plain(),
            list(record.modified),
            FORMAT,
            asdict(bundles.settings(chroot)),
        ]
    )


def _pins(chroot: Chroot, inputs: Inputs) -> Pins:
    """The locked sources of a chroot."""
    from tasks.publish.pins import PinnedSeed, PinnedTree, Pins

    commits = sandboxes.repositories(chroot, inputs)
    tree, seed = inputs[TREE()], inputs[SEED(chroot.seed)]
    main = chroot.site.config.tree.name
    return Pins(
        PinnedTree(main, tree.tag, tree.commit),
        {name: commit for name, commit in commits.items() if name != main},
        PinnedSeed(chroot.seed, seed.path, seed.sha512),
    )


def _content(
    chroot: Chroot, inputs: Inputs, record: BinpkgsRecord, digest: str, space: Path
) -> Content:
    """The content of the next generation, with its packages signed."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.publish.candidate import Content
    from tasks.publish.generation import Source
    from tasks.publish.release_manifest import Release
    from tasks.serve import policy

    key = str(chroot.site.config.binhost.signing_key)
    blocks = index.read(chroot.collected(record) / INDEX)
    header = next(blocks, {})
    stanzas = index.of_set(blocks, record.packages)
    groups, withheld = _views(chroot, stanzas)
    for path in withheld:
        del stanzas[path]
    return Content(
        header=header,
        stanzas=stanzas,
        packages=_signed_packages(chroot, inputs, record, stanzas, space),
        views={policy.path_segment(group): paths for group, paths in groups.items()},
        source=Source(
            set=record.set,
            signer=key,
            revisions=sandboxes.repositories(chroot, inputs),
            inputs=digest,
            withheld=len(withheld),
            modified=record.modified,
        ),
        release=Release(
            name=chroot.name,
            set=record.set,
            lock=_pins(chroot, inputs),
            config=identity([inputs[ETC(chroot.name)].path, chroot.own.packages]),
        ),
        bundles=bundles.pack(chroot, inputs, map(policy.path_segment, groups)),
    )


def _signed_packages(
    chroot: Chroot,
    inputs: Inputs,
    record: BinpkgsRecord,
    stanzas: Mapping[str, Stanza],
    space: Path,
) -> dict[str, SignedPackage]:
    """The signed packages of a set that have a stanza: reused, or signed now; by path."""
    from tasks.publish import published
    from tasks.publish.published import SignedPackage

    packages = [package for package in record.packages if package.path in stanzas]
    key = str(chroot.site.config.binhost.signing_key)
    by_path = published.reusable(chroot.binhost, packages, key)
    new = [package for package in packages if package.path not in by_path]
    paths = [package.path for package in new]
    folder = signing.sign_packages(chroot, inputs, chroot.collected(record), paths, space)
    by_path |= {each.path: SignedPackage.read(folder / each.path, each.sha512) for each in new}
    return by_path | _describe(chroot, inputs, by_path, stanzas)


def _describe(
    chroot: Chroot,
    inputs: Inputs,
    packages: Mapping[str, SignedPackage],
    stanzas: Mapping[str, Stanza],
) -> dict[str, SignedPackage]:
    """Attach provenance and SBOM data to the packages that lack them; returns only these."""
    from tasks.builder.package_builds import causes_of
    from tasks.publish import provenance, sbom
    from tasks.store.store import Store

    new = {path: each for path, each in packages.items() if not (each.origin and each.component)}
    if not new:
        return {}
    origins, store = _origins(chroot, inputs), Store(chroot.layout)
    digests = {path: package.sums.sha512 for path, package in new.items()}
    components = sbom.components({path: stanzas[path] for path in new}, digests)
    return {
        path: replace(
            each,
            origin=provenance.with_causes(
                origins[path, each.collected], causes_of(store, each.collected)
            ),
            component=components[path],
        )
        for path, each in new.items()
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

    views = policy.views(stanzas, chroot.site.config.access, chroot.name)
    if views.withheld:
        cpvs = [stanzas[path]["CPV"] for path in views.withheld]
        note("packages-withheld", chroot=chroot.name, packages=cpvs)
    return views.packages, views.withheld


def withheld(chroot: Chroot, record: BinpkgsRecord) -> list[str]:
    """The paths of a set's packages that no group may have."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.serve import policy

    blocks = index.read(chroot.collected(record) / INDEX)
    stanzas = index.of_set(blocks, record.packages)
    return policy.views(stanzas, chroot.site.config.access, chroot.name).withheld
