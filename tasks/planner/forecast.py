"""A forecast: what a build of a chroot's set would do with each package, and why. Pure.

Where the plan is up to date, these are the decisions of the build itself. An outdated plan is
compared with the files of the commits that are locked now. What only the next plan can tell (a
newer version, a flag that a package may not have) is a cause of packages that may be built.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from tasks import messages, text
from tasks.causes import (
    Cause,
    FilesChanged,
    ModifiedByHand,
    PinMoved,
    RecordsChanged,
    SettingChange,
    SettingsChanged,
)
from tasks.messages import Field
from tasks.planner.decide import Decision, MayBuild, WillBuild
from tasks.planner.history import History, expected
from tasks.planner.input_changes import (
    BuiltBefore,
    EbuildGone,
    EclassGone,
    InputsUnchanged,
    NewerVersion,
)
from tasks.planner.keys import Objects, ebuilds_and_eclasses
from tasks.planner.plan import Plan, PlannedPackage
from tasks.portage import gpkg

DECISIONS = ("will-build", "may-build", "reused")
# CATEGORY/NAME of an atom, perhaps with wildcards (portage(5)), without operator, version and slot
_ATOM = re.compile(r"([<>=~!]*)([\w+*-][\w+.*-]*/[\w+*-]+)")
_VERSION = re.compile(r"-[0-9*][^-]*(-r[0-9]+)?$")
_PER_ATOM = ("package.mask", "package.unmask")
_NOT_BUILT_IN = ("mirrors", "packages")  # settings that change nothing about a package of the plan


@dataclass(frozen=True)
class PackageForecast:
    """The decision about one package, one of DECISIONS, and why; `causes` is never empty.

    `seconds` is the time that its build is expected to take; `measured`: from earlier builds, else
    from the size of its distfiles.
    """

    cpv: str
    decision: str
    causes: tuple[Cause, ...]
    seconds: float
    measured: bool

    def __str__(self) -> str:
        causes = "; ".join(map(str, self.causes))
        if self.decision == "reused":
            return f"{self.cpv}: {causes}"
        guess = "" if self.measured else "perhaps "
        return f"{self.cpv} ({guess}{text.span(self.seconds)}): {causes}"

    def plain(self) -> dict[str, Any]:
        """The package as plain data, for programs."""
        return {
            "package": self.cpv,
            "decision": self.decision,
            "causes": [_plain(cause) for cause in self.causes],
            "seconds": round(self.seconds, 2),
            "measured": self.measured,
        }


@dataclass(frozen=True)
class Forecast:
    """The packages of a chroot's newest plan, in its order.

    `outdated` has the causes for which plan:NAME will run first; it is empty if it is up to date.
    """

    chroot: str
    packages: tuple[PackageForecast, ...]
    outdated: tuple[Cause, ...] = ()

    def of(self, decision: str) -> list[PackageForecast]:
        """The packages with one of DECISIONS."""
        return [each for each in self.packages if each.decision == decision]

    def seconds(self, decision: str) -> float:
        """The time that the builds of these packages are expected to take, one after the other."""
        return sum(each.seconds for each in self.of(decision))

    def plain(self) -> dict[str, Any]:
        """The forecast as plain data, for programs."""
        return {
            "chroot": self.chroot,
            "plan": "outdated" if self.outdated else "current",
            "outdated": [_plain(cause) for cause in self.outdated],
            "seconds": {each: round(self.seconds(each), 2) for each in DECISIONS[:2]},
            "packages": [package.plain() for package in self.packages],
        }

    def lines(self, *, reused: bool) -> Iterator[str]:
        """The forecast for people; `reused` tells whether the reused packages are listed, too."""
        if self.outdated:
            causes = [*map(str, self.outdated)]
            yield messages.sentence("forecast-outdated", {"chroot": self.chroot, "causes": causes})
        will, may, rest = (self.of(decision) for decision in DECISIONS)
        if not will and not may:
            yield messages.sentence("forecast-nothing", {"packages": len(rest)})
        else:
            yield self._totals()
        for packages, code in (
            (will, "forecast-will-build"),
            (may, "forecast-may-build"),
            (rest if reused else [], "forecast-reused"),
        ):
            if packages:
                yield messages.sentence(code, {"packages": [*map(str, packages)]})

    def _totals(self) -> str:
        least = self.seconds("will-build")
        times = dict.fromkeys(map(text.span, (least, least + self.seconds("may-build"))))
        will, may, reused = (len(self.of(decision)) for decision in DECISIONS)
        fields: dict[str, Field] = {"will": will, "may": may, "reused": reused}
        return messages.sentence("forecast-totals", {**fields, "time": " to ".join(times)})


def forecast(
    chroot: str,
    plan: Plan,
    decisions: Mapping[str, Decision[Any]],
    last_key: Callable[[PlannedPackage], str | None],
    history: History,
) -> Forecast:
    """Put decisions about a plan into words.

    `last_key` gives the input key of the newest build of a package for this chroot.
    """
    sizes = {each.cpv: sum(file.size for file in each.distfiles) for each in plan.packages}
    costs = expected(sizes, history)
    packages = []
    for package in plan.packages:
        cpv = package.cpv
        match decisions[cpv]:
            case WillBuild(causes=causes):
                decision = "will-build"
            case MayBuild(causes=causes):
                decision = "may-build"
            case reused:
                decision = "reused"
                same = reused.key == last_key(package)
                causes = (InputsUnchanged() if same else BuiltBefore(),)
        seconds = 0.0 if decision == "reused" else costs[cpv].seconds
        measured = history.of(cpv) is not None
        packages.append(PackageForecast(cpv, decision, causes, seconds, measured))
    return Forecast(chroot, tuple(packages))


def fill_gaps(
    plan: Plan, before: Objects, after: Objects
) -> tuple[Objects, dict[str, tuple[Cause, ...]]]:
    """The ids of a plan's files by now, and causes of the packages whose files are not there.

    A missing file has the id that it had, so that only its own package is in doubt.
    """
    ids = dict(after.ids)
    causes: dict[str, tuple[Cause, ...]] = {}
    for package, repo, path in ebuilds_and_eclasses(plan):
        if (repo, path) in after.ids:
            continue
        ids[repo, path] = before.ids.get((repo, path), "")
        gone: Cause = EbuildGone(repo)
        if path.startswith("eclass/"):
            gone = EclassGone(path.removeprefix("eclass/").removesuffix(".eclass"))
        causes[package.cpv] = (*causes.get(package.cpv, ()), gone)
    commits = {repo: "" for repo, _ in ids} | dict(before.commits) | dict(after.commits)
    return Objects(ids, commits), causes


def newer_versions(
    plan: Plan, added: Mapping[str, Mapping[str, Sequence[str]]], order: Callable[[str], Any]
) -> dict[str, tuple[Cause, ...]]:
    """The packages of which a repository has got a newer version, by CPV.

    `added` has the new versions by repository and CATEGORY/NAME; `order` is the key by which
    versions sort.
    """
    causes: dict[str, tuple[Cause, ...]] = {}
    for package in plan.packages:
        version = gpkg.parse_cpv(package.cpv).version
        for repo, packages in added.items():
            newest = max((version, *packages.get(package.cp, ())), key=order)
            if newest != version:
                cause = NewerVersion(f"{package.cp}-{newest}", repo)
                causes[package.cpv] = (*causes.get(package.cpv, ()), cause)
    return causes


def affected(
    plan: Plan, causes: Iterable[Cause], unseen: Mapping[str, str]
) -> dict[str, tuple[Cause, ...]]:
    """The packages that a change of config.toml, of a pin or by hand may concern, by CPV.

    Only the next plan tells: it may be a flag that a package does not have. `unseen` has the
    repositories whose locked commit is not here yet, by the task that will fetch it.
    """
    result: dict[str, tuple[Cause, ...]] = {}
    for cause in causes:
        for package in plan.packages:
            if (doubt := _doubt(cause, package, unseen)) is not None:
                result[package.cpv] = (*result.get(package.cpv, ()), doubt)
    return result


def _doubt(cause: Cause, package: PlannedPackage, unseen: Mapping[str, str]) -> Cause | None:
    """The part of a cause that may concern a package; None if nothing of it does."""
    match cause:
        case SettingsChanged(changes=changes) if changes:
            own = tuple(each for each in changes if _concerns(each, package))
            return SettingsChanged(own) if own else None
        case SettingsChanged() | ModifiedByHand() | FilesChanged():
            return cause
        case RecordsChanged(tasks=tasks):  # the plan has the commits of what tree and overlay made
            return cause if any(each.startswith(("etc:", "chroot:")) for each in tasks) else None
        case PinMoved(task=task):
            repos = {package.repo, *(each.repo for each in package.eclasses)}
            return cause if task.startswith("seed:") or unseen.get(task) in repos else None
    return None


def merged(*causes: Mapping[str, tuple[Cause, ...]]) -> dict[str, tuple[Cause, ...]]:
    """Causes by CPV, of several kinds."""
    result: dict[str, tuple[Cause, ...]] = {}
    for each in causes:
        for cpv, own in each.items():
            result[cpv] = (*result.get(cpv, ()), *own)
    return result


def _concerns(change: SettingChange, package: PlannedPackage) -> bool:
    """Tell whether a package may be built in another way, or in another version, after a change."""
    kind, _, atom = change.key.partition(" ")
    if kind in _NOT_BUILT_IN:
        return False
    if kind in _PER_ATOM:
        return any(_matches(each, package.cp) for each in (*change.added, *change.removed))
    if kind.startswith("package.") and not _matches(atom, package.cp):
        return False
    if kind in ("use", "package.use") and change.added and not change.removed:
        return any(_other_flag(word, package) for word in change.added)
    return True


def _other_flag(word: str, package: PlannedPackage) -> bool:
    """Tell whether a flag, `-flag` or another word of USE may change the USE of a package."""
    if word.startswith("-"):
        return word[1:] in package.use or not re.fullmatch(r"[\w+@-]+", word)
    return word not in package.use


def _matches(atom: str, cp: str) -> bool:
    """Tell whether an atom may be about a package; true for what is none, or was cut."""
    match = _ATOM.match(atom)
    if match is None or atom.endswith("..."):
        return True
    name = _VERSION.sub("", atom[match.start(2) :].partition(":")[0]) if match[1] else match[2]
    return fnmatchcase(cp, name)


def _plain(cause: Cause) -> dict[str, Any]:
    return {**cause.plain(), "sentence": str(cause)}
