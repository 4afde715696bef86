"""Chroots with the real Portage in them: what is too long for `make test`."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks import site
from tasks.errors import CommandFailed
from tasks.flow import chroots
from tasks.portage import emerge
from tasks.site import Site
from tasks.system import sandbox
from tasks.system.files import write_atomic
from tasks.system.sandbox import Bind
from tests.kit.files import names
from tests.kit.lab_site import LabSite
from tests.kit.project import PROJECT
from tests.kit.random_kills import Work, kill_runs

pytestmark = pytest.mark.soak

PHONES = """\
EAPI=8
DESCRIPTION="Downloads while it compiles"
SLOT="0"
KEYWORDS="amd64"
S="${WORKDIR}"
src_compile() {
	wget -T 5 -t 1 http://192.0.2.1/ || die "nobody answers"
}
"""


@pytest.fixture(scope="module")
def made(lab_site: LabSite) -> Site:
    """A site whose base can be entered, with files of its own below /etc/portage."""
    own = lab_site.layout.site / "portage/base"
    for path, text in {
        "package.env": "app-misc/hello marked.conf\n",
        "env/marked.conf": 'EXTRA_ECONF="--program-prefix=marked-"\n',
        "package.use/own": "dev-libs/libyaml -static-libs\n",
        "patches/app-misc/hello/readme.patch": "--- /dev/null\n+++ b/MINE\n@@ -0,0 +1 @@\n+mine\n",
    }.items():
        write_atomic(own / path, text)
    lab_site.change(**{"chroots.base": {"portage_dir": "portage/base"}})
    lab_site.doit("mount:base", "check:base", "mount:appliance")
    os.environ[site.CONFIG_VARIABLE] = str(lab_site.layout.config)
    return site.load(PROJECT)


def test_a_package_that_tries_the_network_is_denied_and_told(
    made: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 41."""
    overlay = tmp_path / "phones"
    write_atomic(overlay / "app-misc/phones/phones-1.ebuild", PHONES)
    write_atomic(overlay / "metadata/layout.conf", "masters = gentoo\nthin-manifests = true\n")
    write_atomic(overlay / "profiles/repo_name", "phones\n")
    conf = tmp_path / "phones.conf"
    conf.write_text("[phones]\nlocation = /var/db/repos/phones\n")
    monkeypatch.setattr(
        emerge, "command", lambda *_: ["emerge", "--quiet-build=y", "-1", "app-misc/phones"]
    )
    with chroots.workspace(made, "phones") as space:
        box = chroots.plan(
            made, "base", space, network=True, binds=(Bind(str(overlay), "/var/db/repos/phones"),)
        )
        etc = space / "etc"
        subprocess.run(["cp", "-a", _etc(box), etc], check=True)
        subprocess.run(["cp", conf, etc / "repos.conf"], check=True)
        box = chroots.plan(made, "base", space, network=True, etc=etc, binds=box.binds[-1:])
        with pytest.raises(CommandFailed) as failed:
            emerge.build(box, ["app-misc/phones"], made.config.build, tmp_path / "log")
    told = failed.value.message
    assert "app-misc/phones-1::phones failed (compile phase): nobody answers" in told, (
        tmp_path / "log"
    ).read_text()[-2000:]
    assert told.endswith("(it tried the network, which is denied to all but the fetching)")


def _etc(box: sandbox.Sandbox) -> str:
    return next(bind.source for bind in box.binds if bind.target == "/etc/portage")


def test_files_of_its_own_are_obeyed(made: Site, lab_site: LabSite) -> None:
    """package.env with env/, package.use, and a patch, by what the real emerge makes of them."""
    shown = lab_site.doit("show", "base")
    assert "patches/app-misc/hello/readme.patch" in shown
    script = (
        "emerge -pv dev-libs/libyaml && emerge --quiet-build=n -1 app-misc/hello &&"
        " ls /usr/bin/*hello"
    )
    told = lab_site.doit("enter", "base", "--scratch", "--", "sh", "-c", script)
    assert "-static-libs" in told
    assert "Applying readme.patch" in told
    assert "/usr/bin/marked-hello" in told
    assert names(made.layout.work) == []


def test_real_emerge_that_looks_touches_nothing(made: Site, lab_site: LabSite) -> None:
    lab_site.doit("enter", "base", "--", "emerge", "--pretend", "--verbose", "app-misc/hello")
    lab_site.doit("enter", "base", "--", "emerge", "--info")
    assert "nothing to do" in lab_site.doit("mount:base")
    assert not made.layout.manual_changes("base").exists()


def test_what_emerge_installs_by_hand_is_kept_and_thrown_away(
    made: Site, lab_site: LabSite
) -> None:
    assert "touched by hand" in lab_site.doit(
        "enter", "base", "--", "emerge", "-1", "app-misc/hello"
    )
    assert "marked-hello" in lab_site.doit(
        "enter", "base", "--scratch", "--", "sh", "-c", "ls /usr/bin/*hello /var/db/pkg/app-misc"
    )
    lab_site.doit("enter", "base", "--reset")
    assert not made.layout.manual_changes("base").exists()


def test_kills_during_real_builds(made: Site) -> None:
    """Two hundred, each followed by a run that succeeds; then the build goes to its end."""
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
    found = kill_runs(made.layout.config, works, count, seed)
    assert len(found) == count
    assert not [kill for kill in found if kill.wrong], f"BINMILL_SEED={seed}"
    done = subprocess.run(
        [sys.executable, "-m", "doit", "binpkgs:base"],
        cwd=PROJECT,
        check=False,
        env={**os.environ, site.CONFIG_VARIABLE: str(made.layout.config)},
    )
    assert done.returncode == 0
    assert names(made.layout.work) == names(made.layout.trash) == []
