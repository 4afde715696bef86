"""mirror, distfile: the files that are given to others, and the groups that they are for."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tasks import records
from tasks.errors import BinmillError, NotTrusted
from tasks.flow.serve import Words
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import locked, write_atomic
from tasks.system.terminal import say


def fill(site: Site) -> Record:
    """Let the mirror have what builds have fetched; the record says what it has."""
    from tasks.serve import distfiles

    with locked(site.layout.busy("distfile"), "the mirror"):
        _sync(site)
    groups = ("public", *site.config.access.groups)
    held = {group: sorted(distfiles.held(site.layout.mirror(group))) for group in groups}
    return {"files": {g: len(names) for g, names in held.items()}, "names": identity(held)}


def distfile(site: Site, words: list[str]) -> None:
    """`doit distfile add FILE --group GROUP`, `doit distfile sync`."""
    parser = Words(prog="doit distfile", add_help=False)
    parser.add_argument("verb", choices=("add", "sync"))
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--group")
    asked = parser.parse_args(words)
    if (asked.verb == "add") != bool(asked.files):
        parser.error("add takes files, sync none")
    with locked(site.layout.busy("distfile"), "the mirror"):
        if asked.verb == "add":
            _add(site, asked.files, asked.group)
        else:
            _sync(site)


def _add(site: Site, files: list[Path], group: str | None) -> None:
    from tasks.serve import distfiles

    chosen = group or site.config.access.restricted
    known = ["public", *site.config.access.groups]
    if chosen not in known:
        raise BinmillError(
            f"there is no group {chosen!r}" if chosen else "which group may have it?",
            f"say --group with one of: {', '.join(known)}",
        )
    named = distfiles.wanted(_trees(site))
    for file in files:
        name = distfiles.add(file, named, site.layout.mirror(chosen))
        say(f"  {name}: fits its Manifest, for {chosen}")


def _sync(site: Site) -> None:
    """Let in what chroots have fetched and anybody may have; delete what has long been unnamed."""
    from tasks.serve import distfiles

    layout = site.layout
    named = distfiles.wanted(_trees(site))
    public = layout.mirror("public")
    there = distfiles.held(public)
    new, refused = 0, []
    for name, source in _fetched(site):
        known = {dist: True for dist, free in named.get(name, {}).items() if free}
        if not known or name in there:
            continue
        try:
            distfiles.let_in(source, name, known, public)
            new += 1
        except (NotTrusted, FileNotFoundError):  # half a download, or worse; or just now gone
            refused.append(name)
        except BinmillError as error:
            refused.append(name)
            say(f"  {error.message}")
    write_atomic(public / "layout.conf", distfiles.LAYOUT)
    gone = 0
    for group in ("public", *site.config.access.groups):
        folder = layout.mirror(group)
        gone += len(distfiles.tidy(folder, set(named), time.time(), site.config.mirror.keep_days))
    say(f"  mirror: {new} new, {len(refused)} refused, {gone} deleted")
    for name in refused[:5]:
        say(f"  refused: {name!r} does not fit its Manifest")


def _fetched(site: Site) -> Iterator[tuple[str, Path]]:
    """What lies in every DISTDIR, by name; a chroot wrote it, so nothing is known of it.

    In that of a chroot in groups, links lead to the one of all (PORTAGE_RO_DISTDIRS).
    """
    layout = site.layout
    for entry in _entries(layout.distfiles):
        yield entry.name, entry
    for name in site.config.chroots:
        for entry in _entries(layout.restricted_distfiles(name)):
            if not entry.is_symlink():
                yield entry.name, entry


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []


def _trees(site: Site) -> list[Path]:
    """The locked tree and overlays as files; raises Stale for one that has not been made yet."""
    tasks = ["tree", *(f"overlay:{name}" for name in site.config.overlays)]
    return [site.layout.export(records.read(site.layout, task)["commit"]) for task in tasks]
