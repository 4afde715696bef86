"""config.toml's tables [seeds.NAME]: where the stage tarball of a base comes from."""

from __future__ import annotations

from pydantic import BaseModel, model_validator

from tasks.config.types import STRICT, Digest, Line, Moment, Name


class Seed(BaseModel):
    """The stage tarball that a base chroot starts from: a mirror's, or a file of one's own.

    A mirror's is the newest of its flavour, or the one of `build`, the time in its name.
    `setuid` are paths that may be so, beside those where programs lie.
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
        mirrored, own = self.flavour and self.key, self.file and self.sha512
        strays = [self.flavour, self.build, self.key] if own else [self.file, self.sha512]
        if not (mirrored or own) or any(strays):
            raise ValueError("needs either flavour and key, or file and sha512")
        return self

    @property
    def title(self) -> str:
        """What to call it."""
        return self.file or f"stage3-{self.arch}-{self.flavour}"
