"""Failures of packages, by their logs: class, phase, telling lines and what is missing.

tests/data/build_logs has logs of the form that Portage 3.0.83 writes, shortened, and in
expected.txt what is said about each. After a change look at what it becomes:
UPDATE_GOLDEN=1 pytest tests/unit/test_failure.py
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tasks.builder import failure
from tasks.builder.failure import Failure, Kind, Limit, Missing, classify, explain, read

LOGS = Path(__file__).parents[1] / "data/build_logs"
KINDS = {
    "checksum": Kind.CHECKSUM,
    "cmake-package-missing": Kind.CONFIGURE,
    "command-missing": Kind.COMPILE,
    "die-in-install": Kind.INSTALL,
    "disk-full": Kind.DISK,
    "econf-failed": Kind.CONFIGURE,
    "fetch": Kind.FETCH,
    "file-collision": Kind.COLLISION,
    "gcc-error": Kind.COMPILE,
    "header-missing": Kind.COMPILE,
    "killed": Kind.MEMORY,
    "library-missing": Kind.LINK,
    "meson-dependency-missing": Kind.CONFIGURE,
    "network-unreachable": Kind.NETWORK,
    "patch-reject": Kind.PATCH,
    "pkg-config-module-missing": Kind.CONFIGURE,
    "python-module-missing": Kind.CONFIGURE,
    "setup": Kind.UNKNOWN,
    "test-failure": Kind.TEST,
    "undefined-reference": Kind.LINK,
}


def shown(name: str, what: Failure) -> str:
    lines = "".join(f"\n  {line}" for line in what.lines)
    return f"[{name}] {what.kind}, phase {what.phase!r}, missing: {what.missing}{lines}\n"


def test_logs_are_explained_as_the_golden_file_shows() -> None:
    logs = sorted(LOGS.glob("*.log"))
    failures = {log.stem: explain(log, 1) for log in logs}
    assert {name: each.kind for name, each in failures.items()} == KINDS
    assert {each.log for each in failures.values()} == set(logs)
    text = "\n".join(shown(name, each) for name, each in failures.items())
    golden = LOGS / "expected.txt"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(text, encoding="utf-8")
    assert golden.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    ("limit", "kind"),
    [(Limit.TIME, Kind.TIME), (Limit.SILENCE, Kind.HANG), (Limit.MEMORY, Kind.MEMORY)],
)
def test_limit_that_ended_a_build_is_its_class(limit: Limit, kind: Kind) -> None:
    text = ">>> Compiling source in /x ...\nmake -j4\nx.c:1:1: error: odd\nlast words\n\n"
    assert classify(text, -9, limit) == Failure(
        kind,
        "compile",
        ("make -j4", "x.c:1:1: error: odd", "last words"),
    )


@pytest.mark.parametrize(("status", "words"), [(3, "exit code 3"), (-9, "killed by signal 9")])
def test_empty_log_leaves_the_exit_status(status: int, words: str) -> None:
    assert classify("", status) == Failure(Kind.UNKNOWN, "", (words,))


def test_log_without_an_error_shows_its_last_lines() -> None:
    text = ">>> Compiling source in /x ...\n" + "".join(f"line {n}\n" for n in range(9))
    assert classify(text, 1).lines == ("line 6", "line 7", "line 8")
    assert classify(text, 1).kind is Kind.COMPILE


def test_error_of_an_earlier_phase_is_not_blamed() -> None:
    text = """\
>>> Configuring source in /x ...
conftest.c:1:10: fatal error: optional.h: No such file or directory
>>> Source configured.
>>> Compiling source in /x ...
x.c:1:1: error: real
 * ERROR: a/b-1::gentoo failed (compile phase):
 *   emake failed
"""
    assert classify(text, 1) == Failure(
        Kind.COMPILE, "compile", ("x.c:1:1: error: real", "emake failed")
    )


def test_first_error_decides_between_compiler_and_linker() -> None:
    start = ">>> Compiling source in /x ...\n"
    compiler, linker = "x.c:1:1: error: odd\n", "x.c:9: undefined reference to `f'\n"
    assert classify(start + compiler + linker, 1).kind is Kind.COMPILE
    assert classify(start + linker + compiler, 1).kind is Kind.LINK


def test_die_in_a_subshell_counts_once() -> None:
    die = " * ERROR: a/b-1::g failed (install phase):\n *   {}\n *\n"
    text = ">>> Install a/b-1 into /x\n" + die.format("dobin failed") + die.format("unexpected")
    assert classify(text, 1).lines == ("dobin failed",)


def test_report_about_another_package_is_not_the_message() -> None:
    die = " * ERROR: a/{}-1::g failed (configure phase):\n *   {}\n"
    quoted = die.format("other", "not this")
    text = ">>> Configuring source in /x ...\n" + quoted + die.format("b", "its own fault")
    assert classify(text, 1).lines[0] == "its own fault"


def test_phase_killed_is_out_of_memory() -> None:
    text = (
        ">>> Compiling source in /x ...\ncc x.c\n"
        " * The ebuild phase 'compile' has been killed by signal 9.\n"
    )
    assert (classify(text, 1).kind, classify(text, 1).phase) == (Kind.MEMORY, "compile")


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("x.cc:3:10: fatal error: 'a/b.hpp' file not found", Missing("header", "a/b.hpp")),
        ("ld.lld: error: unable to find library -lfoo", Missing("library", "foo")),
        ("/bin/sh: 1: bison: not found", Missing("command", "bison")),
        ("./build.sh: line 12: xmlto: command not found", Missing("command", "xmlto")),
        ("make[1]: gperf: No such file or directory", Missing("command", "gperf")),
        (
            "ERROR: Program 'gdbus-codegen' not found or not executable",
            Missing("command", "gdbus-codegen"),
        ),
        (
            "Can't locate XML/Parser.pm in @INC (you may need to",
            Missing("Perl module", "XML/Parser.pm"),
        ),
        (
            "Package libfoo-2 was not found in the pkg-config search path.",
            Missing("pkg-config module", "libfoo-2"),
        ),
        ("Package 'zlib', required by 'libpng', not found", Missing("pkg-config module", "zlib")),
        (
            "ModuleNotFoundError: No module named 'yaml.cyaml'",
            Missing("Python module", "yaml.cyaml"),
        ),
        ("all is there", None),
    ],
)
def test_missing_thing_has_a_kind_and_a_name(line: str, missing: Missing | None) -> None:
    text = f">>> Compiling source in /x ...\n{line}\nmake: *** [Makefile:1: x] Error 127\n"
    assert classify(text, 1).missing == missing


def test_other_packages_are_never_blamed() -> None:
    """The name in a log is what the build printed: it is not taken for the package's."""
    text = " * ERROR: sys-libs/glibc-2.40::gentoo failed (compile phase):\n *   emake failed\n"
    assert "glibc" not in "".join(classify(text, 1).lines)


def test_terminal_controls_are_not_shown() -> None:
    text = ">>> Compiling source in /x ...\n\x1b[31mx.c:1:1: error: \x1b]0;title\x07odd\u202e\n"
    assert classify(text, 1).lines == ("x.c:1:1: error: ?]0;title?odd?",)


def test_line_without_end_is_cut() -> None:
    (line,) = classify("x.c:1:1: error: " + "x" * 100_000, 1).lines
    assert len(line) == 240


def test_endless_log_is_read_at_both_ends(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("wb") as stream:
        stream.write(b">>> Compiling source in /x ...\nfirst.c:1:1: error: odd\n")
        stream.truncate(1 << 40)
        stream.seek(0, 2)
        stream.write(b"\n * ERROR: a/b-1::gentoo failed (compile phase):\n *   emake failed\n")
    start = time.perf_counter()
    what = explain(log, 1)
    assert what.lines == ("first.c:1:1: error: odd", "emake failed")
    assert time.perf_counter() - start < 20


def test_log_between_the_limits_is_whole(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for size in (0, 10, failure._HEAD, failure._HEAD + 1, failure._HEAD + failure._TAIL):
        log.write_bytes(bytes(range(32, 127)) * (size // 95) + b"x" * (size % 95))
        assert len(read(log)) == size
    log.write_bytes(b"x" * (failure._HEAD + failure._TAIL + 1))
    assert len(read(log)) == failure._HEAD + 1 + failure._TAIL


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "nothing"])
def test_what_is_no_log_is_not_read(tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    if kind == "link":
        (tmp_path / "secret").write_text("x.c:1:1: error: secret")
        log.symlink_to("secret")
    elif kind == "folder":
        log.mkdir()
    elif kind == "pipe":
        os.mkfifo(log)
    assert explain(log, 1) == Failure(Kind.UNKNOWN, "", ("exit code 1",), log=log)


HOSTILE = ["a" * 999, "a:" * 499, "(" * 999, " " * 999, "ld: " * 249, "1/1 " * 249, "\\" * 999]


@pytest.mark.parametrize("line", HOSTILE)
def test_no_log_keeps_the_patterns_busy(line: str) -> None:
    start = time.perf_counter()
    classify(">>> Compiling source\n" + f"{line}\n" * 1000, 1)
    assert time.perf_counter() - start < 20  # below two seconds on a quiet machine
