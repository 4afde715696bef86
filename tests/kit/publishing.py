"""A site on which sets become candidates without being built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks import records
from tasks.config.tables import Config
from tasks.flow import publish
from tasks.layout import Layout
from tasks.publish import candidate, generation
from tasks.records import (
    BINPKGS,
    CANDIDATE,
    GATE,
    PUBLISH,
    CandidateRecord,
    GateRecord,
    Inputs,
    Key,
    PublishRecord,
    Request,
)
from tasks.site import Chroot, Site
from tests.kit.binhost import SIGNER, SampleBinhost, sign
from tests.kit.configs import ONE_CHROOT


class PublishingSite:
    """A site on which sets become candidates without being built."""

    def __init__(self, place: Path) -> None:
        self.layout = Layout(place, place / "state")
        self.sets = SampleBinhost(self.layout.state)
        self.tables: dict[str, Any] = {
            "binhost": {
                "signing_key": SIGNER,
                "channels": ["testing", "stable"],
                "keep": 1,
                "keep_days": 0,
            }
        }

    @property
    def site(self) -> Site:
        return Site(self.layout, Config.model_validate({**ONE_CHROOT, **self.tables}))

    @property
    def chroot(self) -> Chroot:
        return self.site.chroot("base")

    @property
    def current(self) -> int | None:
        return generation.current(self.layout.binhost("base"))

    def candidate(self, build: int, signer: str = SIGNER) -> int:
        """Write the results of binpkgs, candidate and gate for one package; returns the number."""
        built = self.sets.build_set(("x", build, b"%d" % build), identity=f"set of {build}")
        records.save(self.layout, BINPKGS("base"), built[0])
        content = self.sets.content(built, signer)
        number = candidate.prepare(self.sets.binhost, content, sign, self.sets.trash, valid_days=30)
        record = CandidateRecord(number, built[0].set, {"public": 1})
        records.save(self.layout, CANDIDATE("base"), record)
        records.save(self.layout, GATE("base"), GateRecord(number, 1))
        return number

    def publish(self, *, named: bool = False) -> PublishRecord:
        """Run publish:base, named on the command line or not."""
        declared: frozenset[Key[Any]] = frozenset(
            [BINPKGS("base"), CANDIDATE("base"), GATE("base")]
        )
        inputs = Inputs(self.layout, declared, request=Request(named))
        record = publish.publish_candidate(self.chroot, inputs)
        records.save(self.layout, PUBLISH("base"), record)
        return record

    def build(self) -> int:
        """The build of the package that clients get."""
        (path,) = (self.layout.binhost("base") / "current/public/a-b/x").iterdir()
        return int(path.name.split("-")[2].split(".")[0])
