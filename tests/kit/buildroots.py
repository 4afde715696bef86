"""Buildroots of a lab site that see one more repository, `trial`, of ebuilds that a test writes."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tasks.buildroot.buildroot import BinaryPackage, Outcome, PackageBuild, build
from tasks.chroot import sandboxes
from tasks.config import load
from tasks.layout import Layout
from tasks.records import BINPKGS, BinpkgsRecord, reading
from tasks.site import Chroot, Site
from tasks.system import sandbox
from tasks.system.sandbox import Bind, Limits, Sandbox

EBUILD = """\
EAPI=8
DESCRIPTION="A trial"
HOMEPAGE="https://trial.invalid/"
S="${{WORKDIR}}"
LICENSE="public-domain"
SLOT="0"
KEYWORDS="amd64"
{body}
"""
PATIENT = Limits(seconds=300, silence=120, output=50 << 20)


@dataclass
class Buildroots:
    """Builds packages for the chroot `base` of a site, each with layers of earlier ones."""

    site: Site
    folder: Path
    etc: dict[str, str] = field(default_factory=dict)  # more files of /etc/portage
    tmpfs: int = 0  # bytes
    outcomes: dict[str, Outcome] = field(default_factory=dict)

    @property
    def chroot(self) -> Chroot:
        return Chroot(self.site, "base")

    @property
    def repository(self) -> Path:
        return self.folder / "trial"

    @property
    def set(self) -> BinpkgsRecord:
        """The set that the other driver has built."""
        return reading(self.site.layout, [BINPKGS("base")])[BINPKGS("base")]

    def ebuild(self, cpv: str, body: str, files: Mapping[str, bytes] | None = None) -> str:
        """Write an ebuild (and its FILESDIR) to the repository; returns its CPV."""
        for path, text in {
            "profiles/repo_name": "trial\n",
            "profiles/categories": "trial\n",
            "metadata/layout.conf": "masters = gentoo\nuse-manifests = false\n",
        }.items():
            (self.repository / path).parent.mkdir(parents=True, exist_ok=True)
            (self.repository / path).write_text(text)
        category, _, pf = cpv.partition("/")
        name = pf.rpartition("-")[0]
        place = self.repository / category / name
        (place / "files").mkdir(parents=True, exist_ok=True)
        (place / f"{pf}.ebuild").write_text(EBUILD.format(body=body))
        for path, content in (files or {}).items():
            (place / "files" / path).write_bytes(content)
        return cpv

    def build(
        self,
        cpv: str,
        *needs: str,
        installs: Sequence[str] = (),
        build_id: int = 1,
        limits: Limits = PATIENT,
        **more: Any,
    ) -> Outcome:
        """Build a package over the layers of `needs`; `installs` are installed by emerge."""
        with self.order(cpv, needs, installs, build_id, limits) as order:
            outcome = build(order, **more)
        self.outcomes[cpv] = outcome
        return outcome

    @contextmanager
    def order(
        self, cpv: str, needs: Sequence[str], installs: Sequence[str], build_id: int, limits: Limits
    ) -> Iterator[PackageBuild]:
        layout = self.site.layout
        name = f"{cpv.replace('/', '.')}.{secrets.token_hex(2)}"
        folder = layout.inside / "trial" / name
        shutil.copytree(layout.distfiles, folder / "distfiles")
        with sandbox.workspace(layout.work, f"buildroot-{name}", layout.trash) as space:
            yield PackageBuild(
                chroot=self._sandbox(space),
                cpv=cpv,
                repo="trial" if cpv.startswith("trial/") else "gentoo",
                build_id=build_id,
                layers=tuple(self.layer(need) for need in needs),
                installs=tuple(self._binary(each) for each in installs),
                folder=folder,
                flat=layout.state / "flat",
                merge_layer=layout.state / "trial-layers" / name,
                trash=layout.trash,
                makeopts="-j2",
                limits=limits,
                tmpfs=self.tmpfs,
            )

    def layer(self, cpv: str) -> Path:
        """The merge layer of a package that was built."""
        layer = self.outcomes[cpv].layer
        assert layer is not None, self.outcomes[cpv]
        return layer

    def _binary(self, cpv: str) -> BinaryPackage:
        package = self.outcomes[cpv].package
        assert package is not None
        return BinaryPackage(cpv, int(package.name.split(".gpkg")[0].rpartition("-")[2]), package)

    def _sandbox(self, space: Path) -> Sandbox:
        inputs = reading(self.site.layout, sandboxes.own_keys(self.chroot))
        own = sandboxes.own(self.chroot, inputs, space)
        if not self.repository.is_dir():
            return own
        [generated] = [bind for bind in own.binds if bind.target == "/etc/portage"]
        etc = space / "etc"
        shutil.copytree(generated.source, etc, symlinks=True)
        more = {"repos.conf/trial.conf": "[trial]\nlocation = /var/db/repos/trial\n", **self.etc}
        for path, text in more.items():
            (etc / path).parent.mkdir(parents=True, exist_ok=True)
            (etc / path).write_text(text)
        others = [bind for bind in own.binds if bind != generated]
        trial = Bind(str(self.repository), "/var/db/repos/trial")
        return replace(own, binds=(*others, Bind(str(etc), "/etc/portage"), trial))


def buildroots(layout: Layout, folder: Path) -> Buildroots:
    """The buildroots of a site on which mount:base has run."""
    return Buildroots(Site(layout, load.read_config(layout)), folder)
