"""A disk that fills up while the real Portage builds."""

from __future__ import annotations

import json

from tasks.system.files import sha512
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.small_disk import fill_bytes, small_disk

SMALL = {"packages": ["app-misc/figlet"], "overlays": ["java"], "package_use": {}}


def test_build_on_a_full_disk_fails_and_is_resumed(lab_site: LabSite) -> None:
    """The error names the full disk; a plain rerun keeps the packages that were finished."""
    lab_site.change(**{"chroots.base": SMALL})
    lab_site.layout.state.mkdir(exist_ok=True)
    with small_disk(lab_site.layout.state, "size=2g") as disk:
        lab_site.doit("check:base", before=disk.prefix)
        fill_bytes(disk.top, 8 << 20)
        output = lab_site.doit("binpkgs:base", code=1, before=disk.prefix)
        assert "binpkgs:base: FAILED: the build of base failed: " in output
        assert f"df -h {lab_site.layout.work}" in output
        assert "[disk-full]" in output
        assert not (disk.top / "records/binpkgs.base.json").exists()
        assert list((disk.top / "work").iterdir()) == []
        (disk.top / "ballast").unlink()
        finished = list((disk.top / "inside/builds").rglob("*.gpkg.tar"))
        assert finished
        before = {path.name: sha512(path) for path in finished}
        assert tasks_run(lab_site.doit("binpkgs:base", before=disk.prefix)) == {"binpkgs:base"}
        record = json.loads((disk.top / "records/binpkgs.base.json").read_text())
        assert len(record["packages"]) > len(finished)
        after = {path.name: sha512(path) for path in (disk.top / "sets").rglob("*.gpkg.tar")}
        assert before.items() <= after.items()
