"""The call of emerge, and the facts read from its output."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.config.tables import Build
from tasks.errors import CommandFailed, OutOfMemory
from tasks.portage import emerge
from tasks.portage.emerge import command, first_failure, makeopts, output_since, tried_the_network
from tasks.system import sandbox
from tasks.system.sandbox import Sandbox
from tests.kit.refused import refused

RESOLVED = """\
These are the packages that would be merged, in order:

Calculating dependencies ... done!
Dependency resolution took 0.05 s (backtrack: 0/20).

"""
# as Portage 3.0.83 prints it, shortened
COMPILE = (
    RESOLVED
    + """\
>>> Verifying ebuild manifests
>>> Jobs: 0 of 1 complete, 1 running                                    Load avg: 4.71, 3.43, 2.11
>>> Emerging (1 of 1) app-misc/bad-1::t
>>> Failed to emerge app-misc/bad-1, Log file:
>>> Jobs: 0 of 1 complete, 1 running                                    Load avg: 4.74, 3.46, 2.13
>>>  '/var/log/portage/app-misc:bad-1:20261122-185301.log'
>>> Jobs: 0 of 1 complete, 1 failed                                     Load avg: 4.74, 3.46, 2.13

\x1b[32m * \x1b[39;49;00mPackage:    app-misc/bad-1:0
>>> Compiling source in /var/tmp/portage/app-misc/bad-1/work/bad-1 ...
x.c:1:1: error: unknown type name 'foo'
 \x1b[31;01m*\x1b[0m ERROR: app-misc/bad-1::t failed (compile phase):
 \x1b[31;01m*\x1b[0m   no luck
 \x1b[31;01m*\x1b[0m
 \x1b[31;01m*\x1b[0m Call stack:

 * Messages for package app-misc/bad-1:
 * ERROR: app-misc/bad-1::t failed (compile phase):
 *   no luck
"""
)
FETCH = (
    RESOLVED
    + """\
Fetch Restriction: 1 package (1 unsatisfied)
>>> Emerging (1 of 1) app-misc/bad-5::t
>>> Failed to emerge app-misc/bad-5, Log file:
>>> Jobs: 0 of 1 complete, 1 running                                    Load avg: 4.76, 3.49, 2.14
>>>  '/var/log/portage/app-misc:bad-5:20261122-185306.log'

!!! app-misc/bad-5 has fetch restriction turned on.
!!! This probably means that this ebuild's files must be downloaded
2026-11-22 18:53:06 ERROR 404: Not Found.
"""
)
SIGNATURE = """\
!!! Problems have been detected with your world file
!!! Please run emaint --check world
!!! Error extracting '/var/cache/binhost/base/a-b/c/c-1-1.gpkg.tar', GnuPG verification failed
>>> Failed to emerge a-b/c-1, Log file:
"""
REQUIRED_USE = """\
!!! Problem resolving dependencies for =app-misc/bad-2
 done!

!!! The ebuild selected to satisfy "=app-misc/bad-2" has unmet requirements.
- app-misc/bad-2::t USE="-a -b"

  The following REQUIRED_USE flag constraints are unsatisfied:
    any-of ( a b )
"""
MASKED = """\
!!! All ebuilds that could satisfy "=app-misc/bad-3" have been masked.
!!! One of the following masked packages is required to complete your request:
- app-misc/bad-3::t (masked by: ~amd64 keyword)
"""
DEPENDENCY = (
    RESOLVED
    + """\

emerge: there are no ebuilds to satisfy "no/thing".
(dependency required by "app-misc/bad-4::t" [ebuild])
(dependency required by "=app-misc/bad-4" [argument])
"""
)


@pytest.mark.parametrize(
    ("log", "line"),
    [
        (COMPILE, "app-misc/bad-1::t failed (compile phase): no luck"),
        (FETCH, "app-misc/bad-5 has fetch restriction turned on."),
        (
            FETCH.split("!!!")[0],
            "Failed to emerge app-misc/bad-5, Log file: "
            "'/var/log/portage/app-misc:bad-5:20261122-185306.log'",
        ),
        (
            SIGNATURE,
            "Error extracting '/var/cache/binhost/base/a-b/c/c-1-1.gpkg.tar', "
            "GnuPG verification failed",
        ),
        (
            REQUIRED_USE,
            'The ebuild selected to satisfy "=app-misc/bad-2" has unmet requirements. '
            '- app-misc/bad-2::t USE="-a -b" '
            "The following REQUIRED_USE flag constraints are unsatisfied: any-of ( a b )",
        ),
        (
            MASKED,
            'All ebuilds that could satisfy "=app-misc/bad-3" have been masked. '
            "One of the following masked packages is required to complete your request: "
            "- app-misc/bad-3::t (masked by: ~amd64 keyword)",
        ),
        (
            DEPENDENCY,
            'emerge: there are no ebuilds to satisfy "no/thing". '
            '(dependency required by "app-misc/bad-4::t" [ebuild])',
        ),
        (
            "cc: fatal error: Killed signal terminated program cc1plus\n" + COMPILE,
            "it was killed; was the machine out of memory?",
        ),
        (
            ">>> Emerging (1 of 1) a/b-1::t\nKilled\n\n",
            "it was killed; was the machine out of memory?",
        ),
        ("Terminated", "it was killed; was the machine out of memory?"),
        (
            "!!! Problems have been detected with your world file\n"
            "!!! Please run emaint --check world\n!!! No space left on device\n",
            "No space left on device",
        ),
        ("x.c:1: error: no such thing\n", "x.c:1: error: no such thing"),
        (RESOLVED + ">>> Installing (1 of 1) a/b-1::t\n", ""),
        ("", ""),
        ("!!! " + "x" * 1000, "x" * 400),
    ],
)
def test_reason_is_the_most_precise_line(log: str, line: str) -> None:
    assert first_failure(log) == line


@pytest.mark.parametrize(
    ("log", "tried"),
    [
        ("wget: unable to resolve host address 'x'\n" + COMPILE, True),
        ("curl: (6) Could not resolve host: x\n" + COMPILE, True),
        ("connect: Network is unreachable\n" + COMPILE, True),
        ("socket.gaierror: [Errno -3] Temporary failure in name resolution\n" + COMPILE, True),
        ("wget: unable to resolve host address 'x'\n!!! Couldn't download 'x'. Aborting.\n", False),
        (COMPILE, False),
        ("", False),
    ],
)
def test_package_that_tried_the_network_is_recognised(log: str, tried: bool) -> None:
    assert tried_the_network(log) is tried


def test_only_output_of_this_run_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"emerge: there are no ebuilds to satisfy old\n\xff!!! new\n")
    assert first_failure(output_since(log, 0)).startswith("emerge: there are no ebuilds")
    assert output_since(log, 44) == "\ufffd!!! new\n"


def test_command_names_the_packages_beside_world() -> None:
    words = command(Build(packages=3), ["b/b", "a/a"])
    assert words[0] == "emerge"
    assert words[-3:] == ["@world", "a/a", "b/b"]
    assert {"--emptytree", "--usepkg=y", "--with-bdeps=y", "--color=n", "--jobs=3"} < set(words)
    assert "--getbinpkg" not in words
    assert command(Build(), [])[-1] == "@world"


def test_makeopts_default_to_the_processors() -> None:
    assert makeopts(Build(jobs=7)) == "-j7"
    assert makeopts(Build()) == f"-j{os.cpu_count()}"
    assert makeopts(Build(packages=2, jobs=7)) == f"-j7 -l{os.cpu_count()}"


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("", ""),
        ("Calculating dependencies... done!\n", ""),
        (">>> Emerging (3 of 10) dev-libs/a-1::gentoo\n", "3 of 10 dev-libs/a-1"),
        (
            "\x1b[32m>>> Emerging binary (1 of 2) x/a-1::gentoo\x1b[0m\n"
            ">>> Failed to emerge x/a-1, Log file:\n>>> Failed to emerge x/a-1\n"
            ">>> Emerging (2 of 2) x/b-2-r1::own for /\n>>> Jobs: 0 of 2 complete\n",
            "2 of 2 x/b-2-r1, 1 failed",
        ),
    ],
)
def test_progress_is_that_of_the_last_package(tmp_path: Path, log: str, line: str) -> None:
    place = tmp_path / "log"
    place.write_text(log)
    assert emerge.progress(place) == line


@pytest.fixture
def failing_emerge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log to which emerge(1) adds a failure, and ends with 1."""
    log = tmp_path / "log"
    log.write_text("!!! Couldn't download 'old'. Aborting.\n")

    def run(_: Sandbox, command: list[str], *, log: Path, **__: object) -> None:
        if command[0] == "emerge":
            with log.open("a") as stream:
                stream.write(COMPILE if "--fetchonly" not in command else FETCH)
            raise CommandFailed("listing-missing", name="emerge")

    monkeypatch.setattr(sandbox, "run", run)
    return log


BUILDROOT = Sandbox(hostname="base", layers=(), workspace=Path("/nowhere"))


def test_failed_build_has_its_reason_and_log(failing_emerge: Path) -> None:
    line = "app-misc/bad-1::t failed (compile phase): no luck"
    with refused(CommandFailed, "build-failed", chroot="base", reason=line, log=failing_emerge):
        emerge.build(BUILDROOT, ["app-misc/bad"], Build(), failing_emerge)


def test_failed_build_that_tried_the_network_has_a_code_of_its_own(
    failing_emerge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emerge, "tried_the_network", lambda _: True)
    with refused(CommandFailed, "build-tried-network"):
        emerge.build(BUILDROOT, [], Build(), failing_emerge)


def test_build_that_ran_out_of_memory_says_so(
    failing_emerge: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*_: object, **__: object) -> None:
        raise OutOfMemory("listing-missing", name="memory")

    monkeypatch.setattr(sandbox, "run", run)
    with refused(OutOfMemory, "build-out-of-memory", reason="memory is missing"):
        emerge.build(BUILDROOT, [], Build(), failing_emerge)


def test_failed_fetch_names_a_group_for_the_missing_file(failing_emerge: Path) -> None:
    line = "app-misc/bad-5 has fetch restriction turned on."
    with refused(CommandFailed, "distfiles-not-fetched", reason=line, group="role:java"):
        emerge.fetch(BUILDROOT, [], Build(), failing_emerge, "role:java")


def test_fetch_that_takes_too_long_is_a_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One slow mirror fails a package, not the run."""

    def run(*_: object, **_more: object) -> None:
        raise CommandFailed("program-timeout-logged", program="emerge")

    monkeypatch.setattr(sandbox, "run", run)
    chroot = Sandbox("base", (), tmp_path)
    assert emerge.fetch_packages(chroot, ["=a/b-1"], tmp_path / "log", 1) != 0
