"""config.toml's tables [seeds.NAME]: where the stage tarball of a base comes from."""

from __future__ import annotations

from pydantic import BaseModel, model_validator

from tasks.config.problem import BadValue
from tasks.config.types import STRICT, Digest, Line, Moment, Name


class Seed(BaseModel):
    """The stage tarball that a base chroot starts from: from a mirror, or a local file.

    From a mirror it is the newest of its flavour, or that of `build`, the time in its name.
    `setuid` are paths that may be setuid, beside the directories of programs.
    """

    model_config = STRICT

    arch: Name = "amd64"
    flavour: Name | None = None
    build: Moment | None = None
    key: Name | None = None
    file: Line | None = None
    sha512: Digest | None = None
    setuid: list[Line] = []

    @model_validator(mode="after")
    def _one_kind(self) -> Seed:
        mirrored, own_file = self.flavour and self.key, self.file and self.sha512
        strays = [self.flavour, self.build, self.key] if own_file else [self.file, self.sha512]
        if not (mirrored or own_file) or any(strays):
            raise BadValue("seed-source")
        return self

    @property
    def title(self) -> str:
        """Its name in messages."""
        return self.file or f"stage3-{self.arch}-{self.flavour}"
