"""A fake upstream: mirrors on loopback, good or bad, a remote, and sites that use them.

Nothing depends on the day on which the tests run: the time of day is FakeUpstream.now.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tasks.config.tables import Config
from tasks.errors import BinmillError
from tasks.flow import snapshots
from tasks.layout import Layout
from tasks.messages import Field
from tasks.records import Request, SnapshotRecord, reading
from tasks.site import Site
from tasks.system.notes import Note, listening
from tests.kit.files import names
from tests.kit.gpg import Keys
from tests.kit.refused import refused
from tests.kit.repositories import leftovers, object_count, refs
from tests.kit.scripted_server import Answer, ScriptedServer, file
from tests.kit.snapshots import DAY, FILES, snapshot, snapshot_time

NEXT = DAY + timedelta(days=1)
NOW = datetime(2026, 1, 17, 12, tzinfo=UTC)  # when NEXT is eleven hours old
PASSWORD = "sesame"
REMOTE = "remote.git"

Error = TypeVar("Error", bound=BinmillError)


def tag(day: date) -> str:
    return f"{day:%Y%m%d}"


def last_modified(day: date) -> str:
    """The Last-Modified of a day's files."""
    return format_datetime(datetime.fromtimestamp(snapshot_time(day), UTC), usegmt=True)


class Signed(NamedTuple):
    """The files of a day on a mirror: archive, detached signature, optional .md5sum."""

    archive: bytes
    signature: bytes | None
    md5sum: bytes | None = None


@dataclass
class FakeUpstream:
    """Mirrors by name, at URLs with a password; one git remote, with a password too; keys."""

    folder: Path
    server: ScriptedServer
    keys: Keys
    printed: Callable[[], str]
    now: datetime = NOW

    @property
    def remote(self) -> Path:
        return self.folder / REMOTE

    def url(self, mirror: str) -> str:
        """A mirror's URL without its password, as messages show it."""
        return self.server.url(f"/{mirror}")

    def path(self, mirror: str, day: date = NEXT, suffix: str = "") -> str:
        return f"/{mirror}/snapshots/gentoo-{tag(day)}.tar.xz{suffix}"

    def site(
        self,
        *mirrors: str,
        name: str = "site",
        more: dict[str, Any] | None = None,
        accept: date | None = None,
        **tree: Any,
    ) -> Site:
        """A site that asks these mirrors in this order; `tree` are settings of its [tree]."""
        pinned = ("good", "expired", "revoked", "lapsed", "weak")
        key = {"file": str(self.keys.ring), "accept_expired_before": accept}
        urls = [self.url(each).replace("//", f"//me:{PASSWORD}@") for each in mirrors or ["one"]]
        remote = f"file://me:{PASSWORD}@localhost{self.remote}"
        raw: dict[str, Any] = {
            "keys": {
                "snapshots": {**key, "fingerprints": list(map(self.keys.fingerprint, pinned))},
                "stages": {**key, "fingerprints": [self.keys.fingerprint("other")]},
            },
            "mirrors": {"gentoo": urls},
            "tree": {"key": "snapshots", "lookback_days": 5, "remote": remote, **tree},
            "seeds": {"openrc": {"flavour": "openrc", "key": "stages"}},
            "chroots": {},
            **(more or {}),
        }
        layout = Layout(self.folder / name, self.folder / name / "state")
        layout.site.mkdir(exist_ok=True)
        return Site(layout, Config.model_validate(raw))

    def signed(
        self, day: date = NEXT, *how: str, who: str = "good", at: float = 0, **more: Any
    ) -> Signed:
        """A day's snapshot, signed a quarter of an hour after its time, or at the time `at`."""
        files = {**FILES, "app-misc/one/one-1.ebuild": f"EAPI=8\n# {day}\n".encode()}
        archive = snapshot(self.folder, day, **{"files": files, **more}).read_bytes()
        at = at or snapshot_time(day) + 900
        return Signed(archive, self.keys.sign(*how, who=who, data=archive, at=at))

    def publish(self, mirror: str, signed: Signed, day: date = NEXT) -> Signed:
        """Put these files, good or bad, on a mirror under a day's name."""
        for suffix, body in zip(("", ".gpgsig", ".md5sum"), signed, strict=True):
            self.server.answers.pop(self.path(mirror, day, suffix), None)
            if body is not None:
                self.answer(self.plain(body, day), mirror, day, suffix)
        return signed

    def plain(self, body: bytes, day: date = NEXT, pieces: int | None = None) -> Answer:
        """The answer of a good mirror; the body ends early after `pieces` bytes, if given."""
        return file(
            body,
            f"Last-Modified: {last_modified(day)}",
            pieces=pieces,
            validators=(last_modified(day),),
        )

    def answer(self, answer: Answer, mirror: str, day: date = NEXT, suffix: str = "") -> None:
        self.server.url(self.path(mirror, day, suffix), answer)

    def requested_archives(self) -> list[str]:
        """The archives that were requested since the last call, as MIRROR/DAY."""
        paths = [path.split("/") for path in self.server.paths if path.endswith(".tar.xz")]
        self.server.paths.clear()
        return [f"{mirror}/{name[7:15]}" for _, mirror, _, name in paths]

    def output(self) -> str:
        """All that was printed since the last call."""
        printed = self.printed()
        assert PASSWORD not in printed
        return printed

    def snapshot(self, site: Site, day: str = "") -> tuple[SnapshotRecord, list[Note]]:
        """Run `doit snapshot`; returns its record and its notes."""
        notes: list[Note] = []
        with listening(notes.append):
            record = run_snapshot(site, day)
        self.assert_nothing_left(site)
        self.output()
        return record, notes

    def refused(
        self, site: Site, kind: type[Error], code: str, *, day: str = "", **fields: Field
    ) -> Error:
        """Run `doit snapshot` and expect an error: one line with advice, nothing changed."""
        before = self.frozen_state(site)
        with refused(kind, code, **fields) as excinfo:
            run_snapshot(site, day)
        assert self.frozen_state(site) == before
        self.assert_nothing_left(site)
        error = excinfo.value
        assert error.message.isprintable()
        assert error.hint
        assert PASSWORD not in str(error)
        return error

    def frozen_state(self, site: Site) -> dict[str, Any]:
        """References here and on the remote, and the number of objects here."""
        tree = site.layout.tree
        here = (refs(tree), object_count(tree)) if tree.exists() else ({}, 0)
        return {"here": here, "there": refs(self.remote)}

    def assert_nothing_left(self, site: Site) -> None:
        for folder in (site.layout.downloads, site.layout.work, site.layout.trash):
            assert not folder.exists() or names(folder) == []
        assert leftovers(site.layout.tree) == []


def run_snapshot(site: Site, day: str = "") -> SnapshotRecord:
    """Run the task `snapshot` as `doit snapshot [--date DAY]` does."""
    request = Request(named=True, options={"day": day})
    return snapshots.freeze_newest(site, replace(reading(site.layout, ()), request=request))


PAGE = b"<html><body>captive portal</body></html>"


def flip_bit(data: bytes | None, place: int) -> bytes:
    raw = bytearray(data or b"")
    raw[place] ^= 1
    return bytes(raw)


def digest(signed: Signed) -> str:
    return hashlib.sha512(signed.archive).hexdigest()


def wrong_md5(signed: Signed, name: str = "gentoo-20260116.tar.xz") -> Signed:
    return signed._replace(md5sum=f"{'0' * 32}  {name}\n".encode())
