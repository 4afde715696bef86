"""Whether an archive is in the order in which GNU tar restores times of directories rightly."""

from __future__ import annotations


class Order:
    """Follows the members of an archive from directory to directory.

    GNU tar gives a directory its time when a member comes that is not below it (tar 1.34,
    src/extract.c, apply_nonancestor_delayed_set_stat), by their names as they are spelled. What
    is put there after that would change the time.
    """

    def __init__(self) -> None:
        self._here = b""
        self._dotted: bool | None = None  # whether names begin with "./"
        self._told: set[bytes] = set()  # directories that have an entry of their own
        self._left: set[bytes] = set()

    def goes_back(self, name: bytes, path: bytes, *, directory: bool) -> bool:
        """Whether the next member, spelled `name`, is in or below a directory that was left."""
        here = path if directory else path.rpartition(b"/")[0]
        dotted = name.startswith(b"./")
        respelled = path != b"" and self._dotted not in (None, dotted)
        if path:
            self._dotted = dotted
        if directory:
            self._told.add(path)
        if here == self._here:
            return respelled
        common = self._here
        while common and here != common and not here.startswith(common + b"/"):
            if common in self._told:
                self._left.add(common)
            common = common.rpartition(b"/")[0]
        self._here = here
        while here != common:
            if here in self._left:
                return True
            here = here.rpartition(b"/")[0]
        return respelled
