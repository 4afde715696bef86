"""Trees with Manifests of the real one's shape, signed by the real gpg, in the real git."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.manifests import is_signed, verify
from tasks.system.git import bare
from tasks.system.gpgv import Role
from tests.kit.files import names
from tests.kit.gpg import YEAR, Gpg
from tests.kit.refused import refused
from tests.kit.tree_manifests import (
    PACKAGE,
    PACKAGE_DIR,
    SNAPSHOT_TIME,
    Files,
    gz,
    manifest_lines,
    signed_manifest,
    tree_files,
)


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    keyring = Gpg(home)
    for name in ("good", "other"):
        keyring.new(name, at=time.time() - YEAR)
    yield keyring
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "all"], check=True)


@pytest.fixture
def role(gpg: Gpg, tmp_path: Path) -> Role:
    """Both keys are in the file, one is pinned."""
    keyfile = tmp_path / "role.gpg"
    keyfile.write_bytes(gpg("--export"))
    return Role("snapshots", keyfile, (gpg.fingerprint("good"),))


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return tmp_path / "tree.git"


def commit_of(repository: Path, files: Files, link: str = "") -> str:
    """A commit of these files, dated as freezing a snapshot dates it; one may be a link."""
    bare(repository)
    stream = [
        b"commit refs/heads/main\ncommitter x <x@test.example> %d +0000\ndata 0\n" % SNAPSHOT_TIME
    ]
    for name, data in files.items():
        mode = 120000 if name == link else 100644
        stream.append(b"M %d inline %b\ndata %d\n%b\n" % (mode, name.encode(), len(data), data))
    git = ["git", "--git-dir", str(repository)]
    subprocess.run([*git, "fast-import", "--quiet", "--force"], input=b"".join(stream), check=True)
    result = subprocess.run([*git, "rev-parse", "main"], capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.fixture
def check(repository: Path, role: Role, tmp_path: Path) -> Callable[[str], None]:
    """Check a commit; nothing may be left behind, however the check ends."""
    scratch, trash = tmp_path / "scratch", tmp_path / "trash"
    scratch.mkdir()

    def run(commit: str) -> None:
        try:
            verify(repository, commit, role, scratch, trash)
        finally:
            assert names(scratch) == []
            assert not trash.exists() or names(trash) == []

    return run


Check = Callable[[str], None]


def test_complete_tree_is_accepted(gpg: Gpg, repository: Path, check: Check) -> None:
    files, top = tree_files()
    commit = commit_of(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    check(commit)
    assert is_signed(repository, commit)


def without(files: Files, *excluded: str) -> Files:
    return {name: data for name, data in files.items() if name not in excluded}


@pytest.mark.parametrize(
    ("change", "mismatches"),
    [
        (
            lambda files: {**files, f"{PACKAGE_DIR}/one-1.ebuild": b"EAPI=7\n"},
            [r"'app-misc/one/one-1.ebuild' has the BLAKE2B \w{16}\.{3}, not \w{16}\.{3}"],
        ),
        (
            lambda files: {**files, "profiles/repo_name": b"mine\n"},
            ["'profiles/repo_name' has 5 bytes, not 7"],
        ),
        (
            lambda files: without(files, f"{PACKAGE_DIR}/files/fix.patch"),
            ["'app-misc/one/files/fix.patch' is missing"],
        ),
        (
            lambda files: {
                **files,
                f"{PACKAGE_DIR}/one-2.ebuild": b"",
                "virtual/x/x-1.ebuild": b"",
            },
            [
                "'app-misc/one/one-2.ebuild' is in no Manifest",
                "'virtual/x/x-1.ebuild' is in no Manifest",
            ],
        ),
        (
            lambda files: {**files, "eclass/Manifest": b"IGNORE x\n", "eclass/x": b""},
            ["'eclass/Manifest' is in no Manifest", "'eclass/x' is in no Manifest"],
        ),
        (
            lambda files: {**files, **{f"eclass/{n}": b"" for n in range(9)}},
            [f"'eclass/{n}' is in no Manifest" for n in range(9)],
        ),
        (
            lambda files: {**files, f"{PACKAGE_DIR}/files/.profile": b"evil\n"},
            ["'app-misc/one/files/.profile' is in no Manifest"],
        ),
        (lambda files: {**files, "eclass/.d/x": b"evil\n"}, ["'eclass/.d/x' is in no Manifest"]),
        (
            lambda files: {
                **files,
                f"{PACKAGE_DIR}/Manifest": manifest_lines({**PACKAGE, "DATA x": b""}),
            },
            ["'app-misc/one/Manifest' has [0-9]+ bytes, not [0-9]+"],
        ),
        (
            lambda files: {**files, "Manifest.files.gz": gz(b"IGNORE app-misc\n")},
            ["'Manifest.files.gz' has [0-9]+ bytes, not [0-9]+"],
        ),
        (
            lambda files: without(files, "metadata/Manifest.gz"),
            ["'metadata/Manifest.gz' is missing"],
        ),
        (
            lambda files: {
                **without(files, f"{PACKAGE_DIR}/metadata.xml"),
                f"{PACKAGE_DIR}/metadata.xml/x": b"",
            },
            ["'app-misc/one/metadata.xml' is a directory, not a regular file"],
        ),
    ],
    ids=[
        "changed",
        "longer",
        "missing",
        "stray",
        "stray Manifest",
        "many",
        "hidden",
        "hidden folder",
        "sub-Manifest",
        "packed Manifest",
        "no sub-Manifest",
        "folder for file",
    ],
)
def test_changed_tree_is_refused(
    gpg: Gpg,
    repository: Path,
    check: Check,
    change: Callable[[Files], Files],
    mismatches: list[str],
) -> None:
    files, top = tree_files()
    commit = commit_of(repository, {**change(files), "Manifest": signed_manifest(gpg, top)})
    with refused(NotTrusted, "manifest-mismatch", commit=commit) as error:
        check(commit)
    reported = error.value.fields["mismatches"]
    assert isinstance(reported, list) and len(reported) >= len(mismatches)
    assert all(map(re.fullmatch, mismatches, reported))
    assert "\n" not in error.value.message


def test_file_in_place_of_a_folder_is_refused(gpg: Gpg, repository: Path, check: Check) -> None:
    files, top = tree_files()
    files = {name: data for name, data in files.items() if not name.startswith(PACKAGE_DIR)}
    files |= {PACKAGE_DIR: b"a file", "Manifest": signed_manifest(gpg, top)}
    with refused(NotTrusted, "manifest-unusable") as error:
        check(commit_of(repository, files))
    assert str(error.value.fields["cause"]).endswith("Not a directory: 'app-misc/one/Manifest'")


@pytest.mark.parametrize(
    "sign",
    [
        lambda gpg, top: signed_manifest(gpg, top, who="other"),
        lambda gpg, top: signed_manifest(gpg, top, "--digest-algo", "SHA1"),
        lambda gpg, top: signed_manifest(gpg, top).replace(b"BLAKE2B ", b"BLAKE2B 0"),
        lambda gpg, top: signed_manifest(gpg, top) * 2,
        lambda _, top: top,
    ],
    ids=["other role's key", "SHA-1", "changed", "twice", "unsigned"],
)
def test_top_manifest_with_a_bad_signature_is_refused(
    gpg: Gpg, repository: Path, check: Check, sign: Callable[[Gpg, bytes], bytes]
) -> None:
    files, top = tree_files()
    commit = commit_of(repository, {**files, "Manifest": sign(gpg, top)})
    with pytest.raises(NotTrusted, match="Manifest is not trusted as snapshots: "):
        check(commit)


@pytest.mark.parametrize(
    ("sign", "code"),
    [
        (lambda gpg, top: signed_manifest(gpg, b"") + top, "manifest-mismatch"),
        (lambda gpg, top: top + signed_manifest(gpg, b""), "manifest-mismatch"),
        (
            lambda gpg, top: signed_manifest(gpg, top, at=SNAPSHOT_TIME + 90000),
            "manifest-of-other-day",
        ),
        (
            lambda gpg, top: signed_manifest(gpg, top, at=SNAPSHOT_TIME - 90000),
            "manifest-of-other-day",
        ),
        (lambda gpg, top: gpg.sign("--clear-sign", who="good", data=top), "manifest-without-time"),
        (lambda gpg, top: signed_manifest(gpg, b"what is this\n" + top), "manifest-unusable"),
    ],
    ids=["lines after", "lines before", "newer", "older", "without time", "no Manifest"],
)
def test_top_manifest_with_a_bad_content_is_refused(
    gpg: Gpg, repository: Path, check: Check, sign: Callable[[Gpg, bytes], bytes], code: str
) -> None:
    files, top = tree_files()
    commit = commit_of(repository, {**files, "Manifest": sign(gpg, top)})
    with refused(NotTrusted, code, commit=commit):
        check(commit)


@pytest.mark.parametrize("around", [b"IGNORE app-misc\n", b"caf\xe9\n", b"DATA\n"], ids=repr)
def test_only_the_signed_part_counts(
    gpg: Gpg, repository: Path, check: Check, around: bytes
) -> None:
    files, top = tree_files()
    files["Manifest"] = around + signed_manifest(gpg, top) + around
    check(commit_of(repository, files))
    with refused(
        NotTrusted, "manifest-mismatch", mismatches=["'app-misc/one/x' is in no Manifest"]
    ):
        check(commit_of(repository, {**files, f"{PACKAGE_DIR}/x": b"evil"}))


@pytest.mark.parametrize(
    "package",
    [
        manifest_lines(PACKAGE, "MD5", "SHA1"),
        manifest_lines(PACKAGE).replace(b"BLAKE2B", b"ROT13").replace(b"SHA512", b"CRC32"),
        b"".join(b"%b %d\n" % (key.encode(), len(data)) for key, data in PACKAGE.items()),
    ],
    ids=["weak", "unknown", "none"],
)
def test_weak_digests_are_refused(gpg: Gpg, repository: Path, check: Check, package: bytes) -> None:
    files, top = tree_files(package)
    commit = commit_of(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    with refused(NotTrusted, "manifest-unusable") as error:
        check(commit)
    assert re.search("insecure|No hashes", str(error.value.fields["cause"]))
    assert str(repository.parent) not in error.value.message


HIDDEN = {"eclass/.kept": b"kept\n", "eclass/.d/kept": b"kept too\n"}


@pytest.mark.parametrize(
    ("more", "ignored"),
    [
        ({f"DATA {name}": data for name, data in HIDDEN.items()}, b""),
        ({}, b"IGNORE eclass/.kept\nIGNORE eclass/.d\n"),
        ({}, b"IGNORE eclass\n"),
    ],
    ids=["listed", "ignored", "folder ignored"],
)
def test_hidden_files_in_a_manifest_are_accepted(
    gpg: Gpg, repository: Path, check: Check, more: Files, ignored: bytes
) -> None:
    files, top = tree_files(more=more, ignored=ignored)
    files["Manifest"] = signed_manifest(gpg, top)
    check(commit_of(repository, {**files, **HIDDEN}))


def test_changed_hidden_file_is_refused(gpg: Gpg, repository: Path, check: Check) -> None:
    files, top = tree_files(more={"DATA eclass/.kept": b"kept\n"})
    files |= {"Manifest": signed_manifest(gpg, top), "eclass/.kept": b"evil\n"}
    with refused(NotTrusted, "manifest-mismatch") as error:
        check(commit_of(repository, files))
    assert "'eclass/.kept' has the BLAKE2B" in error.value.message


def test_tree_without_a_manifest_is_refused(repository: Path, check: Check) -> None:
    commit = commit_of(repository, without(tree_files()[0], "Manifest"))
    assert not is_signed(repository, commit)
    with refused(NotTrusted, "manifest-missing", commit=commit):
        check(commit)


def test_signed_is_true_with_lines_before_the_signed_part(gpg: Gpg, repository: Path) -> None:
    """Else a line before the signed part would turn the check off."""
    files, top = tree_files()
    assert not is_signed(repository, commit_of(repository, {**files, "Manifest": top}))
    assert not is_signed(
        repository, commit_of(repository, {**files, "Manifest/x": signed_manifest(gpg, top)})
    )
    before = b"x\n" + signed_manifest(gpg, top)
    assert is_signed(repository, commit_of(repository, {**files, "Manifest": before}))


def test_missing_commit_is_reported(repository: Path, check: Check) -> None:
    commit_of(repository, {"x": b"x"})
    with refused(BinmillError, "commit-unreadable", commit="0123" * 10):
        is_signed(repository, "0123" * 10)
    with refused(BinmillError, "commit-unreadable", commit="0123" * 10):
        check("0123" * 10)


@pytest.mark.parametrize("name", ["Manifest", "profiles/repo_name", "eclass"])
def test_link_is_refused(gpg: Gpg, repository: Path, check: Check, name: str) -> None:
    """Links cannot be frozen, but a commit may come from a remote."""
    files, top = tree_files()
    files |= {"Manifest": signed_manifest(gpg, top), name: b"../elsewhere"}
    with refused(NotTrusted, "commit-entry-not-plain", path=name):
        check(commit_of(repository, files, link=name))


def test_leftovers_of_a_killed_check_are_deleted(
    gpg: Gpg, repository: Path, check: Check, tmp_path: Path
) -> None:
    files, top = tree_files()
    commit = commit_of(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    leftover = tmp_path / "scratch" / f"manifests-{commit[:12]}" / "tree"
    leftover.mkdir(parents=True)
    (leftover / "half").write_bytes(b"")
    check(commit)
    assert names(tmp_path / "scratch") == []


def test_check_forks_no_process(
    gpg: Gpg, repository: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of gemato's would outlive a killed parent; git and gpgv start in another way."""
    files, top = tree_files()
    commit = commit_of(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    forks: list[None] = []
    monkeypatch.setattr(os, "fork", lambda: forks.append(None))
    check(commit)
    assert forks == []
