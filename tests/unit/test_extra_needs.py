"""Build dependencies, and limits of single packages, from config.toml."""

from __future__ import annotations

import pytest

from tasks.config.tables import Build
from tasks.errors import BinmillError
from tasks.flow.per_package import package_settings
from tasks.planner import extra_needs
from tasks.planner.plan import Plan
from tests.kit.plans import planned

PLAN = Plan(
    "3.0", (planned("a/user-1"), planned("a/tool-1"), planned("a/tool-2"), planned("b/other-1"))
)


def test_every_version_of_a_named_package_is_needed() -> None:
    extra = {"a/*": ["b/other"], "=a/user-1": ["a/tool"]}
    changed = extra_needs.add(PLAN, extra, "base").by_cpv
    assert changed["a/user-1"].build_needs == ("b/other-1", "a/tool-1", "a/tool-2")
    assert changed["a/tool-1"].build_needs == ("b/other-1",)
    assert changed["b/other-1"] == PLAN.by_cpv["b/other-1"]
    assert extra_needs.add(PLAN, {}, "base") is PLAN


def test_package_does_not_need_itself() -> None:
    changed = extra_needs.add(PLAN, {"a/tool": ["a/tool"]}, "base").by_cpv
    assert changed["a/tool-1"].build_needs == ("a/tool-2",)


def test_dependency_that_is_not_planned_is_an_error_where_it_is_needed() -> None:
    assert extra_needs.add(PLAN, {"c/*": ["c/absent"]}, "base") == PLAN
    with pytest.raises(BinmillError) as error:
        extra_needs.add(PLAN, {"a/user": ["c/absent"]}, "base")
    assert error.value.code == "extra-dependency-not-planned"
    assert error.value.fields == {"chroot": "base", "package": "c/absent", "pattern": "a/user"}


def test_last_limit_that_matches_counts() -> None:
    build = Build.model_validate(
        {
            "jobs": 4,
            "memory_mb": 100,
            "limits": {
                "dev-qt/*": {"memory_mb": 4000, "package_minutes": 0, "jobs": 2},
                "=dev-qt/qtcore-6*": {"memory_mb": 8000, "tmpfs_mb": 50},
            },
        }
    )
    core = package_settings(build, "dev-qt/qtcore-6.1")
    assert (core.limits.memory, core.limits.seconds) == (8_000_000_000, 0)
    assert (core.makeopts, core.tmpfs) == ("-j2", 50_000_000)
    assert package_settings(build, "dev-qt/qtgui-6.1").limits.memory == 4_000_000_000
    assert " -l" in package_settings(build.model_copy(update={"packages": 2}), "a/b-1").makeopts
    other = package_settings(build, "a/b-1")
    assert (other.limits.memory, other.limits.seconds) == (100_000_000, 720 * 60)
    assert (other.makeopts, other.tmpfs) == ("-j4", 0)
