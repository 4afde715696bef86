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
from doit.exceptions import InvalidCommand

from tasks import records
from tasks.commands.releases import Diff, Generations, Promote, Rollback
from tasks.commands.site_command import SiteCommand
from tasks.errors import BinmillError
from tasks.flow import publish, releases, signing
from tasks.publish import candidate, generation
from tasks.records import BINPKGS, CandidateRecord, Inputs, PublishRecord
from tasks.site import Chroot
from tests.kit.binhost import SIGNER, sign
from tests.kit.kills import killed_before
from tests.kit.publishing import PublishingSite
from tests.kit.refused import refused
from tests.kit.site_commands import run_command


def held(factory: PublishingSite) -> bool:
    return publish.holds_rollback(factory.chroot, records.load(factory.layout, BINPKGS("base")).set)


@pytest.fixture
def factory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishingSite:
    def beside(_: Chroot, _inputs: Inputs, _space: Path, files: Sequence[Path]) -> None:
        sign(files)

    monkeypatch.setattr(signing, "sign_beside", beside)
    return PublishingSite(tmp_path)


def test_rollback_is_held_until_the_set_changes(factory: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        factory.candidate(build)
        assert factory.publish().generation == build
    releases.roll_back(factory.chroot)
    assert (factory.current, factory.build()) == (3, 1)
    assert factory.publish() == PublishRecord(3, "set of 1", {"public": 1})
    assert "is held; to end that: doit publish:base" in capsys.readouterr().out
    assert held(factory)
    factory.candidate(3)
    assert not held(factory)
    factory.publish()
    assert factory.build() == 3
    assert not held(factory)


def test_rollback_ends_on_request(factory: PublishingSite) -> None:
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    releases.roll_back(factory.chroot, "1")
    assert factory.publish(named=True).generation == 4
    assert factory.build() == 2
    before = factory.current
    assert factory.publish().generation == before  # it is the candidate's: nothing to do
    assert factory.publish(named=True).generation == before


def test_candidate_older_than_a_rollback_is_replaced(factory: PublishingSite) -> None:
    """Clients would refuse its index: it is deleted, and its number is not used again."""
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    binhost = factory.layout.binhost("base")
    assert factory.candidate(3) == 3
    releases.roll_back(factory.chroot)
    assert factory.current == 4
    assert not publish.place(factory.chroot, CandidateRecord(3, "", {})).exists()  # so it is stale
    assert factory.candidate(3) == 5
    assert factory.publish(named=True).generation == 5
    assert factory.build() == 3
    stamps = [each.issue.timestamp for each in generation.load_all(binhost)]
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
    record = CandidateRecord(before.candidate(3), "set of 3", {"public": 1})
    for moment in range(1, 1000):
        site = PublishingSite(tmp_path / str(moment))
        shutil.copytree(tmp_path / "before", site.layout.site, symlinks=True)

        def rollback(site: PublishingSite = site) -> None:
            releases.roll_back(site.chroot)

        died = killed_before(moment, rollback)
        if site.current == 2:
            rollback()
        assert site.build() == 1
        named = publish.place(site.chroot, record)
        assert not named.exists() or generation.load_folder(named).source.set == "set of 3"
        shutil.rmtree(site.layout.site)
        if not died:
            break
    assert moment > 30


def test_run_killed_before_the_switch_is_completed_by_the_next(factory: PublishingSite) -> None:
    factory.candidate(1)
    factory.publish()
    number = factory.candidate(2)
    candidate.promote_candidate(factory.layout.binhost("base"), number)
    assert factory.build() == 1
    assert factory.publish().generation == number
    assert factory.build() == 2


def test_manifest_is_renewed_for_every_channel(
    factory: PublishingSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    releases.promote(factory.chroot, "1", to="testing")
    releases.roll_back(factory.chroot)
    assert factory.publish().generation == 3
    later = time.time() + 20 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert not publish.all_valid(factory.chroot)
    made = factory.publish()
    assert publish.all_valid(factory.chroot)
    binhost = factory.layout.binhost("base")
    assert (made.generation, generation.current(binhost, "testing")) == (4, 5)
    assert factory.build() == 1
    assert held(factory)  # it is still that rollback
    assert factory.publish() == made


def test_channel_signed_by_another_key_is_not_renewed(
    factory: PublishingSite, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    import time

    factory.candidate(1, signer="B" * 40)
    factory.publish()
    releases.promote(factory.chroot)
    factory.candidate(2)
    later = time.time() + 20 * 86400
    monkeypatch.setattr("time.time", lambda: later)
    assert factory.publish().generation == 3  # its own manifest was renewed
    assert "the manifest of generation 1 (testing) is not renewed" in capsys.readouterr().out
    assert generation.current(factory.layout.binhost("base"), "testing") == 1


def test_generations_of_records_and_channels_are_not_pruned(factory: PublishingSite) -> None:
    factory.candidate(1)
    factory.publish()
    releases.promote(factory.chroot, to="testing")
    for build in range(2, 6):
        factory.candidate(build)
        factory.publish()
    assert generation.numbers(factory.layout.binhost("base")) == [1, 4, 5]
    releases.promote(factory.chroot, to="stable")  # what testing has
    assert generation.current(factory.layout.binhost("base"), "stable") == 1


def test_rollback_to_unusable_generations_is_refused(factory: PublishingSite) -> None:
    factory.candidate(1, signer="B" * 40)
    factory.publish(named=True)
    factory.candidate(2)
    factory.publish()
    with refused(
        BinmillError, "generation-signed-by-other-key", signer="B" * 40, key=SIGNER, number=1
    ):
        releases.roll_back(factory.chroot)
    assert factory.current == 2
    factory.candidate(3)
    factory.publish()
    factory.tables["access"] = {"groups": ["role:java"], "packages": {"a-b/x": "role:java"}}
    factory.tables["serve"] = {"certificate": "c", "certificate_key": "k"}
    with refused(BinmillError, "rollback-not-allowed", number=2) as failure:
        releases.roll_back(factory.chroot)
    assert "a-b/x-1 may not be given to public" in str(failure.value.fields["reason"])
    del factory.tables["access"]
    (path,) = (factory.layout.binhost("base") / "gen/2/public/a-b/x").iterdir()
    path.unlink()
    with refused(BinmillError, "generation-incomplete", path="a-b/x/x-1-2.gpkg.tar"):
        releases.roll_back(factory.chroot, "2")
    assert factory.current == 3


def test_channel_never_goes_back_in_time(factory: PublishingSite) -> None:
    factory.tables["binhost"]["keep"] = 9
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    binhost = factory.layout.binhost("base")
    releases.promote(factory.chroot)
    assert generation.current(binhost, "testing") == 2
    releases.promote(factory.chroot, "1")
    assert generation.current(binhost, "testing") == 3
    assert factory.current == 2
    for number, channel, code in [
        ("7", "", "generation-unknown"),
        ("", "beta", "channel-unknown"),
        ("3", "", "channel-has-generation"),
    ]:
        with refused(BinmillError, code):
            releases.promote(factory.chroot, number, channel)


def test_diff_and_generations_as_text_and_json(factory: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    factory.candidate(3)
    capsys.readouterr()

    def output(command: type[SiteCommand], *words: str) -> str:
        run_command(command, factory.site, *words)
        return str(capsys.readouterr().out)

    assert output(Diff, "base").startswith("base generation 1 -> 2: 1 package, 1 rebuilt")
    difference = json.loads(output(Diff, "base", "2", "3", "--json"))  # 3 is a candidate
    assert [change["builds"] for change in difference["rebuilt"]] == [["2", "3"]]
    assert [line.split("set of ")[1] for line in output(Generations).splitlines()[1:]] == [
        "1  previous",
        "2  current",
        "3  candidate, not published",
    ]
    rows = json.loads(output(Generations, "base", "--json"))
    assert [row["names"] for row in rows] == [["previous"], ["current"], []]
    with pytest.raises(InvalidCommand, match="unrecognized arguments: 3"):
        run_command(Diff, factory.site, "base", "1", "2", "3")


def test_rollback_and_promote_print_the_result(factory: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        factory.candidate(build)
        factory.publish()
    run_command(Rollback, factory.site, "base", "--to", "1")
    assert "base: generation 3 is current, with the packages of 1" in capsys.readouterr().out
    run_command(Promote, factory.site, "base", "--to", "testing")
    assert "base: testing has generation 3, 1 package" in capsys.readouterr().out
    with refused(BinmillError, "chroot-unknown", name="bose"):
        run_command(Rollback, factory.site, "bose")
