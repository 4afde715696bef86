"""Steps under the real doit: records, early cutoff, kills, exit codes; as its own process."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from tasks.layout import Layout
from tasks.report.gather import holder
from tests.kit.files import names
from tests.kit.processes import eventually
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.step_project import StepProject, write_file
from tests.programs import end_cleanly, interrupt_put


@pytest.fixture
def site(tmp_path: Path) -> StepProject:
    (tmp_path / "site").mkdir()
    return StepProject(tmp_path / "site")


@pytest.fixture
def finished_site(site: StepProject) -> StepProject:
    """A site where every task has finished."""
    site.doit()
    assert site.ran() == ["one", "two", "three"]
    return site


def test_finished_run_does_nothing_again(finished_site: StepProject) -> None:
    assert json.loads(finished_site.record("one").read_text()) == {"word": "word"}
    assert names(finished_site.record("one").parent) == ["one.json", "three.json", "two.x.json"]
    before = artifacts(finished_site)
    assert finished_site.doit() == "nothing to do: all 3 tasks are up to date\n"
    assert finished_site.ran() == []
    assert artifacts(finished_site) == before


def artifacts(site: StepProject) -> dict[str, bytes]:
    """All files except doit's memory."""
    return {name: data for name, data in site.state().items() if name != "state/doit.db"}


def delete(name: str) -> Callable[[StepProject], object]:
    return lambda site: (site.folder / name).unlink()


CHANGES: list[tuple[str, Callable[[StepProject], object], list[str], str, str]] = [
    ("input", write_file("input", "other"), ["one", "two", "three"], "one", "cause-files"),
    ("cutoff", write_file("input", "word but other"), ["one"], "one", "cause-files"),
    ("setting", write_file("setting", "t"), ["three"], "three", "cause-settings"),
    ("result", delete("result"), ["one"], "one", "cause-result-missing"),
    ("record", delete("state/records/two.x.json"), ["two"], "two:x", "cause-result-missing"),
    ("below", write_file("below/new", "x"), ["two"], "two:x", "cause-files"),
    (
        "damaged",
        write_file("state/records/one.json", "{"),
        ["one"],
        "one",
        "cause-result-missing",
    ),
    (
        "memory",
        lambda site: site.doit("forget", "three"),
        ["three"],
        "three",
        "cause-not-remembered",
    ),
    ("below as a directory", lambda site: (site.folder / "below" / "x").mkdir(), [], "", ""),
]


@pytest.mark.parametrize(
    ("change", "ran", "first", "code"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_change_runs_only_the_tasks_it_concerns(
    finished_site: StepProject,
    change: Callable[[StepProject], object],
    ran: list[str],
    first: str,
    code: str,
) -> None:
    change(finished_site)
    before = artifacts(finished_site)
    reasons = finished_site.why()
    assert [(r["task"], r["cause"]["code"]) for r in reasons[:1]] == [(first, code)][: len(first)]
    assert finished_site.ran() == []
    assert artifacts(finished_site) == before
    finished_site.doit()
    assert finished_site.ran() == ran
    assert finished_site.why() == []
    finished_site.doit()
    assert finished_site.ran() == []


def chains(site: StepProject, *words: str) -> list[tuple[list[str], str]]:
    """The chain of each task that would run, and the code of its first cause."""
    return [(reason["chain"], reason["root"]["code"]) for reason in site.why(*words)]


def test_why_names_the_chain_of_a_change(finished_site: StepProject) -> None:
    write_file("input", "other")(finished_site)
    assert chains(finished_site) == [
        (["one"], "cause-files"),
        (["two:x", "one"], "cause-files"),
        (["three", "two:x", "one"], "cause-files"),
    ]
    assert chains(finished_site, "one") == [(["one"], "cause-files")]
    (one,) = finished_site.why("one")
    assert one["cause"] == {"code": "cause-files", "files": ["input"]}


def test_why_before_the_first_run_names_every_task(site: StepProject) -> None:
    never = [([name], "cause-never-made") for name in ("one", "two:x", "three")]
    assert chains(site) == never
    assert site.ran() == []
    (site.folder / "input").unlink()
    assert chains(site)[:1] == never[:1]


def test_why_names_the_task_whose_record_changed(finished_site: StepProject) -> None:
    write_file("input", "other")(finished_site)
    finished_site.doit("one")
    assert finished_site.why()[0]["cause"] == {"code": "cause-records", "tasks": ["one"]}
    write_file("input", "third")(finished_site)
    assert chains(finished_site) == [  # certain changes come first
        (["one"], "cause-files"),
        (["two:x"], "cause-records"),
        (["three", "two:x"], "cause-records"),
    ]


def test_setting_change_is_data(finished_site: StepProject) -> None:
    write_file("setting", "t")(finished_site)
    (reason,) = finished_site.why()
    (change,) = reason["cause"]["changes"]
    assert (change["key"], change["before"], change["after"]) == ("setting", "s", "t")


def test_status_shows_a_line_for_each_task(finished_site: StepProject) -> None:
    write_file("setting", "t")(finished_site)
    lines = dict(line.split("  ", 1) for line in finished_site.doit("status").splitlines())
    states = {name: state.strip().partition(":")[0] for name, state in lines.items()}
    assert states == {
        "one": "fresh",
        "two:x": "fresh",
        "three": "stale",
        "looks": "stale",
        "locks": "stale",
    }


FAILURES = [
    ("fail", 1, "failed", "stage-pointer-empty"),
    ("os", 1, "failed", "system-error"),
    ("full", 1, "failed", "disk-full"),
    ("bug", 2, "bug", ""),
    ("odd", 2, "bug", ""),
]


@pytest.mark.parametrize(("order", "code", "outcome", "error"), FAILURES)
def test_failed_task_keeps_its_earlier_record(
    finished_site: StepProject, order: str, code: int, outcome: str, error: str
) -> None:
    """No later task runs; without the cause of the failure the next run continues."""
    write_file("input", "other")(finished_site)
    before = finished_site.record("two.x").read_bytes()
    finished_site.order("two", order)
    printed = finished_site.doit(code=code)
    assert ("Traceback" in printed) is (code == 2)
    assert "(1 done, 0 up to date); the same command continues" in printed
    ended = finished_site.last_run()["two:x"].ended
    assert ended is not None
    assert (ended.outcome, ended.code) == (outcome, error)
    assert finished_site.ran() == ["one", "two"]
    assert finished_site.record("two.x").read_bytes() == before
    assert names(finished_site.record("one").parent) == ["one.json", "three.json", "two.x.json"]
    assert chains(finished_site)[0] == (["two:x"], "cause-not-remembered")
    finished_site.order("two")
    finished_site.doit()
    assert finished_site.ran() == ["two", "three"]
    assert json.loads(finished_site.record("two.x").read_text()) == {"word": "other"}


def test_failed_first_run_leaves_no_record(site: StepProject) -> None:
    site.order("one", "fail")
    site.doit(code=1)
    assert not site.record("one").exists()
    assert chains(site)[0] == (["one"], "cause-never-made")


def test_continue_runs_tasks_independent_of_the_failed_one(site: StepProject) -> None:
    site.order("one", "fail")
    printed = site.doit("--continue", "three", "looks", code=1)
    assert "two:x: not run, because one failed" in printed
    assert "not run: two:x, three\n" in printed
    assert "failed: one after" in printed
    assert printed.endswith("the same command continues: doit --continue three looks\n")
    assert site.ran() == ["one", "looks named"]


def waiting(site: StepProject, step: str, *words: str) -> subprocess.Popen[str]:
    site.order(step, "wait")
    process = site.start(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "waiting\n":
            return process
    pytest.fail("it did not begin")


def test_killed_run_keeps_finished_tasks(site: StepProject) -> None:
    """Finished tasks are kept; the others run again."""
    with waiting(site, "two") as process:
        process.kill()
    assert site.remembered_tasks() == {"one"}
    assert names(site.record("one").parent) == ["one.json"]
    site.order("two")
    assert site.ran() == ["one", "two"]
    site.doit()
    assert site.ran() == ["two", "three"]


def test_task_killed_while_it_is_rebuilt_keeps_its_earlier_record(
    finished_site: StepProject,
) -> None:
    write_file("input", "other")(finished_site)
    with waiting(finished_site, "two") as process:
        process.kill()
    assert not finished_site.record("two.x").exists()
    assert finished_site.record("two.x").with_suffix(".before").exists()
    assert finished_site.ran() == ["one", "two"]
    finished_site.order("two", "fail")
    finished_site.doit(code=1)
    record = finished_site.record("two.x").read_text()
    assert json.loads(record) == {"word": "word"}  # the earlier one
    finished_site.order("two")
    finished_site.ran()
    finished_site.doit()
    assert finished_site.ran() == ["two", "three"]
    assert names(finished_site.record("one").parent) == ["one.json", "three.json", "two.x.json"]


def test_task_killed_without_a_change_runs_again(finished_site: StepProject) -> None:
    """Old memory without a record: the task does not count as done."""
    (finished_site.folder / "result").unlink()
    with waiting(finished_site, "one") as process:
        process.kill()
    finished_site.order("one")
    finished_site.ran()
    finished_site.doit()
    assert finished_site.ran() == ["one"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)],
)
def test_signal_interrupts_the_run(
    finished_site: StepProject, number: signal.Signals, code: int
) -> None:
    write_file("input", "other")(finished_site)
    before = finished_site.record("two.x").read_bytes()
    with waiting(finished_site, "two") as process:
        process.send_signal(number)
        printed, _ = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in printed
    assert "interrupted: two:x after" in printed
    assert "the same command continues" in printed
    assert finished_site.record("two.x").read_bytes() == before
    assert finished_site.ran() == ["one", "two"]
    finished_site.order("two")
    finished_site.doit()
    assert finished_site.ran() == ["two", "three"]


def test_run_that_ends_slowly_keeps_its_exit_code() -> None:
    """The interpreter restores default signal handlers before it clears modules: an alarm
    that rings after that would be the end of a run that went well."""
    ended = subprocess.run(python(end_cleanly, "end_late"), cwd=PROJECT, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signal_whose_exception_is_lost_ends_the_run(number: signal.Signals) -> None:
    """A library that takes every exception for a missing attribute must not lose the signal."""
    ended = subprocess.run(
        python(end_cleanly, "lose_exception", number),
        cwd=PROJECT,
        check=False,
        timeout=30,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "Exception ignored in" in ended.stderr, "the exception was not lost"
    assert ended.returncode in (128 + number, -number)


def test_signals_that_the_caller_ignores_are_ignored() -> None:
    """`nohup doit &` outlives its terminal."""
    ended = subprocess.run(
        ["env", "--ignore-signal=HUP,INT", *python(end_cleanly, "ignore_signals")],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "goes on\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_cleanup_is_not_interrupted_again(number: signal.Signals) -> None:
    ended = subprocess.run(
        python(end_cleanly, "clean_up_slowly", number),
        cwd=PROJECT,
        check=False,
        timeout=30,
        capture_output=True,
        text=True,
    )
    assert (ended.stdout, ended.stderr) == ("tidy\n", "")
    assert ended.returncode in (128 + number, -number)


def test_output_without_a_reader_does_not_change_the_exit_code() -> None:
    """Python ends with 120 if it cannot flush its output at the end."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [
                "env",
                "-u",
                "PYTHONUNBUFFERED",
                *python(end_cleanly, "leave_text_in_buffer", signal.SIGHUP),
            ],
            cwd=PROJECT,
            check=False,
            stdout=writer,
            timeout=60,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 128 + signal.SIGHUP


def test_unknown_worker_ends_with_the_run() -> None:
    """An interrupt while doit starts a worker that it has not listed yet."""
    ended = subprocess.run(
        python(end_cleanly, "leave_worker"), cwd=PROJECT, check=False, timeout=60
    )
    assert ended.returncode == 5


def test_second_run_names_the_process_of_the_first(finished_site: StepProject) -> None:
    write_file("input", "other")(finished_site)
    with waiting(finished_site, "one") as process:
        printed = finished_site.doit(code=1)
        assert re.search(
            rf"^one: FAILED: one .*\(process {process.pid} since \d{{4}}-", printed, re.M
        )
        process.kill()
    finished_site.order("one")
    finished_site.doit()


def test_second_run_leaves_the_first_alone(finished_site: StepProject) -> None:
    """The second run names the busy task, runs the others, and does not disturb the first."""
    write_file("input", "other")(finished_site)
    with waiting(finished_site, "one") as process:
        printed = finished_site.doit("--continue", "three", "looks", code=1)
        assert re.search(rf"^one: FAILED: one .*\(process {process.pid} since", printed, re.M)
        assert "not run: two:x, three\n" in printed
        assert "looks" in {line.split(":")[0] for line in printed.splitlines()}
        (finished_site.folder / "go").touch()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert finished_site.ran() == ["one", "looks named", "two", "three"]
    assert finished_site.doit().startswith("nothing to do: all 3")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_signal_to_a_parallel_run_ends_every_worker(
    site: StepProject, number: signal.Signals, code: int
) -> None:
    """Two tasks at once: each lock names its process, and one signal to the run ends both."""
    for name in ("one", "looks"):
        site.order(name, "wait")
    layout = Layout(site.folder, site.folder / "state")
    with site.start("-n", "2", "three", "looks") as process:
        assert process.stdout is not None
        assert _waiting(process.stdout, 2)
        holders = [holder(layout, name) for name in ("one", "looks")]
        pids = [each.process for each in holders if each]
        assert len(set(pids)) == 2
        assert f"process {pids[0]} since" in site.doit("one", code=1)
        assert f"process {pids[1]} since" in site.doit("looks", code=1)
        process.send_signal(number)
        process.communicate(timeout=15)
    assert process.returncode == code
    for pid in pids:
        assert not Path("/proc", str(pid)).exists()
    site.ran()
    for name in ("one", "looks"):
        site.order(name)
    site.doit("-n", "2", "three", "looks")
    assert sorted(site.ran()) == ["looks named", "one", "three", "two"]


def test_killed_idle_worker_does_not_keep_the_others(site: StepProject) -> None:
    """One waits for a job, another for the first, in a lock that nobody gives back any more."""
    site.order("one", "wait")
    with site.start("-n", "3", "three") as process:
        assert process.stdout is not None
        assert _waiting(process.stdout, 1)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

        def reading() -> list[int]:
            pids = list(map(int, children.read_text().split()))
            waits = {pid: Path(f"/proc/{pid}/wchan").read_text() for pid in pids}
            locked = [pid for pid in pids if "futex" in waits[pid]]
            return [pid for pid in pids if "pipe_read" in waits[pid]] if locked else []

        assert eventually(lambda: len(reading()) == 1)
        os.kill(reading()[0], signal.SIGKILL)
        printed, _ = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "a process of this run was killed (signal 9)" in printed


@pytest.mark.parametrize("put", [1, 2, 3])
@pytest.mark.parametrize(
    ("who", "number", "code"),
    [
        ("run", signal.SIGTERM, 143),
        ("run", signal.SIGINT, -signal.SIGINT),
        ("worker", signal.SIGTERM, 1),
        ("worker", signal.SIGINT, 1),
    ],
)
def test_signal_while_a_queue_is_locked_ends_the_run(
    site: StepProject, who: str, number: signal.Signals, code: int, put: int
) -> None:
    """An exception within Condition.__enter__ left the lock taken; the run never ended."""
    site.order("looks", "wait")
    command = python(interrupt_put, who, number, put, "-n", "2", "three", "looks")
    with site.start_program(command) as process:
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == code, printed
    assert "Traceback" not in printed
    assert (f"a process of this run was killed (signal {number})" in printed) is (code == 1)
    site.order("looks")
    site.doit("-n", "2", "three", "looks")
    assert {"looks", "one", "three", "two"} <= {line.split()[0] for line in site.ran()}


def test_worker_that_leaves_with_a_text_was_not_killed(site: StepProject) -> None:
    site.order("one", "leave")
    printed = site.doit("-n", "2", "three", "looks", code=1)
    assert "tired" in printed
    assert "Traceback" not in printed
    assert "was killed" not in printed


def test_killed_worker_ends_the_run(site: StepProject) -> None:
    """A worker killed by the kernel, out of memory: doit alone would wait for it forever."""
    for name in ("one", "looks"):
        site.order(name, "wait")
    layout = Layout(site.folder, site.folder / "state")
    with site.start("-n", "2", "three", "looks") as process:
        assert process.stdout is not None
        assert _waiting(process.stdout, 2)
        pids = [owner.process for name in ("one", "looks") if (owner := holder(layout, name))]
        os.kill(pids[0], signal.SIGKILL)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "a process of this run was killed (signal 9)" in printed
    assert "Traceback" not in printed
    assert not any(Path("/proc", str(pid)).exists() for pid in pids)
    assert layout.record("one").exists() is False
    site.ran()
    for name in ("one", "looks"):
        site.order(name)
    site.doit("-n", "2", "three", "looks")
    assert sorted(site.ran()) == ["looks named", "one", "three", "two"]


def _waiting(lines: Iterable[str], count: int) -> bool:
    """True if `count` steps have printed that they wait."""
    wait_lines = (line for line in lines if line == "waiting\n")
    return len(list(itertools.islice(wait_lines, count))) == count


def test_continue_keeps_the_exit_code_of_the_failure(finished_site: StepProject) -> None:
    """With --continue, independent tasks run; the exit code is that of the failure."""
    write_file("input", "other")(finished_site)
    finished_site.order("one", "fail")
    printed = finished_site.doit("--continue", "three", "looks", code=1)
    assert finished_site.ran() == ["one", "looks named"]
    assert "two:x: not run, because one failed" in printed
    finished_site.order("one", "bug")
    finished_site.doit("--continue", "three", "looks", code=2)


@pytest.mark.parametrize("way", [("--continue",), ("--continue", "-n", "2")])
def test_failed_setup_leaves_its_task_out(site: StepProject, way: tuple[str, ...]) -> None:
    site.order("looks", "fail")
    assert "locks: not run, because looks failed" in site.doit(*way, "locks", code=1)
    assert site.ran() == ["looks needed"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nosuch",), "there is no task nosuch; `doit list --all` lists all"),
        (("thre",), "there is no task thre; did you mean three? "),
        (("statsu",), "did you mean status? "),
        (("info", "thre"), "did you mean three? "),
        (("why", "thre"), "did you mean three? "),
        (("clean", "thre"), "did you mean three? "),
        (("forget", "thre"), "did you mean three? "),
        (("list", "thre"), "did you mean three? "),
        (("list", "--nosuch"), "--nosuch"),
        (("-n", "many"), "num_process"),
    ],
)
def test_wrong_words_are_one_line(site: StepProject, words: tuple[str, ...], message: str) -> None:
    printed = site.doit(*words, code=3)
    assert printed.startswith("ERROR: ")
    assert message in printed
    assert "Traceback" not in printed


def test_dumpdb_names_every_finished_task(finished_site: StepProject) -> None:
    assert set(json.loads(finished_site.doit("dumpdb"))) == {"one", "two:x", "three"}


def test_parallel_run_writes_one_journal(site: StepProject) -> None:
    """`doit -n`: independent tasks at once, whole lines, one journal."""
    printed = site.doit("-n", "2", "three", "locks", "looks")
    assert sorted(site.ran()) == ["locks named", "looks named", "one", "three", "two"]
    assert printed.count("done in") == 5
    assert len(printed.splitlines()) >= 11
    assert site.why("three") == []
    ended = [run.ended.outcome for run in site.last_run().values() if run.ended]
    assert sorted(site.last_run()) == ["locks", "looks", "one", "three", "two:x"]
    assert ended == ["done"] * 5


@pytest.mark.parametrize("order", ["", "fail"])
def test_json_reporter_prints_only_json(site: StepProject, order: str) -> None:
    site.order("two", order)
    report = json.loads(site.doit("--reporter", "json", code=1 if order else 0))
    results = {task["name"]: task["result"] for task in report["tasks"]}
    assert results["one"] == "success"
    assert results["two:x"] == ("fail" if order else "success")


@pytest.mark.parametrize("way", [(), ("-n", "2")])
def test_sigterm_leaves_no_process(finished_site: StepProject, way: tuple[str, ...]) -> None:
    write_file("input", "other")(finished_site)
    with waiting(finished_site, "one", *way) as process:
        try:
            process.terminate()
            process.communicate(timeout=15)
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)  # all of them were in this group
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0


def test_on_demand_task_runs_when_it_is_named(site: StepProject) -> None:
    site.doit("looks")
    site.doit("looks")
    assert site.ran() == ["looks named", "looks named"]
    site.doit("locks")
    assert site.ran() == ["locks named"]  # the record that it needs exists
    site.doit("looks", "locks")
    assert site.ran() == ["looks named", "locks named"]
    assert chains(site, "looks", "locks") == [
        (["looks"], "cause-named"),
        (["locks"], "cause-named"),
    ]


def test_on_demand_task_runs_when_its_target_is_missing(site: StepProject) -> None:
    assert chains(site, "locks") == [(["looks"], "cause-never-made"), (["locks"], "cause-named")]
    site.doit("locks")
    assert site.ran() == ["looks needed", "locks named"]
    (site.folder / "lock").unlink()
    site.doit("locks")
    assert site.ran() == ["locks named"]


def test_info_shows_a_task_in_plain_words(site: StepProject) -> None:
    assert "record    none" in site.doit("info", "locks")
    site.doit("locks")
    printed = site.doit("info", "locks")
    assert f"record    {site.folder}/lock" in printed
    assert "last run  done after" in printed
    assert "<" not in printed  # no traceback


def test_parallel_run_fails_as_a_serial_one(site: StepProject) -> None:
    printed = site.doit("-n", "2", "three", "looks")
    assert sorted(site.ran()) == ["looks named", "one", "three", "two"]
    assert "4 done, 0 up to date" in printed
    assert "nothing to do: all 3" in site.doit("-n", "2")
    assert site.remembered_tasks() == {"one", "two:x", "three", "looks"}
    write_file("input", "other")(site)
    site.order("two", "fail")
    assert "[stage-pointer-empty]" in site.doit("-n", "2", code=1)
    site.order("two", "bug")
    assert "ZeroDivisionError" in site.doit("-n", "2", code=2)
    site.order("two")
    site.doit("-n", "2")


def test_sigterm_in_a_parallel_run_keeps_earlier_records(finished_site: StepProject) -> None:
    write_file("input", "other")(finished_site)
    before = finished_site.record("two.x").read_bytes()
    with waiting(finished_site, "two", "-n", "2") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    assert finished_site.record("two.x").read_bytes() == before


def test_clean_needs_names_and_forget_forgets(finished_site: StepProject) -> None:
    before = artifacts(finished_site)
    for words in ((), ("--clean-all",)):
        assert finished_site.doit("clean", *words, code=3).startswith("ERROR: ")
    assert artifacts(finished_site) == before
    assert finished_site.doit().startswith("nothing to do")
    finished_site.doit("forget", "--all")
    assert finished_site.remembered_tasks() == set()
    finished_site.doit()
    assert finished_site.ran() == ["one", "two", "three"]


def test_reporters_of_doit_work(site: StepProject) -> None:
    report = json.loads(site.doit("--reporter", "json"))
    assert [(t["name"], t["result"]) for t in report["tasks"]] == [
        ("one", "success"),
        ("two:x", "success"),
        ("three", "success"),
    ]
    for reporter in ("console", "executed-only", "zero", "error-only"):
        site.doit("--reporter", reporter)
    site.order("one", "fail")
    (site.folder / "result").unlink()
    report = json.loads(site.doit("--reporter", "json", code=1))
    assert "[stage-pointer-empty]" in report["tasks"][0]["error"]


@pytest.mark.usefixtures("needs_root")
def test_user_without_rights_can_look(finished_site: StepProject) -> None:
    """`list`, `info`, `why` and `status` on another user's state, and before there is one."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv (Debian: util-linux)")
    # still root's files, without capabilities: only root may be able to read the interpreter
    powerless = (setpriv, "--bounding-set", "-dac_override,-dac_read_search,-fowner,-chown")
    write_file("setting", "t")(finished_site)
    for path in (finished_site.folder, *finished_site.folder.rglob("*")):
        os.chown(path, 65534, 65534)
    before = finished_site.state()
    looks = [("list", "--all", "--status"), ("why",), ("status",)]
    for look in looks:
        assert "three" in finished_site.doit(*look, prefix=powerless)
    assert "it is up to date" in finished_site.doit("info", "one", prefix=powerless)
    assert finished_site.state() == before
    printed = finished_site.doit(prefix=powerless, code=1)
    assert "[permission-denied]" in printed
    assert "Traceback" not in printed
    assert finished_site.state() == before
    shutil.rmtree(finished_site.folder / "state")
    for look in looks:
        assert "three" in finished_site.doit(*look, prefix=powerless)
    assert not (finished_site.folder / "state").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scribble(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xff" * 4096
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "is damaged"),
        (truncate, "is damaged"),
        (scribble, "is damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be opened"),
    ],
    ids=["another file", "cut short", "scribbled over", "a directory"],
)
def test_damaged_database_is_an_error_with_advice(
    finished_site: StepProject, damage: Callable[[Path], object], problem: str
) -> None:
    database = finished_site.folder / "state" / "doit.db"
    damage(database)
    for words in ((), ("why",), ("list", "--status")):
        printed = finished_site.doit(*words, code=3)
        assert printed.startswith(f"ERROR: {database} {problem}")
        assert printed.splitlines()[1].startswith("  next: ")
        assert len(printed.splitlines()) == 2
    assert finished_site.ran() == []
    shutil.rmtree(database) if database.is_dir() else database.unlink()
    finished_site.doit()
    assert finished_site.ran() == ["one", "two", "three"]


def test_empty_database_is_a_first_run(site: StepProject) -> None:
    """The state after a kill in the very first moment."""
    (site.folder / "state").mkdir()
    (site.folder / "state" / "doit.db").touch()
    site.doit("why")
    site.doit()
    assert site.ran() == ["one", "two", "three"]


def test_closed_output_loses_no_work(site: StepProject) -> None:
    """`doit | head -0`, or a terminal that was closed."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        ended = subprocess.run(
            [sys.executable, "-m", "doit"],
            cwd=site.folder,
            check=False,
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "nothing to do" in site.doit()
