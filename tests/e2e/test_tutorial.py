"""docs/tutorial.md on the lab: each command, in order, prints what the page shows.

README shows some of the same runs, which tests/unit/test_docs.py compares with the tutorial.

UPDATE_GOLDEN=1 writes what they print into both.
"""

from __future__ import annotations

import os
import re
from ast import literal_eval

import pytest
import tomli

from lab import site
from tasks.layout import Layout
from tests.kit.lab_site import LabSite
from tests.kit.project import PROJECT

PAGE, README = PROJECT / "docs/tutorial.md", PROJECT / "README.md"
STEP = re.compile(
    r"```console\n\$ doit (?P<words>[^\n]*)\n(?P<output>.*?)```"
    r"|<!-- change (?P<table>\S+) (?P<key>\w+) = (?P<value>[^\n]*) -->",
    re.DOTALL,
)
# What differs from run to run, and what stands for it in a comparison.
VARYING = (
    (re.compile(r"\b\d+ min \d+ s\b|\b\d+(\.\d+)? (s|min|h|days?)\b"), "TIME"),
    (re.compile(r"\d{8}T\d{6}Z(-\d+)?"), "STAMP"),
    (re.compile(r"\b20\d{6}\b"), "DAY"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d( UTC)?"), "DATE"),
    (re.compile(r"\b[0-9a-f]{7,128}\b"), "HEX"),
    (re.compile(r"\b[\d.,]+ [kMG]?B\b"), "SIZE"),
    (re.compile(r"\d+ files"), "FILES"),
    (re.compile(r"\d+ entries"), "ENTRIES"),
    (re.compile(r"\(seeds [\d.]+\)"), "(seeds SIZE)"),
    (re.compile(r" +"), " "),
)


@pytest.fixture
def tutorial(lab_site: LabSite) -> LabSite:
    """The site that `python -m lab config` makes, on the lab of this module."""
    mirror = tomli.loads(lab_site.layout.config.read_text())["mirrors"]["gentoo"][0]
    home = lab_site.layout.site.with_name("tutorial")
    site.write_config(lab_site.lab, int(mirror.rsplit(":", 1)[1]), home)
    return LabSite(Layout(home, home / "state"), lab_site.lab)


def test_tutorial_commands_print_what_the_page_shows(tutorial: LabSite) -> None:
    text, readme = PAGE.read_text(encoding="utf-8"), README.read_text(encoding="utf-8")
    written, end = "", 0
    for step in STEP.finditer(text):
        written += text[end : step.start()]
        end = step.end()
        if step["table"]:
            tutorial.change(**{step["table"]: {step["key"]: literal_eval(step["value"])}})
            written += step[0]
            continue
        code = int("FAILED" in step["output"])
        printed = normalise(tutorial.doit(*step["words"].split(), code=code), tutorial)
        block = f"```console\n$ doit {step['words']}\n{printed}```"
        written += block
        readme = readme.replace(step[0], block)
        if not os.environ.get("UPDATE_GOLDEN"):
            assert comparable_lines(printed) == comparable_lines(step["output"]), step["words"]
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(written + text[end:], encoding="utf-8")
        README.write_text(readme, encoding="utf-8")


def normalise(printed: str, tutorial: LabSite) -> str:
    """The output with the paths of the page, and without lines that only slow machines print."""
    text = printed.replace(str(tutorial.layout.site), "tutorial")
    text = text.replace(str(tutorial.lab), "lab/build")
    lines = [line.rstrip() for line in text.splitlines()]
    return "".join(f"{line}\n" for line in lines if "still running" not in line)


def comparable_lines(text: str) -> list[str]:
    """The sorted lines of an output, without the parts that differ from run to run.

    doit orders tasks that do not depend on each other by chance.
    """
    lines = []
    for line in text.splitlines():
        for pattern, word in VARYING:
            line = pattern.sub(word, line)  # noqa: PLW2901 - each replaces what the last one left
        if not line.startswith((" TIME of", " SIZE of")):  # progress of a slow task
            lines.append(re.sub(r" \(last time TIME\)", "", line))
    return sorted(lines)
