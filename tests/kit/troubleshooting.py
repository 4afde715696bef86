"""docs/troubleshooting.md, generated from the catalogue of sentences."""

from __future__ import annotations

import re
import string

import tomli

from tests.kit.project import PROJECT

PAGE = PROJECT / "docs/troubleshooting.md"
START, END = "<!-- errors: written by tests/unit/test_troubleshooting.py -->", "<!-- /errors -->"
TITLES = {
    "engine": "Runs, records and commands",
    "flow": "Tasks",
    "config": "config.toml and config.lock",
    "system": "Programs, files, downloads, signatures, git",
    "snapshot": "Snapshots, the tree, overlays",
    "seed": "Stage tarballs",
    "chroot": "Chroots",
    "portage": "Portage and its formats",
    "builder": "Builds",
    "publish": "Candidates, the gate, generations, clients",
    "serve": "Serving, users, the mirror",
    "upkeep": "fsck and gc",
    "lab": "The lab and the demo",
}
NOT_ERRORS = ("causes",)


def errors() -> str:
    """A section for each file of the catalogue, an entry for each error with advice."""
    parts = []
    for path in sorted((PROJECT / "tasks/messages").glob("*.toml")):
        tables = tomli.loads(path.read_text(encoding="utf-8"))
        entries = [_entry(code, each) for code, each in tables.items() if "next" in each]
        if entries and path.stem not in NOT_ERRORS:
            parts.append(f"## {TITLES.get(path.stem, path.stem)}\n\n" + "\n".join(entries))
    return "\n".join(parts)


def _entry(code: str, table: dict[str, str]) -> str:
    lines = [
        f"### {code}",
        "",
        f"> {_with_placeholders(table['text'])}",
        "",
        f"{_sentence(table['next'])}",
    ]
    if about := table.get("about"):
        lines += ["", about.strip()]
    return "\n".join([*lines, ""])


def _with_placeholders(text: str) -> str:
    """A sentence with its blanks as words in capitals."""
    parts = []
    for literal, name, spec, _ in string.Formatter().parse(text):
        parts.append(re.sub(r"([<>*_`|])", r"\\\1", literal.replace("\n", " ")))
        word = (name or "").upper().replace("_", "-")
        if spec and spec.startswith("nonzero "):
            parts.append(f", {word} {spec.removeprefix('nonzero ')}")
        else:
            parts.append(f"\n> {word}" if spec == "lines" else word)
    return "".join(parts)


def _sentence(text: str) -> str:
    """Advice as a sentence; text in backquotes stays unchanged."""
    filled = "".join(
        literal + (name.upper().replace("_", "-") if name else "")
        for literal, name, _, _ in string.Formatter().parse(text)
    )
    filled = filled.replace("\n", " ")
    return f"{filled[:1].upper()}{filled[1:]}."
