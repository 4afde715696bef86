"""An overlay of small ebuilds, each a case of dependency resolution, in a git repository."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

from tasks.portage import gpkg
from tasks.system.files import write_atomic

CATEGORY = "app-cases"
_HEAD = """\
EAPI=8
DESCRIPTION="A case"
KEYWORDS="amd64"
S="${WORKDIR}"
"""


def write_overlay(
    folder: Path, name: str, ebuilds: Mapping[str, str], files: Mapping[str, str]
) -> None:
    """Write and commit an overlay: the variables of each ebuild by its PF, and files by path.

    An ebuild has SLOT=0 unless it says otherwise. What is there already is overwritten.
    """
    texts = {
        "metadata/layout.conf": "masters = gentoo\nthin-manifests = true\n",
        "profiles/repo_name": f"{name}\n",
        "profiles/categories": f"{CATEGORY}\n",
        **files,
    }
    for pf, variables in ebuilds.items():
        package = gpkg.parse_cpv(f"{CATEGORY}/{pf}").package
        slot = "" if "SLOT=" in variables else 'SLOT="0"\n'
        texts[f"{CATEGORY}/{package}/{pf}.ebuild"] = f"{_HEAD}{slot}{variables}\n"
    for path, text in texts.items():
        write_atomic(folder / path, text)
    author = ("-c", "user.name=case", "-c", "user.email=case@example.org")
    for words in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        ("commit", "-q", "-m", "cases", "--no-gpg-sign"),
    ):
        subprocess.run(["git", *author, "-C", folder, *words], check=True)
