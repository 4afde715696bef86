"""Plans are parsed strictly: what a chroot answers is hostile, and a stored plan may be damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.planner import plan as plans
from tasks.system.files import sha256
from tests.kit.plan_factory import PACKAGE, dice_of, package, plan, random_plan
from tests.kit.refused import refused

LONG = "x" * (1 << 20)


def raw(**changes: Any) -> dict[str, Any]:
    """The data of a plan of one package, with other values in that package."""
    data: dict[str, Any] = json.loads(plans.render(plan()))
    data["packages"][0].update(changes)
    return data


@pytest.mark.parametrize("seed", range(30))
def test_plan_written_is_read_equal(tmp_path: Path, seed: int) -> None:
    made = random_plan(dice_of(seed), 12)
    plans.write(made, tmp_path / "plan.json")
    assert plans.read(tmp_path / "plan.json", plans.digest(made)) == made
    assert plans.render(made) == (tmp_path / "plan.json").read_text()


def test_equal_plans_have_equal_texts_and_digests() -> None:
    other = package(PACKAGE.cpv, settings=dict(reversed(list(PACKAGE.settings.items()))))
    assert plans.render(plan(other)) == plans.render(plan())
    assert plans.digest(plan(other)) == plans.digest(plan())
    assert plans.digest(plan(package(PACKAGE.cpv, slot="1"))) != plans.digest(plan())


def test_plan_has_a_line_for_each_package() -> None:
    made = plan(package("a-b/one-1"), package("a-b/two-2-r1"))
    lines = plans.render(made).splitlines()
    assert [json.loads(line.rstrip(","))["cpv"] for line in lines[1:-1]] == [
        "a-b/one-1",
        "a-b/two-2-r1",
    ]


VALUES = [
    ("cpv", "dev-libs/popt"),
    ("cpv", "popt-1"),
    ("cpv", "../popt-1"),
    ("cpv", "dev-libs/../popt-1"),
    ("cpv", "dev-libs/popt-1/2"),
    ("cpv", "dev-libs/popt-1\n"),
    ("cpv", "dev-libs/popt-1-2"),  # a name must not end in a version (PMS 3.1.2)
    ("cpv", f"dev-libs/{'p' * 250}-1"),
    ("cpv", 1),
    ("repo", "-gentoo"),
    ("repo", "gen/too"),
    ("slot", ""),
    ("slot", "0/1"),
    ("eapi", "8 "),
    ("use", ["nls", "amd64"]),
    ("use", ["nls", "nls"]),
    ("use", ["-nls"]),
    ("use", "nls"),
    ("use", [["nls"]]),
    ("dependencies", {"LIBDEPEND": "a/b"}),
    ("dependencies", {"DEPEND": "a/b\0"}),
    ("dependencies", {"DEPEND": LONG + "x"}),
    ("restrict", ["test test"]),
    ("phases", ["Install"]),
    ("eclasses", [{"name": "../x", "repo": "gentoo"}]),
    ("eclasses", [{"name": "x", "repo": "gentoo", "more": 1}]),
    ("eclasses", [{"name": "x"}]),
    ("distfiles", [{"name": "../x", "size": 1, "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": ".x", "size": 1, "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": "x", "size": -1, "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": "x", "size": 1 << 60, "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": "x", "size": "1", "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": "x", "size": True, "digests": {"SHA512": "a" * 128}}]),
    ("distfiles", [{"name": "x", "size": 1, "digests": {}}]),
    ("distfiles", [{"name": "x", "size": 1, "digests": {"SHA512": "A" * 128}}]),
    ("settings", {"CFLAGS": None}),
    ("settings", {"C=FLAGS": "x"}),
    ("settings", {"CFLAGS": "a\0b"}),
    ("settings", []),
    ("config_files", [{"path": "etc/x", "sha512": "a" * 128}]),
    ("config_files", [{"path": "/etc/../x", "sha512": "a" * 128}]),
    ("config_files", [{"path": "/etc/x", "sha512": "a" * 127}]),
    ("config_files", [{"path": "/etc/x", "sha512": "a" * 128}] * 2),
    ("build_needs", ["dev-libs/absent-1"]),
    ("build_needs", [PACKAGE.cpv]),
    ("run_needs", ["dev-libs/absent-1"]),
    ("post_needs", ["dev-libs/absent-1"]),
    ("seed_needs", ["dev-libs/absent-1"]),
    ("seed_needs", ["sys-libs/zlib-1.3-r2", "sys-devel/gcc-14.2.0"]),
    ("more", 1),
]


@pytest.mark.parametrize(("key", "value"), VALUES, ids=lambda each: str(each)[:40])
def test_package_with_a_wrong_value_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError):
        plans.parse(json.dumps(raw(**{key: value})))


@pytest.mark.parametrize("key", [key for key in raw()["packages"][0] if "_needs" not in key])
def test_package_without_a_value_is_refused(key: str) -> None:
    data = raw()
    del data["packages"][0][key]
    with pytest.raises(ValueError):
        plans.parse(json.dumps(data))


TEXTS = [
    "",
    "null",
    "[]",
    "{}",
    '{"packages": []}',
    '{"portage": "3", "packages": {}}',
    '{"portage": "3", "packages": [], "more": 1}',
    '{"portage": "3 4", "packages": []}',
    '{"portage": "3", "packages": [], "cycles": [["a/b-1", "a/c-1"]]}',
    '{"portage": "3", "packages": [], "seed": [{"cpv": "a/b-1", "identity": "", "toolchain": 1}]}',
    '{"portage": "3", "packages": [], "seed": [{"cpv": "a/b-1", "identity": "x", "toolchain": 1}]}',
    '{"portage": "3", "packages": []} {}',
    '{"portage": "\\ud800", "packages": []}',
    '{"packages": ' + "[" * 100_000 + "]" * 100_000 + "}",
]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:50])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        plans.parse(text)


def test_package_that_occurs_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        plans.parse(plans.render(plan(PACKAGE, PACKAGE)))
    made = plan()
    with pytest.raises(ValueError, match="twice"):
        plans.parse(plans.render(replace(made, seed=made.seed + made.seed)))


def test_plan_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text = plans.render(plan())
    monkeypatch.setattr(plans, "LONGEST", len(text) - 1)
    with pytest.raises(ValueError, match="more than"):
        plans.parse(text)


def test_cycles_must_be_those_of_the_needs() -> None:
    one = package("a-b/one-1", build_needs=("a-b/two-1",))
    two = package("a-b/two-1", run_needs=("a-b/one-1",))
    made = plan(one, two)
    assert made.cycles == (("a-b/one-1", "a-b/two-1"),)
    assert plans.parse(plans.render(made)) == made
    with pytest.raises(ValueError, match="cycles"):
        plans.parse(plans.render(replace(made, cycles=())))


def test_provided_package_gets_the_identity_of_the_seed() -> None:
    made = plan()
    provided = replace(made.seed[0], identity="")
    text = plans.render(replace(made, seed=(provided, made.seed[1])))
    with pytest.raises(ValueError, match="identity"):
        plans.parse(text)
    read = plans.parse(text, seed="whole")
    assert [each.identity for each in read.seed] == ["whole", made.seed[1].identity]


def test_plan_of_another_form_is_an_error_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("{}")
    with refused(BinmillError, "plan-unreadable", path=path):
        plans.read(path, sha256(path))
    with refused(BinmillError, "plan-unreadable"):
        plans.read(tmp_path / "absent", "")


@pytest.mark.parametrize("seed", range(40))
def test_damaged_plan_is_refused_or_another_plan(seed: int) -> None:
    """A random change of a byte never passes unnoticed, and raises nothing but ValueError."""
    dice = dice_of(seed)
    text = bytearray(plans.render(random_plan(dice, 5)).encode())
    for _ in range(50):
        damaged = bytearray(text)
        place = dice.randrange(len(damaged))
        damaged[place] = dice.choice(b'"{}[]:,\\ \n\xff0ax')
        try:
            read = plans.parse(bytes(damaged))
        except ValueError:
            continue
        assert plans.parse(plans.render(read)) == read


def test_plan_with_too_many_packages_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "MOST", 1)
    second = package("dev-libs/second-1")
    plans.parse(plans.render(plan(PACKAGE)))
    with pytest.raises(ValueError, match="more than 1 package"):
        plans.parse(plans.render(plan(PACKAGE, second)))
