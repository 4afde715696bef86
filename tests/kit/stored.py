"""Products of builds for a store, made by hand: a package, a merge layer, a stanza."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args

from tasks.layout import Layout
from tasks.planner.plan import DependencyKind, PlannedPackage
from tasks.store.built import Product
from tasks.store.store import Store
from tests.kit.packages import VALUES, ImageFile, built_package, index_stanza

CPV = "app-misc/hello-2.10-r1"


def key(number: int) -> str:
    """An input key."""
    return f"{number:064x}"


@dataclass(frozen=True)
class Workshop:
    """A store, and a folder in which builds leave their products."""

    store: Store
    folder: Path

    def product(
        self,
        content: bytes = b"#!/bin/sh\n",
        build_id: int = 3,
        pf: str = "hello-2.10-r1",
        *,
        layer: bool = True,
        **values: str,
    ) -> Product:
        """A finished build of a package with one file, and its merge layer."""
        place = self.folder / f"{pf}-{build_id}"
        values = {**VALUES, "EAPI": "8", "PF": pf, "BUILD_ID": str(build_id), **values}
        files = [ImageFile("/usr/bin/hello", content, mode=0o755, mtime=build_id)]
        package = built_package(place / "x.gpkg.tar", files, values)
        upper = place / "upper"
        if layer:
            _merge(upper, content, f"{values['CATEGORY']}/{pf}", build_id)
        slot, _, sub = values["SLOT"].partition("/")
        return Product(
            planned=replace(
                planned(f"{values['CATEGORY']}/{pf}", values["repository"], slot, sub),
                use=tuple(sorted(values["USE"].split())),
                dependencies=_dependencies(values),
            ),
            build_id=build_id,
            package=package,
            layer=upper if layer else None,
            stanza=index_stanza(package),
            seconds=2.5,
            inputs="1" * 64,
        )


def _dependencies(values: Mapping[str, str]) -> dict[DependencyKind, str]:
    return {kind: values[kind] for kind in get_args(DependencyKind) if kind in values}


def _merge(upper: Path, content: bytes, cpv: str, build_id: int) -> None:
    """Leave what a merge leaves in its upper layer."""
    (upper / "usr/bin").mkdir(parents=True, exist_ok=True)
    (upper / "usr/bin/hello").write_bytes(content)
    (upper / "usr/bin/hello").chmod(0o4755)
    entry = upper / "var/db/pkg" / cpv
    entry.mkdir(parents=True, exist_ok=True)
    (entry / "BUILD_ID").write_text(f"{build_id}\n")
    if not (upper / "etc/link").is_symlink():
        (upper / "etc").mkdir()
        (upper / "etc/link").symlink_to("../usr")


def workshop(folder: Path) -> Workshop:
    """An empty store below a folder."""
    return Workshop(Store(Layout(folder, folder / "state")), folder / "state/work")


def planned(cpv: str = CPV, repo: str = "gentoo", slot: str = "0", sub: str = "") -> PlannedPackage:
    """A package of a plan that needs nothing."""
    return PlannedPackage(
        cpv=cpv,
        repo=repo,
        slot=slot,
        sub_slot=sub or slot,
        eapi="8",
        use=("amd64", "nls"),
        dependencies={},
        restrict=(),
        properties=(),
        phases=(),
        eclasses=(),
        distfiles=(),
        settings={},
        config_files=(),
        build_needs=(),
        run_needs=(),
        asks_versions=True,
    )
