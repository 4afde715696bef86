"""Packages that need special care, each with its outcome, by the real Portage.

They are built on the lab's seed, whose package database has older builds of some, and compared with
those that one emerge of the whole set builds. Nothing is compiled: the profile provides @system.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

import pytest

from tasks import records
from tasks.buildroot.union import Union
from tasks.planner import plan as plans
from tasks.planner.closure import closure
from tasks.planner.plan import Plan, SeedPackage
from tasks.portage import gpkg
from tasks.publish import install_root
from tasks.records import BINPKGS, PLAN, SEED
from tasks.store import identity
from tasks.store.store import Store
from tasks.system.files import write_atomic
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite

_ANSWER = """
src_compile() {{ {{ {answer}; }} > answer || die "no answer"; }}
src_install() {{ insinto /usr/share/${{PN}}; doins answer; }}"""
_SLOTTED = """
SLOT="{slot}"
src_install() {{ insinto /usr/share/slotted-{slot}; newins - name <<< "{slot}"; }}"""


def answering(answer: str, variables: str = "") -> str:
    """An ebuild that installs the output of a command as its answer."""
    return variables + _ANSWER.format(answer=answer)


EBUILDS = {
    "slotted-1": _SLOTTED.format(slot=1),
    "slotted-2": _SLOTTED.format(slot=2),
    "one-1": answering("cat /usr/share/slotted-*/name", f'BDEPEND="{CATEGORY}/slotted:1"'),
    # a link that no package owns, as eselect makes them
    "pager-1": """
src_install() { insinto /usr/share/pagers; newins - pager-1 <<< "a pager"; }
pkg_postinst() { ln -sfn ../usr/share/pagers/pager-1 "${EROOT}/etc/pager" || die; }""",
    "reader-1": answering("cat /etc/pager", f'BDEPEND="{CATEGORY}/pager"'),
    # a user that the seed has, as pkg_postinst of the newer build leaves it
    "account-1": answering("getent passwd robots", 'DEPEND="acct-user/robots"'),
    "picky-1": answering(
        "echo $(usev one) $(usev two)",
        '''
IUSE="one +two"
REQUIRED_USE="^^ ( one two )"
RDEPEND="!<app-misc/mime-types-1-r1"''',
    ),
    "user-1": answering("id -un"),
    "root-1": answering("id -un", 'RESTRICT="userpriv"'),
    "network-1": answering("ls /sys/class/net", 'RESTRICT="network-sandbox"'),
}
REFUSED = {
    "newest-9999": ("plan-live", 'PROPERTIES="live"'),
    "question-1": ("plan-interactive", 'PROPERTIES="interactive"'),
}
PROVIDED = ("app-arch/bzip2-99", "app-text/tree-99", "dev-util/pkgconf-99", "sys-libs/zlib-99")
PORTAGE_DIR = {
    "profile/package.provided": "".join(f"{cpv}\n" for cpv in PROVIDED),
    "package.use/special": f"{CATEGORY}/picky one -two\n",
    "sets/special": f"{CATEGORY}/user\n{CATEGORY}/root\n",
}
CYCLE = {"app-text/mkman", "dev-util/optlist"}
PACKAGES = [
    *CYCLE,
    "app-misc/mime-types",
    "@special",
    *(f"{CATEGORY}/{name}" for name in ("account", "network", "one", "picky", "reader")),
    f"{CATEGORY}/slotted:2",
]
TOOLCHAIN = {
    *("dev-build/make", "sys-devel/binutils", "sys-devel/gcc"),
    *("sys-kernel/linux-headers", "sys-libs/glibc"),
}
# Packages that the two drivers build differently, and why.
DIFFERENT = {
    f"{CATEGORY}/network": "a buildroot never has a network",
    f"{CATEGORY}/one": "a buildroot has only the slot that it needs",
}


@dataclass(frozen=True)
class Builds:
    """The set and its plan, package logs, and what each driver has built, by CATEGORY/PN."""

    site: LabSite
    plan: Plan
    events: list[dict[str, object]]
    logs: dict[str, str]
    answers: dict[str, str]
    identities: tuple[dict[str, tuple[str, str]], dict[str, tuple[str, str]]]


def cp(cpv: str) -> str:
    return gpkg.parse_cpv(cpv).cp


def set_of(site: LabSite) -> dict[str, tuple[str, str]]:
    """USE and identity of each package of the set, by CPV."""
    record = records.load(site.layout, BINPKGS("base"))
    folder = site.layout.binpkgs("base") / record.set
    contents = [(each.cpv, identity.read(folder / each.path)) for each in record.packages]
    return {cpv: (each.metadata["USE"], each.identity) for cpv, each in contents}


def answers_of(site: LabSite) -> dict[str, str]:
    record = records.load(site.layout, BINPKGS("base"))
    folder = site.layout.binpkgs("base") / record.set
    return {
        each.cpv.partition("/")[2]: stream.read().decode().strip()
        for each in record.packages
        for path, _, stream in gpkg.image_entries(folder / each.path)
        if stream is not None and path.endswith("/answer")
    }


@pytest.fixture(scope="module")
def builds(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> Builds:
    site, overlay = lab_site, tmp_path_factory.mktemp("special")
    refused = {pf: variables for pf, (_, variables) in REFUSED.items()}
    write_overlay(overlay, "special", {**EBUILDS, **refused}, {})
    for path, text in PORTAGE_DIR.items():
        write_atomic(site.layout.site / "special" / path, text)
    base = {"overlays": ["special"], "packages": PACKAGES, "portage_dir": "special"}
    site.change(build={"packages": 2}, **{"overlays.special": {"url": str(overlay)}})
    site.change(**{"chroots.base": {**base, "package_use": {}}})
    site.doit("gate:base")
    folder = (site.layout.logs / "latest").resolve()
    events = (folder / "binpkgs.base.events").read_text().splitlines()
    logs = {
        log.stem.replace(":", "/"): log.read_text()
        for log in (site.layout.inside / "logs/base").glob("*/*.log")
    }
    record = records.load(site.layout, PLAN("base"))
    plan = plans.read(site.layout.state / record.path, record.plan)
    by_package, answers = set_of(site), answers_of(site)
    site.change(build={"driver": "emerge"})
    site.doit("binpkgs:base")
    at_once = set_of(site)
    site.change(build={"driver": "per-package"})
    return Builds(site, plan, list(map(json.loads, events)), logs, answers, (by_package, at_once))


def installed_in_seed(plan: Plan) -> dict[str, SeedPackage]:
    """The packages in the seed's database, by CATEGORY/PN."""
    return {cp(each.cpv): each for each in plan.seed if each.cpv not in PROVIDED}


def test_seed_has_older_builds_of_what_the_tree_has(builds: Builds) -> None:
    seed = installed_in_seed(builds.plan)
    assert {name for name, each in seed.items() if each.toolchain} == TOOLCHAIN
    own = seed.keys() - TOOLCHAIN
    assert len(own) >= 10
    assert own >= {*CYCLE, "app-arch/bzip2", "app-text/tree", "sys-libs/zlib"}
    replaced = {cp(each.cpv): each.cpv for each in builds.plan.packages if cp(each.cpv) in seed}
    assert replaced.keys() == {
        *CYCLE,
        *("acct-group/robots", "acct-user/robots", "app-misc/mime-types"),
    }
    for name, cpv in replaced.items():
        assert seed[name].cpv != cpv


def test_only_the_toolchain_and_needed_packages_of_the_seed_count(builds: Builds) -> None:
    store = Store(builds.site.layout)
    seed = {each.cpv: each.identity for each in builds.plan.seed}
    toolchain = {each.cpv: each.identity for each in builds.plan.seed if each.toolchain}
    older = {cpv: seed[cpv] for cpv in seed if cp(cpv) in CYCLE}
    assert len(older) == len(CYCLE)
    for package in builds.plan.packages:
        last = store.last_inputs("base", package.cpv, package.slot)
        assert last is not None
        own = json.loads(last[1]["own"])
        assert own["strict_seed"] == ""
        assert own["toolchain"] == toolchain
        needed = {cpv: seed[cpv] for cpv in package.seed_needs}
        in_cycle = cp(package.cpv) in CYCLE
        assert own["seed"] == (older if in_cycle else needed)


def test_first_round_of_a_cycle_uses_the_seed(builds: Builds) -> None:
    """The first package is built twice, the second once: what it needs came out the same."""
    (cycle,) = builds.plan.cycles
    assert {cp(cpv) for cpv in cycle} == CYCLE
    (unit,) = [unit for unit in closure(builds.plan).units if len(unit) > 1]
    assert set(unit) == set(cycle)
    first, second = unit
    older = {cpv: f"{cp(cpv)}-1" for cpv in unit}
    made_with = {
        cpv: re.findall(r"its .* (?:made|listed) by (\S+)", builds.logs[cpv]) for cpv in unit
    }
    assert made_with == {first: [older[second], second], second: [first]}
    built = [each["package"] for each in builds.events if each["event"] == "package-built"]
    assert [cpv for cpv in built if cpv in unit] == list(unit)


def test_both_drivers_build_the_same(builds: Builds) -> None:
    by_package, at_once = builds.identities
    assert by_package.keys() == at_once.keys() == builds.plan.by_cpv.keys()
    different = {cpv for cpv, built in by_package.items() if built != at_once[cpv]}
    assert {cp(cpv) for cpv in different} == DIFFERENT.keys()


@pytest.mark.parametrize(
    ("pf", "answer"),
    [
        ("one-1", "1"),  # the other slot is not in its buildroot
        ("reader-1", "a pager"),
        ("account-1", "robots:x:940:940::/var/lib/robots:/bin/false"),
        ("picky-1", "one"),
        ("user-1", "portage"),
        ("root-1", "root"),
        ("network-1", "lo"),
    ],
)
def test_package_comes_out_as_its_ebuild_says(builds: Builds, pf: str, answer: str) -> None:
    assert builds.answers[pf] == answer


def test_package_with_side_effects_has_no_merge_layer(builds: Builds) -> None:
    entries = [entry.built for entry in Store(builds.site.layout).entries().values() if entry]
    installs = {each.cpv for each in entries if not each.layer}
    assert installs == {"acct-user/robots-1-r1", f"{CATEGORY}/pager-1"}


def test_gate_upgrades_what_the_seed_has(builds: Builds) -> None:
    layout = builds.site.layout
    place = layout.install_root("gate", "base")
    root = install_root.read(place)
    assert root is not None
    seed = layout.seed(records.load(layout, SEED("lab")).sha512)
    tree = Union((*root.paths(place), seed))
    planned = {cp(each.cpv): each.cpv for each in builds.plan.packages}
    in_seed = {name: each.cpv for name, each in installed_in_seed(builds.plan).items()}
    for name in planned.keys() | in_seed:
        assert tree.find(f"var/db/pkg/{planned.get(name, in_seed.get(name))}/PF"), name
    for name in planned.keys() & in_seed:
        assert tree.find(f"var/db/pkg/{in_seed[name]}/PF") is None, name
    types, passwd = tree.find("etc/mime.types"), tree.find("etc/passwd")
    assert types is not None
    assert passwd is not None
    assert "application/gzip" in types.read_text()
    assert "robots:x:940:940::/var/lib/robots:" in passwd.read_text()
    assert tree.find("etc/pager") is not None


@pytest.mark.parametrize("pf", REFUSED)
def test_the_other_driver_refuses_what_cannot_be_built_unattended(builds: Builds, pf: str) -> None:
    site, config = builds.site, builds.site.layout.config.read_text()
    packages = [f"{CATEGORY}/{pf.rpartition('-')[0]}"]
    site.change(build={"driver": "emerge"}, **{"chroots.base": {"packages": packages}})
    printed = site.doit("binpkgs:base", code=1)
    site.layout.config.write_text(config)
    assert site.error("plan:base").code == REFUSED[pf][0]
    assert f"{CATEGORY}/{pf}" in printed
