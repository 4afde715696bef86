"""The Manifests of a frozen tree: every file is as the signed one at the top has it (GLEP 74).

gemato reads the Manifests and compares the files. Not left to it are the signature (it takes
SHA-1, and dates in the future), links (it follows them), and names that begin with a dot (it
passes over them, as GLEP 74 says).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import NotTrusted
from tasks.snapshot.export import export
from tasks.system.files import remove_tree, write_atomic
from tasks.system.git import bare, explained
from tasks.system.gpgv import Role, verify_clearsigned

_TOP = "Manifest"
_CLEARSIGNED = b"-----BEGIN PGP SIGNED MESSAGE-----"
# In Gentoo's tree, but in no Manifest: a time by which the mirrors are watched. Nothing reads it.
_UNLISTED = {"metadata/.checksum-test-marker"}
_SLACK_SECONDS = 86400
_SHOWN = 3


def signed(repository: Path, commit: str) -> bool:
    """Whether a commit has a Manifest at its top with an OpenPGP signature, good or bad, in it.

    False only if it has none: a Manifest with something before the signed part counts as signed.
    """
    git = bare(repository).git
    with _readable(commit):
        if not git.ls_tree(commit, "--", _TOP):
            return False
        return _CLEARSIGNED in git.cat_file("-p", f"{commit}:{_TOP}", stdout_as_string=False)


def check(repository: Path, commit: str, role: Role, scratch: Path, trash: Path) -> None:
    """Hold every file of a commit against its Manifests, of which `role` must have signed the top.

    The commit is written as files below `scratch` and removed again, however it ends; `trash` is
    on the same file system. Raises NotTrusted naming the first files that do not fit. What a
    Manifest has an IGNORE for, and whether a file is executable, is not looked at.
    """
    folder = scratch / f"manifests-{commit[:12]}"
    hidden = _hidden(repository, commit)
    with _readable(commit):
        made = int(bare(repository).git.log("-1", "--format=%ct", commit))
    remove_tree(folder, trash)
    try:
        export(repository, commit, folder / "tree", trash)
        top = folder / "tree" / _TOP
        if not top.is_file():
            raise _refused(commit, "there is no Manifest at its top")
        # What gpgv says was signed takes the file's place: nothing else in it is ever parsed.
        write_atomic(top, verify_clearsigned(role, top)[1])
        misfits = _misfits(folder / "tree", hidden, made)
        if misfits:
            more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
            raise _refused(commit, "; ".join(misfits[:_SHOWN]) + more)
    finally:
        remove_tree(folder, trash)


def _hidden(repository: Path, commit: str) -> list[str]:
    """The files that gemato would pass over; raises NotTrusted for links and submodules."""
    with _readable(commit):
        listing = str(bare(repository).git.ls_tree("-r", "-z", commit))
    found = []
    for entry in filter(None, listing.split("\0")):
        head, path = entry.split("\t", 1)
        if not head.startswith("100"):
            raise _refused(commit, f"{path!r} is not a plain file")
        if "/." in f"/{path}" and path not in _UNLISTED:
            found.append(path)
    return found


def _misfits(tree: Path, hidden: list[str], made: int) -> list[str]:
    """What does not fit, by path; `made` is the commit's time, in epoch seconds."""
    from gemato.exceptions import GematoException, ManifestMismatch
    from gemato.recursiveloader import ManifestRecursiveLoader

    found: list[Any] = []

    def attempt(check: Callable[..., object], *words: object) -> None:
        try:
            check(*words)
        except ManifestMismatch as mismatch:  # of a file at the top, a hidden one, or a Manifest
            found.append(mismatch)

    try:
        loader = ManifestRecursiveLoader(
            str(tree / _TOP), verify_openpgp=False, require_secure_hashes=True, max_jobs=1
        )
        stamp = loader.loaded_manifests[_TOP].find_timestamp()
        if stamp is None:
            return ["its Manifest has no TIMESTAMP"]
        signed_at = stamp.ts.replace(tzinfo=UTC)
        if abs(signed_at.timestamp() - made) > _SLACK_SECONDS:
            day = datetime.fromtimestamp(made, UTC)
            return [f"it is from {day:%Y-%m-%d}, its Manifest from {signed_at:%Y-%m-%d} (UTC)"]
        attempt(loader.load_manifests_for_path, "")
        listed = {entry.path.split("/")[0] for entry in _listed(loader.loaded_manifests)}
        for name in sorted({path.name for path in tree.iterdir()} | listed):
            if name != _TOP and not name.startswith("."):
                attempt(_verify, tree, name, loader, found.append)
        for path in hidden:
            attempt(loader.assert_path_verifies, path)
    except (GematoException, OSError) as error:  # OSError: a file where a folder should be
        return [" ".join(str(error).split()).replace(f"{tree}/", "")]
    found.sort(key=lambda each: str(each.path))
    return list(dict.fromkeys(map(_said, found)))  # one Manifest's may be met for each name


def _listed(top: Mapping[str, Any]) -> list[Any]:
    """What the Manifests at the top name (Gentoo's tree has two of them there)."""
    return [
        entry
        for manifest in top.values()
        for entry in manifest.entries
        if entry.tag not in ("TIMESTAMP", "DIST", "IGNORE")
    ]


def _verify(tree: Path, name: str, loader: Any, misfit: Callable[[Any], None]) -> None:
    """One file or folder of those at the top; what does not fit is handed to `misfit`, or raised.

    The Manifests of a folder are forgotten after it: those of a whole tree take more memory than
    all the rest of freezing.
    """
    top = dict(loader.loaded_manifests)
    entry = loader.find_path_entry(name)
    if entry is not None and entry.tag == "IGNORE":
        return
    if entry is None and (tree / name).is_dir():
        loader.assert_directory_verifies(name, fail_handler=misfit)
        loader.loaded_manifests = top
        return
    inside = [each.path for each in _listed(top) if each.path.startswith(f"{name}/")]
    for path in inside or [name]:
        loader.assert_path_verifies(path)


def _said(mismatch: Any) -> str:
    """One of gemato's findings in words: the first difference, expected and found."""
    name, expected, got = mismatch.diff[0]
    if name == "__exists__":
        what = "is missing" if expected else "is in no Manifest"
    elif name == "__type__":
        what = f"is a {got}, not a {expected}"
    elif name == "__size__":
        what = f"has {got} bytes, not {expected}"
    else:
        what = f"has the {name} {got[:16]}..., not {expected[:16]}..."
    return f"{mismatch.path!r} {what}"


def _refused(commit: str, why: str) -> NotTrusted:
    return NotTrusted(
        f"commit {commit[:12]} is not what was signed: {why}",
        "it was changed after it was signed, or made badly; freeze another day",
    )


def _readable(commit: str) -> AbstractContextManager[None]:
    return explained(f"commit {commit[:12]} could not be read", "run `doit snapshot` first")
