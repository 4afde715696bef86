"""A disk that fills up while the real Portage builds."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.small_disk import fill_bytes, small_disk

SMALL: dict[str, object] = {"packages": [], "overlays": ["java"], "package_use": {}}


def test_build_on_a_full_disk_fails_and_is_resumed(lab_site: LabSite, base_store: Path) -> None:
    """The error names the full disk; a plain rerun builds what is left."""
    lab_site.change(**{"chroots.base": SMALL})
    lab_site.layout.state.mkdir(exist_ok=True)
    with small_disk(lab_site.layout.state, "size=2g") as disk:
        subprocess.run(["cp", "-a", base_store, disk.top / "store"], check=True)
        lab_site.doit("binpkgs:base", before=disk.prefix)
        first = len(json.loads((disk.top / "records/binpkgs.base.json").read_text())["packages"])
        lab_site.change(**{"chroots.base": {"packages": ["app-misc/figlet"]}})
        lab_site.doit("plan:base", before=disk.prefix)
        fill_bytes(disk.top, 700 << 10)
        output = lab_site.doit("binpkgs:base", code=1, before=disk.prefix)
        assert "binpkgs:base: FAILED: " in output
        assert re.search(r"\[disk-full\]|figlet-[0-9.]+: the disk was full in phase ", output)
        assert list((disk.top / "work").iterdir()) == []
        (disk.top / "ballast").unlink()
        output = lab_site.doit("binpkgs:base", before=disk.prefix)
        assert tasks_run(output) == {"binpkgs:base"}
        assert f"1 built, {first} reused" in output
        record = json.loads((disk.top / "records/binpkgs.base.json").read_text())
        assert len(record["packages"]) == first + 1
