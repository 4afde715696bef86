"""A disk that is full while the real Portage builds (fault 42)."""

from __future__ import annotations

import json

from tasks.system.files import sha512
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.small_disk import fill_bytes, small_disk

SMALL = {"packages": ["app-misc/figlet"], "overlays": ["java"], "package_use": {}}


def test_a_full_disk_during_a_build(lab_site: LabSite) -> None:
    """It is said, what was finished stays finished, and a plain rerun goes on."""
    lab_site.change(**{"chroots.base": SMALL})
    lab_site.layout.state.mkdir(exist_ok=True)
    with small_disk(lab_site.layout.state, "size=2g") as disk:
        lab_site.doit("check:base", before=disk.prefix)
        fill_bytes(disk.top, 8 << 20)
        said = lab_site.doit("binpkgs:base", code=1, before=disk.prefix)
        assert "binpkgs:base: FAILED: the build of base failed: " in said
        assert f"there is no space left on device: df -h {lab_site.layout.work}" in said
        assert "the packages that were finished are kept for the next run" in said
        assert not (disk.top / "records/binpkgs.base.json").exists()
        assert list((disk.top / "work").iterdir()) == []
        (disk.top / "ballast").unlink()
        finished = list((disk.top / "inside/builds").rglob("*.gpkg.tar"))
        assert finished
        before = {path.name: sha512(path) for path in finished}
        assert tasks_run(lab_site.doit("binpkgs:base", before=disk.prefix)) == {"binpkgs:base"}
        made = json.loads((disk.top / "records/binpkgs.base.json").read_text())
        assert len(made["packages"]) > len(finished)
        after = {path.name: sha512(path) for path in (disk.top / "sets").rglob("*.gpkg.tar")}
        assert before.items() <= after.items()
