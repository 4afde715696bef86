"""Small snapshots frozen by the real git: the same ids everywhere, all or nothing."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from tasks.errors import BinmillError, Busy, NotTrusted
from tasks.snapshot.export import export_commit
from tasks.snapshot.freeze import freeze_archive
from tasks.snapshot.frozen_days import FrozenDay, newest, read, tag_of
from tasks.snapshot.repository import exclusive
from tasks.system.files import sha512
from tasks.system.git import bare
from tests.kit.programs import python
from tests.kit.project import PROJECT
from tests.kit.refused import refused
from tests.kit.repositories import git, leftovers, object_count, refs
from tests.kit.snapshots import (
    DAY,
    FILES,
    SIGNER,
    entry,
    pack,
    snapshot,
    snapshot_time,
    tar,
    verified_tarball,
)
from tests.programs import freeze_half_way

NEXT = DAY + timedelta(days=1)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


def put(repository: Path, archive: Path, day: date = DAY) -> FrozenDay:
    with verified_tarball(archive) as tarball:
        return freeze_archive(repository, tarball, day, "gentoo").frozen


def test_frozen_day_has_files_and_dates_of_the_snapshot(repository: Path, tmp_path: Path) -> None:
    archive = snapshot(tmp_path, scripts=("profiles/repo_name",))
    frozen = put(repository, archive)
    assert frozen == FrozenDay(
        "20260115",
        git(repository, "rev-parse", "20260115^{commit}"),
        snapshot_time(DAY),
        sha512(archive),
        SIGNER,
    )
    assert refs(repository).keys() == {"refs/heads/main", "refs/tags/20260115"}
    listed = git(repository, "ls-tree", "-r", "20260115").splitlines()
    modes = {line.split("\t")[1]: line.split()[0] for line in listed}
    assert modes == {
        "app-misc/one/one-1.ebuild": "100644",
        "metadata/timestamp.x": "100644",
        "profiles/repo_name": "100755",
    }
    time = snapshot_time(DAY)
    assert git(repository, "show", "-s", "--format=%at %ct %P%ae %ce %s", "20260115^{commit}") == (
        f"{time} {time} binmill@localhost binmill@localhost gentoo 20260115"
    )
    assert git(repository, "fsck", "--strict", "--no-progress") == ""
    assert leftovers(repository) == []


def test_ids_are_a_function_of_the_snapshot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two machines with other names, clocks and earlier days make the same commit and tag."""
    first = snapshot(tmp_path)
    second = snapshot(tmp_path, NEXT, {**FILES, "new/file": b"x"})
    put(tmp_path / "one.git", first)
    put(tmp_path / "one.git", second, NEXT)
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME", "GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"):
        monkeypatch.setenv(name, "2001-01-01T00:00:00" if "DATE" in name else "x")
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    try:
        put(tmp_path / "two.git", second, NEXT)
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()
    tags = [refs(tmp_path / name)["refs/tags/20260116"] for name in ("one.git", "two.git")]
    assert tags[0] == tags[1]
    ids = [
        git(tmp_path / name, "rev-parse", "20260116^{commit}") for name in ("one.git", "two.git")
    ]
    assert ids[0] == ids[1]


def test_branch_links_the_days(repository: Path, tmp_path: Path) -> None:
    days = [DAY, NEXT, NEXT + timedelta(days=1)]
    frozen = [
        put(repository, snapshot(tmp_path, day, {**FILES, "day": str(day).encode()}), day)
        for day in days
    ]
    log = ("log", "-3", "--first-parent")
    subjects = git(repository, *log, "--format=%s", "main").splitlines()
    assert subjects == [f"freeze gentoo {f.tag}" for f in reversed(frozen)]
    seconds = git(repository, *log, "--format=%P", "main").splitlines()
    assert [line.split()[-1] for line in seconds] == [f.commit for f in reversed(frozen)]
    for depth, each in enumerate(reversed(frozen)):
        tree = git(repository, "rev-parse", f"main~{depth}^{{tree}}")
        assert tree == git(repository, "rev-parse", f"{each.commit}^{{tree}}")
    assert git(repository, "log", "-1", "--format=%P", frozen[0].commit) == ""


@pytest.mark.parametrize(
    ("moment", "tag"),
    [
        (datetime(2026, 1, 16, 0, 45, tzinfo=UTC), "20260115"),
        (datetime(2026, 1, 16, 0, 0, tzinfo=UTC), "20260115"),
        (datetime(2026, 1, 16, 23, 59, 59, tzinfo=UTC), "20260115"),
        (datetime(2026, 1, 17, 0, 0, tzinfo=UTC), "20260116"),
        (datetime(2024, 3, 1, 0, 45, tzinfo=UTC), "20240229"),
        (datetime(2026, 1, 1, 0, 45, tzinfo=UTC), "20251231"),
    ],
)
def test_tag_is_the_day_before_the_time(moment: datetime, tag: str) -> None:
    assert tag_of(int(moment.timestamp())) == tag


ODD_NAMES = [
    'quote"quote',
    "'",
    "a b",
    " leading",
    "trailing ",
    "-rf",
    "--output=x",
    "ümläut",
    "日本/語",
    "$(id)",
    "`id`",
    "*",
    "a:b",
    "~",
    "#x",
    "%s",
    "!x",
    "x.lock",
    "e\u0301",
]
CRLF = b"one\r\ntwo\r\n"
FORMATS = b"$Format:%H$ $Id$ $Id: x $\n"
ATTRIBUTES = (
    b"* text=auto eol=lf\nsecret export-ignore\n*.txt export-subst ident\n"
    b"*.u16 working-tree-encoding=UTF-16\n*.f filter=x\n[attr]binary -diff\n"
)
HOSTILE = {
    **FILES,
    **{f"odd/{name}": name.encode() for name in ODD_NAMES},
    ".gitignore": b"*\n",
    "app-misc/.gitignore": b"one\n",
    ".gitattributes": ATTRIBUTES,
    "app-misc/.gitattributes": ATTRIBUTES,
    ".gitmodules": b'[submodule "x"]\n\tpath = x\n\turl = ../x\n',
    "crlf.txt": CRLF,
    "mixed": b"a\r\nb\n",
    "subst.txt": FORMATS,
    "app-misc/subst.txt": FORMATS,
    "secret": b"kept\n",
    "wide.u16": b"plain",
    "filtered.f": b"plain",
    "empty": b"",
    "no end of line": b"x",
    "blob": b"\x00\xff" * 1000,
    "looks like a command": b"done\nreset refs/heads/x\n\n",
}


def test_export_has_the_bytes_of_the_archive(repository: Path, tmp_path: Path) -> None:
    """Ignore rules and attributes inside the tree have no effect."""
    frozen = put(repository, snapshot(tmp_path, files=HOSTILE, scripts=("secret",)))
    export_commit(repository, frozen.commit, tmp_path / "out", tmp_path / "trash")
    exported = {
        str(path.relative_to(tmp_path / "out")): path.read_bytes()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert exported.pop("metadata/timestamp.x").startswith(b"17")
    assert exported == HOSTILE
    assert (tmp_path / "out" / "secret").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "empty").stat().st_mode & 0o777 == 0o644


def test_git_settings_of_the_host_have_no_effect(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "attributes").write_text("* export-ignore text\n")
    (home / ".gitconfig").write_text(
        f"[core]\n\tautocrlf = true\n\tattributesFile = {home}/attributes\n"
        "[tar]\n\tumask = 0777\n[user]\n\tname = x\n"
    )
    plain = put(tmp_path / "plain.git", snapshot(tmp_path, files=HOSTILE))
    monkeypatch.setenv("HOME", str(home))
    assert put(repository, snapshot(tmp_path, files=HOSTILE)) == plain
    export_commit(repository, plain.commit, tmp_path / "out", tmp_path / "trash")
    assert (tmp_path / "out" / "crlf.txt").read_bytes() == CRLF


def test_freezing_again_changes_nothing(repository: Path, tmp_path: Path) -> None:
    archive = snapshot(tmp_path)
    first = put(repository, archive)
    before = refs(repository)
    assert put(repository, archive) == first
    assert refs(repository) == before


def test_time_inside_decides_the_tag(repository: Path, tmp_path: Path) -> None:
    """The archive of a mirror that is a day behind is frozen as the day that it is."""
    frozen = put(repository, snapshot(tmp_path, NEXT, timestamp=snapshot_time(DAY)), NEXT)
    assert frozen.tag == "20260115"


@pytest.mark.parametrize(
    "timestamp",
    [
        snapshot_time(DAY - timedelta(days=2)),
        snapshot_time(DAY) - 365 * 86400,
        snapshot_time(DAY) + 2 * 86400,
    ],
)
def test_snapshot_under_another_name_is_refused(
    repository: Path, tmp_path: Path, timestamp: int
) -> None:
    with refused(NotTrusted, "snapshot-time-wrong"):
        put(repository, snapshot(tmp_path, timestamp=timestamp))
    assert refs(repository) == {}
    assert leftovers(repository) == []


@pytest.mark.parametrize("content", [b"", b"\n", b"yesterday", b"-5 x", b"1" * 30, b"0x10"])
def test_snapshot_with_a_bad_time_is_refused(
    repository: Path, tmp_path: Path, content: bytes
) -> None:
    raw = tar(entry("top/metadata/timestamp.x", content), entry("top/x", b"x"))
    with refused(NotTrusted, "snapshot-time-unreadable"):
        put(repository, pack(tmp_path / "x.tar.xz", raw))
    assert refs(repository) == {}


@pytest.mark.parametrize("inner", ["top/profiles/repo_name", "metadata/timestamp.x"])
def test_archive_without_a_time_is_refused(repository: Path, tmp_path: Path, inner: str) -> None:
    with refused(NotTrusted, "snapshot-without-time"):
        put(repository, pack(tmp_path / "x.tar.xz", tar(entry(inner, b"1768524300\n"))))
    assert refs(repository) == {}


def test_frozen_day_with_other_bytes_is_refused(repository: Path, tmp_path: Path) -> None:
    put(repository, snapshot(tmp_path))
    before = refs(repository)
    with refused(NotTrusted, "frozen-with-other-content", tag="20260115"):
        put(repository, snapshot(tmp_path, files={**FILES, "evil": b"x"}))
    assert refs(repository) == before
    with refused(NotTrusted, "frozen-with-other-content", tag="20260115"):
        put(repository, snapshot(tmp_path, timestamp=snapshot_time(DAY) + 1))
    assert refs(repository) == before


def test_bad_entry_near_the_end_leaves_nothing(repository: Path, tmp_path: Path) -> None:
    put(repository, snapshot(tmp_path))
    before, stored = refs(repository), object_count(repository)
    many = [entry(f"top/{n}", os.urandom(1000)) for n in range(300)]  # enough for a pack
    raw = tar(*many, entry("top/../x", b"x"))
    with refused(NotTrusted, "archive-bad-path"):
        put(repository, pack(tmp_path / "x.tar.xz", raw), NEXT)
    assert (refs(repository), object_count(repository)) == (before, stored)
    put(repository, snapshot(tmp_path, NEXT), NEXT)
    assert leftovers(repository) == []


@pytest.fixture
def failing_fast_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A git whose fast-import reports a full disk."""
    real = shutil.which("git")
    fake = tmp_path / "bin" / "git"
    fake.parent.mkdir()
    fake.write_text(
        '#!/bin/sh\ncase "$*" in *fast-import*) echo "fatal: sha1 file write error: No space left '
        f'on device" >&2; exit 128;; esac\nexec {real} "$@"\n'
    )
    fake.chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
        import git as library

        library.refresh(str(fake))
        yield
    library.refresh(real)


@pytest.mark.usefixtures("failing_fast_import")
def test_failing_fast_import_is_reported_in_git_s_words(repository: Path, tmp_path: Path) -> None:
    big = {f"f{n}": os.urandom(100_000) for n in range(20)}
    with refused(BinmillError, "snapshot-not-stored") as error:
        put(repository, snapshot(tmp_path, files=big))
    assert "No space left on device" in str(error.value.fields["cause"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_killed_freeze_leaves_no_reference_and_converges(
    repository: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The next run ends in the same refs as a run that was not disturbed."""
    archive = snapshot(tmp_path, files={f"f{n}": os.urandom(500) for n in range(300)})
    with subprocess.Popen(
        python(freeze_half_way, repository, archive),
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"half way\n"
        started = _descendants(child.pid)
        child.send_signal(number)
        child.wait()
    assert started
    while any(Path(f"/proc/{pid}/exe").exists() for pid in started):
        time.sleep(0.01)  # until git notices the end of its input
    assert refs(repository) == {}
    assert object_count(repository) == 0  # what was stored is in quarantine
    assert put(repository, archive) == put(tmp_path / "undisturbed.git", archive)
    assert refs(repository) == refs(tmp_path / "undisturbed.git")
    assert leftovers(repository) == []


def _descendants(pid: int) -> list[int]:
    pids: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            pids += [child, *_descendants(child)]
    return pids


def test_missing_tag_of_a_killed_run_is_restored(repository: Path, tmp_path: Path) -> None:
    """git renames the two refs of a transaction one after the other."""
    archive = snapshot(tmp_path)
    put(repository, archive)
    whole = refs(repository)
    git(repository, "update-ref", "-d", "refs/tags/20260115")
    put(repository, archive)
    assert refs(repository) == whole


def test_freeze_of_a_locked_repository_is_refused(repository: Path, tmp_path: Path) -> None:
    with exclusive(repository), pytest.raises(Busy, match=f"process {os.getpid()}"):
        put(repository, snapshot(tmp_path))


def test_newest_and_read_ignore_other_tags(repository: Path, tmp_path: Path) -> None:
    assert newest(repository) is None
    assert read(repository, "20260115") is None
    assert not repository.exists()
    bare(repository)
    assert newest(repository) is None
    later = put(repository, snapshot(tmp_path, NEXT), NEXT)
    earlier = put(repository, snapshot(tmp_path))
    assert newest(repository) == later
    assert read(repository, "20260115") == earlier
    assert read(repository, "main") is None
    git(repository, "tag", "release-1", later.commit)
    git(repository, "tag", "999999999", later.commit)
    assert newest(repository) == later


@pytest.mark.parametrize(
    "make",
    [
        ("tag", "20260115", "main"),
        ("-c", "user.name=x", "-c", "user.email=x", "tag", "-m", "mine", "20260115", "main"),
        (
            "-c",
            "user.name=x",
            "-c",
            "user.email=x",
            "tag",
            "-m",
            "timestamp: soon\nsha512: x\nsigner: y",
            "20260115",
            "main",
        ),
        (
            "-c",
            "user.name=x",
            "-c",
            "user.email=x",
            "tag",
            "-m",
            "timestamp: 1\nsha512: x\nsigner: y",
            "20260115",
            "main:profiles/repo_name",
        ),
    ],
    ids=["light", "annotated", "no number", "of a file"],
)
def test_foreign_tag_is_refused(repository: Path, tmp_path: Path, make: tuple[str, ...]) -> None:
    put(repository, snapshot(tmp_path, NEXT), NEXT)
    git(repository, *make)
    before = refs(repository)
    with refused(BinmillError, "tag-foreign", tag="20260115") as error:
        read(repository, "20260115")
    assert "tag -d 20260115" in error.value.hint
    with refused(BinmillError, "tag-foreign"):
        put(repository, snapshot(tmp_path))
    assert refs(repository) == before


TIME = entry("top/metadata/timestamp.x", f"{snapshot_time(DAY)}\n".encode())


@pytest.mark.parametrize(
    "twice",
    [
        [entry("top/x", b"first"), entry("top/x", b"last")],
        [entry("top/x", b"same"), entry("top/x", b"same")],
        [entry("top/kept", b"kept"), entry("top/kept", b"other")],
        [entry("top/kept", b"other"), entry("top/kept", b"kept")],
        [entry("top/x", b"a file"), entry("top/x/y", b"below it")],
        [entry("top/x/y", b"below it"), entry("top/x", b"a file")],
        [entry("top/kept/y", b"below it"), entry("top/kept", b"kept")],
        [entry("./top/x", b"x"), entry("top/x", b"x")],
    ],
    ids=lambda pair: " ".join(f"{info.name}={data.decode()}" for info, data in pair),
)
@pytest.mark.parametrize("before", [True, False])
def test_path_twice_is_refused(
    repository: Path, tmp_path: Path, before: bool, twice: list[tuple[tarfile.TarInfo, bytes]]
) -> None:
    """Otherwise the previous day would decide which one counts, and so the id."""
    early = DAY - timedelta(days=1)
    if before:
        put(repository, snapshot(tmp_path, early, {**FILES, "kept": b"kept"}), early)
    unchanged = refs(repository) if before else {}
    with refused(NotTrusted, "archive-path-twice"):
        put(repository, pack(tmp_path / "x.tar.xz", tar(TIME, *twice)))
    assert refs(repository) == unchanged


@pytest.mark.parametrize("seed", range(6))
def test_ids_do_not_depend_on_the_day_before(tmp_path: Path, seed: int) -> None:
    """Only changed files are stored; the ids are those of the whole tree."""
    dice = random.Random(seed)  # noqa: S311 - a random walk, not a secret
    names = [f"{a}/{b}/{c}" for a in "xyz" for b in "pq" for c in ("é", 'q"t', "1 2", "-n")]
    tree: dict[str, bytes] = {}
    for number in range(5):
        day = DAY + timedelta(days=number)
        for name in dice.sample(names, 9):
            tree.pop(name, None)
            if dice.random() < 0.6:
                tree[name] = dice.choice((b"", b"same", dice.randbytes(50)))
            if dice.random() < 0.1:  # a directory becomes a file, and the other way round
                top = name.split("/")[0]
                tree = {k: v for k, v in tree.items() if not k.startswith(f"{top}/")}
                tree[top] = b"now a file"
        for top in [name for name in tree if "/" not in name]:
            if any(name.startswith(f"{top}/") for name in tree):
                del tree[top]
        scripts = tuple(dice.sample(sorted(tree), min(2, len(tree))))
        archive = snapshot(tmp_path, day, {**FILES, **tree}, scripts=scripts)
        walked = put(tmp_path / "walk.git", archive, day)
        fresh = tmp_path / f"fresh{number}.git"
        assert walked == put(fresh, archive, day)
        paths = git(fresh, "ls-tree", "-r", "--name-only", "-z", walked.commit).split("\0")
        assert set(paths) - {""} == {*FILES, *tree, "metadata/timestamp.x"}
    assert git(tmp_path / "walk.git", "fsck", "--strict", "--no-progress") == ""


def test_freeze_counts_changed_files(repository: Path, tmp_path: Path) -> None:
    with verified_tarball(snapshot(tmp_path)) as tarball:
        first = freeze_archive(repository, tarball, DAY, "gentoo")
    assert (first.changed, first.since) == (len(FILES) + 1, None)
    changed = {"profiles/repo_name": b"gentoo\n", "new": b"x"}  # one gone, one new, the time
    with verified_tarball(snapshot(tmp_path, NEXT, changed)) as tarball:
        second = freeze_archive(repository, tarball, NEXT, "gentoo")
    assert (second.changed, second.since) == (3, "20260115")


def test_older_day_gets_a_tag_only(repository: Path, tmp_path: Path) -> None:
    put(repository, snapshot(tmp_path, NEXT), NEXT)
    before = refs(repository)
    older = put(repository, snapshot(tmp_path))
    after = refs(repository)
    assert after.keys() - before.keys() == {"refs/tags/20260115"}
    assert after["refs/heads/main"] == before["refs/heads/main"]
    last = newest(repository)
    assert last is not None and last.tag == "20260116"
    assert older == put(tmp_path / "other.git", snapshot(tmp_path))


def test_exact_day_refuses_the_next(repository: Path, tmp_path: Path) -> None:
    """The file of a day may have the time of the next inside, unless that day was requested."""
    late = snapshot(tmp_path, timestamp=snapshot_time(DAY) + 24 * 3600 - 45 * 60)
    with (
        verified_tarball(late) as tarball,
        refused(NotTrusted, "snapshot-of-other-day", tag="20260116"),
    ):
        freeze_archive(repository, tarball, DAY, "gentoo", exact=True)
    assert refs(repository) == {}
    assert put(repository, late).tag == "20260116"


def test_snapshot_not_later_than_the_floor_is_refused(repository: Path, tmp_path: Path) -> None:
    floor = snapshot_time(DAY)
    with verified_tarball(snapshot(tmp_path)) as tarball:
        with refused(NotTrusted, "snapshot-too-old", time=floor):
            freeze_archive(repository, tarball, DAY, "gentoo", floor=floor)
        assert refs(repository) == {}
        assert (
            freeze_archive(repository, tarball, DAY, "gentoo", floor=floor - 1).frozen.tag
            == "20260115"
        )


def test_failing_check_keeps_the_commit_in_quarantine(repository: Path, tmp_path: Path) -> None:
    """The check reads the commit in quarantine; a refused commit never leaves it."""
    put(repository, snapshot(tmp_path))
    before, stored = refs(repository), object_count(repository)
    contents: list[str] = []

    def refuse(place: Path, commit: str) -> None:
        contents.append(git(place, "show", f"{commit}:new"))
        raise NotTrusted("listing-damaged", name="x")

    with (
        verified_tarball(snapshot(tmp_path, NEXT, {**FILES, "new": b"content"})) as tarball,
        refused(NotTrusted, "listing-damaged"),
    ):
        freeze_archive(repository, tarball, NEXT, "gentoo", check=refuse)
    assert contents == ["content"]
    assert (refs(repository), object_count(repository)) == (before, stored)
    assert leftovers(repository) == []


def test_archive_swapped_after_verification(repository: Path, tmp_path: Path) -> None:
    """Another file under its name is not read; other bytes in the file itself are refused."""
    evil = snapshot(tmp_path, NEXT, {"evil": b"x"}).rename(tmp_path / "evil")
    good = snapshot(tmp_path)
    with verified_tarball(good) as tarball:
        Path(shutil.copy(evil, good.with_name("copy"))).rename(good)
        frozen = freeze_archive(repository, tarball, DAY, "gentoo").frozen
    assert "evil" not in git(repository, "ls-tree", "-r", "--name-only", frozen.commit)
    before = refs(repository)
    archive = snapshot(tmp_path, NEXT)
    with verified_tarball(archive) as tarball:
        archive.write_bytes(evil.read_bytes())  # in place
        with refused(NotTrusted, "snapshot-modified"):
            freeze_archive(repository, tarball, NEXT, "gentoo")
    assert refs(repository) == before


def test_branch_names_the_mirror(repository: Path, tmp_path: Path) -> None:
    put(repository, snapshot(tmp_path))
    body = git(repository, "log", "-1", "--format=%B", "main")
    assert "mirror: http://mirror.example/gentoo-20260115.tar.xz" in body
