"""The tables of config.toml about giving: [access], [mirror] and [serve]; docs/serving.md."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, Field

from tasks.config.types import STRICT, AnyGroup, Group, Line, Name, Word, meant


class _Table(BaseModel):
    model_config = STRICT


class Access(_Table):
    """Who gets what: the groups beside `public`, and which packages belong to them."""

    groups: list[Group] = []
    restricted: Group | None = None  # for what may not be given to everybody; None: nobody
    free: list[Word] = []  # licences by which a package may be given to everybody
    binhosts: dict[Name, AnyGroup] = {}
    packages: dict[Word, AnyGroup] = {}


class Mirror(_Table):
    """The distfiles that this site gives to others."""

    keep_days: int = Field(default=90, ge=1)


class Serve(_Table):
    """How nginx runs: TLS, and the user that answers requests when root starts it."""

    certificate: Line | None = None
    certificate_key: Line | None = None
    worker: Name = "nobody"


def problems(access: Access, serve: Serve, chroots: list[str]) -> Iterator[str]:
    """Groups that are not listed, binhosts of no chroot, and passwords without TLS."""
    used = [("[access] restricted", access.restricted)]
    used += [(f"[access.binhosts] {name}", group) for name, group in access.binhosts.items()]
    used += [(f"[access.packages] {name}", group) for name, group in access.packages.items()]
    for place, group in used:
        if group is not None and group not in ("public", *access.groups):
            yield f"{place}: {group!r} is not in [access] groups{meant(group, access.groups)}"
    for name in access.binhosts:
        if name not in chroots:
            yield f"[access.binhosts] {name}: no chroot{meant(name, chroots)}"
    if (serve.certificate is None) != (serve.certificate_key is None):
        yield "[serve]: certificate and certificate_key go together"
    elif access.groups and serve.certificate is None:
        yield "[access] groups: need TLS, or passwords could be read; set [serve] certificate"
