"""Chroots with the real Portage in them; too long for `make test`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.chroot import sandboxes
from tasks.config.load import read_config
from tasks.errors import CommandFailed
from tasks.portage import emerge
from tasks.records import reading
from tasks.site import CONFIG_VARIABLE, Site
from tasks.system.files import write_atomic
from tasks.system.sandbox import Bind
from tests.kit.files import names
from tests.kit.lab_site import LabSite
from tests.kit.project import PROJECT
from tests.kit.random_kills import Work, kill_runs
from tests.kit.refused import refused

pytestmark = pytest.mark.soak

PHONES = """\
EAPI=8
DESCRIPTION="Downloads while it compiles"
SLOT="0"
KEYWORDS="amd64"
S="${WORKDIR}"
src_compile() {
	wget -T 5 -t 1 http://192.0.2.1/ || die "no answer"
}
"""


@pytest.fixture(scope="module")
def site(lab_site: LabSite) -> Site:
    """A site with mounted chroots, whose base has a portage_dir."""
    folder = lab_site.layout.site / "portage/base"
    for path, text in {
        "package.env": "app-misc/hello marked.conf\n",
        "env/marked.conf": 'EXTRA_ECONF="--program-prefix=marked-"\n',
        "package.use/own": "dev-libs/libyaml -static-libs\n",
        "patches/app-misc/hello/readme.patch": "--- /dev/null\n+++ b/MINE\n@@ -0,0 +1 @@\n+mine\n",
    }.items():
        write_atomic(folder / path, text)
    lab_site.change(**{"chroots.base": {"portage_dir": "portage/base"}})
    lab_site.doit("mount:base", "check:base", "mount:appliance")
    return Site(lab_site.layout, read_config(lab_site.layout))


def test_package_that_tries_the_network_fails_with_that_reason(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overlay = tmp_path / "phones"
    write_atomic(overlay / "app-misc/phones/phones-1.ebuild", PHONES)
    write_atomic(overlay / "metadata/layout.conf", "masters = gentoo\nthin-manifests = true\n")
    write_atomic(overlay / "profiles/repo_name", "phones\n")
    conf = tmp_path / "phones.conf"
    conf.write_text("[phones]\nlocation = /var/db/repos/phones\n")
    monkeypatch.setattr(
        emerge, "command", lambda *_: ["emerge", "--quiet-build=y", "-1", "app-misc/phones"]
    )
    base, log = site.chroot("base"), tmp_path / "log"
    inputs = reading(site.layout, sandboxes.own_keys(base))
    with base.workspace("phones") as space:
        buildroot = sandboxes.own(base, inputs, space, network=True)
        binds = {bind.target: bind for bind in buildroot.binds}
        etc = space / "etc"
        subprocess.run(["cp", "-a", binds["/etc/portage"].source, etc], check=True)
        subprocess.run(["cp", conf, etc / "repos.conf"], check=True)
        for source, target in ((etc, "/etc/portage"), (overlay, "/var/db/repos/phones")):
            binds[target] = Bind(str(source), target)
        buildroot = replace(buildroot, binds=tuple(binds.values()))
        with refused(CommandFailed, "build-tried-network", chroot="base") as excinfo:
            emerge.build(buildroot, ["app-misc/phones"], site.config.build, log)
    reason = excinfo.value.fields["reason"]
    assert reason == "app-misc/phones-1::phones failed (compile phase): no answer"


def test_emerge_uses_the_portage_dir(site: Site, lab_site: LabSite) -> None:
    """package.env with env/, package.use, and a patch."""
    listing = lab_site.doit("show", "base")
    assert "patches/app-misc/hello/readme.patch" in listing
    script = (
        "emerge -pv dev-libs/libyaml && emerge --quiet-build=n -1 app-misc/hello &&"
        " ls /usr/bin/*hello"
    )
    printed = lab_site.doit("enter", "base", "--scratch", "--", "sh", "-c", script)
    assert "-static-libs" in printed
    assert "Applying readme.patch" in printed
    assert "/usr/bin/marked-hello" in printed
    assert names(site.layout.work) == []


def test_emerge_pretend_modifies_nothing(site: Site, lab_site: LabSite) -> None:
    lab_site.doit("enter", "base", "--", "emerge", "--pretend", "--verbose", "app-misc/hello")
    lab_site.doit("enter", "base", "--", "emerge", "--info")
    assert "nothing to do" in lab_site.doit("mount:base")
    assert not site.layout.manual_changes("base").exists()


def test_package_installed_by_hand_is_kept_until_reset(site: Site, lab_site: LabSite) -> None:
    assert "modified by hand" in lab_site.doit(
        "enter", "base", "--", "emerge", "-1", "app-misc/hello"
    )
    assert "marked-hello" in lab_site.doit(
        "enter", "base", "--scratch", "--", "sh", "-c", "ls /usr/bin/*hello /var/db/pkg/app-misc"
    )
    lab_site.doit("enter", "base", "--reset")
    assert not site.layout.manual_changes("base").exists()


def test_kills_during_real_builds(site: Site) -> None:
    """Two hundred, each followed by a run that succeeds; then the build is completed."""
    works = [
        Work(["binpkgs:base"], then=["mount:base"], seconds=40.0),
        Work(["check:appliance"], then=["mount:appliance"], again=["check:appliance"], seconds=6.0),
        Work(["mount:appliance"], then=["mount:appliance"], again=["mount:appliance"]),
        Work(
            ["enter", "appliance", "--", "emerge", "-1", "app-misc/figlet"],
            then=["enter", "appliance", "--", "true"],
            seconds=15.0,
        ),
    ]
    seed = int(os.environ.get("BINMILL_SEED", time.time()))
    count = int(os.environ.get("BINMILL_KILLS", "200"))
    kills = kill_runs(site.layout.config, works, count, seed)
    assert len(kills) == count
    assert not [kill for kill in kills if kill.wrong], f"BINMILL_SEED={seed}"
    done = subprocess.run(
        [sys.executable, "-m", "doit", "binpkgs:base"],
        cwd=PROJECT,
        check=False,
        env={**os.environ, CONFIG_VARIABLE: str(site.layout.config)},
    )
    assert done.returncode == 0
    assert names(site.layout.work) == names(site.layout.trash) == []
