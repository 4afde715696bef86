"""The tables of config.toml about serving: [access], [mirror] and [serve]; docs/serving.md."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from tasks.config.problem import Problem, problem
from tasks.config.types import STRICT, AnyGroup, Group, Line, Name, Word


class _Table(BaseModel):
    model_config = STRICT


class Access(_Table):
    """The groups of clients beside `public`, and the packages that each may download."""

    groups: list[Group] = []
    restricted: Group | None = None  # gets what is not free to distribute; None: no group does
    free: list[Word] = []  # licences under which a package may be public
    binhosts: dict[Name, AnyGroup] = {}
    packages: dict[Word, AnyGroup] = {}


class Mirror(_Table):
    """The distfiles that this site serves."""

    keep_days: int = Field(default=90, ge=1)


class Serve(_Table):
    """Settings of nginx: TLS, and the user of its workers if root starts it."""

    certificate: Line | None = None
    certificate_key: Line | None = None
    worker: Name = "nobody"


def problems(access: Access, serve: Serve, chroots: list[str]) -> Iterator[Problem]:
    """Groups that are not listed, binhosts of no chroot, and passwords without TLS."""
    references = [("access", "restricted", access.restricted)]
    references += [("access.binhosts", name, group) for name, group in access.binhosts.items()]
    references += [("access.packages", name, group) for name, group in access.packages.items()]
    for table, key, group in references:
        if group is not None and group not in ("public", *access.groups):
            yield problem("group-unlisted", table, key, word=group, known=access.groups)
    for name in access.binhosts:
        if name not in chroots:
            yield problem(
                "binhost-without-chroot", "access.binhosts", name, word=name, known=chroots
            )
    if (serve.certificate is None) != (serve.certificate_key is None):
        yield problem("certificate-incomplete", "serve")
    elif access.groups and serve.certificate is None:
        yield problem("groups-without-tls", "access", "groups")
