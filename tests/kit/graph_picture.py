"""The picture of the graph in docs/architecture.md, as Mermaid text, from the graph itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tasks import graph
from tasks.config.tables import Config
from tasks.engine.step import Step
from tasks.layout import Layout
from tasks.site import Site

# Everything that a site can have: a base, a stack, an overlay, groups, a mirror.
TABLES: dict[str, Any] = {
    "keys": {"k": {"file": "k.asc", "fingerprints": ["A" * 40]}},
    "mirrors": {"gentoo": ["https://mirror.example"]},
    "tree": {"key": "k"},
    "overlays": {"java": {"url": "https://git.example/java.git"}},
    "seeds": {"openrc": {"flavour": "openrc", "key": "k"}},
    "chroots": {
        "base": {"seed": "openrc", "profile": "default"},
        "stack": {"base": "base", "overlays": ["java"]},
    },
    "access": {"groups": ["site:acme"]},
    "serve": {"certificate": "c.pem", "certificate_key": "k.pem"},
    "mirror": {},
}
Edge = tuple[str, str]


def mermaid() -> str:
    """The graph of one stack: arrows are records that tasks read, without redundant ones."""
    place = Path("/site")
    site = Site(Layout(place, place / "state"), Config.model_validate(TABLES))
    steps = graph.steps(site)
    edges = dict.fromkeys(edge for step in steps for edge in _edges(step, site))
    reduced = [edge for edge in edges if edge in _transitive_reduction(set(edges))]
    later = {
        (_label(each, step, site), _label(step.task, step, site)): (
            "before it, if both run" if step.chroot else "only if nothing is frozen yet"
        )
        for step in steps
        for each in step.after
    }
    names = dict.fromkeys(name for edge in (*later, *reduced) for name in edge)
    nodes = [f'  {_id(name)}["{name}"]' for name in names if ":" in name]
    arrows = [f"  {_id(a)} -. {when} .-> {_id(b)}" for (a, b), when in later.items()]
    arrows += [f"  {_id(a)} --> {_id(b)}" for a, b in reduced]
    return "\n".join(["flowchart LR", *nodes, *arrows, ""])


def _edges(step: Step[Any], site: Site) -> Iterable[Edge]:
    """The inputs of a step."""
    own = _label(step.task, step, site)
    for key in step.reads:
        yield _label(key.task, step, site), own
    if site.layout.lock in step.files:
        yield "lock", own


def _label(task: str, step: Step[Any], site: Site) -> str:
    """The name of a task as a step sees it: its own chroot is NAME, the one below is BASE."""
    below = site.config.chroots[step.chroot].base if step.chroot else None
    kind, colon, name = task.partition(":")
    return f"{kind}{colon}{'BASE' if name and name == below else 'NAME' if name else ''}"


def _transitive_reduction(edges: set[Edge]) -> set[Edge]:
    """The edges without those that a longer path replaces."""

    def reaches(start: str, end: str, without: Edge) -> bool:
        visited, waiting = {start}, [start]
        while waiting:
            here = waiting.pop()
            for a, b in edges - {without}:
                if a == here and b not in visited:
                    if b == end:
                        return True
                    visited.add(b)
                    waiting.append(b)
        return False

    return {edge for edge in edges if not reaches(*edge, edge)}


def _id(name: str) -> str:
    return name.replace(":", "_")
