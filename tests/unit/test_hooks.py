"""Hooks that never run are named."""

from __future__ import annotations

import pytest

from tasks.config.tables import Config
from tasks.flow import hooks
from tasks.layout import Layout
from tasks.site import Site
from tests.kit.configs import ONE_CHROOT
from tests.kit.hooks import write_hook


def warnings(layout: Layout, capsys: pytest.CaptureFixture[str]) -> list[str]:
    hooks.warn(layout)
    output = capsys.readouterr().out.replace(f"{layout.hooks}/", "")
    return [line.strip() for line in output.splitlines()]


def test_site_without_hooks_has_no_warning(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    assert warnings(layout, capsys) == []


def test_hook_that_never_runs_is_named(layout: Layout, capsys: pytest.CaptureFixture[str]) -> None:
    write_hook(layout, "package-build")
    write_hook(layout, "notes")
    write_hook(layout, "set-complete").chmod(0o644)
    (layout.hooks / "published").symlink_to("nothing")
    (layout.hooks / "package-built").mkdir()
    assert warnings(layout, capsys) == [
        "warning: notes never runs: no event has that name; did you mean package-built,"
        " package-failed, set-complete, published?",
        "warning: package-build never runs: no event has that name; did you mean package-built?",
        "warning: package-built does not run, because it is not an executable file",
        "warning: published does not run, because it is not an executable file",
        "warning: set-complete does not run, because it is not an executable file",
    ]


def test_hooks_and_what_they_use_are_in_order(
    layout: Layout, capsys: pytest.CaptureFixture[str]
) -> None:
    for event in hooks.EVENTS:
        write_hook(layout, event)
    (layout.hooks / "lib").mkdir()
    (layout.hooks / ".gitignore").touch()
    assert warnings(layout, capsys) == []


def test_event_without_a_hook_starts_nothing(layout: Layout) -> None:
    write_hook(layout, "package-built").chmod(0o644)
    chroot = Site(layout, Config.model_validate(ONE_CHROOT)).chroot("base")
    assert hooks.run(chroot, "binpkgs", "package-built", {}) is None
    with hooks.in_background(chroot, "binpkgs") as submit:
        submit("package-built", {})
        submit("package-failed", {})
