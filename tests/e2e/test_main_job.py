"""The main job, from a signed snapshot to a client's installed package, with the real Portage.

The tests share one site on which everything is made and up to date. A test may change it: the site
is brought up to date before the next one, so each test can be run alone and in any order.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import upstream
from tasks.layout import Layout
from tasks.portage import gpkg, index
from tasks.site import CONFIG_VARIABLE
from tasks.system.files import mounts_below
from tasks.system.gpgv import Role
from tests.kit.lab_site import LabSite, lab_site_in, tasks_run
from tests.kit.processes import processes_of
from tests.kit.project import DOIT, PROJECT

RELEASED = ("candidate", "gate", "publish", "client")
JAVA = {"dev-java/java-tools", "dev-java/jattach", "app-arch/fastjar", "dev-libs/libffi"}


def names(packages: list[str]) -> set[str]:
    """CATEGORY/PN of CPVs."""
    cps = set()
    for cpv in packages:
        category, pf = cpv.split("/")
        cps.add(f"{category}/{gpkg.parse(category, pf, '1').package}")
    return cps


@dataclass(frozen=True)
class FirstRun:
    """A site after its first whole run: the run's output, its lock and the tags of its remote."""

    site: LabSite
    output: str
    lock: str
    tags: list[str]


@pytest.fixture(scope="module")
def first_run(lab_site: LabSite, stocked_store: None) -> FirstRun:  # noqa: ARG001
    output = lab_site.doit()
    remote = upstream.Upstream(lab_site.lab).tree
    tags = subprocess.run(
        ["git", "--git-dir", remote, "tag"], check=True, capture_output=True, text=True
    )
    return FirstRun(lab_site, output, lab_site.layout.lock.read_text(), tags.stdout.split())


@pytest.fixture
def published_site(first_run: FirstRun) -> Iterator[LabSite]:
    """The site, brought up to date after the test before."""
    site, config = first_run.site, first_run.site.layout.config.read_text()
    yield site
    site.layout.config.write_text(config)
    site.doit()


def record(site: LabSite, task: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(site.layout.record(task).read_text())
    return fields


def test_looking_needs_no_run(built_lab: Path, tmp_path: Path) -> None:
    with lab_site_in(built_lab, tmp_path) as site:
        assert "binpkgs:java" in site.doit("list", "--all", "--status")
        reasons = json.loads(site.doit("why", "--json"))
        assert {each["root"]["code"] for each in reasons} == {"cause-never-made"}
        assert not (site.layout.state / "records").exists()


def test_first_run_installs_every_set_in_a_client(
    first_run: FirstRun, published_site: LabSite
) -> None:
    assert "client:java" in tasks_run(first_run.output)
    installed = {
        name: names(record(published_site, f"client:{name}")["installed"])
        for name in ("base", "java", "appliance", "web")
    }
    assert installed["base"] >= {"app-misc/hello", "app-misc/nosy"}
    assert installed["java"] >= JAVA
    assert installed["appliance"] >= {*JAVA, "dev-util/gperf"}
    assert "app-text/tree" in installed["web"]
    assert not JAVA & installed["web"]  # it belongs to another stack
    day = upstream.Upstream(published_site.lab).facts().days[0]
    assert f'tag = "{day}"' in first_run.lock
    assert first_run.tags == [day]


def test_second_run_does_nothing(published_site: LabSite) -> None:
    before = published_site.records()
    printed = published_site.doit()
    assert tasks_run(printed) == set()
    assert "nothing to do: all" in printed
    assert published_site.records() == before
    assert json.loads(published_site.doit("why", "--json")) == []


def test_index_is_portages_with_the_features_on(published_site: LabSite) -> None:
    for name in ("base", "java"):
        current = published_site.layout.binhost(name) / "current" / "public"
        header, stanzas = index.parse((current / "Packages").read_text())
        for feature in ("buildpkg", "cgroup", "ipc-sandbox", "network-sandbox", "parallel-fetch"):
            assert feature in header["FEATURES"].split()
        for stanza in stanzas:
            path = current / stanza["PATH"]
            assert path.stat().st_size == int(stanza["SIZE"])
    tools = {p["cpv"]: p for p in record(published_site, "binpkgs:java")["packages"]}
    assert any(cpv.startswith("app-arch/fastjar") for cpv in tools)
    use = next(p["use"] for cpv, p in tools.items() if cpv.startswith("dev-java/jattach"))
    assert "shared" in use.split()


def test_published_packages_are_signed_by_the_site(published_site: LabSite, tmp_path: Path) -> None:
    home = published_site.layout.site / "secrets" / "gnupg"
    fingerprint = (home / "fingerprint").read_text()
    exported = subprocess.run(
        ["gpg", "--homedir", home, "--export", fingerprint], check=True, capture_output=True
    )
    (tmp_path / "key.gpg").write_bytes(exported.stdout)
    role = Role("binhost", tmp_path / "key.gpg", (fingerprint,))
    published = list(
        (published_site.layout.binhost("java") / "current").resolve().rglob("*.gpkg.tar")
    )
    assert published
    for path in published:
        assert gpkg.metadata(path, role)["CATEGORY"] == path.parts[-3]


def test_client_refuses_a_modified_package(published_site: LabSite) -> None:
    current = (published_site.layout.binhost("base") / "current").resolve()
    path = next(current.rglob("hello-*.gpkg.tar"))
    good = path.read_bytes()
    try:
        path.write_bytes(good[:-20000] + bytes([good[-20000] ^ 1]) + good[-19999:])
        published_site.layout.record("client:base").unlink()
        published_site.doit("client:base", code=1)  # an upgrade does not install it
        assert published_site.error("client:base").code == "package-served-differs"
        published_site.doit("client:base", "--fresh", code=1)
        assert published_site.error("client:base").code == "client-install-failed"
    finally:
        path.write_bytes(good)
    assert tasks_run(published_site.doit("client:base")) == {"client:base"}


def test_enter_runs_commands_of_portage(published_site: LabSite) -> None:
    printed = published_site.doit("enter", "java", "--", "portageq", "repos_config", "/")
    assert "[gentoo]" in printed
    assert "[java]" in printed
    features = published_site.doit("enter", "java", "--", "portageq", "envvar", "FEATURES")
    assert "network-sandbox" in features
    published_site.doit("enter", "java", "--", "sh", "-c", "exit 7", code=7)
    assert "[chroot-unknown]" in published_site.doit("enter", "jaba", code=1)


def test_values_that_portage_rejects_are_listed(published_site: LabSite) -> None:
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
    published_site.change(**wrong)
    published_site.doit("check:java", code=1)
    error = published_site.error("check:java")
    assert error.code == "settings-rejected"
    problems = error.fields["problems"]
    assert isinstance(problems, list)
    expected = [
        ("[chroots.base] features: 'bildpkg': ", "'buildpkg'"),
        ("[chroots.base] accept_license: 'GPL-4': ", "'GPL-3'"),
        ("[chroots.java] packages: 'dev-java/java-tool': ", "'dev-java/java-tools'"),
        ("[chroots.java] packages: '@wrold': ", "'world'"),
        ("[chroots.java] packages: '>app-misc/hello-99': ", "app-misc/hello"),
        ("[chroots.java] use: 'grepjarr': ", "'grepjar'"),
        ("[chroots.java] accept_keywords: '~amd46': ", "'amd64'"),
        ("[chroots.java] package_license: 'dev-java/jattach Apache-22': ", "Apache"),
        ("[chroots.java] package_use: 'dev-java/jattach shard': ", "'shared'"),
        ("[chroots.java] package_use: 'dev-libs/libyam': ", "'dev-libs/libyaml'"),
        ("[chroots.java] package_use: 'hello': ", "atom"),
    ]
    assert len(problems) == len(expected)
    for start, suggestion in expected:
        (problem,) = [each for each in problems if each.startswith(start)]
        assert suggestion in problem
    (doubt,) = published_site.last_run()["check:java"].notes
    assert doubt.code == "setting-doubtful"
    assert "package_mask: '>=app-misc/hello-99'" in str(doubt.fields["problem"])


def test_show_prints_the_generated_files(published_site: LabSite) -> None:
    printed = published_site.doit("show", "java")
    assert "==> /etc/portage/make.conf <==" in printed
    assert "app-arch/fastjar grepjar" in printed
    assert published_site.doit("show", "java", "package.use/binmill") in printed
    assert "[etc-file-unknown]" in published_site.doit("show", "java", "nosuch", code=1)


def test_use_flag_concerns_only_its_chroot_and_stacks(first_run: FirstRun) -> None:
    """The flag stays for the tests below: each may run with it or without."""
    published_site = first_run.site
    before = published_site.records()
    published_site.change(**{"chroots.java.package_use": {"dev-libs/libffi": ["static-libs"]}})
    printed = published_site.doit()
    stacks = ("java", "appliance")  # the second is made on top of the first, and has that flag
    ran = {
        f"{task}:{name}"
        for name in stacks
        for task in ("etc", "mount", "check", "plan", "binpkgs", *RELEASED)
    }
    assert tasks_run(printed) == ran - {"publish:appliance"}
    assert not re.findall("^  built ", printed, re.MULTILINE)  # the store has that of appliance
    after = published_site.records()
    changed = {task for task in after if after[task] != before[task]}
    of_java, of_appliance = (
        {f"{task}.{name}" for task in ("etc", "check", "plan", "binpkgs", *RELEASED)}
        for name in stacks
    )
    assert changed >= of_java
    assert changed - of_java <= of_appliance - {"publish.appliance"}
    assert tasks_run(published_site.doit()) == set()


def test_next_day_rebuilds_what_depends_on_the_tree(published_site: LabSite) -> None:
    before = published_site.records()
    published_site.doit("snapshot")
    (note,) = published_site.last_run()["snapshot"].notes
    assert note.code.startswith("nothing-newer")
    assert published_site.records() == before
    upstream.publish_next_day(published_site.lab)
    days = upstream.Upstream(published_site.lab).facts().days
    published_site.doit("snapshot", "lock")
    frozen, pushed = published_site.last_run()["snapshot"].notes
    assert (frozen.code, frozen.fields["tag"]) == ("frozen-newer", days[1])
    assert frozen.fields["since"] == days[0]
    assert (pushed.code, pushed.fields["tags"]) == ("days-pushed", [days[1]])
    assert f"gentoo {days[0]} -> {days[1]}" in published_site.doit("log")
    published_site.doit("snapshot", "--date", days[0])
    assert published_site.last_run()["snapshot"].notes[0].code == "frozen-already"
    assert f'"tag": "{days[1]}"' in published_site.records()["snapshot"]
    printed = published_site.doit()
    assert {"tree", "binpkgs:base", "binpkgs:java", "client:java"} <= tasks_run(printed)
    assert not {"etc:base", "chroot:base", "chroot:java"} & tasks_run(printed)
    built = re.findall("^  built (.*)-[0-9.]+(?:-r1)? in .*?(; .*)?$", printed, re.MULTILINE)
    unchanged = "; its output is the same as before"
    # A comment in an eclass: its users are rebuilt, libffi perhaps with and without static-libs.
    # Nothing that needs them is.
    users = {("dev-libs/libffi", unchanged), ("dev-libs/libyaml", unchanged)}
    assert set(built) == {("app-text/tree", ""), *users}
    after = published_site.records()
    assert before["seed.lab"] == after["seed.lab"]
    assert before["tree"] != after["tree"]
    assert json.loads(published_site.doit("why", "--json")) == []


def test_lock_alone_makes_the_same_site(published_site: LabSite, tmp_path: Path) -> None:
    """Another machine with config and lock, and an empty state, has the same tree and chroot."""
    (tmp_path / "config.toml").write_text(published_site.layout.config.read_text())
    (tmp_path / "config.lock").write_text(published_site.layout.lock.read_text())
    other = LabSite(Layout(site=tmp_path, state=tmp_path / "state"), published_site.lab)
    printed = other.doit("mount:java")
    assert not {"snapshot", "lock"} & tasks_run(printed)
    mine, theirs = published_site.records(), other.records()
    assert {task: mine[task] for task in theirs} == theirs


@pytest.mark.parametrize(
    ("table", "keys", "problem"),
    [
        ("chroots.java", {"packges": []}, "[chroots.java] packges: "),
        ("chroots.java", {"base": "bse"}, "[chroots.java] base: "),
        ("chroots.java", {"base": "java"}, "[chroots.java] base: "),
    ],
)
def test_bad_config_is_one_report(
    lab_site: LabSite, table: str, keys: dict[str, object], problem: str
) -> None:
    good = lab_site.layout.config.read_text()
    try:
        lab_site.change(**{table: keys})
        printed = lab_site.doit(code=3)
    finally:
        lab_site.layout.config.write_text(good)
    assert problem in printed
    assert "nothing was done" in printed
    assert "Traceback" not in printed


def test_unreachable_mirror_is_one_line(lab_site: LabSite, tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(lab_site.layout.config.read_text())
    other = LabSite(Layout(site=tmp_path, state=tmp_path / "state"), lab_site.lab)
    other.change(mirrors={"gentoo": ["http://127.0.0.1:9"]})
    printed = other.doit(code=1)
    assert other.error("snapshot").code
    assert re.search(r"^snapshot: FAILED: .* \[[a-z-]+\]\n  next: ", printed, re.MULTILINE)
    assert "Traceback" not in printed
    assert not other.layout.lock.exists()


def test_other_users_can_look_but_only_root_makes_chroots(lab_site: LabSite) -> None:
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
        for words in ["list --all --status", "why", "status", "info chroot:java"]:
            looked = as_nobody(*words.split())
            assert looked.returncode == 0, looked.stdout + looked.stderr
            assert "Traceback" not in looked.stdout + looked.stderr
        refused = as_nobody("chroot:base")
        assert refused.returncode == 1
        assert "Traceback" not in refused.stdout + refused.stderr
        assert list(place.iterdir()) == [place / "config.toml"]


def test_stopped_run_ends_at_once_and_leaves_nothing(published_site: LabSite) -> None:
    published_site.change(**{"chroots.base.package_use": {"dev-libs/libyaml": []}})
    with published_site.start("binpkgs:base") as process:
        deadline = time.monotonic() + 120
        while not any("ebuild.sh" in words for words in processes_of(published_site.layout.state)):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert processes_of(published_site.layout.state) == []
    assert mounts_below(published_site.layout.site) == []
    assert list(published_site.layout.work.iterdir()) == []
    assert tasks_run(published_site.doit("binpkgs:base")) == {"binpkgs:base"}
