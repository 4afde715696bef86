"""Storage that fails while something is collected, published or rolled back.

The site lies on a small tmpfs in a mount namespace of its own. Each action is tried without free
space, then with a little more each time until it succeeds: so the disk is full at every moment.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tasks import records
from tasks.engine.action import run_step
from tasks.engine.on_demand import RequestedTask
from tasks.engine.step import Step
from tasks.errors import describe, failure
from tasks.flow import publish as flow
from tasks.flow import releases, signing
from tasks.portage.index import parse
from tasks.publish import candidate, generation
from tasks.records import (
    BINPKGS,
    CANDIDATE,
    GATE,
    PUBLISH,
    BinpkgsRecord,
    CandidateRecord,
    GateRecord,
    Inputs,
    Key,
    PublishRecord,
    R,
)
from tasks.site import Chroot
from tasks.store.collect import collect_set, set_id
from tasks.system.command import run
from tasks.system.files import sha512, write_atomic
from tasks.upkeep import gc
from tests.kit.binhost import SIGNED
from tests.kit.packages import VALUES, gpkg
from tests.kit.publishing import PublishingSite
from tests.kit.small_disk import Disk, Fill, fill_bytes, fill_inodes, small_disk

pytestmark = pytest.mark.usefixtures("needs_sandbox")
Signing = Callable[[Sequence[Path]], None]
PACKAGES = (("x", 4, b"x" * 30_000), ("y", 1, b"y" * 50_000))
# The free space grows by this from one try to the next: a page, or an inode.
FILLS = ((fill_bytes, 4096), (fill_inodes, 1))


def sign(files: Sequence[Path]) -> None:
    """Write a mark beside each file, in the way of publishing.sign_beside."""
    for file in files:
        write_atomic(file.with_name(f"{file.name}.asc"), b"signed: " + file.read_bytes())


def sign_by_a_program(files: Sequence[Path]) -> None:
    """Write the marks with a program that fails without a reason, as many programs do."""
    for file in files:
        hidden = '{ printf "signed: " && cat "$0"; } > "$0.asc" || exit 2'
        run("sh", "-c", f"exec 2>/dev/null; {hidden}", file)


def empty(disk: Disk) -> None:
    for entry in disk.top.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with small_disk(tmp_path / "disk", "size=8m,nr_inodes=600") as tmpfs:
        yield tmpfs


class Trial:
    """A copy of the prepared site on the disk, and actions there as the engine runs them."""

    def __init__(self, place: Path, sign: Signing) -> None:
        self.publishing, self.sign = PublishingSite(place), sign
        self.layout = self.publishing.layout
        self.binhost = self.layout.binhost("base")

    def prepare(self) -> None:
        """Publish three generations; leave a set to publish and a PKGDIR to collect."""
        for build in (1, 2, 3):
            self.publishing.candidate(build)
            self.publishing.publish()
        waiting, folder = self.publishing.sets.build_set(*PACKAGES, identity="set of 4")
        folder.rename(self.layout.state / "waiting")
        records.save(self.layout, BINPKGS("base"), waiting)
        for name, build, _ in PACKAGES:
            path = f"app-misc/{name}/{name}-1-{build}.gpkg.tar"
            values = {**VALUES, "PF": f"{name}-1", "BUILD_ID": str(build)}
            gpkg(self.layout.state / "pkgdir" / path, values=values)
            entry = self.layout.state / f"db/app-misc/{name}-1"
            entry.mkdir(parents=True)
            (entry / "BUILD_ID").write_text(f"{build}\n")
        (self.layout.state / "pkgdir/Packages").write_text("PACKAGES: 2\n\n")
        shutil.rmtree(self.layout.trash, ignore_errors=True)  # as on a site that deleted nothing

    def run(self, key: Key[R], make: Callable[[Inputs], R], *reads: Key[Any]) -> str:
        """Run a requested step; returns the message of its failure, "" for none."""
        step = Step(key, "", make, reads=reads)
        task = RequestedTask(step.task, [], targets=[str(self.layout.record(step.task))])
        task.init_options([])
        ended = run_step(self.layout, step, task)
        return "" if isinstance(ended, dict) else str(ended.message)

    def candidate(self) -> str:
        """Prepare a candidate of the waiting set; its packages are already signed."""

        def make(inputs: Inputs) -> CandidateRecord:
            waiting = inputs[BINPKGS("base")]
            content = self.publishing.sets.content((waiting, self.layout.state / "waiting"))
            number = candidate.prepare(
                self.binhost, content, self.sign, self.layout.trash, valid_days=30
            )
            return CandidateRecord(number, waiting.set, {"public": 2})

        error = self.run(CANDIDATE("base"), make, BINPKGS("base"))
        if not error:
            number = records.load(self.layout, CANDIDATE("base")).generation
            error = self.run(GATE("base"), lambda _: GateRecord(number, 2))
        return error

    def publish(self) -> str:
        def make(inputs: Inputs) -> PublishRecord:
            return flow.publish_candidate(self.publishing.chroot, inputs)

        return self.run(PUBLISH("base"), make, BINPKGS("base"), CANDIDATE("base"), GATE("base"))

    def both(self) -> str:
        return self.candidate() or self.publish()

    def rollback(self) -> str:
        """As `doit rollback base`."""
        error = failure(lambda: releases.roll_back(self.publishing.chroot), "rollback")
        return describe(error) if error else ""

    def collect(self) -> str:
        state = self.layout.state
        entries = sorted(state.glob("db/*/*"))
        sets = self.layout.binpkgs("base")

        def make(_: Inputs) -> BinpkgsRecord:
            packages = collect_set(entries, state / "pkgdir", sets, self.layout.trash)
            return BinpkgsRecord(set_id(packages), packages)

        return self.run(BINPKGS("base"), make)

    def live(self) -> dict[str, bytes | str]:
        """All that clients see, with the number of the generation; checks that it is consistent."""
        top = self.binhost / "current"
        files: dict[str, bytes | str] = {
            str(p.relative_to(top)): p.read_bytes() for p in top.rglob("*") if p.is_file()
        }
        index = (top / "public/Packages").read_bytes()
        assert gzip.decompress((top / "public/Packages.gz").read_bytes()) == index
        for name in SIGNED:
            signature = (top / f"public/{name}.asc").read_bytes()
            assert signature == b"signed: " + (top / "public" / name).read_bytes()
        for stanza in parse(index.decode())[1]:
            assert sha512(top / "public" / stanza["PATH"]) == stanza["SHA512"]
        return {**files, "": str(top.readlink())}

    def content(self) -> Any:
        """The files of clients without number and time, and the collected set."""
        top = self.binhost / "current"
        sets = self.layout.binpkgs("base")
        return (
            parse((top / "public/Packages").read_text())[1],
            sorted(str(path.relative_to(top)) for path in top.rglob("*")),
            {str(p.relative_to(sets)): p.read_bytes() for p in sets.rglob("*") if p.is_file()},
        )

    def litter(self) -> list[str]:
        """Temporary files and trash that are left."""
        hidden = [str(p) for p in self.layout.state.rglob(".*")]
        thrown = [*self.layout.trash.glob("*"), *self.layout.work.glob("*")]
        return hidden + [str(p) for p in thrown]


@pytest.fixture(scope="module")
def prepared_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site to be copied."""
    folder = tmp_path_factory.mktemp("prepared") / "site"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        Trial(folder, sign).prepare()
    return folder


@pytest.fixture
def trial(disk: Disk, prepared_site: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trial]:
    """Put a copy of the prepared site on the disk; its signatures are marks."""
    sign_with: list[Signing] = [sign]

    def beside(_chroot: Chroot, _inputs: Inputs, _space: Path, files: Sequence[Path]) -> None:
        sign_with[0](files)

    monkeypatch.setattr(signing, "sign_beside", beside)

    def copied(sign: Signing = sign) -> Trial:
        sign_with[0] = sign
        empty(disk)
        shutil.copytree(prepared_site, disk.top, symlinks=True, dirs_exist_ok=True)
        return Trial(disk.top, sign)

    return copied


ACTIONS = {
    "made and published": Trial.both,
    "rolled back": Trial.rollback,
    "collected": Trial.collect,
}


def stands(site: Trial, before: dict[str, bytes | str], wanted: Any) -> bool:
    """True if clients see the old generation unchanged; else they must see all of the new one."""
    if site.live() == before:
        return True
    assert site.content() == wanted
    return False


@pytest.mark.parametrize(("fill", "step"), FILLS)
@pytest.mark.parametrize(
    ("action", "signing"),
    [
        (Trial.both, sign),
        (Trial.both, sign_by_a_program),
        (Trial.rollback, sign),
        (Trial.rollback, sign_by_a_program),
        (Trial.collect, sign),
    ],
)
def test_full_disk_at_every_moment_keeps_the_old_generation(  # noqa: PLR0917
    disk: Disk,
    trial: Callable[..., Trial],
    action: Callable[[Trial], str],
    signing: Signing,
    fill: Fill,
    step: int,
) -> None:
    """One line, the old generation as it was, nothing left behind; then the same call succeeds."""
    undisturbed = trial(signing)
    assert action(undisturbed) == ""
    wanted = undisturbed.content()
    failed = 0
    for left in range(0, 1000 * step, step):
        site = trial(signing)
        before = site.live()
        fill(disk.top, left)
        error, litter = action(site), site.litter()
        subprocess.run(["rm", "-r", disk.top / "ballast"], check=True)
        if not error:
            break
        failed += 1
        assert_disk_full(error)
        assert litter == []
        assert stands(site, before, wanted)
        assert action(site) == ""
        assert site.content() == wanted
        assert site.litter() == []
    assert error == ""
    assert site.content() == wanted
    assert failed > 5


# Before these calls, and whether clients have the old generation if there is no inode from then on.
MOMENTS = {
    "the generation is named": (candidate, "promote_candidate", 1, True),
    "the switch": (generation, "switch", 1, True),
    "current, after previous": (generation, "_point", 2, True),
}
WAYS = [
    pytest.param(action, *moment, id=f"{way}, {moment_name}")
    for way, action in (("published", Trial.both), ("rolled back", Trial.rollback))
    for moment_name, moment in MOMENTS.items()
]
WAYS.append(pytest.param(Trial.both, records, "save", 3, False, id="published, its record"))


@pytest.mark.parametrize(("action", "module", "name", "call", "old"), WAYS)
def test_disk_filled_by_others_keeps_the_old_generation(  # noqa: PLR0917
    disk: Disk,
    trial: Callable[..., Trial],
    action: Callable[[Trial], str],
    module: Any,
    name: str,
    call: int,
    old: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same if another process fills the disk meanwhile."""
    undisturbed = trial()
    assert action(undisturbed) == ""
    wanted, site, real, calls = undisturbed.content(), trial(), getattr(module, name), [call]
    before = site.live()

    def filled(*arguments: Any, **more: Any) -> Any:
        calls[0] -= 1
        if calls[0] == 0:
            fill_bytes(disk.top, 0)
            (disk.top / "ballast").rename(disk.top / "bytes")
            fill_inodes(disk.top, 0)
        return real(*arguments, **more)

    monkeypatch.setattr(module, name, filled)
    error, litter = action(site), site.litter()
    assert calls[0] <= 0
    subprocess.run(["rm", "-r", disk.top / "ballast", disk.top / "bytes"], check=True)
    assert_disk_full(error)
    assert litter == []
    assert stands(site, before, wanted) is old
    assert action(site) == ""
    assert site.content() == wanted
    assert site.litter() == []


def assert_disk_full(error: str) -> None:
    """Assert that an error is one line with advice, and names the full disk."""
    line, *more = error.splitlines()
    assert re.search(
        r"no (space|inodes) (is |are )?left on (the )?device.*/", line, re.IGNORECASE
    ), error
    assert [each.split(":")[0].strip() for each in more] in ([], ["next"]), error


def test_gc_works_on_a_full_disk(disk: Disk, trial: Callable[..., Trial]) -> None:
    """It needs no space itself."""
    site = trial()
    stray = site.layout.binpkgs("gone") / "set/file"
    stray.parent.mkdir(parents=True)
    stray.write_bytes(bytes(100_000))
    fill_bytes(disk.top, 0)
    gc.delete(site.publishing.site, {})
    assert not stray.exists()
    assert os.statvfs(disk.top).f_bavail > 0


@pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS)
def test_read_only_disk_keeps_the_old_generation(
    disk: Disk, trial: Callable[..., Trial], action: Callable[[Trial], str]
) -> None:
    undisturbed = trial()
    assert action(undisturbed) == ""
    wanted = undisturbed.content()
    site = trial()
    before = site.live()
    disk.remount("ro")
    error = action(site)
    disk.remount("rw")
    assert "Read-only file system" in error.splitlines()[0]
    assert site.live() == before
    assert site.litter() == []
    assert action(site) == ""
    assert site.content() == wanted
