"""Plans by the real Portage: what emerge lists, needs of every kind, and clear refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tasks import records
from tasks.planner import plan as plans
from tasks.planner.plan import Plan, PlannedPackage
from tasks.planner.plan_changes import compare
from tasks.records import PLAN
from tasks.system.files import sha512, write_atomic
from tests.kit.case_overlay import CATEGORY, write_overlay
from tests.kit.lab_site import LabSite

# The cases, by PF. Those that a plan must refuse are each in a chroot of their own.
EBUILDS = {
    "needs-1": f"""
inherit cases
IUSE="+on off test"
BDEPEND="{CATEGORY}/tool"
DEPEND="on? ( {CATEGORY}/library:= ) off? ( {CATEGORY}/absent )"
RDEPEND="on? ( {CATEGORY}/library:= ) {CATEGORY}/provided"
IDEPEND="{CATEGORY}/helper"
PDEPEND="{CATEGORY}/plugin"
RESTRICT="strip !test? ( test )"
pkg_postinst() {{ :; }}""",
    "tool-1": "",
    "tool-2_rc1": 'KEYWORDS="~amd64"',
    "library-1.2-r3": 'SLOT="2/7"\nIUSE="static"',
    "helper-1": "",
    "plugin-1": f'RDEPEND="{CATEGORY}/needs"',
    "compiler-2": f'BDEPEND=">={CATEGORY}/compiler-1"',
    "first-2": f'BDEPEND="{CATEGORY}/second"',
    "second-2": f'RDEPEND="{CATEGORY}/first"',
    "runs-1": f'RDEPEND="{CATEGORY}/along"',
    "along-1": f'RDEPEND="{CATEGORY}/runs"',
    "question-1": 'PROPERTIES="interactive"',
    "newest-9999": 'PROPERTIES="live"',
    "enemy-1": f'RDEPEND="!!{CATEGORY}/tool"',
    "broken-1": f'DEPEND="{CATEGORY}/absent"',
    "picky-1": 'IUSE="one two"\nREQUIRED_USE="^^ ( one two )"',
    "unlisted-1": 'SRC_URI="https://mirror.example/unlisted-1.tar.gz"',
}
REFUSED = {
    "interactive": (["question"], "plan-interactive", f"{CATEGORY}/question-1"),
    "live": (["newest"], "plan-live", f"{CATEGORY}/newest-9999"),
    "blocked": (
        ["tool", "enemy"],
        "plan-unresolved",
        f'"{CATEGORY}/tool" is hard blocking {CATEGORY}/enemy-1',
    ),
    "absent": (["broken"], "plan-unresolved", f'no ebuilds to satisfy "{CATEGORY}/absent"'),
    "picky": (["picky"], "plan-unresolved", "exactly-one-of ( one two )"),
    "circular": (["first"], "plan-unresolved", f"{CATEGORY}/second-2"),
    "unlisted": (["unlisted"], "plan-distfile-without-digest", "unlisted-1.tar.gz"),
}
PLANNED = {
    "needs": ["needs"],
    "seeded": ["compiler", "first", "runs"],
}
PORTAGE_DIR = {
    "bashrc": "# for all\n",
    "env/app-cases/needs": "# sourced for one\n",
    "env/fast.conf": 'CFLAGS="-O3"\nMAKEOPTS="-j1"\n',
    "package.env": f"{CATEGORY}/library fast.conf\n",
    "package.use/cases": f"{CATEGORY}/library static\n",
    "patches/app-cases/library:2/slot.patch": "patch\n",
    "patches/app-cases/library-1.2/version.patch": "patch\n",
    "patches/app-cases/library-1.3/other.patch": "patch\n",
    "profile/package.provided": f"{CATEGORY}/provided-3\n",
}
# Older builds in the package database, as a stage has them.
SEED = """
cd /var/db/pkg && mkdir -p app-cases/compiler-1 app-cases/second-1 sys-devel/gcc-14 &&
for entry in app-cases/compiler-1 app-cases/second-1 sys-devel/gcc-14; do
	cd /var/db/pkg/$entry &&
	echo 0 >SLOT && echo 8 >EAPI && echo gentoo >repository && echo amd64 >KEYWORDS &&
	echo "${entry#*/}" >PF && echo "${entry%/*}" >CATEGORY && echo 1 >COUNTER && : >USE &&
    : >IUSE &&
	echo "obj /usr/bin/${entry#*/} 0123456789abcdef0123456789abcdef 1" >CONTENTS || exit 1
done
"""
# the CPV, the older one that it replaces, flags
LISTED = re.compile(
    r"^\[ebuild[^\]]*\] ([^:\s]+):?\S*(?: \[\S+\])?(?: +(\S.*?))? +[\d,]+ KiB$", re.MULTILINE
)


@pytest.fixture(scope="module")
def site(lab_site: LabSite, tmp_path_factory: pytest.TempPathFactory) -> LabSite:
    """A site on the lab with an overlay of cases and chroots that use it."""
    overlay = tmp_path_factory.mktemp("cases")
    eclass = 'inherit toolchain-names\nCASES="1"\n'
    write_overlay(overlay, "cases", EBUILDS, {"eclass/cases.eclass": eclass})
    for path, text in PORTAGE_DIR.items():
        write_atomic(lab_site.layout.site / "portage" / path, text)
    chroots: dict[str, dict[str, object]] = {
        f"chroots.{name}": {
            "base": "base",
            "overlays": ["cases"],
            "packages": [f"{CATEGORY}/{package}" for package in packages],
        }
        for name, packages in {
            **PLANNED,
            **{name: packages for name, (packages, _, _) in REFUSED.items()},
        }.items()
    }
    chroots["chroots.needs"]["portage_dir"] = "portage"
    lab_site.change(**{"overlays.cases": {"url": str(overlay)}}, **chroots)
    return lab_site


def planned(site: LabSite, name: str) -> Plan:
    """The plan of a chroot, made if it is not up to date."""
    site.doit(f"plan:{name}")
    record = records.load(site.layout, PLAN(name))
    return plans.read(site.layout.state / record.path, record.plan)


def seed_of(site: LabSite) -> set[str]:
    """The packages that the lab's stage has, by CPV."""
    return {each.cpv for each in planned(site, "base").seed}


def of(plan: Plan, pf: str) -> PlannedPackage:
    return plan.by_cpv[f"{CATEGORY}/{pf}"]


@pytest.mark.parametrize("name", ["base", "appliance", "needs"])
def test_plan_has_the_packages_and_flags_that_emerge_lists(site: LabSite, name: str) -> None:
    plan = planned(site, name)
    words = site.doit(
        *("enter", name, "--", "emerge", "--pretend", "--verbose", "--color=n", "--emptytree"),
        *("--with-bdeps=y", "@world", *site_packages(site, name)),
    )
    listed = {match[1]: flags(match[2] or "") for match in LISTED.finditer(words)}
    assert set(listed) == set(plan.by_cpv), words
    for cpv, shown in listed.items():
        use = plan.by_cpv[cpv].use
        assert {flag for flag, on in shown.items() if on} == shown.keys() & set(use), cpv


def site_packages(site: LabSite, name: str) -> list[str]:
    import tomli

    packages: list[str] = tomli.loads(site.layout.config.read_text())["chroots"][name]["packages"]
    return packages


def flags(shown: str) -> dict[str, bool]:
    """The flags that emerge shows, as USE="on -off", and whether each is on."""
    words = " ".join(re.findall(r'[A-Z0-9_]+="([^"]*)"', shown)).split()
    return {word.strip("()%*").lstrip("-"): not word.strip("(").startswith("-") for word in words}


def test_plan_is_the_same_when_made_again(site: LabSite) -> None:
    before = records.load(site.layout, PLAN("base")) if planned(site, "base") else None
    site.doit("forget", "plan:base")
    site.doit("plan:base")
    assert records.load(site.layout, PLAN("base")) == before


def test_needs_are_what_the_ebuild_declares(site: LabSite) -> None:
    plan = planned(site, "needs")
    package = of(plan, "needs-1")
    library, helper = f"{CATEGORY}/library-1.2-r3", f"{CATEGORY}/helper-1"
    assert package.build_needs == (helper, library, f"{CATEGORY}/tool-1")
    assert package.run_needs == (helper, library)
    assert package.post_needs == (f"{CATEGORY}/plugin-1",)
    assert package.seed_needs == (f"{CATEGORY}/provided-3",)
    assert package.dependencies["DEPEND"] == f"{CATEGORY}/library:="
    assert package.use == ("amd64", "on")
    assert package.restrict == ("strip", "test")
    assert package.phases == ("postinst",)
    assert [(each.name, each.repo) for each in package.eclasses] == [
        ("cases", "cases"),
        ("toolchain-names", "gentoo"),
    ]
    assert plan.cycles == ()
    (provided,) = [each for each in plan.seed if each.cpv.startswith(CATEGORY)]
    assert (provided.cpv, provided.toolchain) == (f"{CATEGORY}/provided-3", False)
    assert len(provided.identity) == 64


def test_settings_and_files_are_those_of_the_package(site: LabSite) -> None:
    plan = planned(site, "needs")
    library, tool = of(plan, "library-1.2-r3"), of(plan, "tool-1")
    assert (library.slot, library.sub_slot, library.repo) == ("2", "7", "cases")
    assert library.use == ("amd64", "static")
    assert library.settings["CFLAGS"] == "-O3"
    assert tool.settings["CFLAGS"] == "-O2 -pipe"
    assert library.settings.keys() == tool.settings.keys()
    portage = Path("/etc/portage")
    ours, shared = portage / "profile/bashrc/binmill-source-date", portage / "bashrc"
    patches = portage / "patches/app-cases"
    for package, files in (
        (tool, [shared]),
        (of(plan, "needs-1"), [shared, portage / "env/app-cases/needs"]),
        (
            library,
            [shared, patches / "library:2/slot.patch", patches / "library-1.2/version.patch"],
        ),
    ):
        first, *others = package.config_files
        assert [first.path, *(each.path for each in others)] == list(map(str, (ours, *files)))
        for each in others:
            source = site.layout.site / "portage" / Path(each.path).relative_to(portage)
            assert each.sha512 == sha512(source)


def test_distfiles_have_the_digests_of_their_manifest(site: LabSite) -> None:
    package = next(each for each in planned(site, "base").packages if each.cp == "app-misc/hello")
    (distfile,) = package.distfiles
    mirror = next((site.lab / "upstream/mirror/distfiles").rglob(distfile.name))
    assert distfile.size == mirror.stat().st_size
    assert distfile.digests["SHA512"] == sha512(mirror)


def test_seed_stands_in_for_what_is_needed_first(site: LabSite) -> None:
    site.doit("mount:seeded")
    site.doit("enter", "seeded", "--", "sh", "-c", SEED)
    plan = planned(site, "seeded")
    seed = {each.cpv: each for each in plan.seed}
    added = {cpv: each.toolchain for cpv, each in seed.items() if cpv not in seed_of(site)}
    assert added == {
        f"{CATEGORY}/compiler-1": False,
        f"{CATEGORY}/second-1": False,
        "sys-devel/gcc-14": True,
    }
    assert len({each.identity for each in plan.seed}) == len(seed)
    assert of(plan, "compiler-2").build_needs == ()
    assert of(plan, "compiler-2").seed_needs == (f"{CATEGORY}/compiler-1",)
    assert of(plan, "first-2").build_needs == (f"{CATEGORY}/second-2",)
    assert of(plan, "first-2").seed_needs == (f"{CATEGORY}/second-1",)
    assert [set(cycle) for cycle in plan.cycles] == [
        {f"{CATEGORY}/first-2", f"{CATEGORY}/second-2"}
    ]
    assert of(plan, "runs-1").run_needs == (f"{CATEGORY}/along-1",)


@pytest.mark.parametrize("name", REFUSED)
def test_request_that_cannot_be_built_is_refused_with_its_reason(site: LabSite, name: str) -> None:
    _, code, words = REFUSED[name]
    printed = site.doit(f"plan:{name}", code=1)
    error = site.error(f"plan:{name}")
    assert error.code == code
    assert words in printed, printed
    assert f"[{code}]" in printed
    assert name in printed
    assert not site.layout.record(f"plan:{name}").exists()


def test_change_of_a_flag_is_the_only_difference(site: LabSite) -> None:
    before = planned(site, "base")
    site.change(**{"chroots.base": {"package_use": {"dev-libs/libyaml": ["-static-libs"]}}})
    changes = compare(before, planned(site, "base"))
    libyaml = next(cpv for cpv in before.by_cpv if cpv.startswith("dev-libs/libyaml"))
    assert [str(change) for change in changes] == [f"{libyaml}: USE -static-libs"]
