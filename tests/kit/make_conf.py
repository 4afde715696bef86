"""make.conf as Portage reads it: a faithful, short copy of portage.util.getconfig."""

from __future__ import annotations

import shlex
import string


def getconfig(text: str) -> dict[str, str]:
    """portage.util.getconfig(make.conf, allow_sourcing=True)."""
    lex = shlex.shlex(text, posix=True)
    lex.wordchars = string.digits + string.ascii_letters + r"~!@#$%*_\:;?,./-+{}"
    lex.quotes = "\"'"
    lex.source = "source"
    variables: dict[str, str] = {}
    while (key := lex.get_token()) is not None:
        assert lex.get_token() == "="
        value = lex.get_token()
        assert value is not None
        variables[key] = varexpand(value, variables)
    return variables


def varexpand(value: str, variables: dict[str, str]) -> str:
    """portage.util.varexpand, with its reading of quotes."""
    single = double = False
    place, out = 0, ""
    while place < len(value):
        letter = value[place]
        place += 1
        if letter == "'":
            single = single if double else not single
            out += letter
        elif letter == '"':
            double = double if single else not double
            out += letter
        elif single:
            out += letter
        elif letter == "\n":
            out += " "
        elif letter == "\\" and place < len(value):
            after = value[place]
            place += 1
            if after == "\\":
                out += after
                if value[place : place + 1] in ("'", '"', "$"):
                    out += value[place]
                    place += 1
            elif after != "\n":
                out += after if after == "$" else letter + after
        elif letter == "$" and place < len(value):
            braced = value[place] == "{"
            start = place = place + braced
            while place < len(value) and (value[place].isalnum() or value[place] == "_"):
                place += 1
            out += variables.get(value[start:place], "")
            place += braced
        else:
            out += letter
    return out
