"""Failures of one package: their class, phase and cause, by the package's own log.

A log is written by the build, so it is hostile: its head and tail are read, of limited size, and
its lines are made printable. It can only misreport its own package: no other log is read, and no
name of a package is taken from it. The classes are those of poudriere's processonelog that matter
here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from tasks.text import printable

_HEAD, _TAIL = 256 << 10, 1 << 20  # bytes of a log
_LONGEST = 1000  # characters of a line that patterns see
_SHOWN = 240  # characters of a line in a message
_LINES = 4  # telling lines
_NEAR_END = 60  # lines before the end in which a cause is looked for that may be harmless earlier


class Kind(StrEnum):
    """The class of a failure."""

    FETCH = "fetch"
    CHECKSUM = "checksum"
    PATCH = "patch"
    CONFIGURE = "configure"
    COMPILE = "compile"
    LINK = "link"
    TEST = "test"
    INSTALL = "install"
    COLLISION = "collision"
    HANG = "hang"
    TIME = "time"
    MEMORY = "out-of-memory"
    DISK = "disk-full"
    NETWORK = "network-denied"
    UNKNOWN = "unknown"


class Limit(StrEnum):
    """A limit for which a build was ended from outside."""

    TIME = "time"
    SILENCE = "silence"
    MEMORY = "memory"


@dataclass(frozen=True)
class Missing:
    """Something that a build looked for in vain: probably an undeclared dependency.

    `what` is its kind: header, library, command, pkg-config module, Python module, ...
    """

    what: str
    name: str

    def __str__(self) -> str:
        return f"{self.what} {self.name}"


@dataclass(frozen=True)
class Failure:
    """The end of a build that failed: `phase` as Portage calls it ("" if unknown).

    `lines` are those of the log that tell the most, printable and short. `package` is the one of a
    cycle that failed, else "". `buildroot` is a sentence about the buildroot, if it was to be kept.
    """

    kind: Kind
    phase: str
    lines: tuple[str, ...]
    missing: Missing | None = None
    log: Path | None = None
    package: str = ""
    buildroot: str = ""


def explain(log: Path, status: int, limit: Limit | None = None) -> Failure:
    """Explain the failure of a build by its log, its exit status, and the limit that ended it.

    `status` is negative for a signal.
    """
    return replace(classify(read(log), status, limit), log=log)


def read(log: Path) -> str:
    """Read the head and the tail of a log; "" if it is no file, or a link."""
    try:
        descriptor = os.open(log, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        os.close(descriptor)
        return ""
    with os.fdopen(descriptor, "rb") as stream:
        raw = stream.read(_HEAD)
        if facts.st_size > _HEAD:
            stream.seek(max(_HEAD, facts.st_size - _TAIL))
            raw += (b"\n" if facts.st_size > _HEAD + _TAIL else b"") + stream.read(_TAIL)
    return raw.decode("utf-8", "replace")


def phase_of(text: str) -> str:
    """The last phase that a part of a log says has started; "" if it says none."""
    return _phase(_lines(text))[0]


def classify(text: str, status: int, limit: Limit | None = None) -> Failure:
    """Classify a failure by the text of its log; pure."""
    lines = _lines(text)
    phase, start = _phase(lines)
    end, message = _die(lines)
    section = lines[start:end]
    if limit is not None:
        return Failure(_BY_LIMIT[limit], phase, _last(section))
    kind = _kind(phase, section, lines)
    telling = _telling(kind, section if kind is not Kind.COLLISION else lines)
    reported = (message,) if message and message != "(no error message)" else ()
    telling = tuple(
        dict.fromkeys((*telling, *reported) if telling else (*reported, *_last(section)))
    )
    if not telling:
        telling = (f"killed by signal {-status}" if status < 0 else f"exit code {status}",)
    missing = None if kind in _NOT_OF_THE_BUILD else _missing(section)
    return Failure(kind, phase, telling, missing)


_BY_LIMIT = {Limit.TIME: Kind.TIME, Limit.SILENCE: Kind.HANG, Limit.MEMORY: Kind.MEMORY}
_NOT_OF_THE_BUILD = (Kind.FETCH, Kind.CHECKSUM, Kind.PATCH, Kind.COLLISION, Kind.MEMORY, Kind.DISK)
_COLOUR = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# the lines that Portage's phase-functions.sh and vartree.py print when a phase starts
_STARTS = {
    ">>> Unpacking source": "unpack",
    ">>> Preparing source": "prepare",
    ">>> Configuring source": "configure",
    ">>> Compiling source": "compile",
    ">>> Test phase: ": "test",
    ">>> Install ": "install",
    ">>> Merging ": "merge",
}
# die in isolated-functions.sh, _killed_by_signal and _unexpected_exit in AbstractEbuildProcess.py
_DIED = re.compile(r"^\* ERROR: \S{1,200} failed(?: \(([a-z_]{1,20}) phase\))?:$")
_ENDED = re.compile(r"^\* The ebuild phase '([a-z_]{1,20})' has (?:been|exited)")
_FETCHING = ("", "pretend", "setup", "fetch", "nofetch", "unpack")


def _lines(text: str) -> list[str]:
    """The lines of a log without colours; of a line that was overwritten, each version."""
    plain = _COLOUR.sub("", text).replace("\r", "\n")
    return [printable(line[:_LONGEST].replace("\t", " ")).strip() for line in plain.split("\n")]


def _phase(lines: Sequence[str]) -> tuple[str, int]:
    """The phase that failed, and the number of the line with which it started."""
    phase, starts = "", {"": 0}
    for number, line in enumerate(lines):
        if line.startswith(">>> "):
            for mark, name in _STARTS.items():
                if line.startswith(mark):
                    phase, starts[name] = name, number
        elif line.startswith("* ") and (match := _DIED.match(line) or _ENDED.match(line)):
            phase = match[1] or phase
    return phase, starts.get(phase, 0)


def _die(lines: Sequence[str]) -> tuple[int, str]:
    """The number of the line where the first `die` of the last phase reports, and its message.

    Reports about another package, which the log may quote, are not the package's own.
    """
    first, report = len(lines), ""
    for number in range(len(lines) - 1, -1, -1):
        line = lines[number]
        if _DIED.match(line) and line == (report or line):
            first, report = number, line
        elif _ENDED.match(line):
            first = number
        elif line.startswith(tuple(_STARTS)):
            break
    if first == len(lines):
        return first, ""
    if _ENDED.match(lines[first]):
        return first, _shown(lines[first])
    following = lines[first + 1] if first + 1 < len(lines) else ""
    return first, _shown(following)


def _shown(line: str) -> str:
    return printable(line.removeprefix("*").strip(), _SHOWN)


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns))


_KILLED = _any(
    r"Killed signal terminated program",
    r"(?:fatal|internal compiler) error: Killed",
    r"virtual memory exhausted",
    r"LLVM ERROR: out of memory",
    r"out of memory allocating \d+ bytes",
    r"memory allocation of \d+ bytes failed",
    r"signal: 9, SIGKILL",
    r"^(?:g?make|ninja)\b.*\bKilled$",
    r"\bKilled +(?:\(core dumped\) +)?[\w./$\"{]",  # bash: `x.sh: line 3: 77 Killed  cc1 ...`
    r"^Killed$",
    r"[Cc]annot allocate memory",
    r"phase '\w+' has been killed by signal 9",
)
_FULL = _any(r"No space left on device", r"Disk quota exceeded", r"\bENOSPC\b")
_OFFLINE = _any(
    r"(?i:network is unreachable)",
    r"(?i:could not resolve (?:host|proxy))",
    r"(?i:name or service not known)",
    r"(?i:temporary failure in name resolution)",
    r"(?i:unable to resolve host address)",
    r"dial tcp: lookup \S+",
    r"getaddrinfo (?:ENOTFOUND|EAI_AGAIN)",
    r"\[Errno -[23]\]",
)
_UNVERIFIED = _any(
    r"^!!! Fetched file: .{1,300} VERIFY FAILED!",
    r"^!!! Digest verification failed",
    r"^!!! Reason: (?:Filesize|Failed on)",
    r"^!!! A file is not listed in the Manifest",
)
_UNFETCHED = _any(
    r"^!!! Couldn't download",
    r"^!!! \S+ has fetch restriction turned on",
    r"^!!! File .{1,300} isn't (?:fully )?fetched",
    r"^(?:\* )?Fetch failed for",
)
_COLLIDED = _any(
    r"NOT merged due to (?:file|internal)",
    r"NOT merged since it has",
    r"Detected file collision\(s\)",
    r"has internal collisions between",
)
_REJECTED = _any(
    r"^Hunk #\d+ FAILED",
    r"\bhunks? (?:FAILED|ignored)",
    r"^can't find file to patch",
    r"^patch: \*\*\*\*",
    r"patch .{1,500} failed with",
    r"^error: patch failed:",
    r"^Reversed \(or previously applied\) patch detected",
)
_UNLINKED = _any(
    r"undefined reference to ",
    r"undefined symbol: ",
    r"multiple definition of ",
    r"\bcannot find -l\S+",
    r"ld: error: ",
    r"unable to find library -l\S+",
    r"error: linking with \S+ failed",
    r"\bDSO missing from command line",
    r"recompile with -fPIC",
    r"undefined reference$",
)
_UNLINKED_AFTER = _any(r"ld returned \d+ exit status", r"linker command failed")
_UNCOMPILED = _any(
    r"^\S[^ ]*:\d+(?::\d+)?: (?:fatal )?error: ",
    r"^\S[^ ]*:\d+: Error: ",  # the assembler
    r"^(?:\S+: )?(?:fatal )?error(?:\[E\d+\])?: ",
    r"^(?:\S+: )?internal compiler error: ",
    r"^(?:ModuleNotFound|Import|Syntax|Type|Attribute|Name|Value)Error: ",
    r"\bcommand not found$",
    r"^(?:make|gmake)(?:\[\d+\])?: [^*]\S*: No such file or directory$",
    r"^\S+\.go:\d+:\d+: ",
    r"^make(?:\[\d+\])?: \*\*\* No rule to make target",
    r"^Can't locate \S+ in @INC",
    r"^ERROR:? ",
)
_UNCONFIGURED = _any(
    r"^configure: error: (?!in )",
    r"^CMake Error",
    r"^Could not find a package configuration file",
    r"^\S*meson\.build:\d+:\d+: ERROR: ",
    r"^Could NOT find \S+",
    r"^No package '\S+' found",
    r"^(?:\S+: )?(?:ModuleNotFound|Import)Error: ",
    r"\bcommand not found$",
    r"^Can't locate \S+ in @INC",
    r"^(?:autoreconf|aclocal|automake|autoconf)[-\d.]*: error: ",
    r"^\S+:\d+: error: ",  # autoconf's own
    r"^\* Failed [Rr]unning (?:auto|acl|libtool)",
    r"^ERROR:? ",
)
_UNTESTED = _any(
    r"^(?:FAIL|FAILED|XPASS|ERROR)(?:: |\s)",
    r"^not ok \d",
    r"^\d+/\d+ .{0,200}\b(?:FAIL|TIMEOUT|ERROR)\b",
    r"\*\*\*Failed",
    r"^E   ",
    r"^test \S+ \.\.\. FAILED",
    r"^--- FAIL: ",
    r"^# (?:FAIL|ERROR): +[1-9]",
    r"^Assertion .* failed|: Assertion `",
)
_UNINSTALLED = _any(
    r"^!!! \w+: .{1,300} does not exist",
    r"cannot (?:stat|create|remove|access|open) ",
    r"\bNo such file or directory$",
    r"\bPermission denied$",
    r"\bcommand not found$",
    r"^(?:dobin|doins|newins|dosbin|dolib\S*|doman|dodoc|dosym|fperms|fowners)\b.* failed",
    r"^\* QA Notice: .*",
    r"^(?:install|cp|mv|ln|mkdir): ",
)
_PATTERNS: Mapping[Kind, tuple[re.Pattern[str], ...]] = {
    Kind.FETCH: (_UNFETCHED, _OFFLINE),
    Kind.CHECKSUM: (_UNVERIFIED,),
    Kind.PATCH: (_REJECTED,),
    Kind.CONFIGURE: (_UNCONFIGURED, _UNCOMPILED),
    Kind.COMPILE: (_UNCOMPILED,),
    Kind.LINK: (_UNLINKED, _UNLINKED_AFTER),
    Kind.TEST: (_UNTESTED,),
    Kind.INSTALL: (_UNINSTALLED, _UNCOMPILED),
    Kind.COLLISION: (re.compile(r"^\* +/\S+$"), _COLLIDED),
    Kind.MEMORY: (_KILLED,),
    Kind.DISK: (_FULL,),
    Kind.NETWORK: (_OFFLINE,),
}
_BY_PHASE = {
    "configure": Kind.CONFIGURE,
    "test": Kind.TEST,
    "compile": Kind.COMPILE,
} | dict.fromkeys(
    ("install", "instprep", "preinst", "postinst", "prerm", "postrm", "package", "merge"),
    Kind.INSTALL,
)


def _kind(phase: str, section: Sequence[str], lines: Sequence[str]) -> Kind:
    """The class of a failure; `section` has the lines of the phase, up to its `die`."""
    kind = _of_the_machine(phase, section, lines) or _of_portage(phase, lines)
    if kind is not None:
        return kind
    if phase not in ("test", "") and _has(_OFFLINE, section[-_NEAR_END:]):
        return Kind.NETWORK
    if phase in ("unpack", "prepare"):
        unconfigured = Kind.CONFIGURE if _has(_UNCONFIGURED, section) else Kind.UNKNOWN
        return Kind.PATCH if _has(_REJECTED, section) else unconfigured
    if phase == "compile" and _link_failed(section):
        return Kind.LINK
    return _BY_PHASE.get(phase, Kind.UNKNOWN)


def _of_the_machine(phase: str, section: Sequence[str], lines: Sequence[str]) -> Kind | None:
    # tests print such lines on purpose
    near = section[-_NEAR_END // 2 :] if phase == "test" else section
    if _has(_FULL, near):
        return Kind.DISK
    return Kind.MEMORY if _has(_KILLED, near) or _has(_ENDED_BY_KILL, lines) else None


def _of_portage(phase: str, lines: Sequence[str]) -> Kind | None:
    if phase in _FETCHING and _has(_UNVERIFIED, lines):
        return Kind.CHECKSUM
    if phase in _FETCHING and _has(_UNFETCHED, lines):
        return Kind.FETCH
    merging = phase in ("", "install", "instprep", "preinst", "merge")
    return Kind.COLLISION if merging and _has(_COLLIDED, lines) else None


_ENDED_BY_KILL = re.compile(r"^\* The ebuild phase '\w+' has been killed by signal 9")


def _link_failed(section: Sequence[str]) -> bool:
    """Tell whether the first error of a phase is one of the linker."""
    linked = _first(_UNLINKED, section)
    if linked is None:
        linked = _first(_UNLINKED_AFTER, section)
    if linked is None:
        return False
    compiled = _first(_UNCOMPILED, section)
    return compiled is None or linked <= compiled


def _has(pattern: re.Pattern[str], lines: Sequence[str]) -> bool:
    return _first(pattern, lines) is not None


def _first(pattern: re.Pattern[str], lines: Sequence[str]) -> int | None:
    return next((number for number, line in enumerate(lines) if pattern.search(line)), None)


def _telling(kind: Kind, lines: Sequence[str]) -> tuple[str, ...]:
    """The first lines that match the most precise pattern of a class."""
    for pattern in _PATTERNS.get(kind, ()):
        matching = (_shown(line) for line in lines if pattern.search(line))
        if telling := _few(matching):
            return telling
    return ()


_BOILERPLATE = re.compile(
    r"^(?:g?make(?:\[\d+\])?: (?:Leaving|Entering|\*\*\* )|ninja: build stopped"
    r"|>>> |\* If you need support|\* (?:Package|Repository|Maintainer|USE|FEATURES|Upstream): )"
)


def _last(lines: Sequence[str]) -> tuple[str, ...]:
    """The last lines that are no boilerplate."""
    telling = [_shown(line) for line in lines[-_NEAR_END:] if not _BOILERPLATE.match(line)]
    return tuple([line for line in telling if line][-(_LINES - 1) :])


def _few(lines: Iterable[str]) -> tuple[str, ...]:
    few: list[str] = []
    for line in lines:
        if line and line not in few:
            few.append(line)
        if len(few) == _LINES - 1:
            break
    return tuple(few)


# Always fatal, wherever they stand in the log of a phase: the first one counts.
_MISSING = (
    ("header", r"fatal error: '?([\w./+-]{1,200})'?(?:: No such file| file not found)"),
    ("library", r"(?:cannot find|unable to find library) -l([\w.+-]{1,100})"),
    ("pkg-config module", r"ERROR: Dependency ['\"]([\w.+-]{1,100})['\"] not found"),
    ("pkg-config module", r"ERROR: Dependency lookup for ([\w.+-]{1,100}) with method"),
    ("command", r"ERROR: Program ['\"]([\w.+-]{1,100})['\"] not found"),
    ("Perl module", r"^Can't locate ([\w/]{1,100}\.pm) in @INC"),
)
# Harmless where a script goes on without it: the last one near the end counts.
_MISSING_NEAR_END = (
    ("pkg-config module", r"No package '([\w.+-]{1,100})' (?:found|was found)"),
    ("pkg-config module", r"^Package ([\w.+-]{1,100}) was not found in the pkg-config search path"),
    ("pkg-config module", r"Package '([\w.+-]{1,100})', required by '[^']{1,100}', not found"),
    ("CMake package", r"package configuration file provided by \"([\w.+-]{1,100})\""),
    ("CMake package", r"Could NOT find ([\w.+-]{1,100})"),
    ("Python module", r"No module named '?([\w.]{1,100})'?"),
    ("command", r"^\S*sh: (?:line )?\d+: (?:exec: )?([\w.+-]{1,100}): (?:command )?not found$"),
    ("command", r": line \d+: ([\w./+-]{1,100}): command not found$"),
    ("command", r"^g?make(?:\[\d+\])?: ([\w.+-]{1,100}): No such file or directory$"),
    ("command", r"^env: ['‘]?([\w.+-]{1,100})['’]?: No such file or directory$"),
    ("command", r"^configure: error: (?:cannot find|could not find) ([\w.+-]{1,100})$"),
)
_ALWAYS = tuple((what, re.compile(pattern)) for what, pattern in _MISSING)
_NEAR = tuple((what, re.compile(pattern)) for what, pattern in _MISSING_NEAR_END)


def _missing(section: Sequence[str]) -> Missing | None:
    """The thing whose absence explains a failure, if the log names one."""
    for line in section:
        for what, pattern in _ALWAYS:
            if match := pattern.search(line):
                return Missing(what, match[1])
    for line in reversed(section[-_NEAR_END:]):
        for what, pattern in _NEAR:
            if match := pattern.search(line):
                return Missing(what, match[1])
    return None
