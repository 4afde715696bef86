"""Trees with Manifests of the real one's shape, signed by the real gpg, in the real git."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.errors import BinmillError, NotTrusted
from tasks.snapshot.manifests import check, signed
from tasks.system.git import bare
from tasks.system.gpgv import Role
from tests.kit.files import names
from tests.kit.gpg import YEAR, Gpg
from tests.kit.tree_manifests import (
    MADE_AT,
    PACKAGE,
    PACKAGE_DIR,
    Files,
    gz,
    manifest_lines,
    signed_manifest,
    tree_files,
)

pytestmark = pytest.mark.usefixtures("environment_comes_back")


@pytest.fixture(scope="module")
def gpg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gpg]:
    home = tmp_path_factory.mktemp("keys")
    home.chmod(0o700)
    made = Gpg(home)
    for name in ("good", "other"):
        made.new(name, at=time.time() - YEAR)
    yield made
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


def committed(repository: Path, files: Files, link: str = "") -> str:
    """A commit of these files, dated as freezing a snapshot dates it; one may be a link."""
    bare(repository)
    stream = [b"commit refs/heads/main\ncommitter x <x@test.example> %d +0000\ndata 0\n" % MADE_AT]
    for name, data in files.items():
        mode = 120000 if name == link else 100644
        stream.append(b"M %d inline %b\ndata %d\n%b\n" % (mode, name.encode(), len(data), data))
    git = ["git", "--git-dir", str(repository)]
    subprocess.run([*git, "fast-import", "--quiet", "--force"], input=b"".join(stream), check=True)
    done = subprocess.run([*git, "rev-parse", "main"], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def held(repository: Path, role: Role, tmp_path: Path) -> Callable[[str], None]:
    """Check a commit; whatever comes of it, nothing may be left."""
    scratch, trash = tmp_path / "scratch", tmp_path / "trash"
    scratch.mkdir()

    def run(commit: str) -> None:
        try:
            check(repository, commit, role, scratch, trash)
        finally:
            assert names(scratch) == []
            assert not trash.exists() or names(trash) == []

    return run


Held = Callable[[str], None]


def test_a_whole_tree(gpg: Gpg, repository: Path, held: Held) -> None:
    files, top = tree_files()
    commit = committed(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    held(commit)
    assert signed(repository, commit)


def without(files: Files, *gone: str) -> Files:
    return {name: data for name, data in files.items() if name not in gone}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda files: {**files, f"{PACKAGE_DIR}/one-1.ebuild": b"EAPI=7\n"},
            r"'app-misc/one/one-1.ebuild' has the BLAKE2B [0-9a-f]{16}\.\.\., not [0-9a-f]{16}\.",
        ),
        (
            lambda files: {**files, "profiles/repo_name": b"mine\n"},
            "'profiles/repo_name' has 5 bytes, not 7$",
        ),
        (
            lambda files: without(files, f"{PACKAGE_DIR}/files/fix.patch"),
            "'app-misc/one/files/fix.patch' is missing$",
        ),
        (
            lambda files: {
                **files,
                f"{PACKAGE_DIR}/one-2.ebuild": b"",
                "virtual/x/x-1.ebuild": b"",
            },
            "'app-misc/one/one-2.ebuild' is in no Manifest; 'virtual/x/x-1.ebuild' is in no Man",
        ),
        (
            lambda files: {**files, "eclass/Manifest": b"IGNORE x\n", "eclass/x": b""},
            "'eclass/Manifest' is in no Manifest; 'eclass/x' is in no Manifest$",
        ),
        (
            lambda files: {**files, **{f"eclass/{n}": b"" for n in range(9)}},
            "'eclass/0' .*'eclass/2' is in no Manifest and 6 more$",
        ),
        (
            lambda files: {**files, f"{PACKAGE_DIR}/files/.profile": b"evil\n"},
            "'app-misc/one/files/.profile' is in no Manifest$",
        ),
        (lambda files: {**files, "eclass/.d/x": b"evil\n"}, "'eclass/.d/x' is in no Manifest$"),
        (
            lambda files: {
                **files,
                f"{PACKAGE_DIR}/Manifest": manifest_lines({**PACKAGE, "DATA x": b""}),
            },
            "'app-misc/one/Manifest' has [0-9]+ bytes, not [0-9]+$",
        ),
        (
            lambda files: {**files, "Manifest.files.gz": gz(b"IGNORE app-misc\n")},
            "'Manifest.files.gz' has [0-9]+ bytes, not [0-9]+$",
        ),
        (lambda files: without(files, "metadata/Manifest.gz"), "'metadata/Manifest.gz' is missing"),
        (
            lambda files: {
                **without(files, f"{PACKAGE_DIR}/metadata.xml"),
                f"{PACKAGE_DIR}/metadata.xml/x": b"",
            },
            "'app-misc/one/metadata.xml' is a directory, not a regular file$",
        ),
        (
            lambda files: {
                **{n: d for n, d in files.items() if not n.startswith(PACKAGE_DIR)},
                PACKAGE_DIR: b"a file",
            },
            "Not a directory: 'app-misc/one/Manifest'$",
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
        "file for folder",
    ],
)
def test_a_tree_that_was_changed(
    gpg: Gpg, repository: Path, held: Held, change: Callable[[Files], Files], said: str
) -> None:
    files, top = tree_files()
    commit = committed(repository, {**change(files), "Manifest": signed_manifest(gpg, top)})
    with pytest.raises(NotTrusted, match="is not what was signed: ") as refused:
        held(commit)
    assert refused.match(f"(?m){said}")
    assert "\n" not in refused.value.message
    assert str(repository.parent) not in refused.value.message


@pytest.mark.parametrize(
    ("sign", "said"),
    [
        (lambda gpg, top: signed_manifest(gpg, top, who="other"), "is not pinned for this role"),
        (lambda gpg, top: signed_manifest(gpg, top, "--digest-algo", "SHA1"), "not trusted"),
        (
            lambda gpg, top: signed_manifest(gpg, top).replace(b"BLAKE2B ", b"BLAKE2B 0"),
            "does not fit",
        ),
        (lambda gpg, top: signed_manifest(gpg, top) * 2, "not trusted"),
        (lambda _, top: top, "no signature in it"),
        (lambda gpg, top: signed_manifest(gpg, b"") + top, "is in no Manifest"),
        (lambda gpg, top: top + signed_manifest(gpg, b""), "is in no Manifest"),
        (
            lambda gpg, top: signed_manifest(gpg, top, at=MADE_AT + 90000),
            "Manifest from 2026-01-17",
        ),
        (
            lambda gpg, top: signed_manifest(gpg, top, at=MADE_AT - 90000),
            "Manifest from 2026-01-14",
        ),
        (lambda gpg, top: gpg.sign("--clear-sign", who="good", data=top), "no TIMESTAMP"),
        (lambda gpg, top: signed_manifest(gpg, b"what is this\n" + top), "Invalid Manifest line"),
    ],
    ids=[
        "other role's key",
        "SHA-1",
        "changed",
        "twice",
        "unsigned",
        "lines after",
        "lines before",
        "newer",
        "older",
        "without time",
        "no Manifest",
    ],
)
def test_a_top_that_is_not_trusted(
    gpg: Gpg, repository: Path, held: Held, sign: Callable[[Gpg, bytes], bytes], said: str
) -> None:
    files, top = tree_files()
    commit = committed(repository, {**files, "Manifest": sign(gpg, top)})
    with pytest.raises(NotTrusted, match=said):
        held(commit)


@pytest.mark.parametrize("around", [b"IGNORE app-misc\n", b"caf\xe9\n", b"DATA\n"], ids=repr)
def test_nothing_counts_but_the_signed_part(
    gpg: Gpg, repository: Path, held: Held, around: bytes
) -> None:
    files, top = tree_files()
    files["Manifest"] = around + signed_manifest(gpg, top) + around
    held(committed(repository, files))
    with pytest.raises(NotTrusted, match="'app-misc/one/x' is in no Manifest"):
        held(committed(repository, {**files, f"{PACKAGE_DIR}/x": b"evil"}))


@pytest.mark.parametrize(
    "package",
    [
        manifest_lines(PACKAGE, "MD5", "SHA1"),
        manifest_lines(PACKAGE).replace(b"BLAKE2B", b"ROT13").replace(b"SHA512", b"CRC32"),
        b"".join(b"%b %d\n" % (key.encode(), len(data)) for key, data in PACKAGE.items()),
    ],
    ids=["weak", "unknown", "none"],
)
def test_digests_that_prove_nothing(gpg: Gpg, repository: Path, held: Held, package: bytes) -> None:
    files, top = tree_files(package)
    commit = committed(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    with pytest.raises(NotTrusted, match=r"insecure|No hashes") as refused:
        held(commit)
    assert str(repository.parent) not in refused.value.message


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
def test_hidden_files_that_a_manifest_knows(
    gpg: Gpg, repository: Path, held: Held, more: Files, ignored: bytes
) -> None:
    files, top = tree_files(more=more, ignored=ignored)
    files["Manifest"] = signed_manifest(gpg, top)
    held(committed(repository, {**files, **HIDDEN}))


def test_a_hidden_file_that_was_changed(gpg: Gpg, repository: Path, held: Held) -> None:
    files, top = tree_files(more={"DATA eclass/.kept": b"kept\n"})
    files |= {"Manifest": signed_manifest(gpg, top), "eclass/.kept": b"evil\n"}
    with pytest.raises(NotTrusted, match=r"'eclass/\.kept' has the BLAKE2B"):
        held(committed(repository, files))


def test_no_manifest(repository: Path, held: Held) -> None:
    commit = committed(repository, without(tree_files()[0], "Manifest"))
    assert not signed(repository, commit)
    with pytest.raises(NotTrusted, match="there is no Manifest at its top"):
        held(commit)


def test_what_counts_as_signed(gpg: Gpg, repository: Path) -> None:
    """A line before it, and it would not be looked at any more: that must not be so."""
    files, top = tree_files()
    assert not signed(repository, committed(repository, {**files, "Manifest": top}))
    assert not signed(
        repository, committed(repository, {**files, "Manifest/x": signed_manifest(gpg, top)})
    )
    before = b"x\n" + signed_manifest(gpg, top)
    assert signed(repository, committed(repository, {**files, "Manifest": before}))


def test_a_commit_that_is_not_there(repository: Path, held: Held) -> None:
    committed(repository, {"x": b"x"})
    with pytest.raises(BinmillError, match="commit 012301230123 could not be read"):
        signed(repository, "0123" * 10)
    with pytest.raises(BinmillError, match="commit 012301230123 could not be read"):
        held("0123" * 10)


@pytest.mark.parametrize("name", ["Manifest", "profiles/repo_name", "eclass"])
def test_links_are_not_followed(gpg: Gpg, repository: Path, held: Held, name: str) -> None:
    """They cannot be frozen; but a commit may come from a remote."""
    files, top = tree_files()
    files |= {"Manifest": signed_manifest(gpg, top), name: b"../elsewhere"}
    with pytest.raises(NotTrusted, match=f"'{name}' is not a plain file"):
        held(committed(repository, files, link=name))


def test_what_a_kill_left_is_swept(gpg: Gpg, repository: Path, held: Held, tmp_path: Path) -> None:
    files, top = tree_files()
    commit = committed(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    left = tmp_path / "scratch" / f"manifests-{commit[:12]}" / "tree"
    left.mkdir(parents=True)
    (left / "half").write_bytes(b"")
    held(commit)
    assert names(tmp_path / "scratch") == []


def test_no_process_is_forked(
    gpg: Gpg, repository: Path, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool of gemato's would outlive a parent that is killed; git and gpgv are not forked so."""
    files, top = tree_files()
    commit = committed(repository, {**files, "Manifest": signed_manifest(gpg, top)})
    forks: list[None] = []
    monkeypatch.setattr(os, "fork", lambda: forks.append(None))
    held(commit)
    assert forks == []
