"""Ask a chroot's own Portage for its plan; inside/plan.py runs in the chroot.

The answer is not trusted: its file is opened without following links, its size is limited, and it
is parsed strictly.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tasks.errors import BinmillError
from tasks.planner import plan as plans
from tasks.planner.plan import Plan
from tasks.portage import inside
from tasks.system import sandbox
from tasks.system.files import read_plain, write_atomic
from tasks.system.sandbox import Bind, Sandbox
from tasks.text import one_line

PROGRAM = Path(inside.__file__).with_name("plan.py")
INSIDE = "/run/binmill"  # where the program and the request are mounted
ANSWER_INSIDE = "/run/binmill-answer"  # where the program writes its answer
COMMAND = (
    "python3",
    "-I",
    f"{INSIDE}/{PROGRAM.name}",
    f"{INSIDE}/request.json",
    f"{ANSWER_INSIDE}/answer.json",
)
_TIMEOUT = 3600.0  # seconds; Portage may try many combinations
_REASON_LINES, _REASON_WIDTH = 40, 200  # of what Portage says


def resolve(chroot: Sandbox, packages: Sequence[str], seed: str) -> Plan:
    """Resolve @world and a chroot's packages in a sandbox of it, as `emerge --emptytree` would.

    `seed` is the identity of the seed's files, for packages that package.provided names. Raises
    BinmillError with what Portage says if it cannot resolve them.
    """
    asked, answered = chroot.workspace / "plan-request", chroot.workspace / "plan-answer"
    for folder in (asked, answered):
        folder.mkdir()
    shutil.copy(PROGRAM, asked)
    write_atomic(asked / "request.json", json.dumps({"packages": request(packages)}))
    binds = (
        *chroot.binds,
        Bind(str(asked), INSIDE),
        Bind(str(answered), ANSWER_INSIDE, writable=True),
    )
    done = sandbox.run(replace(chroot, binds=binds), COMMAND, timeout=_TIMEOUT, check=False)
    if done.returncode != 0:
        lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        reason = one_line(lines[-1], _REASON_WIDTH) if lines else f"status {done.returncode}"
        raise BinmillError("plan-program-failed", chroot=chroot.hostname, reason=reason)
    try:
        raw = read_plain(answered / "answer.json", plans.LONGEST)
    except OSError as error:
        cause = error.strerror or str(error)
        raise BinmillError("plan-answer-malformed", chroot=chroot.hostname, cause=cause) from error
    return parse_answer(chroot.hostname, raw, seed)


def request(packages: Sequence[str]) -> list[str]:
    """The words to resolve: those that emerge(1) gets in a build."""
    return ["@world", *sorted(packages)]


def parse_answer(chroot: str, raw: bytes, seed: str) -> Plan:
    """Parse the answer of the program inside; raises BinmillError for all that is no plan."""
    # the one key of the answer comes first, so that a large plan is parsed once
    head, colon, rest = raw.partition(b":")
    if colon and head.strip() == b'{"plan"' and rest.rstrip().endswith(b"}"):
        try:
            return plans.parse(rest.rstrip()[:-1], seed)
        except ValueError as error:
            raise _malformed(chroot, error) from error
    try:
        match json.loads(raw):
            case {"unresolved": str(text), **more} if not more:
                reason = reason_lines(text)
                raise BinmillError("plan-unresolved", chroot=chroot, reason=reason)
            case {"undigested": [str(package), str(file)], **more} if not more:
                raise BinmillError(
                    "plan-distfile-without-digest", chroot=chroot, package=package, file=file
                )
    except (ValueError, RecursionError) as error:
        raise _malformed(chroot, error) from error
    raise _malformed(chroot, ValueError("it has another form"))


def _malformed(chroot: str, error: Exception) -> BinmillError:
    cause = one_line(str(error), _REASON_WIDTH)
    return BinmillError("plan-answer-malformed", chroot=chroot, cause=cause)


def reason_lines(text: str) -> list[str]:
    """The lines of what Portage says, without empty ones; of many, the first."""
    lines = [one_line(line.rstrip(), _REASON_WIDTH) for line in text.splitlines() if line.strip()]
    more = len(lines) - _REASON_LINES
    return [*lines[:_REASON_LINES], *([f"... ({more} more lines)"] if more > 0 else [])] or [
        "it does not say why"
    ]


def check_buildable(plan: Plan, chroot: str) -> None:
    """Raise BinmillError for packages that cannot be built unattended and repeatably."""
    for word, code in (("interactive", "plan-interactive"), ("live", "plan-live")):
        packages = [each.cpv for each in plan.packages if word in each.properties]
        if packages:
            raise BinmillError(code, chroot=chroot, packages=packages)
