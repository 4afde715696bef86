"""Types of the values in config.toml: strings of a certain form."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, ConfigDict

from tasks.config.problem import BadValue


def _form(what: str, pattern: str) -> AfterValidator:
    """A check of a string; `what` completes the sentence "is not ..."."""
    form = re.compile(pattern)

    def check(value: str) -> str:
        # printable: no control characters, no marks that reverse the direction of text
        if not form.fullmatch(value) or not value.isprintable():
            raise BadValue("wrong-form", value=value[:60], form=what)
        return value

    return AfterValidator(check)


# Names become file names, task names and mount points.
Name = Annotated[str, _form("a name (letters, digits, - and _)", r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")]
# One printable line: what may stand in a generated file of /etc/portage, or be an argument.
Line = Annotated[
    str, _form("one line of printable text", r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,4096}")
]
Word = Annotated[
    str, _form("one word that does not begin with a dash", r"(?!-)[^\s\x00-\x1f\x7f-\x9f]{1,255}")
]
Flag = Annotated[str, _form("a flag", r"-?[A-Za-z0-9*][A-Za-z0-9+_@*-]*")]
# A word after the atom in package.use (portage(5)), such as VIDEO_CARDS: before its flags.
UseWord = Annotated[
    str,
    _form("a flag, or a USE_EXPAND variable with a colon", r"-?[A-Za-z0-9*][A-Za-z0-9+_@*-]*:?"),
]
# See planner.schedule.matches.
Pattern = Annotated[
    str,
    _form(
        "CATEGORY/NAME or =CATEGORY/NAME-VERSION, perhaps with * or ?",
        r"=?[A-Za-z0-9_*?][A-Za-z0-9+_.*?-]*/[A-Za-z0-9_*?][A-Za-z0-9+_.*?-]*",
    ),
]
Url = Annotated[str, _form("an http or https URL", r"https?://[^\s\x00-\x1f\x7f\"'\\]+")]
Variable = Annotated[str, _form("a variable name in capitals", r"[A-Z_][A-Z0-9_]*")]
Fingerprint = Annotated[str, _form("a fingerprint of 40 capital hex digits", r"[0-9A-F]{40}")]
Digest = Annotated[str, _form("a SHA-512 in hex", r"[0-9a-f]{128}")]
Moment = Annotated[str, _form("a build's time (YYYYMMDDTHHMMSSZ)", r"[0-9]{8}T[0-9]{6}Z")]
Commit = Annotated[str, _form("a commit id", r"[0-9a-f]{40}(?:[0-9a-f]{24})?")]
# A URL, host:path or a path; never an option, never a remote helper of git (ext::).
Remote = Annotated[
    str, _form("a git remote", r"(?!-)(?![A-Za-z0-9+.-]+::)[^\s\x00-\x1f\x7f]{1,1024}")
]
Branch = Annotated[str, _form("a branch", r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9_./-]*")]
Group = Annotated[
    str, _form("site:NAME or role:NAME", r"(?:site|role):[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
]
AnyGroup = Annotated[
    str,
    _form("public, site:NAME or role:NAME", r"public|(?:site|role):[A-Za-z0-9][A-Za-z0-9_-]{0,63}"),
]
Listen = Annotated[str, _form("ADDRESS:PORT", r"[0-9a-f.:\[\]]+:[0-9]{1,5}")]


# Every table of config.toml: known keys only, immutable, no value converted to fit.
STRICT = ConfigDict(extra="forbid", frozen=True, strict=True, defer_build=True)
