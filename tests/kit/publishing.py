"""A site on which sets become candidates without being built."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tasks import records
from tasks.config.load import Config
from tasks.flow import publish
from tasks.layout import Layout
from tasks.publish import generation
from tasks.site import Site
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
    def current(self) -> int | None:
        return generation.current(self.layout.binhost("base"))

    def candidate(self, build: int, signer: str = SIGNER) -> int:
        """What binpkgs and candidate leave, of a set with that build of its one package."""
        made = self.sets.build_set(("x", build, b"%d" % build), identity=f"set of {build}")
        records.write(self.layout, "binpkgs:base", made[0])
        content = self.sets.content(made, signer)
        number = generation.prepare(self.sets.binhost, content, sign, self.sets.trash)
        records.write(self.layout, "candidate:base", {"generation": number, "set": made[0]["set"]})
        return number

    def publish(self, *, asked: bool = False) -> dict[str, Any]:
        made = publish.publish(self.site, "base", asked=asked)
        records.write(self.layout, "publish:base", made)
        return made

    def build(self) -> int:
        """Which build of the package clients get."""
        (path,) = (self.layout.binhost("base") / "current/public/a-b/x").iterdir()
        return int(path.name.split("-")[2].split(".")[0])
