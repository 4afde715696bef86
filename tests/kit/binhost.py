"""A binhost on which sets of small files are published as packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.domain import Package
from tasks.portage.index import of_set, parse
from tasks.publish import candidate, generation, provenance, published, retention, sbom
from tasks.publish.candidate import Content
from tasks.publish.generation import Source
from tasks.publish.pins import PinnedSeed, PinnedTree, Pins
from tasks.publish.published import SignedPackage
from tasks.publish.release_manifest import Release
from tasks.records import BinpkgsRecord
from tasks.system.files import sha512

SIGNER = "A" * 40
BuiltSet = tuple[BinpkgsRecord, Path]  # a set, and the folder with its signed files
SIGNED = ("Packages", "Packages.gz", "release.json")
METADATA = ("provenance.jsonl", "sbom.cdx.json")
EXTRA_FILES = {*SIGNED, *METADATA, *(f"{name}.asc" for name in SIGNED)}
PINS = Pins(
    PinnedTree("gentoo", "20260301", "c" * 40),
    {"java": "b" * 40},
    PinnedSeed("lab", "x/stage3.tar.xz", "d" * 128),
)
ORIGIN = provenance.origin(
    chroot="base", etc="f" * 32, builder="https://factory.example", version="1", pins=PINS
)
RELEASE = Release("base", "of the tests", PINS, "e" * 64)


def sign(files: Sequence[Path]) -> None:
    """Write a mark beside each file; real signatures are in test_sign.py."""
    for file in files:
        file.with_name(f"{file.name}.asc").write_bytes(b"signed: " + file.read_bytes())


class SampleBinhost:
    """A binhost, and sets to publish on it."""

    def __init__(self, place: Path) -> None:
        self.binhost, self.trash, self.place = place / "binhost/base", place / "trash", place
        self.count = 0

    def build_set(self, *packages: tuple[str, int, bytes], identity: str = "") -> BuiltSet:
        """A record of binpkgs and the folder with the set's signed files."""
        self.count += 1
        folder = self.place / f"signed-{self.count}"
        listed = []
        for name, build_id, content in packages:
            path = f"a-b/{name}/{name}-1-{build_id}.gpkg.tar"
            (folder / path).parent.mkdir(parents=True)
            (folder / path).write_bytes(content + b" signed %d" % self.count)
            (folder.with_suffix(".raw")).write_bytes(content)
            digest = sha512(folder.with_suffix(".raw"))
            listed.append(Package(f"a-b/{name}-1", build_id, "0", "", "gentoo", path, 1, digest))
        return BinpkgsRecord(identity or f"set{self.count}", tuple(listed)), folder

    def content(
        self,
        built: BuiltSet,
        signer: str = SIGNER,
        views: dict[str, list[str]] | None = None,
    ) -> Content:
        """The content of a generation; `views` are names of packages, else all are in public."""
        record, folder = built
        text = "VERSION: 0\n\n" + "".join(
            f"CPV: {p.cpv}\nBUILD_ID: {p.build_id}\nPATH: {p.path}\nSLOT: 0\n\n"
            for p in record.packages
        )
        header, listed = parse(text)
        stanzas = of_set(listed, record.packages)
        packages = published.reusable(self.binhost, record.packages, signer)
        packages |= {
            each.path: SignedPackage.read(folder / each.path, each.sha512)
            for each in record.packages
            if each.path not in packages
        }
        texts = sbom.components(stanzas, dict.fromkeys(stanzas, "e" * 128))
        names = views or {"public": [path.split("/")[1] for path in stanzas]}
        return Content(
            header=header,
            stanzas=stanzas,
            packages={
                path: each if each.origin else replace(each, origin=ORIGIN, component=texts[path])
                for path, each in packages.items()
            },
            views={
                view: [path for path in stanzas if path.split("/")[1] in chosen]
                for view, chosen in names.items()
            },
            source=Source(set=record.set, signer=signer, revisions={"gentoo": "c" * 40}),
            release=RELEASE,
        )

    def publish(self, built: BuiltSet, signer: str = SIGNER) -> int:
        return self.publish_content(self.content(built, signer))

    def publish_content(self, content: Content, signing: candidate.Signing = sign) -> int:
        """Publish content without the gate; returns the number of the generation."""
        number = candidate.prepare(self.binhost, content, signing, self.trash, valid_days=10)
        candidate.promote_candidate(self.binhost, number)
        generation.switch(self.binhost, number)
        return number

    def prune(self, keep: int, *pinned: int, keep_days: int = 0) -> list[int]:
        return retention.prune(
            self.binhost, pinned, keep=keep, keep_days=keep_days, trash=self.trash
        )

    def client_files(self, view: str = "public") -> dict[str, bytes]:
        """All that a client sees."""
        top = self.binhost / "current" / view
        return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
