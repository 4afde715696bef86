"""Input keys of packages whose buildroots are given as a mapping."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tasks.planner.keys import OwnInputs, identity_line, unit_keys


def input_key(own: OwnInputs, buildroot: Mapping[str, str]) -> str:
    """The input key of a package; `buildroot` has the identity of each package there, by CPV."""
    return cycle_keys([(own, buildroot)])[own.cpv]


def cycle_keys(members: Sequence[tuple[OwnInputs, Mapping[str, str | None]]]) -> dict[str, str]:
    """The input keys of the packages of a cycle; in a buildroot, the others have no identity."""
    return unit_keys([(own, _lines(root, own)) for own, root in members])


def _lines(buildroot: Mapping[str, str | None], own: OwnInputs) -> list[bytes]:
    return [
        identity_line(cpv, buildroot[cpv], version=own.asks_versions) for cpv in sorted(buildroot)
    ]
