"""The Manifests of a frozen tree: every file is as the signed top Manifest lists it (GLEP 74).

gemato reads the Manifests and compares the files. Checked here are the signature (gemato accepts
SHA-1 and dates in the future), links (it follows them), and names that begin with a dot (it skips
them, as GLEP 74 says).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import NotTrusted
from tasks.snapshot.export import export_commit
from tasks.system.files import remove_tree, write_atomic
from tasks.system.git import bare, explained
from tasks.system.gpgv import Role, verify_clearsigned

_TOP = "Manifest"
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
# In Gentoo's tree, but in no Manifest: a time by which Gentoo monitors its mirrors; not read here.
_UNLISTED = {"metadata/.checksum-test-marker"}
_SLACK_SECONDS = 86400


def is_signed(repository: Path, commit: str) -> bool:
    """Return True if a commit has a top Manifest with an OpenPGP signature in it, good or bad.

    A Manifest with something before the signed part counts as signed.
    """
    git = bare(repository).git
    with explained("commit-unreadable", commit=commit):
        if not git.ls_tree(commit, "--", _TOP):
            return False
        return _CLEARSIGNED in git.cat_file("-p", f"{commit}:{_TOP}", stdout_as_string=False)


def verify(repository: Path, commit: str, role: Role, scratch: Path, trash: Path) -> None:
    """Compare every file of a commit with its Manifests, whose top `role` must have signed.

    The commit is exported below `scratch` and deleted again in any case; `trash` is on the same
    file system. Raises NotTrusted naming the first mismatches. Files that a Manifest ignores
    (IGNORE) and executable bits are not compared.
    """
    folder = scratch / f"manifests-{commit[:12]}"
    hidden = _hidden_files(repository, commit)
    with explained("commit-unreadable", commit=commit):
        commit_time = int(bare(repository).git.log("-1", "--format=%ct", commit))
    remove_tree(folder, trash)
    try:
        export_commit(repository, commit, folder / "tree", trash)
        top = folder / "tree" / _TOP
        if not top.is_file():
            raise NotTrusted("manifest-missing", commit=commit)
        # The signed text, as gpgv prints it, replaces the file: nothing else in it is ever parsed.
        write_atomic(top, verify_clearsigned(role, top)[1])
        _compare(folder / "tree", hidden, commit, commit_time)
    finally:
        remove_tree(folder, trash)


def _hidden_files(repository: Path, commit: str) -> list[str]:
    """List the files that gemato would skip; raises NotTrusted for links and submodules."""
    with explained("commit-unreadable", commit=commit):
        listing = str(bare(repository).git.ls_tree("-r", "-z", commit))
    hidden = []
    for entry in filter(None, listing.split("\0")):
        head, path = entry.split("\t", 1)
        if not head.startswith("100"):
            raise NotTrusted("commit-entry-not-plain", commit=commit, path=path)
        if "/." in f"/{path}" and path not in _UNLISTED:
            hidden.append(path)
    return hidden


def _compare(tree: Path, hidden: list[str], commit: str, commit_time: int) -> None:
    """Compare an exported tree with its Manifests; `commit_time` is the commit's time (epoch)."""
    from gemato.exceptions import GematoException, ManifestMismatch
    from gemato.recursiveloader import ManifestRecursiveLoader

    mismatches: list[Any] = []

    def attempt(verify: Callable[..., object], *arguments: object) -> None:
        try:
            verify(*arguments)
        except ManifestMismatch as mismatch:  # of a file at the top, a hidden one, or a Manifest
            mismatches.append(mismatch)

    try:
        loader = ManifestRecursiveLoader(
            str(tree / _TOP), verify_openpgp=False, require_secure_hashes=True, max_jobs=1
        )
        _check_time(loader.loaded_manifests[_TOP].find_timestamp(), commit, commit_time)
        attempt(loader.load_manifests_for_path, "")
        names = {entry.path.split("/")[0] for entry in _file_entries(loader.loaded_manifests)}
        for name in sorted({path.name for path in tree.iterdir()} | names):
            if name != _TOP and not name.startswith("."):
                attempt(_verify, tree, name, loader, mismatches.append)
        for path in hidden:
            attempt(loader.assert_path_verifies, path)
    except (GematoException, OSError) as error:  # OSError: a file where a folder should be
        cause = " ".join(str(error).split()).replace(f"{tree}/", "")
        raise NotTrusted("manifest-unusable", commit=commit, cause=cause) from error
    if mismatches:
        mismatches.sort(key=lambda each: str(each.path))
        # a Manifest's own mismatch may occur once for each name
        lines = list(dict.fromkeys(map(_difference, mismatches)))
        raise NotTrusted("manifest-mismatch", commit=commit, mismatches=lines)


def _check_time(stamp: Any, commit: str, commit_time: int) -> None:
    """Check that the top Manifest was signed within a day of the commit's time."""
    if stamp is None:
        raise NotTrusted("manifest-without-time", commit=commit)
    signed_at = stamp.ts.replace(tzinfo=UTC)
    if abs(signed_at.timestamp() - commit_time) > _SLACK_SECONDS:
        raise NotTrusted(
            "manifest-of-other-day",
            commit=commit,
            day=f"{datetime.fromtimestamp(commit_time, UTC):%Y-%m-%d}",
            manifest_day=f"{signed_at:%Y-%m-%d}",
        )


def _file_entries(top: Mapping[str, Any]) -> list[Any]:
    """The entries of files in the Manifests at the top (Gentoo's tree has two of them there)."""
    return [
        entry
        for manifest in top.values()
        for entry in manifest.entries
        if entry.tag not in ("TIMESTAMP", "DIST", "IGNORE")
    ]


def _verify(tree: Path, name: str, loader: Any, report: Callable[[Any], None]) -> None:
    """Verify a file or folder of the top directory; mismatches are reported, or raised.

    The Manifests of a folder are dropped after it: those of a whole tree take more memory than all
    the rest of freezing.
    """
    top = dict(loader.loaded_manifests)
    entry = loader.find_path_entry(name)
    if entry is not None and entry.tag == "IGNORE":
        return
    if entry is None and (tree / name).is_dir():
        loader.assert_directory_verifies(name, fail_handler=report)
        loader.loaded_manifests = top
        return
    inside = [each.path for each in _file_entries(top) if each.path.startswith(f"{name}/")]
    for path in inside or [name]:
        loader.assert_path_verifies(path)


def _difference(mismatch: Any) -> str:
    """Describe the first difference of a mismatch that gemato reports."""
    name, expected, actual = mismatch.diff[0]
    if name == "__exists__":
        difference = "is missing" if expected else "is in no Manifest"
    elif name == "__type__":
        difference = f"is a {actual}, not a {expected}"
    elif name == "__size__":
        difference = f"has {actual} bytes, not {expected}"
    else:
        difference = f"has the {name} {actual[:16]}..., not {expected[:16]}..."
    return f"{mismatch.path!r} {difference}"
