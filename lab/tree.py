"""Ebuild repositories from the templates in lab/sources: versions, Manifests, metadata cache."""

from __future__ import annotations

import gzip
import hashlib
import shutil
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lab import archive, keys
from lab.stage import ENVIRONMENT
from lab.upstream import PROFILE, REPOSITORY, SOURCES, Upstream
from tasks.errors import BinmillError
from tasks.portage import gpkg
from tasks.system import sandbox
from tasks.system.files import digests, write_atomic

LAYOUT = "[structure]\n0=filename-hash BLAKE2B 8\n"  # GLEP 75
_TEMPLATE = ".ebuild.in"


@dataclass(frozen=True)
class Distfile:
    """A package's source archive: its version, its name as distfile, the folder in it, the file."""

    version: str
    name: str
    folder: str
    file: Path

    def line(self) -> str:
        """Write its line of a Manifest (GLEP 74)."""
        return manifest_line("DIST", self.name, self.file)


def gather(lab: Upstream) -> dict[str, Distfile]:
    """Fetch the source archives of all packages that have one; return them by category/name."""
    packages = _settings().packages
    sources = archive.fetch_sources(lab, sorted(packages.values()))
    return {package: _distfile(package, sources[name]) for package, name in packages.items()}


def mirror_distfiles(lab: Upstream, distfiles: dict[str, Distfile]) -> None:
    """Copy the archives to the mirror; restricted ones only to the mirror named `local`.

    Portage looks for `distfiles/` below the URLs of both, and for layout.conf there.
    """
    restricted = _settings().restricted
    for package, distfile in distfiles.items():
        top = lab.local / "distfiles" if package in restricted else lab.distfiles
        bucket = hashlib.blake2b(distfile.name.encode()).hexdigest()[:2]
        target = top / bucket / distfile.name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(target, distfile.file.read_bytes())
    for top in (lab.distfiles, lab.local / "distfiles"):
        write_atomic(top / "layout.conf", LAYOUT)


def render(layers: list[Path], distfiles: dict[str, Distfile], target: Path) -> list[str]:
    """Write a new repository to `target`; return its packages with their versions.

    A package of a later layer replaces that of an earlier one.
    """
    for layer in layers:
        for package in _package_folders(layer):
            old = target / package.relative_to(layer)
            if old.exists():
                shutil.rmtree(old)  # written by this loop
        shutil.copytree(layer, target, dirs_exist_ok=True)
    ebuilds = []
    for template in sorted(target.glob(f"*/*/*{_TEMPLATE}")):
        name = template.parent.relative_to(target).as_posix()
        ebuilds.append(_render_ebuild(template, distfiles.get(name)))
    return [f"{ebuild.parents[1].name}/{ebuild.name.removesuffix('.ebuild')}" for ebuild in ebuilds]


def package_of(cpv: str) -> str:
    """The category and name of a package that `render` has written."""
    return gpkg.parse_cpv(cpv).cp


def add_licenses(target: Path) -> None:
    """Copy licence texts of this machine into a rendered repository."""
    for name, text in _settings().licenses.items():
        write_atomic(target / "licenses" / name, Path(text).read_bytes())


def add_cache(lab: Upstream, target: Path, expected: int) -> None:
    """Write metadata/md5-cache and profiles/use.local.desc with the stage's own egencache(1).

    It needs the Manifests. Raises BinmillError unless there are `expected` entries afterwards:
    egencache succeeds even when ebuilds fail.
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
    entries = len(list(target.glob("metadata/md5-cache/*/*")))
    if entries != expected:
        raise BinmillError("lab-cache-incomplete", entries=entries, expected=expected, log=log)


def add_manifests(target: Path, distfiles: dict[str, Distfile], *, thin: bool) -> None:
    """Write the Manifest of every package; a thin one lists only what has to be fetched."""
    for folder in _package_folders(target):
        lines = [] if thin else _own_lines(folder)
        distfile = distfiles.get(folder.relative_to(target).as_posix())
        if distfile is not None:
            lines.append(distfile.line())
        if lines:
            write_atomic(folder / "Manifest", "".join(f"{line}\n" for line in sorted(lines)))


def sign_tree(lab: Upstream, target: Path, created: datetime) -> None:
    """Write the Manifest of the whole repository (GLEP 74), signed with the snapshot key."""
    package_folders = set(_package_folders(target))  # by their own Manifests, which are listed here
    lines = [
        manifest_line(*_tag(path, target), path)
        for path in sorted(target.rglob("*"))
        if path.is_file() and (path.name == "Manifest" or not package_folders & set(path.parents))
    ]
    listing = target / "Manifest.files.gz"
    with listing.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as stream:
        stream.write("".join(f"{line}\n" for line in lines).encode())
    top = f"{manifest_line('MANIFEST', listing.name, listing)}\n"
    timestamp = f"TIMESTAMP {created.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}\n"
    write_atomic(target / "Manifest", keys.sign_clear(lab, "snapshots", top + timestamp))


def manifest_line(tag: str, name: str, file: Path) -> str:
    """Write a file's line of a Manifest: tag, name, size, BLAKE2B and SHA512 (GLEP 74)."""
    values = digests(file, "blake2b", "sha512")
    size = file.stat().st_size
    return f"{tag} {name} {size} BLAKE2B {values['blake2b']} SHA512 {values['sha512']}"


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
    """Replace NAME[-rN].ebuild.in by NAME-VERSION[-rN].ebuild, and return that file."""
    package = template.parent.name
    text = template.read_text()
    if distfile is None:
        version = "1"
        if "@ARCHIVE@" in text:
            category = template.parent.parent.name
            raise BinmillError("lab-package-without-source", package=f"{category}/{package}")
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
        raise BinmillError("lab-source-empty", file=source.file)
    folder = first.name.removeprefix("./").partition("/")[0]
    return Distfile(source.version, name, folder, source.file)


@dataclass(frozen=True)
class _Settings:
    """sources.toml: source packages by package, packages whose archives no public mirror may
    have, and files with licence texts by licence."""

    packages: Mapping[str, str]
    restricted: Sequence[str]
    licenses: Mapping[str, str]


def _settings() -> _Settings:
    tables = tomllib.loads((SOURCES / "sources.toml").read_text())
    return _Settings(tables["packages"], tables["restricted"]["packages"], tables["licenses"])
