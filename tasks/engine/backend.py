"""doit's database, committed per task: the state of a task is on disk when the task ends.

The backends of doit write at the end of the run, so a killed run forgets all that it finished.
`Dependency.save_success` of doit 0.37 sets the key `deps:` last: that is the moment to commit.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import quote

from doit.dependency import SqliteDB
from doit.exceptions import InvalidDodoFile

from tasks.errors import BinmillError, DiskFull
from tasks.system.disk_space import shortage

_BUSY_MILLISECONDS = 30_000
_LAST_KEY = "deps:"


def record_digests(path: Path) -> dict[str, str]:
    """Read the SHA-256 of each task's record, as its task left it; empty without a database.

    Raises BinmillError where the database is damaged.
    """
    if not path.exists():
        return {}
    digests = {}
    # a write that was interrupted is rolled back first, where this user may write
    mode = "rw" if os.access(path, os.W_OK) else "ro"
    try:
        with contextlib.closing(
            sqlite3.connect(f"file:{quote(str(path))}?mode={mode}", uri=True)
        ) as connection:
            connection.execute(f"pragma busy_timeout = {_BUSY_MILLISECONDS}")
            result = connection.execute("pragma integrity_check(1)").fetchone()[0]
            if result != "ok":
                raise sqlite3.DatabaseError(result.splitlines()[-1])
            if not connection.execute("select 1 from sqlite_master where name='doit'").fetchone():
                return {}  # power was lost while it was being created
            for task, data in connection.execute("select task_id, task_data from doit"):
                record = (json.loads(data).get("_values_:") or {}).get("record")
                if isinstance(record, str):
                    digests[task] = record
    except (sqlite3.Error, ValueError, AttributeError, TypeError) as error:
        raise BinmillError("database-damaged", path=path, reason=str(error)) from error
    return digests


class DurableBackend(SqliteDB):  # type: ignore[misc]
    """doit's sqlite3 backend, which commits per task; reading needs no write permission."""

    desc = "durable: each finished task is on disk at once"
    writable: bool
    _dirty: set[str]

    def _sqlite3(self, name: str) -> sqlite3.Connection:
        path = Path(name)
        memory: sqlite3.Connection = super()._sqlite3(":memory:")  # registers doit's converters
        with contextlib.suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
        self.writable = writable = os.access(path if path.exists() else path.parent, os.W_OK)
        if not writable and not (path.exists() and path.stat().st_size):
            return memory  # a fresh checkout that this user may only read
        try:
            connection = sqlite3.connect(
                f"file:{quote(str(path))}?mode={'rwc' if writable else 'ro'}",
                detect_types=sqlite3.PARSE_DECLTYPES,
                uri=True,
            )
            connection.row_factory = memory.row_factory
            connection.execute(f"pragma busy_timeout = {_BUSY_MILLISECONDS}")
            if writable:
                connection.execute(
                    "create table if not exists doit "
                    "(task_id text not null primary key, task_data json)"
                )
            connection.execute("select count(*) from doit").fetchone()
            result = connection.execute("pragma quick_check(1)").fetchone()["quick_check"]
            if result != "ok":
                raise sqlite3.DatabaseError(result.splitlines()[-1])
        except sqlite3.OperationalError as error:
            raise InvalidDodoFile(_not_opened(path, error)) from error
        except sqlite3.DatabaseError as error:
            problem = BinmillError("database-damaged", path=path, reason=str(error))
            raise InvalidDodoFile(str(problem)) from error
        memory.close()
        return connection

    def set(self, task_id: str, dependency: str, value: Any) -> None:
        super().set(task_id, dependency, value)
        if dependency == _LAST_KEY:
            self._commit()

    def remove(self, task_id: str) -> None:
        if self.writable:
            super().remove(task_id)
            # on a full disk; the reason to run the task is still there the next time
            with contextlib.suppress(sqlite3.Error):
                self._conn.commit()

    def dump(self) -> None:
        with contextlib.suppress(sqlite3.Error):  # it was reported when the task ended
            self._commit()
        self._conn.close()

    def _commit(self) -> None:
        if not self.writable:
            return
        for task_id in self._dirty:
            self._conn.execute(
                "insert or replace into doit values (?,?)",
                (task_id, self.codec.encode(self._cache[task_id])),
            )
        self._conn.commit()
        self._dirty = set()


def _not_opened(path: Path, error: Exception) -> str:
    if full := shortage(path.parent):
        return str(DiskFull("disk-full", cause=f"{path}: {error}", reason=full.message))
    return str(BinmillError("database-not-opened", path=path, cause=str(error)))
