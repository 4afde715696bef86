"""The location of a site, and its folders for untrusted files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks import site as sites
from tasks.config.tables import Config
from tasks.errors import ConfigError
from tasks.layout import Layout
from tasks.site import Site, find, identity
from tests.kit.files import names

CONFIG = Config.model_validate(
    {
        "keys": {
            "beside": {"file": "keys/a.asc", "fingerprints": ["A" * 40, "B" * 40]},
            "away": {"file": "/usr/share/b.asc", "fingerprints": ["B" * 40]},
        },
        "mirrors": {"gentoo": ["http://one.example", "http://two.example"]},
        "tree": {"key": "beside"},
        "seeds": {},
        "chroots": {},
    }
)


@pytest.fixture
def site(layout: Layout) -> Site:
    return Site(layout, CONFIG)


def test_the_project_is_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(sites.CONFIG_VARIABLE, raising=False)
    assert find(tmp_path) == Layout(tmp_path, tmp_path / "state")


def test_unless_another_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(sites.CONFIG_VARIABLE, "other/config.toml")
    other = tmp_path / "other"
    assert find(Path("/nonexistent")) == Layout(other, other / "state")


@pytest.mark.parametrize("path", ["/etc", "/etc/site.toml", "config.toml/"])
def test_a_site_is_named_by_its_config(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setenv(sites.CONFIG_VARIABLE, path)
    if path == "config.toml/":  # the same path, written another way
        assert find(Path("/nonexistent")).config.name == "config.toml"
        return
    with pytest.raises(ConfigError, match="does not name a config"):
        find(Path("/nonexistent"))


def test_roles(site: Site) -> None:
    assert site.role("beside").keyfile == site.layout.site / "keys" / "a.asc"
    assert site.role("beside").fingerprints == ("A" * 40, "B" * 40)
    assert site.role("away").keyfile == Path("/usr/share/b.asc")
    assert site.mirrors == ("http://one.example", "http://two.example")


def test_scratch_is_private_and_gone_afterwards(site: Site) -> None:
    with pytest.raises(KeyError), site.scratch("seed:x") as scratch:
        assert scratch.stat().st_mode & 0o777 == 0o700
        (scratch / "file").write_text("x")
        raise KeyError
    assert names(site.layout.work) == []


def test_scratch_sweeps_leftovers_of_a_killed_run(site: Site) -> None:
    left = site.layout.work / "download-lock"
    left.mkdir(parents=True)
    (left / "half a download").write_text("x")
    with site.scratch("lock") as scratch:
        assert scratch == left
        assert names(scratch) == []
    assert names(site.layout.trash) == []


def test_identity_is_that_of_the_content() -> None:
    assert identity({"a": 1, "b": [2]}) == identity({"b": [2], "a": 1})
    assert identity([1, 2]) != identity([2, 1])
    assert len(identity({})) == 64
