"""A terminal as a stream: it obeys what live lines use, and remembers what scrolled away."""

from __future__ import annotations

import io
import re
import unicodedata

_PART = re.compile(r"\x1b\[(\d*)([AJ])|[\r\n]|[^\r\n\x1b]")


class FakeTerminal(io.StringIO):
    """A terminal of a few rows and columns, `lines` its whole text, the oldest line first."""

    def __init__(self, columns: int = 80, rows: int = 24) -> None:
        super().__init__()
        self.columns, self.rows = columns, rows
        self._cells: list[list[str]] = [[]]  # the second one of a wide character is empty
        self._top = self._row = self._column = 0

    @property
    def lines(self) -> list[str]:
        return ["".join(row) for row in self._cells]

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        position = 0
        while position < len(text):
            part = _PART.match(text, position)
            assert part, f"a terminal of this kind does not know {text[position:]!r}"
            position = part.end()
            self._obey(part[0], int(part[1] or 1), part[2] or "")
        return super().write(text)

    def _obey(self, character: str, number: int, command: str) -> None:
        if command == "A":
            self._row = max(self._top, self._row - number)
        elif command == "J":
            del self._cells[self._row][self._column :]
            del self._cells[self._row + 1 :]
        elif character == "\r":
            self._column = 0
        elif character == "\n":
            self._next_row()
        else:
            cells = [character, *[""] * (_width(character) - 1)]
            if self._column + len(cells) > self.columns:
                self._next_row()
            self._cells[self._row][self._column : self._column + len(cells)] = cells
            self._column += len(cells)

    def _next_row(self) -> None:
        self._row, self._column = self._row + 1, 0
        self._top = max(self._top, self._row - self.rows + 1)
        if self._row == len(self._cells):
            self._cells.append([])


def _width(character: str) -> int:
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
