"""Claims of a finished package about itself, compared with what the plan says of it.

A build can write to its own metadata and index while it runs. What Portage itself changes is not a
difference: it binds `:=` to the slot of what the package was built with, and adds the C library.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tasks.errors import NotTrusted
from tasks.portage import gpkg, index
from tasks.text import one_line

if TYPE_CHECKING:
    from tasks.planner.plan import PlannedPackage
    from tasks.store.built import Built

STANZA_LIMIT = 1 << 20
_WIDTH = 300  # characters of a value that a message shows
_DEPENDENCIES = ("BDEPEND", "DEPEND", "IDEPEND", "PDEPEND", "RDEPEND")
# What Portage appends to RDEPEND (doebuild._inject_libc_dep)
_C_LIBRARY = re.compile(r">=sys-libs/(glibc|musl|bionic)-[0-9][\w.-]*")
_SLOT_OPERATOR = re.compile(r"(?P<slot>[^\[\]/=]*)(/[^\[\]/=]+)?=(?P<use>\[.*)?")
# Keys of a stanza that have the package's own values; the others are compared by their names
_IN_STANZA = (
    *_DEPENDENCIES,
    *("CHOST", "DEFINED_PHASES", "EAPI", "IUSE", "KEYWORDS", "LICENSE"),
    *("PROPERTIES", "PROVIDES", "REQUIRES", "RESTRICT", "SLOT", "USE"),
)


def check(planned: PlannedPackage, build_id: int, values: Mapping[str, str]) -> None:
    """Compare a package's own metadata with the plan; raises NotTrusted for the first difference.

    The values that the plan has are compared: names, repository, slot, USE, EAPI, evaluated
    dependencies, RESTRICT, PROPERTIES, the phases.
    """
    for key, wanted, claimed in _differences(planned, build_id, values):
        raise NotTrusted(
            "package-claims",
            package=planned.cpv,
            key=key,
            planned=one_line(wanted, _WIDTH) or "empty",
            claimed=one_line(claimed, _WIDTH) or "empty",
        )


def _differences(
    planned: PlannedPackage, build_id: int, values: Mapping[str, str]
) -> Iterator[tuple[str, str, str]]:
    """Yield key, planned and claimed value of what differs."""
    name = gpkg.parse_cpv(planned.cpv, str(build_id))
    texts = {
        "CATEGORY": name.category,
        "PF": f"{name.package}-{name.version}",
        "BUILD_ID": str(build_id),
        "repository": planned.repo,
        "EAPI": planned.eapi,
    }
    for key, wanted in texts.items():
        if values.get(key, "") != wanted:
            yield key, wanted, values.get(key, "")
    slot, _, sub_slot = values.get("SLOT", "").partition("/")
    if (slot, sub_slot or slot) != (planned.slot, planned.sub_slot):
        yield "SLOT", f"{planned.slot}/{planned.sub_slot}", values.get("SLOT", "")
    sets = {
        "USE": (planned.use, _flags(values)),
        "RESTRICT": (planned.restrict, _words(values, "RESTRICT")),
        "PROPERTIES": (planned.properties, _words(values, "PROPERTIES")),
        "DEFINED_PHASES": (planned.phases, _words(values, "DEFINED_PHASES")),
    }
    for key, (expected, words) in sets.items():
        if set(expected) != words:
            yield key, " ".join(expected), " ".join(sorted(words))
    dependencies = {str(key): text for key, text in planned.dependencies.items()}
    for key in _DEPENDENCIES:
        text = dependencies.get(key, "")
        if not _same_dependencies(key, text.split(), values.get(key, "").split()):
            yield key, text, values.get(key, "")


def _flags(values: Mapping[str, str]) -> set[str]:
    """The flags that are on, of those that the package has; USE has those of the profile, too."""
    use = set(values.get("USE", "").split())
    effective = values.get("IUSE_EFFECTIVE")
    own = {flag.lstrip("+-") for flag in values.get("IUSE", "").split()}
    return use if effective is None else use & {*effective.split(), *own}


def _words(values: Mapping[str, str], key: str) -> set[str]:
    return set(values.get(key, "").split()) - {"-", "(", ")"}


def _same_dependencies(key: str, planned: list[str], built: list[str]) -> bool:
    more = built[len(planned) :]
    return (
        len(built) >= len(planned)
        and all(map(_same_atom, planned, built))
        and (not more or (key == "RDEPEND" and all(map(_C_LIBRARY.fullmatch, more))))
    )


def _same_atom(planned: str, built: str) -> bool:
    """True for equal words; the slot operator `=` may be bound: c/p:= to c/p:0/3=."""
    if planned == built:
        return True
    head, _, rest = planned.partition(":")
    head_built, _, rest_built = built.partition(":")
    wanted, bound = _SLOT_OPERATOR.fullmatch(rest), _SLOT_OPERATOR.fullmatch(rest_built)
    return bool(
        head == head_built
        and wanted
        and bound
        and wanted["slot"] in ("", bound["slot"])
        and wanted["use"] == bound["use"]
    )


def check_stanza(built: Built, values: Mapping[str, str]) -> None:
    """Compare a stanza of an index with its package and its metadata; raises NotTrusted."""
    stanza, more = index.parse(built.stanza[:STANZA_LIMIT])
    wanted = {
        **{key: values.get(key, "") for key in _IN_STANZA},
        "CPV": built.cpv,
        "BUILD_ID": str(built.build_id),
        "PATH": built.name.path,
        "REPO": built.repo,
        "repository": built.repo,  # Portage reads either name
        "SIZE": str(built.size),
    }
    # Portage leaves out what is its default
    stanza = {"SLOT": "0", "EAPI": "0", "repository": built.repo, **stanza}
    wrong = [key for key, value in wanted.items() if stanza.get(key, "").split() != value.split()]
    if more or wrong or len(built.stanza) > STANZA_LIMIT:
        raise NotTrusted("stanza-differs", package=built.cpv, keys=wrong or ["its size"])
