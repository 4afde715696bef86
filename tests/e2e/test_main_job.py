"""The main job, from a signed snapshot to a client's installed package, with the real Portage.

The tests of this module follow one another on one site, as an operator's days do.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from lab import upstream
from tasks.portage import gpkg, index
from tasks.site import CONFIG_VARIABLE
from tasks.system.files import mounts_below, sha512
from tasks.system.gpgv import Role
from tests.kit.lab_site import LabSite, tasks_run
from tests.kit.processes import leftovers_of_kill, processes_of
from tests.kit.project import DOIT, PROJECT

RELEASED = ("candidate", "gate", "publish", "client")
JAVA = {"dev-java/java-tools", "dev-java/jattach", "app-arch/fastjar", "dev-libs/libffi"}


def names(packages: list[str]) -> set[str]:
    """CATEGORY/PN of CPVs."""
    found = set()
    for cpv in packages:
        category, pf = cpv.split("/")
        found.add(f"{category}/{gpkg.parse(category, pf, '1').package}")
    return found


def test_nothing_is_needed_to_look(lab_site: LabSite) -> None:
    assert "binpkgs:java" in lab_site.doit("list", "--all", "--status")
    assert "it has not been made yet" in lab_site.doit("why")
    assert not (lab_site.layout.state / "records").exists()


def test_a_killed_build_leaves_nothing_and_goes_on(lab_site: LabSite) -> None:
    log = lab_site.layout.logs / "latest" / "binpkgs.base.log"
    deadline = time.monotonic() + 600
    with lab_site.start("binpkgs:base") as process:
        while not (log.exists() and ">>> Completed (2 of" in log.read_text(errors="replace")):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert any("emerge" in words for words in processes_of(lab_site.layout.state))
        process.kill()
    assert leftovers_of_kill(lab_site.layout) == []
    assert not lab_site.layout.record("binpkgs:base").exists()
    kept = {path.name: sha512(path) for path in lab_site.layout.inside.rglob("*.gpkg.tar")}
    assert kept

    printed = lab_site.doit("binpkgs:base")
    assert tasks_run(printed) == {"binpkgs:base"}  # what was finished before is not done again
    made = json.loads(lab_site.layout.record("binpkgs:base").read_text())
    by_file = {Path(p["path"]).name: p["sha512"] for p in made["packages"]}
    assert {name: by_file[name] for name in kept} == kept  # taken up, not built again


def test_the_whole_job(lab_site: LabSite) -> None:
    printed = lab_site.doit()
    assert "client:java" in tasks_run(printed)
    base = json.loads(lab_site.layout.record("client:base").read_text())
    java = json.loads(lab_site.layout.record("client:java").read_text())
    assert {"app-misc/hello", "app-misc/nosy"} <= names(base["installed"])
    assert names(java["installed"]) >= JAVA
    appliance = json.loads(lab_site.layout.record("client:appliance").read_text())
    assert names(appliance["installed"]) >= {*JAVA, "dev-util/gperf"}
    web = json.loads(lab_site.layout.record("client:web").read_text())
    assert "app-text/tree" in names(web["installed"])
    assert not JAVA & names(web["installed"])  # that is another stack's
    lock = lab_site.layout.lock.read_text()
    days = upstream.Upstream(lab_site.lab).facts().days
    assert f'tag = "{days[0]}"' in lock
    remote = subprocess.run(
        ["git", "--git-dir", upstream.Upstream(lab_site.lab).tree, "tag"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert remote.stdout.split() == [days[0]]


def test_a_second_run_does_nothing(lab_site: LabSite) -> None:
    before = lab_site.records()
    printed = lab_site.doit()
    assert tasks_run(printed) == set()
    assert "nothing to do: all" in printed
    assert lab_site.records() == before
    assert "nothing would run" in lab_site.doit("why")


def test_the_features_were_on_and_the_index_is_portages(lab_site: LabSite) -> None:
    for name in ("base", "java"):
        current = lab_site.layout.binhost(name) / "current" / "public"
        header, stanzas = index.parse((current / "Packages").read_text())
        for feature in ("buildpkg", "cgroup", "ipc-sandbox", "network-sandbox", "parallel-fetch"):
            assert feature in header["FEATURES"].split()
        for stanza in stanzas:
            path = current / stanza["PATH"]
            assert path.stat().st_size == int(stanza["SIZE"])
    made = json.loads(lab_site.layout.record("binpkgs:java").read_text())
    tools = {p["cpv"]: p for p in made["packages"]}
    assert any(cpv.startswith("app-arch/fastjar") for cpv in tools)
    use = next(p["use"] for cpv, p in tools.items() if cpv.startswith("dev-java/jattach"))
    assert "shared" in use.split()


def test_published_packages_are_signed_by_the_sites_key(lab_site: LabSite, tmp_path: Path) -> None:
    home = lab_site.layout.site / "secrets" / "gnupg"
    fingerprint = (home / "fingerprint").read_text()
    exported = subprocess.run(
        ["gpg", "--homedir", home, "--export", fingerprint], check=True, capture_output=True
    )
    (tmp_path / "key.gpg").write_bytes(exported.stdout)
    role = Role("binhost", tmp_path / "key.gpg", (fingerprint,))
    published = list((lab_site.layout.binhost("java") / "current").resolve().rglob("*.gpkg.tar"))
    assert published
    for path in published:
        assert gpkg.metadata(path, role)["CATEGORY"] == path.parts[-3]


def test_a_client_refuses_a_package_that_was_changed(lab_site: LabSite) -> None:
    current = (lab_site.layout.binhost("base") / "current").resolve()
    path = next(current.rglob("hello-*.gpkg.tar"))
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-20000] + bytes([good[-20000] ^ 1]) + good[-19999:])
        lab_site.layout.record("client:base").unlink()
        printed = lab_site.doit("client:base", code=1)
        assert "client:base: FAILED: a fresh client could not install" in printed
    finally:
        path.write_bytes(good)
    assert tasks_run(lab_site.doit("client:base")) == {"client:base"}


def test_commands_run_inside(lab_site: LabSite) -> None:
    printed = lab_site.doit("enter", "java", "--", "portageq", "repos_config", "/")
    assert "[gentoo]" in printed
    assert "[java]" in printed
    features = lab_site.doit("enter", "java", "--", "portageq", "envvar", "FEATURES")
    assert "network-sandbox" in features
    lab_site.doit("enter", "java", "--", "sh", "-c", "exit 7", code=7)
    assert "one of: base, java, web, appliance" in lab_site.doit("enter", "jaba", code=1)


def test_settings_that_portage_rejects_are_listed(lab_site: LabSite) -> None:
    good = lab_site.layout.config.read_text()
    wrong: dict[str, dict[str, object]] = {
        "chroots.base": {"features": ["bildpkg"], "accept_license": ["@FREE", "GPL-4"]},
        "chroots.java": {
            "packages": ["dev-java/java-tool", "@wrold", ">app-misc/hello-99"],
            "use": ["grepjarr"],
            "accept_keywords": ["~amd46"],
            "package_mask": [">=app-misc/hello-99"],
            "package_license": {"dev-java/jattach": ["Apache-22"]},
        },
        "chroots.java.package_use": {
            "dev-java/jattach": ["shard"],
            "dev-libs/libyam": ["static-libs"],
            "hello": ["x"],
        },
    }
    try:
        lab_site.change(**wrong)
        printed = lab_site.doit("check:java", code=1)
    finally:
        lab_site.layout.config.write_text(good)
    assert "Portage rejects 11 values" in printed
    for line in [
        "[chroots.base] features: 'bildpkg': not a feature of Portage; did you mean 'buildpkg'?",
        "accept_license: 'GPL-4': the tree has no such licence; did you mean 'GPL-3'?",
        "packages: 'dev-java/java-tool': no such package; did you mean 'dev-java/java-tools'?",
        "packages: '@wrold': no such set; did you mean 'world'?",
        "packages: '>app-misc/hello-99': no version matches; the newest are",
        "use: 'grepjarr': no package has this flag; did you mean 'grepjar'?",
        "accept_keywords: '~amd46': the tree has no such architecture; did you mean 'amd64'?",
        "package_license: 'dev-java/jattach Apache-22': the tree has no such licence; did you mean",
        "package_use: 'dev-java/jattach shard': dev-java/jattach has no such flag; did you mean",
        "package_use: 'dev-libs/libyam': no such package; did you mean 'dev-libs/libyaml'?",
        "package_use: 'hello': not an atom",
        "warning: [chroots.java] package_mask: '>=app-misc/hello-99': no version matches",
    ]:
        assert line in printed
    assert "Traceback" not in printed


def test_the_generated_files_are_shown(lab_site: LabSite) -> None:
    printed = lab_site.doit("show", "java")
    assert "==> /etc/portage/make.conf <==" in printed
    assert "app-arch/fastjar grepjar" in printed
    assert lab_site.doit("show", "java", "package.use/binmill") in printed
    assert "java has no /etc/portage/nosuch" in lab_site.doit("show", "java", "nosuch", code=1)


def test_a_use_flag_rebuilds_that_chroot_only(lab_site: LabSite) -> None:
    before = lab_site.records()
    lab_site.change(**{"chroots.java.package_use": {"dev-libs/libffi": ["static-libs"]}})
    printed = lab_site.doit()
    stacks = ("java", "appliance")  # the second is made on top of the first
    assert tasks_run(printed) == {
        f"{task}:{name}"
        for name in stacks
        for task in ("etc", "mount", "check", "binpkgs", *RELEASED)
    }
    after = lab_site.records()
    assert {task for task in after if after[task] != before[task]} == {
        f"{task}.{name}" for name in stacks for task in ("etc", "check", "binpkgs", *RELEASED)
    }
    assert tasks_run(lab_site.doit()) == set()


def test_the_next_day_rebuilds_what_depends_on_the_tree(lab_site: LabSite) -> None:
    before = lab_site.records()
    printed = lab_site.doit("snapshot")
    assert "no newer snapshot than" in printed
    assert lab_site.records() == before
    upstream.publish_next_day(lab_site.lab)
    days = upstream.Upstream(lab_site.lab).facts().days
    frozen = lab_site.doit("snapshot", "lock")
    assert f"frozen gentoo {days[1]}" in frozen
    assert f"files changed since {days[0]})" in frozen
    assert f"pushed {days[1]} to " in frozen
    assert f"gentoo {days[0]} -> {days[1]}" in lab_site.doit("log")
    assert f"{days[0]} is frozen already" in lab_site.doit("snapshot", "--date", days[0])
    assert f'"tag": "{days[1]}"' in lab_site.records()["snapshot"]
    printed = lab_site.doit()
    assert {"tree", "binpkgs:base", "binpkgs:java", "client:java"} <= tasks_run(printed)
    assert not {"etc:base", "chroot:base", "chroot:java"} & tasks_run(printed)
    after = lab_site.records()
    assert before["seed.lab"] == after["seed.lab"]
    assert before["tree"] != after["tree"]
    assert lab_site.doit("why").startswith("nothing would run")


def test_the_lock_alone_makes_a_fresh_site(lab_site: LabSite, tmp_path: Path) -> None:
    """Another machine with config and lock, and an empty state, has the same tree and chroot."""
    (tmp_path / "config.toml").write_text(lab_site.layout.config.read_text())
    (tmp_path / "config.lock").write_text(lab_site.layout.lock.read_text())
    other = LabSite(type(lab_site.layout)(site=tmp_path, state=tmp_path / "state"), lab_site.lab)
    printed = other.doit("mount:java")
    assert not {"snapshot", "lock"} & tasks_run(printed)
    mine, theirs = lab_site.records(), other.records()
    assert {task: mine[task] for task in theirs} == theirs


@pytest.mark.parametrize(
    ("table", "keys", "told"),
    [
        ("chroots.java", {"packges": []}, "[chroots.java] packges: unknown key; did you mean"),
        ("chroots.java", {"base": "bse"}, "[chroots.java] base: there is no chroot 'bse'"),
        ("chroots.java", {"base": "java"}, "[chroots.java] base: the bases form a cycle: java"),
    ],
)
def test_bad_config_gets_one_clear_answer(
    lab_site: LabSite, table: str, keys: dict[str, object], told: str
) -> None:
    good = lab_site.layout.config.read_text()
    try:
        lab_site.change(**{table: keys})
        printed = lab_site.doit(code=3)
    finally:
        lab_site.layout.config.write_text(good)
    assert told in printed
    assert "Traceback" not in printed
    assert "nothing was done" in printed


def test_mirror_down_is_one_clear_answer(lab_site: LabSite, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(lab_site.layout.config.read_text())
    other = LabSite(type(lab_site.layout)(site=tmp_path, state=tmp_path / "state"), lab_site.lab)
    other.change(mirrors={"gentoo": ["http://127.0.0.1:9"]})
    printed = other.doit(code=1)
    assert "snapshot: FAILED: no mirror delivered" in printed
    assert "next: check the network" in printed
    assert "Traceback" not in printed
    assert not other.layout.lock.exists()


def test_only_root_makes_chroots_and_anybody_may_look(lab_site: LabSite) -> None:
    with tempfile.TemporaryDirectory(prefix="binmill-open-") as folder:
        place = Path(folder)
        place.chmod(0o755)
        (place / "config.toml").write_text(lab_site.layout.config.read_text())

        def as_nobody(*words: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(DOIT), *words],
                cwd=PROJECT,
                env={"PATH": os.environ["PATH"], CONFIG_VARIABLE: str(place / "config.toml")},
                check=False,
                capture_output=True,
                text=True,
            )

        if "Permission denied" in as_nobody("list").stderr:
            pytest.skip(f"{PROJECT} or its Python is closed to other users")
        # `doit info` itself ends with 1 for a task that would run
        for code, words in [
            (0, ["list", "--all", "--status"]),
            (0, ["why"]),
            (0, ["status"]),
            (1, ["info", "chroot:java"]),
        ]:
            looked = as_nobody(*words)
            assert looked.returncode == code, looked.stdout + looked.stderr
            assert "Traceback" not in looked.stdout + looked.stderr
        refused = as_nobody("chroot:base")
        assert refused.returncode == 1
        assert "Traceback" not in refused.stdout + refused.stderr
        assert list(place.iterdir()) == [place / "config.toml"]


def test_a_stopped_run_ends_at_once_and_cleanly(lab_site: LabSite) -> None:
    lab_site.change(**{"chroots.base.package_use": {"dev-libs/libyaml": []}})
    with lab_site.start("binpkgs:base") as process:
        deadline = time.monotonic() + 120
        while not any("ebuild.sh" in words for words in processes_of(lab_site.layout.state)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert processes_of(lab_site.layout.state) == []
    assert mounts_below(lab_site.layout.site) == []
    assert list(lab_site.layout.work.iterdir()) == []
    assert tasks_run(lab_site.doit("binpkgs:base")) == {"binpkgs:base"}
