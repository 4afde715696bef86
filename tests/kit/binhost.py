"""A binhost on which sets of small files are published as packages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.domain import Package
from tasks.portage.index import of_set, parse
from tasks.publish import generation, provenance, published, sbom
from tasks.publish.generation import Content
from tasks.records import BinpkgsRecord
from tasks.system.files import sha512

SIGNER = "A" * 40
BuiltSet = tuple[BinpkgsRecord, Path]  # a set, and the folder with its signed files
SIGNED = ("Packages", "Packages.gz", "release.json")
METADATA = ("provenance.jsonl", "sbom.cdx.json")
EXTRA_FILES = {*SIGNED, *METADATA, *(f"{name}.asc" for name in SIGNED)}
ORIGIN = provenance.origin(
    chroot="base",
    etc="f" * 32,
    builder="https://factory.example",
    version="1",
    pins={
        "tree": {"name": "gentoo", "tag": "20260301", "commit": "c" * 40},
        "overlays": {"java": "b" * 40},
        "seed": {"name": "lab", "path": "x/stage3.tar.xz", "sha512": "d" * 128},
    },
)


def sign(files: Sequence[Path]) -> None:
    """A mark beside each file; real signatures are in test_sign.py."""
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
        made: BuiltSet,
        signer: str = SIGNER,
        views: dict[str, list[str]] | None = None,
    ) -> Content:
        """As flow.publishing makes it; `views` are names of packages, all in public without."""
        record, folder = made
        packages = record.packages
        text = "VERSION: 0\n\n" + "".join(
            f"CPV: {p.cpv}\nBUILD_ID: {p.build_id}\nPATH: {p.path}\nSLOT: 0\n\n" for p in packages
        )
        header, stanzas = parse(text)
        paths = {p.path: p.sha512 for p in packages}
        held = published.held(self.binhost, packages, signer)
        new = {path: published.file_of(folder / path, paths[path]) for path in paths.keys() - held}
        texts = sbom.components(of_set(stanzas, packages), dict.fromkeys(paths, "e" * 128))
        files = {
            path: file if file.origin else replace(file, origin=ORIGIN, component=texts[path])
            for path, file in (held | new).items()
        }
        seen = views or {"public": [path.split("/")[1] for path in paths]}
        return Content(
            header,
            of_set(stanzas, packages),
            files,
            {view: [p for p in paths if p.split("/")[1] in names] for view, names in seen.items()},
            {"gentoo": "c" * 40},
            {"name": "base", "lock": {"sha256": "d" * 64}},
            {"set": record.set, "signer": signer},
            10,
        )

    def publish(self, made: BuiltSet, signer: str = SIGNER) -> int:
        return self.publish_content(self.content(made, signer))

    def publish_content(self, content: Content) -> int:
        return generation.publish(self.binhost, content, sign, self.trash)

    def prune(self, keep: int, *pinned: int, keep_days: int = 0) -> list[int]:
        return generation.prune(
            self.binhost, pinned, keep=keep, keep_days=keep_days, trash=self.trash
        )

    def client_files(self, view: str = "public") -> dict[str, bytes]:
        """All that a client sees."""
        top = self.binhost / "current" / view
        return {str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()}
