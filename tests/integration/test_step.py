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
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.step_project import StepProject, write_file
from tests.programs import end_cleanly


@pytest.fixture
def site(tmp_path: Path) -> StepProject:
    (tmp_path / "site").mkdir()
    return StepProject(tmp_path / "site")


@pytest.fixture
def done(site: StepProject) -> StepProject:
    """A site where everything has been made."""
    site.doit()
    assert site.ran() == ["one", "two", "three"]
    return site


def test_made_once(done: StepProject) -> None:
    assert json.loads(done.record("one").read_text()) == {"first": "word"}
    assert names(done.record("one").parent) == ["one.json", "three.json", "two.x.json"]
    before = done.state()
    assert done.doit() == "nothing to do: all 3 tasks are up to date\n"
    assert done.ran() == []
    assert {k: v for k, v in done.state().items() if k != "state/doit.db"} == {
        k: v for k, v in before.items() if k != "state/doit.db"
    }


def delete(name: str) -> Callable[[StepProject], object]:
    return lambda site: (site.folder / name).unlink()


CHANGES: list[tuple[str, Callable[[StepProject], object], list[str], str, str]] = [
    ("input", write_file("input", "other"), ["one", "two", "three"], "one", "changed: input"),
    ("cutoff", write_file("input", "word but other"), ["one"], "one", "changed: input"),
    ("setting", write_file("setting", "t"), ["three"], "three", "three: setting changed: s -> t"),
    ("result", delete("result"), ["one"], "one", "something that it made is missing"),
    ("record", delete("state/records/two.x.json"), ["two"], "two:x", "that it made is missing"),
    ("below", write_file("below/new", "x"), ["two"], "two:x", "files below"),
    (
        "damaged",
        write_file("state/records/one.json", "{"),
        ["one"],
        "one",
        "something that it made",
    ),
    ("memory", lambda site: site.doit("forget", "three"), ["three"], "three", "or was forgotten"),
    ("below as a directory", lambda site: (site.folder / "below" / "x").mkdir(), [], "", "nothing"),
]


@pytest.mark.parametrize(
    ("change", "ran", "first", "cause"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_what_runs_again_and_why(
    done: StepProject,
    change: Callable[[StepProject], object],
    ran: list[str],
    first: str,
    cause: str,
) -> None:
    change(done)
    before = {k: v for k, v in done.state().items() if k != "state/doit.db"}
    told = done.doit("why").splitlines()
    assert told[0].startswith(f"{first}: " if first else "nothing would run")
    assert cause in told[0]
    assert done.ran() == []
    assert {k: v for k, v in done.state().items() if k != "state/doit.db"} == before
    done.doit()
    assert done.ran() == ran
    assert done.doit("why") == "nothing would run: everything is up to date\n"
    done.doit()
    assert done.ran() == []


def test_why_of_what_comes_after(done: StepProject) -> None:
    write_file("input", "other")(done)
    assert done.doit("why").splitlines() == [
        "one: changed: input",
        "two:x: changed: input (one -> two:x; runs if one leaves something new)",
        "three: changed: input (one -> two:x -> three; runs if two:x leaves something new)",
    ]
    assert done.doit("why", "one") == "one: changed: input\n"


def test_why_before_anything(site: StepProject) -> None:
    assert site.doit("why").splitlines() == [
        "one: it has not been made yet",
        "two:x: it has not been made yet",
        "three: it has not been made yet",
    ]
    assert site.ran() == []
    (site.folder / "input").unlink()
    assert "one: it has not been made yet" in site.doit("why")


def test_why_another_record_changed(done: StepProject) -> None:
    write_file("input", "other")(done)
    done.doit("one")
    assert done.doit("why").splitlines()[0] == "two:x: changed: what one made"


def test_why_says_first_what_is_certain(done: StepProject) -> None:
    write_file("input", "other")(done)
    done.doit("one")
    write_file("input", "third")(done)
    assert done.doit("why").splitlines() == [
        "one: changed: input",
        "two:x: changed: what one made",
        "three: changed: what one made (two:x -> three; runs if two:x leaves something new)",
    ]


def test_status(done: StepProject) -> None:
    write_file("setting", "t")(done)
    lines = dict(line.split("  ", 1) for line in done.doit("status").splitlines())
    assert {name: said.strip() for name, said in lines.items()} == {
        "one": "fresh",
        "two:x": "fresh",
        "three": "stale: setting changed: s -> t",
        "looks": "stale: it has not been made yet",
        "locks": "stale: it has not been made yet",
    }


FAILURES = [
    ("fail", 1, ["two:x: FAILED: two is not to be trusted", "  next: try another"]),
    ("os", 1, ["two:x: FAILED: two:x: No space left on device: /some/file"]),
    ("bug", 2, ["two:x: BUG: ", "ZeroDivisionError: oops"]),
    ("odd", 2, ["two:x: BUG: ", "TypeError"]),
]


@pytest.mark.parametrize(("order", "code", "told"), FAILURES, ids=[f[0] for f in FAILURES])
def test_failures(done: StepProject, order: str, code: int, told: list[str]) -> None:
    """The earlier record is back, nothing later runs, and the cause gone all goes on."""
    write_file("input", "other")(done)
    before = done.record("two.x").read_bytes()
    done.order("two", order)
    printed = done.doit(code=code)
    for line in told:
        assert line in printed
    assert ("Traceback" in printed) is (code == 2)
    assert "failed: two:x after" in printed
    assert "(1 done, 0 up to date); the same command continues" in printed
    assert done.ran() == ["one", "two"]
    assert done.record("two.x").read_bytes() == before
    assert names(done.record("one").parent) == ["one.json", "three.json", "two.x.json"]
    assert "two:x: its last run failed" in done.doit("why")
    done.order("two")
    done.doit()
    assert done.ran() == ["two", "three"]
    assert json.loads(done.record("two.x").read_text()) == {"two": "other"}


def test_a_first_run_that_fails_leaves_no_record(site: StepProject) -> None:
    site.order("one", "fail")
    site.doit(code=1)
    assert not site.record("one").exists()
    assert site.doit("why").startswith("one: it has not been made yet\n")


def test_go_on_with_what_does_not_depend(site: StepProject) -> None:
    site.order("one", "fail")
    printed = site.doit("--continue", "three", "looks", code=1)
    assert "two:x: left out, since one failed" in printed
    assert "left out: two:x, three\n" in printed
    assert "failed: one after" in printed
    assert printed.endswith("the same command continues: doit --continue three looks\n")
    assert site.ran() == ["one", "looks asked"]


def waiting(site: StepProject, step: str, *words: str) -> subprocess.Popen[str]:
    site.order(step, "wait")
    process = site.start(*words)
    assert process.stdout is not None
    for line in process.stdout:
        if line == "waiting\n":
            return process
    pytest.fail("it did not begin")


def test_sigkill(site: StepProject) -> None:
    """What was finished is kept; what was not runs again."""
    with waiting(site, "two") as process:
        process.kill()
    assert site.remembered() == {"one"}
    assert names(site.record("one").parent) == ["one.json"]
    site.order("two")
    assert site.ran() == ["one", "two"]
    site.doit()
    assert site.ran() == ["two", "three"]


def test_sigkill_while_something_is_made_anew(done: StepProject) -> None:
    write_file("input", "other")(done)
    with waiting(done, "two") as process:
        process.kill()
    assert not done.record("two.x").exists()
    assert done.record("two.x").with_suffix(".before").exists()
    assert done.ran() == ["one", "two"]
    done.order("two", "fail")
    done.doit(code=1)
    assert json.loads(done.record("two.x").read_text()) == {"two": "word"}  # the one before
    done.order("two")
    done.ran()
    done.doit()
    assert done.ran() == ["two", "three"]
    assert names(done.record("one").parent) == ["one.json", "three.json", "two.x.json"]


def test_killed_though_nothing_had_changed(done: StepProject) -> None:
    """Old memory and no record: it is never taken for done."""
    (done.folder / "result").unlink()
    with waiting(done, "one") as process:
        process.kill()
    done.order("one")
    done.ran()
    done.doit()
    assert done.ran() == ["one"]


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, -signal.SIGINT)],
)
def test_signals(done: StepProject, number: signal.Signals, code: int) -> None:
    write_file("input", "other")(done)
    before = done.record("two.x").read_bytes()
    with waiting(done, "two") as process:
        process.send_signal(number)
        printed, _ = process.communicate()
    assert process.returncode == code
    assert "Traceback" not in printed
    assert "interrupted: two:x after" in printed
    assert "the same command continues" in printed
    assert done.record("two.x").read_bytes() == before
    assert done.ran() == ["one", "two"]
    done.order("two")
    done.doit()
    assert done.ran() == ["two", "three"]


def test_a_run_that_takes_long_to_end_ends_with_its_own_code() -> None:
    """The interpreter gives signals their defaults back before it takes modules down: an alarm
    that rings after that would be the end of a run that went well."""
    ended = subprocess.run(python(end_cleanly, "end_late"), cwd=PROJECT, check=False)
    assert ended.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_whose_exception_got_lost_is_heard(number: signal.Signals) -> None:
    """As where a library looks for an attribute and takes every exception for its absence."""
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


def test_what_the_caller_ignores_is_ignored() -> None:
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
def test_who_tidies_up_is_not_told_again(number: signal.Signals) -> None:
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


def test_a_worker_that_nobody_has_ended_ends_with_the_run() -> None:
    """An interrupt while a worker is being started: doit does not know of that one yet."""
    ended = subprocess.run(
        python(end_cleanly, "leave_worker"), cwd=PROJECT, check=False, timeout=60
    )
    assert ended.returncode == 5


def test_two_runs_at_once(done: StepProject) -> None:
    write_file("input", "other")(done)
    with waiting(done, "one") as process:
        printed = done.doit(code=1)
        wanted = r"one: FAILED: one is in the hands of another run \(process (\d+) since \d{4}-"
        held = re.search(wanted, printed)
        assert held
        assert int(held[1]) == process.pid
        process.kill()
    done.order("one")
    done.doit()


def test_two_runs_at_once_end_right(done: StepProject) -> None:
    """The later one names what is busy, does the rest, and leaves the first one alone."""
    write_file("input", "other")(done)
    with waiting(done, "one") as process:
        printed = done.doit("--continue", "three", "looks", code=1)
        assert re.search(rf"one: FAILED: one is in .*\(process {process.pid} since", printed)
        assert "left out: two:x, three\n" in printed
        assert "looks" in {line.split(":")[0] for line in printed.splitlines()}
        (done.folder / "go").touch()
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert done.ran() == ["one", "looks asked", "two", "three"]
    assert done.doit().startswith("nothing to do: all 3")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -signal.SIGINT)]
)
def test_really_side_by_side(site: StepProject, number: signal.Signals, code: int) -> None:
    """Two at work at once: both are known by process, and one signal to the run ends both."""
    for name in ("one", "looks"):
        site.order(name, "wait")
    layout = Layout(site.folder, site.folder / "state")
    with site.start("-n", "2", "three", "looks") as process:
        assert process.stdout is not None
        assert _waiting(process.stdout, 2)
        holders = [holder(layout, name) for name in ("one", "looks")]
        pids = [held.process for held in holders if held]
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
    assert sorted(site.ran()) == ["looks asked", "one", "three", "two"]


def test_a_worker_that_was_killed_ends_the_run(site: StepProject) -> None:
    """As by the kernel, for want of memory: nobody would tell doit, which waits for its word."""
    for name in ("one", "looks"):
        site.order(name, "wait")
    layout = Layout(site.folder, site.folder / "state")
    with site.start("-n", "2", "three", "looks") as process:
        assert process.stdout is not None
        assert _waiting(process.stdout, 2)
        held = [found.process for name in ("one", "looks") if (found := holder(layout, name))]
        os.kill(held[0], signal.SIGKILL)
        printed, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "a process of this run was killed (signal 9); out of memory?" in printed
    assert "Traceback" not in printed
    assert not any(Path("/proc", str(pid)).exists() for pid in held)
    assert layout.record("one").exists() is False
    site.ran()
    for name in ("one", "looks"):
        site.order(name)
    site.doit("-n", "2", "three", "looks")
    assert sorted(site.ran()) == ["looks asked", "one", "three", "two"]


def _waiting(lines: Iterable[str], count: int) -> bool:
    """Whether so many steps have said that they wait."""
    said = (line for line in lines if line == "waiting\n")
    return len(list(itertools.islice(said, count))) == count


def test_goes_on_truthfully_after_a_failure(done: StepProject) -> None:
    """With --continue, what does not depend on the failed task runs; the code is that of it."""
    write_file("input", "other")(done)
    done.order("one", "fail")
    printed = done.doit("--continue", "three", "looks", code=1)
    assert done.ran() == ["one", "looks asked"]
    assert "two:x: left out, since one failed" in printed
    done.order("one", "bug")
    done.doit("--continue", "three", "looks", code=2)


@pytest.mark.parametrize("way", [("--continue",), ("--continue", "-n", "2")])
def test_a_failed_setup_stops_whom_it_prepares(site: StepProject, way: tuple[str, ...]) -> None:
    site.order("looks", "fail")
    assert "locks: left out, since looks failed" in site.doit(*way, "locks", code=1)
    assert site.ran() == ["looks needed"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nosuch",), "there is no task 'nosuch'; `doit list --all` has them all"),
        (("thre",), "there is no task 'thre'; is three meant? "),
        (("statsu",), "is status meant? "),
        (("info", "thre"), "is three meant? "),
        (("why", "thre"), "is three meant? "),
        (("clean", "thre"), "is three meant? "),
        (("forget", "thre"), "is three meant? "),
        (("list", "thre"), "is three meant? "),
        (("list", "--nosuch"), "--nosuch"),
        (("-n", "many"), "num_process"),
    ],
)
def test_what_a_user_gets_wrong_is_no_traceback(
    site: StepProject, words: tuple[str, ...], said: str
) -> None:
    printed = site.doit(*words, code=3)
    assert printed.startswith("ERROR: ")
    assert said in printed
    assert "Traceback" not in printed


def test_the_memory_can_be_looked_at(done: StepProject) -> None:
    assert set(json.loads(done.doit("dumpdb"))) == {"one", "two:x", "three"}


def test_side_by_side(site: StepProject) -> None:
    """`doit -n`: independent tasks at once, whole lines, one journal."""
    printed = site.doit("-n", "2", "three", "locks", "looks")
    assert sorted(site.ran()) == ["locks asked", "looks asked", "one", "three", "two"]
    assert printed.count("done in") == 5
    assert len(printed.splitlines()) >= 11
    assert site.doit("why", "three") == "nothing would run: everything is up to date\n"
    lines = (site.folder / "state" / "logs" / "journal").read_text().splitlines()
    ended = [entry["task"] for line in lines if "outcome" in (entry := json.loads(line))]
    assert sorted(ended) == ["locks", "looks", "one", "three", "two:x"]


@pytest.mark.parametrize("order", ["", "fail"])
def test_json_is_json(site: StepProject, order: str) -> None:
    site.order("two", order)
    report = json.loads(site.doit("--reporter", "json", code=1 if order else 0))
    results = {task["name"]: task["result"] for task in report["tasks"]}
    assert results["one"] == "success"
    assert results["two:x"] == ("fail" if order else "success")


@pytest.mark.parametrize("way", [(), ("-n", "2")])
def test_sigterm_leaves_nobody(done: StepProject, way: tuple[str, ...]) -> None:
    write_file("input", "other")(done)
    with waiting(done, "one", *way) as process:
        try:
            process.terminate()
            process.communicate(timeout=15)
            with pytest.raises(ProcessLookupError):
                os.killpg(process.pid, 0)  # all of them were in this group
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode != 0


def test_asked_when_it_is_named(site: StepProject) -> None:
    site.doit("looks")
    site.doit("looks")
    assert site.ran() == ["looks asked", "looks asked"]
    site.doit("locks")
    assert site.ran() == ["locks asked"]  # what is before it was there
    site.doit("looks", "locks")
    assert site.ran() == ["looks asked", "locks asked"]
    assert site.doit("why", "looks", "locks").splitlines() == [
        "looks: you asked for it",
        "locks: you asked for it",
    ]


def test_asked_before_it_is_there(site: StepProject) -> None:
    assert site.doit("why", "locks").splitlines() == [
        "looks: it has not been made yet",
        "locks: you asked for it",
    ]
    site.doit("locks")
    assert site.ran() == ["looks needed", "locks asked"]
    (site.folder / "lock").unlink()
    site.doit("locks")
    assert site.ran() == ["locks asked"]


def test_info_of_what_is_asked_for(site: StepProject) -> None:
    printed = site.doit("info", "locks", code=1)
    assert "the lock is gone" in printed
    assert "functools.partial" not in printed
    site.doit("locks")
    assert "up-to-date" in site.doit("info", "locks")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "[]"),
        (("seven",), "['seven']"),
        (("a", "--", "env", "A=b", "-x"), "['a', '--', 'env', 'A=b', '-x']"),
        (("A=b",), "['A=b']"),
        (("a", "talk", "x=y"), "['a', 'talk', 'x=y']"),
    ],
)
def test_a_task_for_a_person(site: StepProject, words: tuple[str, ...], said: str) -> None:
    """Every word arrives, nothing else is printed, and the exit code is the command's."""
    code = 7 if words == ("seven",) else 0
    assert site.doit("talk", *words, code=code) == f"words: {said}\n"
    assert site.doit("x=y", "talk", *words, code=code) == f"words: {said}\n"


def test_a_person_s_task_that_fails(site: StepProject) -> None:
    site.order("talk", "fail")
    assert site.doit("talk", code=1) == (
        "talk: FAILED: talk is not to be trusted\n  next: try another\n"
    )


def test_in_parallel(site: StepProject) -> None:
    printed = site.doit("-n", "2", "three", "looks")
    assert sorted(site.ran()) == ["looks asked", "one", "three", "two"]
    assert "4 done, 0 up to date" in printed
    assert "nothing to do: all 3" in site.doit("-n", "2")
    assert site.remembered() == {"one", "two:x", "three", "looks"}
    write_file("input", "other")(site)
    site.order("two", "fail")
    assert "two:x: FAILED: two is not to be trusted" in site.doit("-n", "2", code=1)
    site.order("two", "bug")
    assert "ZeroDivisionError" in site.doit("-n", "2", code=2)
    site.order("two")
    site.doit("-n", "2")


def test_sigterm_in_parallel(done: StepProject) -> None:
    write_file("input", "other")(done)
    before = done.record("two.x").read_bytes()
    with waiting(done, "two", "-n", "2") as process:
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    assert done.record("two.x").read_bytes() == before


def test_forget_and_clean(done: StepProject) -> None:
    before = {k: v for k, v in done.state().items() if k != "state/doit.db"}
    for words in ((), ("--clean-all",)):
        assert done.doit("clean", *words, code=3).startswith("ERROR: ")
    assert {k: v for k, v in done.state().items() if k != "state/doit.db"} == before
    assert done.doit().startswith("nothing to do")
    done.doit("forget", "--all")
    assert done.remembered() == set()
    done.doit()
    assert done.ran() == ["one", "two", "three"]


def test_every_reporter(site: StepProject) -> None:
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
    assert "not to be trusted" in report["tasks"][0]["error"]


@pytest.mark.usefixtures("needs_root")
def test_anybody_may_look(done: StepProject) -> None:
    """`list`, `info`, `why` and `status` on a state of somebody else's, and before there is one."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("needs setpriv (Debian: util-linux)")
    # not root's powers, but still root's files: the interpreter may lie where nobody else can read
    powerless = (setpriv, "--bounding-set", "-dac_override,-dac_read_search,-fowner,-chown")
    write_file("setting", "t")(done)
    for path in (done.folder, *done.folder.rglob("*")):
        os.chown(path, 65534, 65534)
    before = done.state()
    looks = [("list", "--all", "--status"), ("why",), ("status",)]
    for look in looks:
        assert "three" in done.doit(*look, prefix=powerless)
    assert "up-to-date" in done.doit("info", "one", prefix=powerless)
    assert done.state() == before
    printed = done.doit(prefix=powerless, code=1)
    assert "three: FAILED: three: Permission denied" in printed
    assert "Traceback" not in printed
    assert done.state() == before
    shutil.rmtree(done.folder / "state")
    for look in looks:
        assert "three" in done.doit(*look, prefix=powerless)
    assert not (done.folder / "state").exists()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def scribble(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[4096:8192] = b"\xff" * 4096
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.write_bytes(b"not a database at all" * 100), "is damaged"),
        (truncate, "is damaged"),
        (scribble, "is damaged"),
        (lambda path: (path.unlink(), path.mkdir()), "cannot be opened"),
    ],
    ids=["another file", "cut short", "scribbled over", "a directory"],
)
def test_a_damaged_database(done: StepProject, damage: Callable[[Path], object], said: str) -> None:
    database = done.folder / "state" / "doit.db"
    damage(database)
    for words in ((), ("why",), ("list", "--status")):
        printed = done.doit(*words, code=3)
        assert printed.startswith(f"ERROR: {database} {said}")
        assert printed.count("\n") == 1
    assert done.ran() == []
    shutil.rmtree(database) if database.is_dir() else database.unlink()
    done.doit()
    assert done.ran() == ["one", "two", "three"]


def test_an_empty_database(site: StepProject) -> None:
    """What a kill in the very first moment leaves."""
    (site.folder / "state").mkdir()
    (site.folder / "state" / "doit.db").touch()
    site.doit("why")
    site.doit()
    assert site.ran() == ["one", "two", "three"]


def test_nobody_reads_the_report_and_nothing_is_lost(site: StepProject) -> None:
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
