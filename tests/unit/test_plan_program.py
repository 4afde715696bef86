"""The parts of the program that plans in a chroot which need no Portage."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.portage.inside import plan as program
from tasks.portage.inside.plan import cycles
from tests.kit.plan_factory import dice_of, random_graph, reaches

PREFIX = "app-misc/hello"


def put(folder: Path, *paths: str, text: str = "x") -> None:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


CYCLES: list[tuple[dict[str, list[str]], dict[str, list[str]], list[list[str]]]] = [
    ({"a": ["b"], "b": []}, {}, []),
    ({"a": ["b"], "b": ["a"]}, {}, [["a", "b"]]),
    ({"a": ["b"], "b": []}, {"b": ["a"]}, [["a", "b"]]),
    ({"a": [], "b": []}, {"a": ["b"], "b": ["a"]}, []),  # they only run together
    # two packages that run together, and one that is built with both
    ({"a": [], "b": [], "c": ["a"]}, {"a": ["b"], "b": ["a"]}, []),
    (
        {"c": ["a"], "b": ["c"], "a": ["b"], "d": ["e"], "e": ["d"]},
        {},
        [["c", "b", "a"], ["d", "e"]],
    ),
]


@pytest.mark.parametrize(("build", "run", "wanted"), CYCLES)
def test_cycles_are_needs_to_be_built_that_lead_back(
    build: dict[str, list[str]], run: dict[str, list[str]], wanted: list[list[str]]
) -> None:
    assert cycles(build, {name: run.get(name, []) for name in build}) == wanted


@pytest.mark.parametrize("seed", range(200))
def test_cycles_of_random_graphs_are_those_by_definition(seed: int) -> None:
    dice = dice_of(seed)
    size = dice.randrange(1, 14)
    build, run = random_graph(dice, size), random_graph(dice, size)
    edges = {name: [*build[name], *run[name]] for name in build}
    wanted = set()
    for name, needs in build.items():
        if any(reaches(edges, need, name) for need in needs):
            circle = [x for x in edges if reaches(edges, x, name) and reaches(edges, name, x)]
            wanted.add(tuple(circle))
    assert {tuple(circle) for circle in cycles(build, run)} == wanted


def test_cycles_of_a_long_chain_need_no_recursion() -> None:
    names = [f"p{number}" for number in range(20_000)]
    build = {name: [following] for name, following in pairwise(names)}
    build[names[-1]] = [names[0]]
    assert cycles(build, {name: [] for name in build}) == [names]


def test_settings_are_what_decides_a_build() -> None:
    environment = {
        "CFLAGS": "-O2",
        "EXTRA_ECONF": "--with-x",
        "MY_VARIABLE": "1",
        "PYTHON_TARGETS": "python3_12",
        "PORTAGE_COMPRESS": "bzip2",
        "TZ": "UTC",
        "FEATURES": "strict nodoc cgroup test parallel-fetch",
        # and what does not
        "MAKEOPTS": "-j8",
        "NINJAOPTS": "-j8",
        "DISTDIR": "/x",
        "PORTAGE_TMPDIR": "/x",
        "HOME": "/root",
        "GENTOO_MIRRORS": "https://me:sesame@mirror.example",
        "http_proxy": "http://me:sesame@proxy.example",
        "SOURCE_DATE_EPOCH": "1",
        "PF": "x-1",
        "PV": "1",
        "USE": "amd64",
        "PATH": "/bin",
        "TERM": "dumb",
        "PORTAGE_REPO_REVISIONS": "{}",
        "PORTAGE_FEATURES": "strict",
        "USE_EXPAND_VALUES_ARCH": "amd64",
        "FETCHCOMMAND_SSH": "x",
    }
    assert program.settings_of(environment) == {
        "CFLAGS": "-O2",
        "EXTRA_ECONF": "--with-x",
        "MY_VARIABLE": "1",
        "PYTHON_TARGETS": "python3_12",
        "PORTAGE_COMPRESS": "bzip2",
        "TZ": "UTC",
        "FEATURES": "nodoc strict test",
    }


def test_empty_group_of_flags_is_no_setting() -> None:
    before = {"USE_EXPAND": "LUA_TARGETS ABI_X86", "LUA_TARGETS": "", "ABI_X86": "64"}
    after = {**before, "USE_EXPAND": "LUA_TARGETS ABI_X86 NEW_CARDS", "NEW_CARDS": ""}
    assert program.settings_of(before) == program.settings_of(after) == {"ABI_X86": "64"}
    assert program.settings_of({"LDFLAGS": ""}) == {"LDFLAGS": ""}


def test_variables_for_bootstrapping_are_no_settings() -> None:
    # they name the default Python and the groups of flags: what a package has of these is in USE
    environment = {"BOOTSTRAP_USE": "python_targets_python3_14", "PROFILE_ONLY_VARIABLES": "ARCH"}
    assert program.settings_of(environment) == {}


@pytest.mark.parametrize(
    ("pf", "wanted"),
    [
        ("hello-1.0", ("hello", "1.0", "r0")),
        ("hello-1.0-r3", ("hello", "1.0", "r3")),
        ("a-b-c-1.0_p2-r10", ("a-b-c", "1.0_p2", "r10")),
    ],
)
def test_pf_has_a_name_a_version_and_a_revision(pf: str, wanted: tuple[str, ...]) -> None:
    assert program.split_pf(pf) == wanted


def test_patches_are_those_of_eapply_user(tmp_path: Path) -> None:
    put(
        tmp_path,
        f"{PREFIX}/b.patch",
        f"{PREFIX}/a.diff",
        f"{PREFIX}/readme.txt",
        f"{PREFIX}/dropped.patch",
        f"{PREFIX}-1.0/b.patch",
        f"{PREFIX}:2/slot.patch",
        f"{PREFIX}:3/other.patch",
        f"{PREFIX}-1.0-r0/never.patch",
        f"{PREFIX}-1.0-r1:2/B.patch",
        f"{PREFIX}-2.0/other.patch",
    )
    put(tmp_path, f"{PREFIX}-1.0-r1/dropped.patch", text="")
    (tmp_path / PREFIX / "gone.patch").symlink_to("absent")
    chosen = program.patches(tmp_path, "app-misc", "hello-1.0-r1", "2")
    assert [str(path.relative_to(tmp_path)) for path in chosen] == [
        f"{PREFIX}-1.0-r1:2/B.patch",
        f"{PREFIX}/a.diff",
        f"{PREFIX}-1.0/b.patch",
        f"{PREFIX}:2/slot.patch",
    ]
    assert program.patches(tmp_path / "absent", "app-misc", "hello-1.0", "0") == []


def test_env_files_are_those_that_are_sourced(tmp_path: Path) -> None:
    put(tmp_path, "special.conf", PREFIX, f"{PREFIX}:2", f"{PREFIX}-1.0", f"{PREFIX}-1.0-r1")
    put(tmp_path, f"{PREFIX}:3", f"{PREFIX}-2.0")
    chosen = program.env_files(tmp_path, "app-misc", "hello-1.0-r1", "2")
    names = [str(path.relative_to(tmp_path)) for path in chosen]
    assert names == [PREFIX, f"{PREFIX}:2", f"{PREFIX}-1.0", f"{PREFIX}-1.0-r1"]


def entry(folder: Path, **values: str) -> Path:
    """An entry of Portage's database, with other values than the usual ones."""
    usual = {
        "CONTENTS": "dir /usr\nobj /usr/a b 0123 99\nsym /usr/c -> a 99\n",
        "USE": "amd64 nls build",
        "IUSE_EFFECTIVE": "amd64 nls",
        "SLOT": "0/1",
        "RDEPEND": "a/b",
    }
    for name, value in (usual | values).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(value)
    return folder


SAME: list[dict[str, str]] = [
    {"CONTENTS": "dir /usr\nobj /usr/a b 0123 100\nsym /usr/c -> a 7\n"},
    {"CONTENTS": "obj /usr/a b 0123 99\ndir /usr\nsym /usr/c -> a 99\n"},
    {"BUILD_TIME": "1", "COUNTER": "3", "BUILD_ID": "2", "SIZE": "9"},
    {"USE": "nls amd64", "RDEPEND": "a/b\n"},
]
OTHER: list[dict[str, str]] = [
    {"CONTENTS": "dir /usr\nobj /usr/a b 0124 99\nsym /usr/c -> a 99\n"},
    {"CONTENTS": "dir /usr\nobj /usr/a c 0123 99\nsym /usr/c -> a 99\n"},
    {"CONTENTS": "dir /usr\nobj /usr/a b 0123 99\nsym /usr/c -> b 99\n"},
    {"USE": "amd64"},
    {"SLOT": "0/2"},
    {"RDEPEND": "a/c"},
    {"REQUIRES": "x86_64: libz.so.1"},
]


def test_identity_of_a_seed_package_is_its_content(tmp_path: Path) -> None:
    first = program.seed_identity(entry(tmp_path / "first"))
    for number, values in enumerate(SAME):
        same = entry(tmp_path / f"same{number}", **values)
        assert program.seed_identity(same) == first, values
    others = [entry(tmp_path / f"other{number}", **each) for number, each in enumerate(OTHER)]
    found = {program.seed_identity(each) for each in others}
    assert len(found | {first}) == len(OTHER) + 1


def test_edge_has_the_kinds_of_its_priorities() -> None:
    def kinds(*flags: str) -> set[str]:
        return program.kinds_of([SimpleNamespace(**dict.fromkeys(flags, True))])

    assert kinds("buildtime", "buildtime_slot_op") == {"build"}
    assert kinds("runtime") == {"run"}
    assert kinds("runtime_post") == {"post"}
    assert kinds("buildtime", "optional") == set()
    assert kinds("buildtime", "ignored") == set()
    assert kinds() == set()


def test_atoms_are_found_in_groups_and_blockers_are_none() -> None:
    def atom(cp: str, blocker: object = False) -> Any:
        return SimpleNamespace(cp=cp, blocker=blocker)

    tokens = [atom("a/b"), "||", [atom("c/d"), [atom("e/f"), atom("g/h", blocker=True)]]]
    assert [each.cp for each in program.atoms(tokens)] == ["a/b", "c/d", "e/f"]


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("has_version dev-libs/popt && die", True),
        ("echo $(best_version -b dev-lang/python)", True),
        ("portageq match / dev-libs/popt", True),
        ('ls "${EROOT}"/var/db/pkg/dev-libs', True),
        ('DESCRIPTION="It has versions"\nPV=1', False),
    ],
)
def test_code_that_can_ask_for_versions(tmp_path: Path, text: str, asks: bool) -> None:
    file = tmp_path / "x.ebuild"
    file.write_text(text)
    assert program.asks_versions(file) is asks
