"""The emerge call, and what is read off its output and its package database."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tasks.config.load import Build
from tasks.errors import BinmillError, NotTrusted
from tasks.portage import emerge
from tasks.portage.emerge import command, installed, makeopts, reason, said_since, tried_the_network

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
    ("log", "told"),
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
def test_reason(log: str, told: str) -> None:
    assert reason(log) == told


@pytest.mark.parametrize(
    ("log", "told"),
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
def test_a_package_that_tried_the_network(log: str, told: bool) -> None:
    assert tried_the_network(log) is told


def test_only_this_run_is_read(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_bytes(b"emerge: there are no ebuilds to satisfy old\n\xff!!! new\n")
    assert reason(said_since(log, 0)).startswith("emerge: there are no ebuilds")
    assert said_since(log, 44) == "\ufffd!!! new\n"


def test_command() -> None:
    words = command(Build(packages=3), ["b/b", "a/a"])
    assert words[0] == "emerge"
    assert words[-3:] == ["@world", "a/a", "b/b"]
    assert {"--emptytree", "--usepkg=y", "--with-bdeps=y", "--color=n", "--jobs=3"} < set(words)
    assert "--getbinpkg" not in words
    assert command(Build(), [])[-1] == "@world"


def test_makeopts() -> None:
    assert makeopts(Build(jobs=7)) == "-j7"
    assert makeopts(Build()) == f"-j{os.cpu_count()}"


def entry(upper: Path, name: str) -> Path:
    path = upper / "var/db/pkg" / name
    path.mkdir(parents=True)
    return path


def test_installed(tmp_path: Path) -> None:
    entries = [entry(tmp_path, name) for name in ("b-c/d-1", "a-b/c-2", "a-b/c-1-r1")]
    entry(tmp_path, "a-b/-MERGING-x-1")
    (tmp_path / "var/db/pkg/a-b/.lock").write_text("")
    (tmp_path / "var/db/pkg/a-b/link-1").symlink_to(entries[0])
    (tmp_path / "var/db/pkg/x-y").symlink_to("a-b")
    (tmp_path / "var/db/pkg/file").write_text("")
    assert installed(tmp_path) == sorted(entries)


def test_nothing_installed(tmp_path: Path) -> None:
    with pytest.raises(BinmillError, match="installed nothing"):
        installed(tmp_path)


@pytest.mark.parametrize("part", ["var", "var/db", "var/db/pkg"])
def test_a_database_that_leads_out_of_the_chroot(tmp_path: Path, part: str) -> None:
    for name in ("var/db/pkg/a-b/c-1", "db/pkg/a-b/c-1", "pkg/a-b/c-1", "a-b/c-1"):
        (tmp_path / "host" / name).mkdir(parents=True)
    link = tmp_path / "upper" / part
    link.parent.mkdir(parents=True)
    leads = {"var": "host", "var/db": "host/db", "var/db/pkg": "host/pkg"}[part]
    link.symlink_to(tmp_path / leads)
    with pytest.raises(NotTrusted, match=f"/{part} is a link"):
        installed(tmp_path / "upper")


@pytest.mark.parametrize(
    ("log", "said"),
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
def test_how_far_a_build_is(tmp_path: Path, log: str, said: str) -> None:
    place = tmp_path / "log"
    place.write_text(log)
    assert emerge.progress(place) == said
