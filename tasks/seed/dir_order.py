"""The order of directories in an archive, on which it depends whether GNU tar sets their times."""

from __future__ import annotations


class DirectoryOrder:
    """Follows the entries of an archive from directory to directory.

    GNU tar sets a directory's time at the next entry that is not below it (tar 1.34,
    src/extract.c, apply_nonancestor_delayed_set_stat), comparing names as they are spelled. An
    entry that is written into that directory later changes the time again.
    """

    def __init__(self) -> None:
        self._current = b""
        self._dotted: bool | None = None  # names begin with "./"
        self._listed: set[bytes] = set()  # directories that have an entry of their own
        self._closed: set[bytes] = set()  # directories whose time tar has set

    def reopens(self, name: bytes, path: bytes, *, directory: bool) -> bool:
        """Return True if the next entry, spelled `name`, is in or below a closed directory."""
        current = path if directory else path.rpartition(b"/")[0]
        dotted = name.startswith(b"./")
        respelled = path != b"" and self._dotted not in (None, dotted)
        if path:
            self._dotted = dotted
        if directory:
            self._listed.add(path)
        if current == self._current:
            return respelled
        common = self._current
        while common and current != common and not current.startswith(common + b"/"):
            if common in self._listed:
                self._closed.add(common)
            common = common.rpartition(b"/")[0]
        self._current = current
        while current != common:
            if current in self._closed:
                return True
            current = current.rpartition(b"/")[0]
        return respelled
