"""Keys: each input counts, their order does not, and nothing that a plan names is left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.planner import keys
from tasks.planner.closure import closure
from tasks.planner.input_changes import (
    BuildSettingChanged,
    DependencyAdded,
    DependencyRemoved,
    DependencyReplaced,
    EclassChanged,
    ToolchainChanged,
    UseChanged,
    differences,
    grouped,
)
from tasks.planner.keys import OwnInputs, identity_line, own_inputs
from tasks.planner.plan import Distfile, Eclass
from tests.kit.keys import cycle_keys, input_key
from tests.kit.plans import SEED, World, planned
from tests.kit.refused import refused

CPV = "dev-libs/popt-1.19-r1"
OWN = OwnInputs(
    cpv=CPV,
    repo="gentoo",
    ebuild="e1",
    eclasses={"a": "a1", "b": "b1"},
    files="f1",
    distfiles={"popt.tar.gz": "BLAKE2B:d1"},
    use=("nls",),
    dependencies={"RDEPEND": "x"},
    settings={"CFLAGS": "-O2", "LDFLAGS": "-Wl"},
    config_files={"p": "1"},
    portage="3.0.83",
    recipe="1",
    arch="amd64",
    toolchain={"sys-devel/gcc-14.2.0": "g1"},
    seed={"app-arch/xz-utils-5.4.1": "x1"},
)
CHANGES: dict[str, object] = {
    "cpv": "dev-libs/popt-1.20",
    "repo": "own",
    "ebuild": "e2",
    "eclasses": {"a": "a2", "c": "c1"},
    "files": "",
    "distfiles": {},
    "use": (),
    "dependencies": {"RDEPEND": "y"},
    "settings": {"CFLAGS": "-O3", "MAKEOPTS": ""},
    "config_files": {"p": "2", "q": "1"},
    "portage": "3.0.84",
    "recipe": "2",
    "arch": "arm64",
    "toolchain": {"sys-devel/gcc-15.1.0": "g2"},
    "seed": {"app-arch/xz-utils-5.4.1": "x2"},
    "strict_seed": "5",
    "asks_versions": False,
}
SENTENCES = {
    "cpv": [f"{CPV} -> dev-libs/popt-1.20"],
    "repo": ["its ebuild comes from own, not from gentoo"],
    "ebuild": ["its ebuild changed"],
    "eclasses": [
        "eclass a changed",
        "it does not inherit eclass b any more",
        "it inherits eclass c now",
    ],
    "files": ["its files/ changed"],
    "distfiles": ["distfile popt.tar.gz changed"],
    "use": ["USE -nls"],
    "dependencies": ["RDEPEND changed"],
    "settings": [
        'CFLAGS changed from "-O2" to "-O3"',
        'LDFLAGS changed from "-Wl" to unset',
        'MAKEOPTS changed from unset to ""',
    ],
    "config_files": ["p changed", "q is new"],
    "portage": ["Portage 3.0.83 -> 3.0.84"],
    "recipe": ["this version of binmill makes buildroots in another way (1 -> 2)"],
    "arch": ["architecture amd64 -> arm64"],
    "toolchain": ["toolchain of the seed: sys-devel/gcc-14.2.0 -> sys-devel/gcc-15.1.0"],
    "seed": ["packages of the seed: app-arch/xz-utils-5.4.1 has other content"],
    "strict_seed": [
        "the seed changed, and all of it counts (strict, or it has no package database)"
    ],
    "asks_versions": ["it may ask for versions of other packages now, or does not any more"],
}


def changed(name: str) -> OwnInputs:
    return replace(OWN, **{name: CHANGES[name]})  # type: ignore[arg-type]


def of_world(world: World) -> dict[str, OwnInputs]:
    return own_inputs(world.plan, closure(world.plan), world.objects, world.environment)


@pytest.mark.parametrize("name", [field.name for field in fields(OwnInputs)])
def test_each_input_counts_and_has_a_sentence(name: str) -> None:
    other = changed(name)
    assert other.digest != OWN.digest
    assert input_key(other, {}) != input_key(OWN, {})
    assert [str(cause) for cause in differences(OWN, other)] == SENTENCES[name]


def test_order_of_inputs_does_not_count() -> None:
    turned = {
        field.name: dict(reversed(list(value.items())))
        for field in fields(OWN)
        if isinstance(value := getattr(OWN, field.name), Mapping)
    }
    assert replace(OWN, **turned).digest == OWN.digest  # type: ignore[arg-type]
    assert differences(OWN, replace(OWN, **turned)) == ()  # type: ignore[arg-type]
    assert input_key(OWN, {"a/a-1": "1", "b/b-1": "2"}) == input_key(
        OWN, {"b/b-1": "2", "a/a-1": "1"}
    )


def test_input_key_counts_names_and_identities_of_the_buildroot() -> None:
    buildroots: list[dict[str, str]] = [
        {},
        {"a/a-1": "1"},
        {"a/a-1": "2"},
        {"a/a-2": "1"},
        {"a/a-1": "1", "b/b-1": "1"},
        {'a/a-1", "1': ""},  # no text of one passes for another
        {"a/a-1": '1"]\n["b/b-1", "1'},
    ]
    assert len({input_key(OWN, each) for each in buildroots}) == len(buildroots)
    assert len({identity_line(*item) for each in buildroots for item in each.items()}) == 6


def test_versions_in_the_buildroot_count_only_if_the_build_may_ask_for_them() -> None:
    incurious = replace(OWN, asks_versions=False)
    before, bumped = {"a/a-1": "1", "b/b-9": "2"}, {"a/a-1-r1": "1", "b/b-10": "2"}
    assert input_key(OWN, before) != input_key(OWN, bumped)
    assert input_key(incurious, before) == input_key(incurious, bumped)
    assert differences(incurious, incurious, before, bumped) == ()
    other = {**bumped, "b/b-10": "3"}
    assert input_key(incurious, before) != input_key(incurious, other)
    replaced = (DependencyReplaced("b/b-9", "b/b-10"),)
    assert differences(incurious, incurious, before, other) == replaced
    assert input_key(incurious, {"a/a-1": "1"}) != input_key(incurious, {"c/c-1": "1"})


def test_cycle_key_counts_the_inputs_of_all_and_their_order() -> None:
    other = replace(OWN, cpv="a/a-1")
    inside: Mapping[str, str | None] = {"a/a-1": None}
    around: Mapping[str, str | None] = {CPV: None}
    usual = cycle_keys([(OWN, inside), (other, around)])
    assert usual.keys() == {CPV, "a/a-1"}
    assert len(set(usual.values())) == 2
    changes: list[list[tuple[OwnInputs, Mapping[str, str | None]]]] = [
        [(changed("files"), inside), (other, around)],
        [(OWN, inside), (replace(other, files=""), around)],
        [(OWN, {}), (other, around)],
        [(OWN, {"a/a-1": ""}), (other, around)],
        [(OWN, inside), (other, {CPV: None, "x/x-1": "1"})],
        [(other, around), (OWN, inside)],
    ]
    for members in changes:
        assert not set(cycle_keys(members).values()) & set(usual.values())


def test_own_inputs_survive_being_written() -> None:
    assert keys.parse(keys.render(OWN)) == OWN
    assert keys.parse(keys.render(OWN)).digest == OWN.digest
    for text in ("[]", "{}", keys.render(OWN).replace('"arch"', '"more"')):
        with pytest.raises(ValueError, match="validation error"):
            keys.parse(text)


def test_distfile_counts_by_one_digest_of_its_manifest() -> None:
    def of(**digests: str) -> Mapping[str, str]:
        package = replace(planned("a/a-1"), distfiles=(Distfile("x", 1, digests),))
        return of_world(World((package,)))["a/a-1"].distfiles

    assert of(BLAKE2B="1", SHA512="2") == of(SHA512="3", BLAKE2B="1") == {"x": "BLAKE2B:1"}
    assert of(SHA512="2", MD5="4") == {"x": "SHA512:2"}
    assert of(RMD160="5", MD5="4") == {"x": "MD5:4 RMD160:5"}


def test_seed_package_counts_for_what_is_built_with_a_package_that_needs_it() -> None:
    xz = SEED[1].cpv
    packages = (
        planned("a/tool-1", seed=[xz]),
        planned("a/user-1", build=["a/tool-1"]),
        planned("a/far-1", build=["a/user-1"]),
    )
    found = of_world(World(packages))
    assert {cpv: dict(own.seed) for cpv, own in found.items()} == {
        "a/tool-1": {xz: "xz"},
        "a/user-1": {xz: "xz"},
        "a/far-1": {},
    }
    assert found["a/far-1"].toolchain == {SEED[0].cpv: "gcc"}


def test_ebuild_or_eclass_that_is_not_in_the_commit_is_an_error() -> None:
    world = World((planned("a/a-1", eclasses=["x"]),))
    plan, objects = world.plan, world.objects
    for path in ("a/a/a-1.ebuild", "eclass/x.eclass"):
        ids = {key: value for key, value in objects.ids.items() if key[1] != path}
        with refused(BinmillError, "planned-file-missing", package="a/a-1", path=path):
            own_inputs(plan, closure(plan), replace(objects, ids=ids), world.environment)
    with refused(BinmillError, "planned-repository-unknown", repo="gentoo"):
        own_inputs(plan, closure(plan), replace(objects, commits={}), world.environment)


@pytest.mark.parametrize("name", ["../x", "x\ny", "", "a/b", ".x", "x y"])
def test_eclass_of_an_odd_name_is_an_error(name: str) -> None:
    package = replace(planned("a/a-1"), eclasses=(Eclass(name, "gentoo"),))
    with refused(BinmillError, "planned-name-malformed", package="a/a-1"):
        of_world(World((package,)))


@pytest.mark.parametrize("cpv", ["../a-1", "a/../a-1", "a/a", "a-1", "a/a-1\n"])
def test_package_of_an_odd_name_is_an_error(cpv: str) -> None:
    with pytest.raises(NotTrusted):
        of_world(World((planned(cpv),)))


# Changes in words


def test_changes_of_a_buildroot_pair_the_versions_of_a_package() -> None:
    before = {"a/a-1": "1", "a/b-1": "1", "a/c-1": "1", "a/d-1": "1", "a/s-1": "1", "a/s-2": "1"}
    after = {"a/a-2": "1", "a/b-1": "2", "a/c-1": "1", "a/e-1": "1", "a/s-3": "1"}
    causes = differences(OWN, OWN, before, after)
    assert DependencyReplaced("a/a-1", "a/a-2") in causes
    assert [str(cause) for cause in causes] == [
        "dependency a/b-1 changed",
        "dependency a/a-1 -> a/a-2",
        "dependency a/d-1 was removed",
        "dependency a/e-1 is new",
        "dependency a/s-1 was removed",
        "dependency a/s-2 was removed",
        "dependency a/s-3 is new",
    ]
    assert DependencyRemoved("a/d-1") in causes
    assert DependencyAdded("a/e-1") in causes


def test_value_from_outside_is_short_and_printable() -> None:
    cause = BuildSettingChanged("X", "a\x1b[31m\nb" + "c" * 500, None)
    assert str(cause).isprintable()
    assert len(str(cause)) < 200
    assert cause.plain()["before"] == "a\x1b[31m\nb" + "c" * 500


def test_packages_are_grouped_by_cause_the_largest_group_first() -> None:
    eclass, use = EclassChanged("toolchain-names"), UseChanged(("static-libs",))
    toolchain = ToolchainChanged(("gcc-14 -> gcc-15",))
    groups = grouped({"a/a-1": [use, eclass], "a/b-1": [eclass], "a/c-1": [eclass, toolchain]})
    assert [str(group) for group in groups] == [
        "eclass toolchain-names changed, inherited by 3 packages",
        "a/a-1: USE +static-libs",
        "a/c-1: toolchain of the seed: gcc-14 -> gcc-15",
    ]
    assert groups[0].packages == ("a/a-1", "a/b-1", "a/c-1")
    assert groups[1].plain() == {
        "cause": {"code": "cause-use", "added": ("static-libs",), "removed": ()},
        "packages": ["a/a-1"],
        "sentence": "a/a-1: USE +static-libs",
    }
    (both,) = grouped({"a/a-1": [toolchain], "a/b-1": [replace(toolchain)]})
    assert str(both) == "2 packages: toolchain of the seed: gcc-14 -> gcc-15"
