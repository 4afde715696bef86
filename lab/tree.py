"""Make ebuild repositories out of the templates in lab/: versions, Manifests, metadata cache."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lab import archive, keys
from lab.stage import ENVIRONMENT
from lab.upstream import PROFILE, REPOSITORY, SOURCES, Upstream
from tasks.errors import BinmillError
from tasks.system import sandbox
from tasks.system.files import digests, write_atomic

LAYOUT = "[structure]\n0=filename-hash BLAKE2B 8\n"  # GLEP 75
_TEMPLATE = ".ebuild.in"


@dataclass(frozen=True)
class Distfile:
    """A package's source archive: under which name, which file, which folder is in it."""

    version: str
    name: str
    folder: str
    file: Path

    def line(self) -> str:
        """Its line in a Manifest (GLEP 74)."""
        return manifest_line("DIST", self.name, self.file)


def gather(lab: Upstream) -> dict[str, Distfile]:
    """The source archives of all packages that have one, by category/name."""
    wanted: dict[str, str] = _settings()["packages"]
    sources = archive.fetch_sources(lab, sorted(wanted.values()))
    return {package: _distfile(package, sources[name]) for package, name in wanted.items()}


def mirror_distfiles(lab: Upstream, distfiles: dict[str, Distfile]) -> None:
    """Put the archives on the mirror; restricted ones only where the `local` mirror is.

    Portage asks both for `distfiles/` below their address, and for layout.conf there.
    """
    restricted = _settings()["restricted"]["packages"]
    for package, distfile in distfiles.items():
        top = lab.local / "distfiles" if package in restricted else lab.distfiles
        bucket = hashlib.blake2b(distfile.name.encode()).hexdigest()[:2]
        place = top / bucket / distfile.name
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(place, distfile.file.read_bytes())
    for top in (lab.distfiles, lab.local / "distfiles"):
        write_atomic(top / "layout.conf", LAYOUT)


def render(layers: list[Path], distfiles: dict[str, Distfile], target: Path) -> list[str]:
    """Write a repository to `target`, new; a package of a later layer replaces the earlier one.

    The result lists the packages with their versions.
    """
    for layer in layers:
        for package in _package_folders(layer):
            replaced = target / package.relative_to(layer)
            if replaced.exists():
                shutil.rmtree(replaced)  # rendered by us a moment ago
        shutil.copytree(layer, target, dirs_exist_ok=True)
    rendered = []
    for template in sorted(target.glob(f"*/*/*{_TEMPLATE}")):
        name = template.parent.relative_to(target).as_posix()
        rendered.append(_render_ebuild(template, distfiles.get(name)))
    return [
        f"{ebuild.parents[1].name}/{ebuild.name.removesuffix('.ebuild')}" for ebuild in rendered
    ]


def add_licenses(target: Path) -> None:
    """Copy the licence texts that the machine has into a rendered repository."""
    for name, text in _settings()["licenses"].items():
        write_atomic(target / "licenses" / name, Path(text).read_bytes())


def add_cache(lab: Upstream, target: Path, expected: int) -> None:
    """Make metadata/md5-cache and profiles/use.local.desc with the stage's own egencache(1).

    It reads Manifests, so they must be there. Raises BinmillError unless it made as many entries
    as are `expected`: egencache succeeds even when ebuilds fail.
    """
    settings = lab.work / "egencache"
    settings.mkdir(exist_ok=True)
    location = f"/var/db/repos/{REPOSITORY}"
    profile = settings / "make.profile"
    profile.unlink(missing_ok=True)
    profile.symlink_to(f"../..{location}/profiles/{PROFILE}")
    write_atomic(settings / "repos.conf", f"[{REPOSITORY}]\nlocation = {location}\n")
    binds = (
        sandbox.Bind(str(settings), "/etc/portage"),
        sandbox.Bind(str(target), location, writable=True),
    )
    command = ("egencache", "--update", "--update-use-local-desc", "--jobs=2")
    with sandbox.workspace(lab.work, "egencache-sandbox", lab.trash) as space:
        inside = sandbox.Sandbox("lab-tree", (lab.stage_root,), space, binds, ENVIRONMENT)
        log = lab.logs / "egencache.log"
        sandbox.run(inside, (*command, f"--repo={REPOSITORY}"), log=log)
    made = len(list(target.glob("metadata/md5-cache/*/*")))
    if made != expected:
        raise BinmillError(f"egencache read {made} of {expected} ebuilds", f"read {log}")


def add_manifests(target: Path, distfiles: dict[str, Distfile], *, thin: bool) -> None:
    """Write the Manifest of every package; a thin one lists only what has to be fetched."""
    for folder in _package_folders(target):
        lines = [] if thin else _own_lines(folder)
        distfile = distfiles.get(folder.relative_to(target).as_posix())
        if distfile is not None:
            lines.append(distfile.line())
        if lines:
            write_atomic(folder / "Manifest", "".join(f"{line}\n" for line in sorted(lines)))


def sign_tree(lab: Upstream, target: Path, made: datetime) -> None:
    """The Manifest over the whole repository (GLEP 74), its top signed with the snapshot key."""
    covered = set(_package_folders(target))  # by Manifests of their own, which are covered here
    lines = [
        manifest_line(*_tag(path, target), path)
        for path in sorted(target.rglob("*"))
        if path.is_file() and (path.name == "Manifest" or not covered & set(path.parents))
    ]
    listing = target / "Manifest.files.gz"
    with listing.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())
    top = f"{manifest_line('MANIFEST', listing.name, listing)}\n"
    stamp = f"TIMESTAMP {made.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    write_atomic(target / "Manifest", keys.sign_clear(lab, "snapshots", top + stamp))


def manifest_line(tag: str, name: str, file: Path) -> str:
    """One file's line in a Manifest: tag, name, size, BLAKE2B and SHA512 (GLEP 74)."""
    found = digests(file, "blake2b", "sha512")
    size = file.stat().st_size
    return f"{tag} {name} {size} BLAKE2B {found['blake2b']} SHA512 {found['sha512']}"


def _tag(path: Path, target: Path) -> tuple[str, str]:
    name = path.relative_to(target).as_posix()
    return ("MANIFEST" if path.name == "Manifest" else "DATA", name)


def _own_lines(folder: Path) -> list[str]:
    ebuilds = [manifest_line("EBUILD", path.name, path) for path in folder.glob("*.ebuild")]
    patches = [
        manifest_line("AUX", path.relative_to(folder / "files").as_posix(), path)
        for path in (folder / "files").rglob("*")
        if path.is_file()
    ]
    return [*ebuilds, *patches, manifest_line("MISC", "metadata.xml", folder / "metadata.xml")]


def _package_folders(top: Path) -> list[Path]:
    return sorted({path.parent for path in top.glob("*/*/metadata.xml")})


def _render_ebuild(template: Path, distfile: Distfile | None) -> Path:
    """NAME[-rN].ebuild.in becomes NAME-VERSION[-rN].ebuild."""
    package = template.parent.name
    text = template.read_text()
    if distfile is None:
        version = "1"
        if "@ARCHIVE@" in text:
            raise BinmillError(
                f"{template.parent.parent.name}/{package} has no source package",
                "name it in lab/sources.toml",
            )
    else:
        version = distfile.version
        text = text.replace("@ARCHIVE@", distfile.name).replace("@FOLDER@", distfile.folder)
    revision = template.name.removesuffix(_TEMPLATE).removeprefix(package)
    ebuild = template.with_name(f"{package}-{version}{revision}.ebuild")
    ebuild.write_text(text)
    template.unlink()
    return ebuild


def _distfile(package: str, source: archive.Source) -> Distfile:
    ending = source.file.name.partition(".orig")[2]
    name = f"{package.partition('/')[2]}-{source.version}{ending}"
    with tarfile.open(source.file) as members:
        first = members.next()
    if first is None:
        raise BinmillError(f"{source.file} is empty")
    folder = first.name.removeprefix("./").partition("/")[0]
    return Distfile(source.version, name, folder, source.file)


def _settings() -> dict[str, Any]:
    return tomllib.loads((SOURCES / "sources.toml").read_text())
