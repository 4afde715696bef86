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
from tests.kit.set_clock import SetClock
from tests.kit.site_commands import run_command


def holds_rollback(site: PublishingSite) -> bool:
    return publish.holds_rollback(site.chroot, records.load(site.layout, BINPKGS("base")).set)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PublishingSite:
    def beside(_: Chroot, _inputs: Inputs, _space: Path, files: Sequence[Path]) -> None:
        sign(files)

    monkeypatch.setattr(signing, "sign_beside", beside)
    return PublishingSite(tmp_path)


def test_rollback_is_held_until_the_set_changes(site: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        site.candidate(build)
        assert site.publish().generation == build
    releases.roll_back(site.chroot)
    assert (site.current, site.build()) == (3, 1)
    assert site.publish() == PublishRecord(3, "set of 1", {"public": 1})
    assert "is held; to end that, run: doit publish:base" in capsys.readouterr().out
    assert holds_rollback(site)
    site.candidate(3)
    assert not holds_rollback(site)
    site.publish()
    assert site.build() == 3
    assert not holds_rollback(site)


def test_rollback_ends_on_request(site: PublishingSite) -> None:
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    releases.roll_back(site.chroot, "1")
    assert site.publish(named=True).generation == 4
    assert site.build() == 2
    before = site.current
    assert site.publish().generation == before  # it is the candidate's: nothing to do
    assert site.publish(named=True).generation == before


def test_candidate_older_than_a_rollback_is_replaced(site: PublishingSite) -> None:
    """Clients would refuse its index: it is deleted, and its number is not used again."""
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    binhost = site.layout.binhost("base")
    assert site.candidate(3) == 3
    releases.roll_back(site.chroot)
    assert site.current == 4
    assert not publish.place(site.chroot, CandidateRecord(3, "", {})).exists()  # so it is stale
    assert site.candidate(3) == 5
    assert site.publish(named=True).generation == 5
    assert site.build() == 3
    stamps = [each.issue.timestamp for each in generation.load_all(binhost)]
    assert stamps == sorted(set(stamps))


def test_killed_rollback_never_reuses_the_number_of_a_candidate(
    site: PublishingSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise publish would serve the packages of the rollback for that candidate."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # a SIGKILL loses nothing that was written
    assert site.current is None
    before = PublishingSite(tmp_path / "before")
    for build in (1, 2):
        before.candidate(build)
        before.publish()
    record = CandidateRecord(before.candidate(3), "set of 3", {"public": 1})
    for moment in range(1, 1000):
        copied = PublishingSite(tmp_path / str(moment))
        shutil.copytree(tmp_path / "before", copied.layout.site, symlinks=True)

        def rollback(copied: PublishingSite = copied) -> None:
            releases.roll_back(copied.chroot)

        died = killed_before(moment, rollback)
        if copied.current == 2:
            rollback()
        assert copied.build() == 1
        folder = publish.place(copied.chroot, record)
        assert not folder.exists() or generation.load_folder(folder).source.set == "set of 3"
        shutil.rmtree(copied.layout.site)
        if not died:
            break
    assert moment > 30


def test_run_killed_before_the_switch_is_completed_by_the_next(site: PublishingSite) -> None:
    site.candidate(1)
    site.publish()
    number = site.candidate(2)
    candidate.promote_candidate(site.layout.binhost("base"), number)
    assert site.build() == 1
    assert site.publish().generation == number
    assert site.build() == 2


def test_manifest_is_renewed_for_every_channel(site: PublishingSite, clock: SetClock) -> None:
    import time

    for build in (1, 2):
        site.candidate(build)
        site.publish()
    releases.promote(site.chroot, "1", to="testing")
    releases.roll_back(site.chroot)
    assert site.publish().generation == 3
    later = time.time() + 20 * 86400
    clock.set(later)
    assert not publish.all_valid(site.chroot)
    record = site.publish()
    assert publish.all_valid(site.chroot)
    binhost = site.layout.binhost("base")
    assert (record.generation, generation.current(binhost, "testing")) == (4, 5)
    assert site.build() == 1
    assert holds_rollback(site)  # it is still that rollback
    assert site.publish() == record


def test_channel_signed_by_another_key_is_not_renewed(
    site: PublishingSite, clock: SetClock, capsys: Any
) -> None:
    import time

    site.candidate(1, signer="B" * 40)
    site.publish()
    releases.promote(site.chroot)
    site.candidate(2)
    later = time.time() + 20 * 86400
    clock.set(later)
    assert site.publish().generation == 3  # its own manifest was renewed
    assert "the manifest of generation 1 (testing) is not renewed" in capsys.readouterr().out
    assert generation.current(site.layout.binhost("base"), "testing") == 1


def test_generations_of_records_and_channels_are_not_pruned(site: PublishingSite) -> None:
    site.candidate(1)
    site.publish()
    releases.promote(site.chroot, to="testing")
    for build in range(2, 6):
        site.candidate(build)
        site.publish()
    assert generation.numbers(site.layout.binhost("base")) == [1, 4, 5]
    releases.promote(site.chroot, to="stable")  # the generation of testing
    assert generation.current(site.layout.binhost("base"), "stable") == 1


def test_rollback_to_unusable_generations_is_refused(site: PublishingSite) -> None:
    site.candidate(1, signer="B" * 40)
    site.publish(named=True)
    site.candidate(2)
    site.publish()
    with refused(
        BinmillError, "generation-signed-by-other-key", signer="B" * 40, key=SIGNER, number=1
    ):
        releases.roll_back(site.chroot)
    assert site.current == 2
    site.candidate(3)
    site.publish()
    site.tables["access"] = {"groups": ["role:java"], "packages": {"a-b/x": "role:java"}}
    site.tables["serve"] = {"certificate": "c", "certificate_key": "k"}
    with refused(BinmillError, "rollback-not-allowed", number=2) as failure:
        releases.roll_back(site.chroot)
    assert "a-b/x-1 may not be given to public" in str(failure.value.fields["reason"])
    del site.tables["access"]
    (path,) = (site.layout.binhost("base") / "gen/2/public/a-b/x").iterdir()
    path.unlink()
    with refused(BinmillError, "generation-incomplete", path="a-b/x/x-1-2.gpkg.tar"):
        releases.roll_back(site.chroot, "2")
    assert site.current == 3


def test_channel_never_goes_back_in_time(site: PublishingSite) -> None:
    site.tables["binhost"]["keep"] = 9
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    binhost = site.layout.binhost("base")
    releases.promote(site.chroot)
    assert generation.current(binhost, "testing") == 2
    releases.promote(site.chroot, "1")
    assert generation.current(binhost, "testing") == 3
    assert site.current == 2
    for number, channel, code in [
        ("7", "", "generation-unknown"),
        ("", "beta", "channel-unknown"),
        ("3", "", "channel-has-generation"),
    ]:
        with refused(BinmillError, code):
            releases.promote(site.chroot, number, channel)


def test_diff_and_generations_as_text_and_json(site: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    site.candidate(3)
    capsys.readouterr()

    def output(command: type[SiteCommand], *words: str) -> str:
        run_command(command, site.site, *words)
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
        run_command(Diff, site.site, "base", "1", "2", "3")


def test_rollback_and_promote_print_the_result(site: PublishingSite, capsys: Any) -> None:
    for build in (1, 2):
        site.candidate(build)
        site.publish()
    run_command(Rollback, site.site, "base", "--to", "1")
    assert (
        "base: generation 3 is current, with the packages of generation 1"
        in capsys.readouterr().out
    )
    run_command(Promote, site.site, "base", "--to", "testing")
    assert "base: testing has generation 3, 1 package" in capsys.readouterr().out
    with refused(BinmillError, "chroot-unknown", name="bose"):
        run_command(Rollback, site.site, "bose")
