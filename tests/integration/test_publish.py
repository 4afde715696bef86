"""publish, rollback and promote on a site.

Packages and signatures are marks; tests/e2e/test_releases.py has real ones.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import BinmillError
from tasks.flow import candidate, publish, releases
from tasks.publish import generation, published
from tasks.site import Site
from tests.kit.binhost import SIGNER, sign
from tests.kit.kills import killed_before
from tests.kit.publishing import PublishingSite
from tests.kit.refused import refused


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishingSite:
    def beside(_site: Site, _name: str, _space: Path, files: Sequence[Path]) -> None:
        sign(files)

    monkeypatch.setattr(candidate, "sign_beside", beside)
    return PublishingSite(tmp_path)


def test_rollback_is_held_until_the_set_changes(factory: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        factory.candidate(build)
        assert factory.publish()["generation"] == build
    releases.rollback(factory.site, ["base"])
    assert (factory.current, factory.build()) == (3, 1)
    assert factory.publish() == {"generation": 3, "set": "set of 1", "views": {"public": 1}}
    assert "is held; to end that: doit publish:base" in capsys.readouterr().out
    assert publish.held_by_rollback(factory.site, "base")
    factory.candidate(3)
    assert not publish.held_by_rollback(factory.site, "base")
    factory.publish()
    assert factory.build() == 3
    assert not publish.held_by_rollback(factory.site, "base")


def test_rollback_ends_on_request(factory: PublishingSite) -> None:
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    releases.rollback(factory.site, ["base", "--to", "1"])
    assert factory.publish(asked=True)["generation"] == 4
    assert factory.build() == 2
    before = factory.current
    assert factory.publish()["generation"] == before  # it is the candidate's: nothing to do
    assert factory.publish(asked=True)["generation"] == before


def test_candidate_older_than_a_rollback_is_replaced(factory: PublishingSite) -> None:
    """Clients would refuse its index: it is deleted, and its number is not used again."""
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    binhost = factory.layout.binhost("base")
    assert factory.candidate(3) == 3
    releases.rollback(factory.site, ["base"])
    assert factory.current == 4
    assert not publish.place(factory.site, "base", {"generation": 3}).exists()  # so it is stale
    assert factory.candidate(3) == 5
    assert factory.publish(asked=True)["generation"] == 5
    assert factory.build() == 3
    stamps = [
        published.facts(binhost, number)["timestamp"] for number in published.numbers(binhost)
    ]
    assert stamps == sorted(set(stamps))


def test_killed_rollback_never_reuses_the_number_of_a_candidate(
    factory: PublishingSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise publish would serve the packages of the rollback for that candidate."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a SIGKILL loses nothing that was written
    assert factory.current is None
    before = PublishingSite(tmp_path / "before")
    for build in (1, 2):
        before.candidate(build)
        before.publish()
    recorded = {"generation": before.candidate(3)}
    for moment in range(1, 1000):
        site = PublishingSite(tmp_path / str(moment))
        shutil.copytree(tmp_path / "before", site.layout.site, symlinks=True)

        def rollback(site: PublishingSite = site) -> None:
            releases.rollback(site.site, ["base"])

        died = killed_before(moment, rollback)
        if site.current == 2:
            rollback()
        assert site.build() == 1
        named = publish.place(site.site, "base", recorded)
        assert not named.exists() or published.facts_in(named)["set"] == "set of 3"
        shutil.rmtree(site.layout.site)
        if not died:
            break
    assert moment > 30


def test_run_killed_before_the_switch_is_completed_by_the_next(factory: PublishingSite) -> None:
    factory.candidate(1)
    factory.publish()
    number = factory.candidate(2)
    generation.let_out(factory.layout.binhost("base"), number)
    assert factory.build() == 1
    assert factory.publish()["generation"] == number
    assert factory.build() == 2


def test_manifest_is_renewed_for_every_channel(
    factory: PublishingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    releases.promote(factory.site, ["base", "1", "--to", "testing"])
    releases.rollback(factory.site, ["base"])
    assert factory.publish()["generation"] == 3
    later = time.time() + 20 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert not publish.all_valid(factory.site, "base")
    made = factory.publish()
    assert publish.all_valid(factory.site, "base")
    binhost = factory.layout.binhost("base")
    assert (made["generation"], generation.current(binhost, "testing")) == (4, 5)
    assert factory.build() == 1
    assert publish.held_by_rollback(factory.site, "base")  # it is still that rollback
    assert factory.publish() == made


def test_channel_signed_by_another_key_is_not_renewed(
    factory: PublishingSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import time

    factory.candidate(1, signer="B" * 40)
    factory.publish()
    releases.promote(factory.site, ["base"])
    factory.candidate(2)
    later = time.time() + 20 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert factory.publish()["generation"] == 3  # its own manifest was renewed
    assert "generation 1 of testing is signed by another key" in capsys.readouterr().out
    assert generation.current(factory.layout.binhost("base"), "testing") == 1


def test_generations_of_records_and_channels_are_not_pruned(factory: PublishingSite) -> None:
    factory.candidate(1)
    factory.publish()
    releases.promote(factory.site, ["base", "--to", "testing"])
    for build in range(2, 6):
        factory.candidate(build)
        factory.publish()
    assert published.numbers(factory.layout.binhost("base")) == [1, 4, 5]
    releases.promote(factory.site, ["base", "--to", "stable"])  # what testing has
    assert generation.current(factory.layout.binhost("base"), "stable") == 1


def test_rollback_to_unusable_generations_is_refused(factory: PublishingSite) -> None:
    factory.candidate(1, signer="B" * 40)
    factory.publish(asked=True)
    factory.candidate(2)
    factory.publish()
    with pytest.raises(BinmillError, match=f"are signed by {'B' * 40}, not by {SIGNER}"):
        releases.rollback(factory.site, ["base"])
    assert factory.current == 2
    factory.candidate(3)
    factory.publish()
    factory.tables["access"] = {"groups": ["role:java"], "packages": {"a-b/x": "role:java"}}
    factory.tables["serve"] = {"certificate": "c", "certificate_key": "k"}
    with pytest.raises(BinmillError, match=r"is not what .access. allows now: licence: a-b/x-1"):
        releases.rollback(factory.site, ["base"])
    del factory.tables["access"]
    (path,) = (factory.layout.binhost("base") / "gen/2/public/a-b/x").iterdir()
    path.unlink()
    with refused(BinmillError, "generation-incomplete", path="a-b/x/x-1-2.gpkg.tar"):
        releases.rollback(factory.site, ["base", "--to", "2"])
    with pytest.raises(BinmillError, match="there is no chroot 'bose'"):
        releases.rollback(factory.site, ["bose"])
    assert factory.current == 3


def test_channel_never_goes_back_in_time(factory: PublishingSite) -> None:
    factory.tables["binhost"]["keep"] = 9
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    binhost = factory.layout.binhost("base")
    releases.promote(factory.site, ["base"])
    assert generation.current(binhost, "testing") == 2
    releases.promote(factory.site, ["base", "1"])
    assert generation.current(binhost, "testing") == 3
    assert factory.current == 2
    for words, said in [
        (["base", "7"], "there is no generation '7'"),
        (["base", "--to", "beta"], "there is no channel 'beta'"),
        (["base", "3"], "testing has generation 3 already"),
    ]:
        with pytest.raises(BinmillError, match=said):
            releases.promote(factory.site, words)


def test_diff_and_generations_as_text_and_json(factory: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    factory.candidate(3)
    capsys.readouterr()
    releases.diff(factory.site, ["base"])
    assert capsys.readouterr().out.startswith("base generation 1 -> 2: 1 package, 1 rebuilt")
    releases.diff(factory.site, ["base", "2", "3", "--json"])  # 3 is a candidate
    told = json.loads(capsys.readouterr().out)
    assert [p["builds"] for p in told["rebuilt"]] == [["2", "3"]]
    releases.generations(factory.site, [])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("set of ")[1] for line in lines[1:]] == [
        "1  previous",
        "2  current",
        "3  candidate, not published",
    ]
    releases.generations(factory.site, ["base", "--json"])
    assert [g["names"] for g in json.loads(capsys.readouterr().out)] == [
        ["previous"],
        ["current"],
        [],
    ]
    with pytest.raises(BinmillError, match="not more"):
        releases.diff(factory.site, ["base", "1", "2", "3"])
