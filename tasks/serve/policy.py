"""The access policy as one table: each URL prefix, its folder and its group. Pure.

docs/serving.md describes it. Default deny: a path below no location does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.config.access import Access
from tasks.layout import pointer

PUBLIC = "public"
# The paths below a location that exist, as regular expressions. Of a binhost: the index, the files
# about it, and packages.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9+_.-]*"
_INDEX = r"(?:Packages(?:\.gz)?|release\.json)(?:\.asc)?"
_ABOUT = r"provenance\.jsonl|sbom\.cdx\.json|client\.tar"
BINHOST_FILES = (_INDEX, _ABOUT, rf"{_NAME}/{_NAME}/{_NAME}\.gpkg\.tar")
# Of a mirror: layout.conf, the flat name, and the name below its hash (GLEP 75).
_LAYOUT = r"distfiles/layout\.conf"
MIRROR_FILES = (_LAYOUT, r"distfiles/(?:[0-9a-f]{2}/)?[^/.\x00-\x1f][^/\x00-\x1f]*")
# Their content changes, so caches must revalidate them; all other files never change.
CHANGING = frozenset({_INDEX, _ABOUT, _LAYOUT})
_NOT_PUBLIC = frozenset({"fetch", "bindist"})  # values of RESTRICT
# They install nothing that has an owner: only users and groups (GLEP 81), or dependencies.
_OWNERLESS = frozenset({"virtual", "acct-user", "acct-group"})


@dataclass(frozen=True)
class Location:
    """A URL prefix (`/PATH/`), the folder below state/ that it serves, and the group that may read.

    `files` are regular expressions of the paths below the prefix that exist. Files that never
    change are served from `earlier` if they are not in `folder`.
    """

    path: str
    folder: str
    group: str
    files: tuple[str, ...]
    earlier: str = ""


@dataclass(frozen=True)
class Views:
    """The packages of each group's view, and those that are in no view."""

    packages: dict[str, list[str]]
    withheld: list[str]


def path_segment(group: str) -> str:
    """Write a group as one part of a path: `site:acme` as `site.acme`. Its names have no dots."""
    return group.replace(":", ".")


def group_of_segment(segment: str) -> str:
    """Read a group from a part of a path: the inverse of `path_segment`."""
    return segment.replace(".", ":", 1)


def binhost_name(chroot: str, group: str) -> str:
    """The name of a group's binhost of a chroot: `java` if public, else `java@site.acme`."""
    return chroot if group == PUBLIC else f"{chroot}@{path_segment(group)}"


def default_group(access: Access, chroot: str) -> str:
    """The group of `/NAME/`: the one in [access.binhosts], else `public`."""
    return access.binhosts.get(chroot, PUBLIC)


def binhost_path(access: Access, chroot: str, group: str, channel: str = "") -> str:
    """The URL path at which members of a group find a chroot's packages."""
    name = f"{chroot}.{channel}" if channel else chroot
    return name if group == default_group(access, chroot) else binhost_name(name, group)


def binhost_location(chroot: str, group: str, path: str = "", channel: str = "") -> Location:
    """The location of a group's view of a channel's generation.

    `path` is the binhost's name if it is not given.
    """
    top, view = f"binhost/{chroot}", path_segment(group)
    name = f"{chroot}.{channel}" if channel else chroot
    return Location(
        path or binhost_name(name, group),
        f"{top}/{pointer(channel)}/{view}",
        group,
        BINHOST_FILES,
        earlier=f"{top}/{pointer(channel, previous=True)}/{view}",
    )


def locations(
    access: Access, chroots: Sequence[str], channels: Sequence[str] = ()
) -> list[Location]:
    """List all locations of a site: a binhost per chroot, channel and group, and the mirrors."""
    binhosts = []
    for chroot, channel in itertools.product(chroots, ("", *channels)):
        group = default_group(access, chroot)
        path = binhost_path(access, chroot, group, channel)
        binhosts.append(binhost_location(chroot, group, path, channel))
        binhosts += [binhost_location(chroot, group, channel=channel) for group in access.groups]
    return binhosts + [mirror_location(group) for group in (PUBLIC, *access.groups)]


def mirror_location(group: str) -> Location:
    """The location of a group's distfiles."""
    path = f"mirror/{path_segment(group)}"
    return Location(path, path, group, MIRROR_FILES)


def package_group(stanza: Mapping[str, str], access: Access) -> str | None:
    """The group that a package belongs to; None for a package that must not be published.

    `stanza` is the package's in an index: RESTRICT and LICENSE are evaluated for its USE flags,
    and PATH begins with category and name. A package that is not known to be free is restricted.
    """
    category, name, *_ = *stanza.get("PATH", "").split("/"), "", ""
    group = access.packages.get(f"{category}/{name}")
    if group is not None:
        return group
    if _NOT_PUBLIC & set(stanza.get("RESTRICT", "").split()):
        return access.restricted
    licence = stanza.get("LICENSE", "").split()
    free = _is_free(licence, set(access.free)) if licence else category in _OWNERLESS
    return PUBLIC if free else access.restricted


def views(packages: Mapping[str, Mapping[str, str]], access: Access, chroot: str) -> Views:
    """Divide a chroot's packages (stanzas by name) into views.

    A view has the public packages and the group's own. A chroot in [access.binhosts] has one view,
    for that group; without an [access] table everything is public.
    """
    if access == Access():
        return Views({PUBLIC: sorted(packages)}, [])
    owners = {name: package_group(stanza, access) for name, stanza in sorted(packages.items())}
    only = access.binhosts.get(chroot)
    by_group = {
        group: [name for name, owner in owners.items() if owner in (PUBLIC, group)]
        for group in ([only] if only else [PUBLIC, *access.groups])
    }
    visible = {name for names in by_group.values() for name in names}
    return Views(by_group, [name for name in owners if name not in visible])


def forbidden_packages(
    stanzas: Iterable[Mapping[str, str]], group: str, access: Access
) -> list[str]:
    """List the packages (CPV) of an index that `group` may not fetch."""
    return sorted(
        stanza.get("CPV", "?")
        for stanza in stanzas
        if package_group(stanza, access) not in (PUBLIC, group)
    )


def _is_free(words: list[str], free: Collection[str]) -> bool:
    """Tell whether LICENSE (PMS 8.2: names, groups in brackets, `||`) is met by `free` alone.

    Anything that cannot be parsed is not free, USE conditions too: they should be evaluated.
    """
    # open brackets: whether one of the terms is enough, and which terms are met
    levels: list[tuple[bool, list[bool]]] = [(False, [])]
    either = False
    for word in words:
        if either and word != "(":
            return False
        if word == "||":
            either = True
        elif word == "(":
            levels.append((either, []))
            either = False
        elif word == ")":
            if len(levels) == 1:
                return False
            one, terms = levels.pop()
            # PMS says that an empty choice is met; but it does not make a package known to be free
            levels[-1][1].append(bool(terms) and (any(terms) if one else all(terms)))
        else:
            levels[-1][1].append(word in free)
    return len(levels) == 1 and not either and all(levels[0][1])
