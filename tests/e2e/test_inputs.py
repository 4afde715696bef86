"""Every kind of input, as a table: what a change of it builds, what is cut off, what is reused.

One small set is built, and again after each step. The changes of a step concern different packages,
so one run builds them all; changes that concern all packages are built with two of them. Before
each build, `doit why` predicts it, by the outdated plan and by the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tomli

from lab import upstream
from lab.upstream import PROFILE, Upstream
from tasks.system.files import write_atomic
from tests.kit import input_cases as cases
from tests.kit.build_runs import Run, cp, run
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.input_cases import OVERLAY, PORTAGE_DIR
from tests.kit.lab_site import LabSite
from tests.kit.own_seeds import Stages

CHROOT = "inputs"
ALL = tuple(pf.rpartition("-")[0] for pf in cases.ebuilds(""))
TWO = ("comment", "library")
# What becomes of a package: built with another output, built with the same one, not built since
# what it needs came out the same, or not built.
CHANGED, SAME, CUT_OFF, REUSED = "changed", "same", "cut off", "reused"
ADDED = "cause-config-file-added"
SEED = {"sys-devel/gcc-4711": "obj /usr/bin/gcc-4711 0123456789abcdef0123456789abcdef 1"}


@dataclass(frozen=True)
class Row:
    """A change of one kind of input: the outcome of each package that it concerns.

    `causes` are codes of causes for which `doit why` is sure that a package will be built.
    """

    kind: str
    outcomes: Mapping[str, str]
    causes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Step:
    """Changes that one run builds. `ebuilds` are by PF, `overlay` and `portage_dir` by path.

    `config` has keys of the chroot's table, `distfile` is the content of the distfile on its
    server, `seed` has arguments of Stages.pack.
    """

    rows: tuple[Row, ...] = ()
    ebuilds: Mapping[str, str] = field(default_factory=dict)
    overlay: Mapping[str, str] = field(default_factory=dict)
    portage_dir: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, object] = field(default_factory=dict)
    distfile: str = ""
    next_day: bool = False
    seed: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ALL


EBUILDS = cases.ebuilds("")
FIRST = Step((), {}, OVERLAY, PORTAGE_DIR, distfile="one\n", seed={"packages": SEED})
STEPS = {
    "one package": Step(
        rows=(
            Row("ebuild", {"comment": SAME}, {"comment": "cause-ebuild"}),
            Row("eclass", {"inherits": SAME, "depends": CUT_OFF}, {"inherits": "cause-eclass"}),
            Row("files", {"files": CHANGED}, {"files": "cause-ebuild-files"}),
            Row("user patch", {"patched": CHANGED}, {"patched": ADDED}),
            Row("package.env", {"environment": CHANGED}, {"environment": "cause-build-setting"}),
            Row("bashrc", {"sourced": CHANGED}, {"sourced": ADDED}),
            Row("profile USE", {"flag": CHANGED}, {"flag": "cause-use"}),
            Row("distfile of the same name", {"fetches": CHANGED}, {"fetches": "cause-distfile"}),
            Row(
                "image of a dependency",
                {"library": CHANGED, "consumer": CHANGED},
                {"library": "cause-ebuild"},
            ),
            Row(
                "revision of a dependency",
                {"revised": CHANGED, "careless": CUT_OFF, "curious": CHANGED},
                {"revised": "cause-version", "curious": "cause-dependency-replaced"},
            ),
        ),
        ebuilds={
            "comment-1": f"# A comment.\n{EBUILDS['comment-1']}",
            "library-1": cases.library(2, sub_slot=1),
            "revised-1-r1": EBUILDS["revised-1"],
        },
        overlay={
            "eclass/inputs.eclass": f"# A comment.\n{OVERLAY['eclass/inputs.eclass']}",
            f"{CATEGORY}/files/files/word": "two\n",
            f"{CATEGORY}/fetches/Manifest": cases.manifest("other\n"),
        },
        portage_dir={
            f"patches/{CATEGORY}/patched/word.patch": cases.PATCH,
            "env/word.conf": 'WORD="two"\n',
            f"env/{CATEGORY}/sourced": 'WORD="two"\n',
            "profile/package.use": f"{CATEGORY}/flag word\n",
        },
        distfile="other\n",
    ),
    "sub-slot": Step(
        rows=(
            Row(
                "sub-slot of a dependency",
                {"library": CHANGED, "consumer": CHANGED},
                {"library": "cause-ebuild"},
            ),
        ),
        ebuilds={"library-1": cases.library(2, sub_slot=2)},
    ),
    "next day": Step(
        rows=(Row("new day", dict.fromkeys(ALL, REUSED)),),
        overlay={"README": "Not of the set.\n"},
        next_day=True,
    ),
    "all packages": Step(
        rows=(
            Row(
                "make.conf variable",
                dict.fromkeys(TWO, SAME),
                dict.fromkeys(TWO, "cause-build-setting"),
            ),
            Row("bashrc of all", dict.fromkeys(TWO, SAME), dict.fromkeys(TWO, ADDED)),
        ),
        portage_dir={"bashrc": "# A comment.\n"},
        config={"env": {"CFLAGS": "-O3 -pipe"}},
        packages=TWO,
    ),
    "another seed": Step(
        rows=(Row("seed with the same toolchain", dict.fromkeys(TWO, REUSED)),),
        seed={"packages": {**SEED, "app-misc/more-1": ""}},
        packages=TWO,
    ),
    "another toolchain": Step(
        rows=(
            Row("toolchain", dict.fromkeys(TWO, SAME), dict.fromkeys(TWO, "cause-toolchain")),
            Row("Portage", dict.fromkeys(TWO, SAME), dict.fromkeys(TWO, "cause-portage")),
        ),
        seed={"packages": {"sys-devel/gcc-4712": ""}, "portage": "3.0.99"},
        packages=TWO,
    ),
}
ROWS = {row.kind: (name, row) for name, step in STEPS.items() for row in step.rows}
Forecast = dict[str, tuple[str, list[str]]]  # the decision, and the codes of the causes


@dataclass(frozen=True)
class Result:
    """The result of a step, and two forecasts of it: by the outdated plan, and by the new one."""

    guess: Forecast
    forecast: Forecast
    run: Run

    def outcome(self, name: str) -> str:
        package = f"{CATEGORY}/{name}"
        if package in self.run.built:
            return SAME if package in self.run.unchanged else CHANGED
        assert package in self.run.cut_off | self.run.reused, self.run
        return CUT_OFF if package in self.run.cut_off else REUSED


class Inputs:
    """The site, and everything that its set is built from."""

    def __init__(self, site: LabSite, folder: Path) -> None:
        self._site, self._folder = site, folder
        self._stages = Stages(site.lab, folder)
        mirrors = tomli.loads(site.layout.config.read_text())["mirrors"]
        self._ebuilds = cases.ebuilds(mirrors["gentoo"][0])
        self._results: dict[str, Result] = {}
        self._pending = list(STEPS)
        site.change(build={"packages": 2})
        site.change(**{f"overlays.{CHROOT}": {"url": str(folder / "overlay")}})

    def apply(self, step: Step) -> None:
        """Change the inputs."""
        site, layout = self._site, self._site.layout
        self._ebuilds.update(step.ebuilds)
        for path, text in step.portage_dir.items():
            write_atomic(layout.site / CHROOT / path, text)
        if step.distfile:
            write_atomic(Upstream(site.lab).mirror / cases.DISTFILE, step.distfile)
        if step.ebuilds or step.overlay:
            write_overlay(self._folder / "overlay", CHROOT, self._ebuilds, step.overlay)
        if step.seed:
            site.change(**{"seeds.own": self._stages.pack("stage", **step.seed)})
        chroot: dict[str, object] = {
            "seed": "own",
            "profile": PROFILE,
            "overlays": [CHROOT],
            "portage_dir": CHROOT,
            "packages": [f"{CATEGORY}/{name}" for name in step.packages],
            **step.config,
        }
        site.change(**{f"chroots.{CHROOT}": chroot})
        if step.next_day:
            upstream.publish_next_day(site.lab)
            site.doit("snapshot")
        if step.ebuilds or step.overlay or step.seed:
            site.doit("lock")

    def forecast(self) -> Forecast:
        """The prediction of `doit why`."""
        rows = json.loads(self._site.doit("why", "--json", f"binpkgs:{CHROOT}"))
        [row] = [row for row in rows if row["task"] == f"binpkgs:{CHROOT}"]
        return {
            cp(each["package"]).partition("/")[2]: (
                each["decision"],
                [cause["code"] for cause in each["causes"]],
            )
            for each in row["forecast"]["packages"]
        }

    def result(self, name: str) -> Result:
        """Change the inputs, predict what will be built, and build it; after the steps before."""
        while name not in self._results:
            assert self._pending, "the step has failed"
            pending = self._pending.pop(0)
            self.apply(STEPS[pending])
            guess = self.forecast()
            self._site.doit(f"plan:{CHROOT}")
            self._results[pending] = Result(guess, self.forecast(), run(self._site, CHROOT))
        return self._results[name]


@pytest.fixture(scope="module")
def inputs(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> Inputs:
    """A site whose set is built."""
    inputs = Inputs(lab_site, tmp_path_factory.mktemp(CHROOT))
    inputs.apply(FIRST)
    assert run(lab_site, CHROOT).built == {f"{CATEGORY}/{name}" for name in ALL}
    return inputs


@pytest.mark.parametrize("kind", ROWS)
def test_kind_of_input_decides_what_is_built(inputs: Inputs, kind: str) -> None:
    name, row = ROWS[kind]
    result = inputs.result(name)
    assert {each: result.outcome(each) for each in row.outcomes} == row.outcomes
    for package, cause in row.causes.items():
        decision, codes = result.forecast[package]
        assert (decision, cause in codes) == ("will-build", True), (package, codes)


@pytest.mark.parametrize("name", STEPS)
def test_nothing_else_is_built(inputs: Inputs, name: str) -> None:
    step, result = STEPS[name], inputs.result(name)
    rest = {*step.packages}.difference(*(row.outcomes for row in step.rows))
    assert {each: result.outcome(each) for each in rest} == dict.fromkeys(rest, REUSED)


@pytest.mark.parametrize("name", STEPS)
def test_forecasts_hold(inputs: Inputs, name: str) -> None:
    step, result = STEPS[name], inputs.result(name)
    built = {each for each in step.packages if result.outcome(each) in (CHANGED, SAME)}
    for forecast in (result.guess, result.forecast):
        for package in step.packages:
            decision, _ = forecast[package]
            assert decision in ("may-build", "will-build" if package in built else "reused")
    certain = {each: decision for each, (decision, _) in result.forecast.items()}
    may = {each for each, decision in certain.items() if decision == "may-build"}
    assert may == {each for each in step.packages if result.outcome(each) == CUT_OFF} | (
        {"consumer"} & built
    )
