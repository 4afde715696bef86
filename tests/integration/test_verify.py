"""A published generation on a bad disk: damage is reported, withdrawn and replaced."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.publish import candidate, generation, published, verify
from tests.kit.binhost import SIGNER, SampleBinhost

X, Y = "a-b/x/x-1-1.gpkg.tar", "a-b/y/y-1-2.gpkg.tar"
VIEWS = {"public": ["x"], "site.a": ["x", "y"]}


@pytest.fixture
def site(tmp_path: Path) -> SampleBinhost:
    """Two packages, in two views; generation 1."""
    binhost = SampleBinhost(tmp_path)
    packages = binhost.build_set(("x", 1, b"one"), ("y", 2, b"two"))
    binhost.publish_content(binhost.content(packages, views=VIEWS))
    return binhost


def top(site: SampleBinhost) -> Path:
    return site.binhost / "gen/1"


def damage(site: SampleBinhost, number: int = 1) -> dict[str, str]:
    """The last flaw of each file, by its path below the generation."""
    folder = site.binhost / "gen" / str(number)
    flaws = verify.flaws(site.binhost, number, lambda _size: None)
    return {str(path.relative_to(folder)): line for path, line in flaws}


def flip(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 12)


def test_intact_generation_has_no_flaws(site: SampleBinhost) -> None:
    read: list[int] = []
    assert list(verify.flaws(site.binhost, 1, read.append)) == []
    packages = [top(site) / "site.a" / path for path in (X, Y)]
    assert all(package.stat().st_size in read for package in packages)
    assert not verify.damaged(site.binhost, 1)


@pytest.mark.parametrize("harm", [flip, cut, Path.unlink])
@pytest.mark.parametrize(
    "name",
    [
        "site.a/" + Y,
        "public/Packages",
        "public/Packages.gz",
        "site.a/sbom.cdx.json",
        "site.a/provenance.jsonl",
        "public/release.json",
        "ledger.json",
        "generation.json",
    ],
)
def test_damage_of_any_file_is_reported(
    site: SampleBinhost, name: str, harm: Callable[[Path], None]
) -> None:
    if name == "generation.json" and harm is flip:
        pytest.skip("another digit in its timestamp is valid; the index shows it")
    harm(top(site) / name)
    flaws = damage(site)
    if harm is flip and name == "public/release.json":  # its digest of another file may be hit
        assert flaws
    else:
        assert name in flaws or (name == "ledger.json" and harm is flip)


def test_generation_without_views_is_verified_and_repaired(site: SampleBinhost) -> None:
    for path in (X, Y):
        (top(site) / path).parent.mkdir(parents=True)
        (top(site) / "site.a" / path).rename(top(site) / path)
    for name in ("Packages", "Packages.gz"):
        (top(site) / "site.a" / name).rename(top(site) / name)
    for name in ("site.a/release.json", "public/release.json", "ledger.json"):
        (top(site) / name).unlink()
    facts = json.loads((top(site) / "generation.json").read_text())
    del facts["views"]
    (top(site) / "generation.json").write_text(json.dumps(facts))
    assert damage(site) == {}
    flip(top(site) / Y)
    assert set(damage(site)) == {Y}
    verify.withdraw(site.binhost, 1, [top(site) / Y], site.trash)
    assert not (top(site) / Y).exists()
    assert damage(site) == {}
    again = site.build_set(("x", 1, b"one"), ("y", 2, b"two"))
    assert site.publish_content(site.content(again)) == 2
    assert site.client_files()[Y] == b"two signed 2"
    assert site.client_files()[X] == b"one signed 1"


def test_missing_signature_is_reported(site: SampleBinhost) -> None:
    (top(site) / "public/Packages.asc").unlink()
    assert damage(site) == {"public/Packages.asc": "public/Packages.asc is missing"}


def test_damaged_package_is_withdrawn_and_signed_again(site: SampleBinhost) -> None:
    """Intact packages keep their bytes; a lost one is missing until the next run signs it again."""
    whole = (top(site) / "public" / X).read_bytes()
    flip(top(site) / "site.a" / Y)
    assert set(damage(site)) == {f"site.a/{Y}"}
    verify.withdraw(site.binhost, 1, [top(site) / "site.a" / Y], site.trash)
    assert not (top(site) / "site.a" / Y).exists()
    assert (top(site) / "public" / X).read_bytes() == whole
    assert verify.damaged(site.binhost, 1)
    assert (
        generation.load(site.binhost, 1).source.inputs == ""
    )  # matches no inputs: the next run makes a candidate
    assert damage(site) == {}  # a withdrawal is no flaw
    again = site.build_set(("x", 1, b"one"), ("y", 2, b"two"))
    assert site.publish_content(site.content(again, views=VIEWS)) == 2
    assert damage(site, 2) == {}
    assert site.client_files("site.a")[X] == whole
    assert site.client_files("site.a")[Y] == b"two signed 2"


def test_index_is_restored_from_its_packed_copy(site: SampleBinhost) -> None:
    place = top(site) / "public/Packages"
    text, stamp = place.read_bytes(), place.stat().st_mtime
    cut(place)
    verify.withdraw(site.binhost, 1, [place], site.trash)
    assert (place.read_bytes(), place.stat().st_mtime) == (text, stamp)
    assert damage(site) == {}


def test_new_generation_of_a_repaired_one_is_not_damaged(site: SampleBinhost) -> None:
    place = top(site) / "public/Packages"
    cut(place)
    verify.withdraw(site.binhost, 1, [place], site.trash)
    assert site.publish_content(candidate.read_content(top(site))) == 2
    assert not verify.damaged(site.binhost, 2)


@pytest.mark.parametrize("name", ["ledger.json", "generation.json"])
def test_lost_ledger_or_facts_lead_to_new_signatures(site: SampleBinhost, name: str) -> None:
    """The generation is still served; all packages of the next one are signed again, later."""
    before = site.client_files("public")
    stamp = generation.load(site.binhost, 1).issue.timestamp
    cut(top(site) / name)
    verify.withdraw(site.binhost, 1, [top(site) / name], site.trash)
    assert site.client_files("public") == before
    again = site.build_set(("x", 1, b"one"), ("y", 2, b"two"))
    assert site.publish_content(site.content(again, views=VIEWS)) == 2
    assert generation.load(site.binhost, 2).issue.timestamp > stamp
    assert site.client_files("public")[X] == b"one signed 2"
    assert damage(site, 2) == {}


def test_published_paths_are_restored_from_generations(site: SampleBinhost) -> None:
    paths = published.read_paths(site.binhost)
    cut(site.binhost / published.PATHS)
    verify.restore_paths(site.binhost)
    assert published.read_paths(site.binhost) == paths
    cut(top(site) / "ledger.json")
    cut(site.binhost / published.PATHS)
    verify.restore_paths(site.binhost)
    assert published.read_paths(site.binhost) == dict.fromkeys((X, Y), "unknown")


def test_path_that_leads_out_of_the_generation_is_reported(
    site: SampleBinhost, tmp_path: Path
) -> None:
    """No file outside is read or withdrawn."""
    (tmp_path / "precious").write_text("x")
    place = top(site) / "public/Packages"
    place.write_text(place.read_text().replace(f"PATH: {X}", "PATH: ../../../../../precious"))
    place.with_name("Packages.gz").unlink()
    flaws = list(verify.flaws(site.binhost, 1, lambda _size: None))
    assert {flaw.path for flaw in flaws} == {place, place.with_name("Packages.gz")}
    assert any("precious" in flaw.text for flaw in flaws)
    assert (tmp_path / "precious").exists()


def test_generation_names_its_signer(site: SampleBinhost) -> None:
    assert json.loads((top(site) / "generation.json").read_text())["signer"] == SIGNER
    assert generation.current(site.binhost) == 1
