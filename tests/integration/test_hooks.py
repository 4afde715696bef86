"""Hooks that really run: what they get, their limits, and that nothing of them is left."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.builder.events import PackageBuilt, PackageFailed
from tasks.builder.failure import Failure, Kind
from tasks.config.tables import Config
from tasks.flow import binpkgs, build_events, hooks, per_package, releases, signing
from tasks.flow.hooks import in_background
from tasks.layout import Layout
from tasks.records import BinpkgsRecord, Inputs
from tasks.site import Chroot, Site
from tests.kit.binhost import sign
from tests.kit.configs import ONE_CHROOT
from tests.kit.hooks import events_of, write_hook
from tests.kit.processes import alive, eventually
from tests.kit.publishing import PublishingSite
from tests.kit.set_clock import SetClock


@pytest.fixture
def chroot(layout: Layout) -> Chroot:
    """A chroot of a site, in a run with logs."""
    layout.run_logs.mkdir(parents=True)
    return Site(layout, Config.model_validate(ONE_CHROOT)).chroot("base")


def test_hook_gets_the_event_and_the_callers_environment(
    chroot: Chroot, monkeypatch: pytest.MonkeyPatch, clock: SetClock
) -> None:
    clock.set(1_800_000_000)
    monkeypatch.setenv("GREETING", "hello")
    write_hook(chroot.layout, "published", 'cat > event; echo "$GREETING $(id -u)"; pwd >&2')
    facts = {"folder": Path("/x"), "url": "https://me:secret@host/"}
    assert hooks.run(chroot, "publish", "published", facts) is None
    assert (chroot.layout.site / "event").read_text() == (
        '{"event": "published", "time": 1800000000, "chroot": "base",'
        ' "folder": "/x", "url": "https://***@host/"}'
    )
    output = chroot.log("publish").read_text()
    assert output == f"hello {os.geteuid()}\n{chroot.layout.site}\n"


@pytest.mark.parametrize(
    ("script", "outcome"),
    [
        ("echo it broke >&2; exit 3", "published failed (exit code 3): it broke"),
        ("kill -KILL $$", "published failed (killed by SIGKILL)"),
        ("exit 1", "published failed (exit code 1)"),
    ],
)
def test_failure_of_a_hook_is_a_note(
    chroot: Chroot, capsys: pytest.CaptureFixture[str], script: str, outcome: str
) -> None:
    """Also where it reads nothing of a large event."""
    write_hook(chroot.layout, "published", script)
    assert hooks.run(chroot, "publish", "published", {"lines": ["x" * 1000] * 1000}) is not None
    assert capsys.readouterr().out.startswith(f"  warning: the hook {outcome}")


def test_file_that_is_no_program_is_a_failure(
    chroot: Chroot, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hook(chroot.layout, "published").write_bytes(b"\x00\x01")
    assert hooks.run(chroot, "publish", "published", {}) is not None
    assert "Exec format error" in capsys.readouterr().out


def test_hook_over_its_time_is_ended_and_runs_no_more(
    chroot: Chroot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hooks, "_SECONDS", 2.0)
    write_hook(chroot.layout, "package-built", "sleep 600 & echo $! >> pids; wait")
    with in_background(chroot, "binpkgs") as submit:
        for number in range(5):
            submit("package-built", {"package": str(number)})
    (pid,) = (chroot.layout.site / "pids").read_text().split()
    assert eventually(lambda: not alive(int(pid)))
    assert capsys.readouterr().out.splitlines() == [
        "  warning: the hook package-built did not end within 2 s"
    ]


def test_hook_of_an_event_runs_for_one_at_a_time_in_order(chroot: Chroot) -> None:
    script = "mkdir running || exit 1; sleep 0.05; cat >> got; echo >> got; rmdir running"
    write_hook(chroot.layout, "package-built", script)
    write_hook(chroot.layout, "package-failed", "until [ -d running ]; do sleep 0.01; done")
    with in_background(chroot, "binpkgs") as submit:
        submit("package-failed", {})  # which waits for the other one, so that runs beside it
        for number in range(5):
            submit("package-built", {"package": number})
    lines = (chroot.layout.site / "got").read_text().splitlines()
    assert [line.partition('"package": ')[2] for line in lines] == [f"{n}}}" for n in range(5)]


def test_end_of_the_work_ends_its_hooks(chroot: Chroot) -> None:
    write_hook(chroot.layout, "package-built", "sleep 600 & echo $! >> pids; wait")
    pids = chroot.layout.site / "pids"
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), in_background(chroot, "binpkgs") as submit:
        for _ in range(3):
            submit("package-built", {})
        assert eventually(pids.exists)
        raise KeyboardInterrupt
    assert time.monotonic() - start < 10
    (pid,) = pids.read_text().split()
    assert eventually(lambda: not alive(int(pid)))


def test_build_runs_the_hooks_of_its_packages(chroot: Chroot) -> None:
    for event in ("package-built", "package-failed"):
        write_hook(chroot.layout, event)
    broken = Failure(Kind.FETCH, "fetch", ("cannot get https://me:secret@host/x",))
    with build_events.listener(chroot) as listen:
        listen(PackageBuilt("a/b-1", 3.0, 7, unchanged=True))
        listen(PackageFailed("a/c-1", 1.0, broken, again=True))
        listen(PackageFailed("a/c-1", 2.0, broken, again=False))
    (built,) = events_of(chroot.layout, "package-built")
    assert (built["chroot"], built["package"], built["unchanged"]) == ("base", "a/b-1", True)
    (failed,) = events_of(chroot.layout, "package-failed")
    assert (failed["seconds"], failed["failure"]["kind"]) == (2.0, "fetch")
    assert failed["failure"]["lines"] == ["cannot get https://***@host/x"]


@pytest.mark.parametrize("driver", ["per-package", "emerge"])
def test_set_that_is_complete_runs_the_hook(
    chroot: Chroot, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    layout = chroot.layout
    config = Config.model_validate({**ONE_CHROOT, "build": {"driver": driver}})
    record = BinpkgsRecord("5" * 64, (), ())
    builds = {"per-package": (per_package, "build_set"), "emerge": (binpkgs, "_build_at_once")}
    monkeypatch.setattr(*builds[driver], lambda _chroot, _inputs: record)
    write_hook(layout, "set-complete")
    inputs = Inputs(layout, frozenset())
    assert binpkgs.build_set(Site(layout, config).chroot("base"), inputs) == record
    (event,) = events_of(layout, "set-complete")
    folder = str(layout.binpkgs("base") / record.set)
    assert (event["set"], event["packages"], event["folder"]) == (record.set, 0, folder)


def test_each_switch_of_clients_runs_the_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "sign_beside", lambda _c, _i, _s, files: sign(files))
    site = PublishingSite(tmp_path)
    write_hook(site.layout, "published")
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    site.publish()  # which changes nothing
    releases.promote(site.chroot)
    releases.roll_back(site.chroot)
    events = events_of(site.layout, "published")
    assert [(each["generation"], each["channel"]) for each in events] == [
        (1, ""),
        (2, ""),
        (2, "testing"),
        (3, ""),
    ]
    assert events[-1]["folder"] == str(site.layout.binhost("base") / "gen/3")
    assert Path(events[-1]["folder"]).is_dir()
