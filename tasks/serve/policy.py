"""The access policy as one table: which URL leads where, and for whom. Pure.

docs/serving.md draws it. Default deny: what no door leads to does not exist.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from tasks.config.access import Access
from tasks.layout import pointer

PUBLIC = "public"
# What may be asked for, as regular expressions of the path below a door. Of a binhost: the index,
# what is signed beside it, and packages.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9+_.-]*"
_INDEX = r"(?:Packages(?:\.gz)?|release\.json)(?:\.asc)?"
_TOLD = r"provenance\.jsonl|sbom\.cdx\.json|client\.tar"
BINHOST_FILES = (_INDEX, _TOLD, rf"{_NAME}/{_NAME}/{_NAME}\.gpkg\.tar")
# Of a mirror: layout.conf, the flat name, and the name below its hash (GLEP 75).
_LAYOUT = r"distfiles/layout\.conf"
MIRROR_FILES = (_LAYOUT, r"distfiles/(?:[0-9a-f]{2}/)?[^/.\x00-\x1f][^/\x00-\x1f]*")
# These change under their path and are asked for again each time; all others never do.
CHANGING = frozenset({_INDEX, _TOLD, _LAYOUT})
_FORBIDDING = frozenset({"fetch", "bindist"})
# They install nothing that has an owner: users and groups (GLEP 81), and names for choices.
_OWNERLESS = frozenset({"virtual", "acct-user", "acct-group"})


@dataclass(frozen=True)
class Door:
    """One URL prefix (`/PATH/`), the folder below state/ that it shows, and for which group.

    `files` are regular expressions of what may be asked for below the prefix. What never changes
    under its path is looked for in `earlier` too, if it is not in `folder`.
    """

    path: str
    folder: str
    group: str
    files: tuple[str, ...]
    earlier: str = ""


def as_path(group: str) -> str:
    """A group as a part of a path: `site:acme` is `site.acme`. A name has no dot, so it is one."""
    return group.replace(":", ".")


def as_group(path: str) -> str:
    """The group of such a part of a path."""
    return path.replace(".", ":", 1)


def binhost_name(chroot: str, group: str) -> str:
    """The name of the binhost that has a chroot's packages of one group."""
    return chroot if group == PUBLIC else f"{chroot}@{as_path(group)}"


def whole(access: Access, chroot: str) -> str:
    """The group that `/NAME/` is for: that of [access.binhosts], else everybody."""
    return access.binhosts.get(chroot, PUBLIC)


def path_of(access: Access, chroot: str, group: str, channel: str = "") -> str:
    """The URL path at which the members of a group are to look for a chroot's packages."""
    name = f"{chroot}.{channel}" if channel else chroot
    return name if group == whole(access, chroot) else binhost_name(name, group)


def binhost(chroot: str, group: str, path: str = "", channel: str = "") -> Door:
    """The door to a group's view of a channel's generation, and to the packages of the one before.

    It is at `/PATH/`, which is the binhost's name unless something else is said.
    """
    top, view = f"binhost/{chroot}", as_path(group)
    name = f"{chroot}.{channel}" if channel else chroot
    return Door(
        path or binhost_name(name, group),
        f"{top}/{pointer(channel)}/{view}",
        group,
        BINHOST_FILES,
        earlier=f"{top}/{pointer(channel, previous=True)}/{view}",
    )


def doors(access: Access, chroots: Sequence[str], channels: Sequence[str] = ()) -> list[Door]:
    """Every door of a site: its binhosts, those of their groups and channels, and the mirrors."""
    found = []
    for chroot, channel in itertools.product(chroots, ("", *channels)):
        for_all = whole(access, chroot)
        path = path_of(access, chroot, for_all, channel)
        found.append(binhost(chroot, for_all, path, channel))
        for group in access.groups:
            found.append(binhost(chroot, group, channel=channel))
    found += [mirror(group) for group in (PUBLIC, *access.groups)]
    return found


def mirror(group: str) -> Door:
    """The door to a group's distfiles."""
    place = f"mirror/{as_path(group)}"
    return Door(place, place, group, MIRROR_FILES)


def group_of(metadata: Mapping[str, str], access: Access) -> str | None:
    """The group that a package belongs to; None: nobody's, it is not published.

    `metadata` has CATEGORY, PN, RESTRICT and LICENSE as a package carries them, evaluated for
    its USE flags. What is not known to be free is restricted.
    """
    category = metadata.get("CATEGORY", "")
    named = access.packages.get(f"{category}/{metadata.get('PN', '')}")
    if named is not None:
        return named
    if _FORBIDDING & set(metadata.get("RESTRICT", "").split()):
        return access.restricted
    licence = metadata.get("LICENSE", "").split()
    free = _is_free(licence, set(access.free)) if licence else category in _OWNERLESS
    return PUBLIC if free else access.restricted


def views(
    packages: Mapping[str, Mapping[str, str]], access: Access, chroot: str
) -> tuple[dict[str, list[str]], list[str]]:
    """What the members of each group may have of a chroot's set, and what nobody may have.

    `packages` is metadata by name. A group has what is public and what is its own. The group of a
    whole binhost is the only one to have anything of it; without an [access] table everybody has
    everything.
    """
    if access == Access():
        return {PUBLIC: sorted(packages)}, []
    owners = {name: group_of(metadata, access) for name, metadata in sorted(packages.items())}
    alone = access.binhosts.get(chroot)
    groups = [alone] if alone else [PUBLIC, *access.groups]
    found = {
        group: [name for name, owner in owners.items() if owner in (PUBLIC, group)]
        for group in groups
    }
    given = {name for names in found.values() for name in names}
    return found, [name for name in owners if name not in given]


def metadata(stanza: Mapping[str, str]) -> dict[str, str]:
    """What `group_of` reads, of a package's stanza in an index: its path says category and name."""
    category, name, *_ = *stanza.get("PATH", "").split("/"), "", ""
    told = {key: stanza[key] for key in ("LICENSE", "RESTRICT") if key in stanza}
    return {**told, "CATEGORY": category, "PN": name}


def misplaced(stanzas: Iterable[Mapping[str, str]], group: str, access: Access) -> list[str]:
    """The packages (CPV) of an index that is given to `group` which that group may not have."""
    found = []
    for stanza in stanzas:
        owner = group_of(metadata(stanza), access)
        if owner not in (PUBLIC, group):
            found.append(stanza.get("CPV", "?"))
    return sorted(found)


def _is_free(words: list[str], free: Collection[str]) -> bool:
    """Whether LICENSE (PMS 8.2: names, groups in brackets, `||`) can be met with `free` alone.

    What cannot be read, a USE condition too, since there should be none left, is not free.
    """
    levels: list[tuple[bool, list[bool]]] = [(False, [])]  # whether one is enough, what is met
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
            one, met = levels.pop()
            # an empty choice is met (PMS), but here it tells nothing: not known to be free
            levels[-1][1].append(bool(met) and (any(met) if one else all(met)))
        else:
            levels[-1][1].append(word in free)
    return len(levels) == 1 and not either and all(levels[0][1])
