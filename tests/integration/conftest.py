"""Fixtures for integration tests: keys of every kind, and an upstream that uses them."""

from __future__ import annotations

import contextlib
import gc
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.flow import snapshots
from tasks.system import http, proxy
from tests.kit.fake_upstream import REMOTE, FakeUpstream
from tests.kit.gpg import Keys, keys_of_every_kind
from tests.kit.sample_site import SampleSite, SampleUpstream, sample_site
from tests.kit.scripted_server import ScriptedServer, scripted_server, status
from tests.kit.snapshots import DAY


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keys]:
    with keys_of_every_kind(tmp_path_factory.mktemp("keys")) as gpg_keys:
        yield gpg_keys


def without_proxy(patch: pytest.MonkeyPatch) -> None:
    """Reach everything directly, and forget at the end what a test has configured."""
    patch.setattr(proxy, "_configured", None)
    for name in (*proxy.VARIABLES, *(name.upper() for name in proxy.VARIABLES)):
        patch.delenv(name, raising=False)


@contextlib.contextmanager
def upstream(
    folder: Path, keys: Keys, patch: pytest.MonkeyPatch, printed: Callable[[], str]
) -> Iterator[FakeUpstream]:
    without_proxy(patch)
    patch.setattr(http, "_PAUSES", (0.0, 0.0))
    with scripted_server() as server:
        server.answers["*"] = status(404)
        fake = FakeUpstream(folder, server, keys, printed)
        days = SimpleNamespace(today=lambda: fake.now)
        patch.setattr(snapshots, "clock", days)  # signatures are judged by the real time
        yield fake
    from git import Repo

    for each in gc.get_objects():  # else Python ends git's helpers in any order, with a warning
        if isinstance(each, Repo):
            each.close()


@pytest.fixture
def fake_upstream(
    tmp_path: Path,
    keys: Keys,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[FakeUpstream]:
    """No mirror has anything yet, and nothing is frozen."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / REMOTE], check=True)
    with upstream(tmp_path, keys, monkeypatch, lambda: "".join(capsys.readouterr())) as fake:
        yield fake


@pytest.fixture(scope="session")
def frozen_day(keys: Keys, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a site that has frozen DAY, and its remote."""
    folder = tmp_path_factory.mktemp("first")
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", folder / REMOTE], check=True)
    with pytest.MonkeyPatch.context() as patch, upstream(folder, keys, patch, str) as fake:
        fake.publish("one", fake.signed(DAY), DAY)
        fake.snapshot(fake.site())
    return folder


@pytest.fixture
def frozen_upstream(fake_upstream: FakeUpstream, frozen_day: Path) -> FakeUpstream:
    """DAY is frozen; no mirror has anything newer."""
    for name in ("site", REMOTE):
        shutil.copytree(frozen_day / name, fake_upstream.folder / name, dirs_exist_ok=True)
    return fake_upstream


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedServer]:
    without_proxy(monkeypatch)
    with scripted_server() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "private" / "file"


@pytest.fixture(scope="session")
def sample_upstream(
    keys: Keys,
    tmp_path_factory: pytest.TempPathFactory,
    needs_root: None,  # noqa: ARG001
) -> Iterator[SampleUpstream]:
    """A mirror with yesterday's snapshot and a stage, and an overlay's repository."""
    with scripted_server() as server:
        server.answers["*"] = status(404)
        sample = SampleUpstream(tmp_path_factory.mktemp("small") / "upstream", server, keys)
        sample.publish()
        yield sample


@pytest.fixture(scope="session")
def prebuilt_site(
    sample_upstream: SampleUpstream, tmp_path_factory: pytest.TempPathFactory
) -> SampleSite:
    """A small site with everything built; tests copy it and never change it."""
    site = sample_site(tmp_path_factory.mktemp("made") / "site")
    site.write(sample_upstream.config())
    site.make()
    return site


@pytest.fixture
def empty_site(sample_upstream: SampleUpstream, tmp_path: Path) -> SampleSite:
    """A small site on which nothing has run."""
    site = sample_site(tmp_path / "site")
    site.write(sample_upstream.config())
    return site


@pytest.fixture
def built_site(prebuilt_site: SampleSite, empty_site: SampleSite) -> SampleSite:
    """A copy of the small site with everything built and up to date."""
    subprocess.run(
        ["cp", "-a", f"{prebuilt_site.layout.site}/.", empty_site.layout.site], check=True
    )
    database = sqlite3.connect(empty_site.layout.database)  # it knows files by their absolute paths
    with contextlib.closing(database), database:
        database.execute(
            "update doit set task_data = replace(task_data, ?, ?)",
            (str(prebuilt_site.layout.site), str(empty_site.layout.site)),
        )
    return empty_site
