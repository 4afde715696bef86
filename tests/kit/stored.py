"""Products of builds for a store, made by hand: a package, a merge layer, a stanza."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tasks.layout import Layout
from tasks.planner.plan import PlannedPackage
from tasks.store.store import Product, Store
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
        values = {**VALUES, "PF": pf, "BUILD_ID": str(build_id), **values}
        files = [ImageFile("/usr/bin/hello", content, mode=0o755, mtime=build_id)]
        package = built_package(place / "x.gpkg.tar", files, values)
        upper = place / "upper"
        if layer:
            _merge(upper, content, f"{values['CATEGORY']}/{pf}", build_id)
        return Product(
            cpv=f"{values['CATEGORY']}/{pf}",
            repo=values["repository"],
            build_id=build_id,
            package=package,
            layer=upper if layer else None,
            stanza=index_stanza(package),
            seconds=2.5,
            inputs="1" * 64,
        )


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
        use=(),
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
