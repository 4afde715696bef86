"""An install root: the last generation that a task has proven for a chroot, installed.

It consists of layers over the seed: that of a fresh install, and one for each upgrade since. None
is ever modified: the next run of the task mounts them and works in a layer of its own.

    root.json        what the root was made from, and its layers
    ID/              a layer, under a digest of its listing
    ID.listing       the attributes and digests of its files (tasks.system.tree_manifest)
    contents/        of the gate: the paths of each package (tasks.publish.contents)

Nothing of it is synced: after a power failure a layer may differ from its listing, and the next
run installs afresh.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tasks.errors import BinmillError
from tasks.system import tree_manifest
from tasks.system.files import private_folder, remove_tree, write_atomic

RECORD = "root.json"
CONTENTS = "contents"
_LAYER = re.compile(r"[0-9a-f]{32}")
# Of no use to the next run. Above all the index and the packages that this one has fetched: Portage
# would take an older build from there.
_TRANSIENT = ("run", "tmp", "var/cache", "var/log", "var/tmp")


@dataclass(frozen=True)
class InstallRoot:
    """The facts about an install root.

    `seed` is the SHA-512 of the stage, `settings` a digest of the client's /etc/portage and of the
    key that it trusts, `generation` the number, `packages` have the SHA-512 of the file of each
    package that is installed by CPV, `layers` their ids, the topmost first. `upgraded_from` is the
    generation before, 0 for a fresh install.
    """

    seed: str
    settings: str
    generation: int
    packages: Mapping[str, str]
    layers: tuple[str, ...] = ()
    upgraded_from: int = 0

    @property
    def upgrades(self) -> int:
        """The number of upgrades since the fresh install."""
        return len(self.layers) - 1

    def paths(self, folder: Path) -> tuple[Path, ...]:
        """Its layers, the topmost first."""
        return tuple(folder / layer for layer in self.layers)


def read(folder: Path) -> InstallRoot | None:
    """The install root in a folder, None if there is none; raises BinmillError if it is damaged."""
    from pydantic import TypeAdapter

    path = folder / RECORD
    try:
        root = TypeAdapter(InstallRoot).validate_json(path.read_bytes(), strict=True)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise BinmillError("install-root-unreadable", path=path) from error
    if not root.layers or not all(map(_LAYER.fullmatch, root.layers)):
        raise BinmillError("install-root-unreadable", path=path)
    return root


def flaws(
    folder: Path, root: InstallRoot, on_read: tree_manifest.OnRead = lambda _size: None
) -> Iterator[str]:
    """Read all layers, and yield a line for each difference from their listings."""
    for layer in root.layers:
        listing = folder / f"{layer}.listing"
        try:
            if _layer_id(listing) != layer:
                yield f"{listing.name} is the listing of another layer"
                continue
            yield from tree_manifest.differences(folder / layer, listing, on_read)
        except tree_manifest.Damaged as error:
            yield error.message
        except FileNotFoundError as error:
            yield f"{error.filename} is missing"


def keep(folder: Path, root: InstallRoot, upper: Path, trash: Path) -> None:
    """Move an upper layer on top of the layers of `root`, in one step.

    What `root` does not name is deleted.
    """
    _delete_transient(upper, trash)
    private_folder(folder)  # there are setuid programs in it
    listing = folder / ".listing"
    tree_manifest.write(upper, listing)
    layer = _layer_id(listing)
    if layer not in root.layers:
        remove_tree(folder / layer, trash)  # of a killed run
        listing.replace(folder / f"{layer}.listing")
        upper.rename(folder / layer)
        root = replace(root, layers=(layer, *root.layers))
    write_atomic(folder / RECORD, json.dumps(asdict(root), indent=1, sort_keys=True) + "\n")
    for path in unnamed(folder, root):
        remove_tree(path, trash)


def unnamed(folder: Path, root: InstallRoot | None) -> list[Path]:
    """The files and layers in the folder that a root does not name, sorted."""
    if root is None:
        return sorted(folder.iterdir())
    names = {RECORD, CONTENTS, *root.layers, *(f"{layer}.listing" for layer in root.layers)}
    packages = set(root.packages.values())
    return sorted(
        [path for path in folder.iterdir() if path.name not in names]
        + [path for path in (folder / CONTENTS).glob("*") if path.name not in packages]
    )


def _delete_transient(upper: Path, trash: Path) -> None:
    for place in _TRANSIENT:
        path = upper
        for part in place.split("/"):
            path /= part
            if path.is_symlink():  # of the guest: it could lead anywhere
                break
        else:
            remove_tree(path, trash)


def _layer_id(listing: Path) -> str:
    """The id of the layer that a listing describes: the digest of the listing's lines."""
    with listing.open("rb") as stream:
        return stream.readline(100).decode("ascii", "replace").strip()[:32]
