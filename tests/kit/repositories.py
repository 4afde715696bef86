"""Look into git repositories, and damage them."""

from __future__ import annotations

import subprocess
from pathlib import Path


def git(repository: Path, *words: str) -> str:
    result = subprocess.run(
        ["git", "--git-dir", repository, *words], check=True, capture_output=True, text=True
    )
    return result.stdout.strip()


def refs(repository: Path) -> dict[str, str]:
    lines = git(repository, "for-each-ref", "--format=%(refname) %(objectname)").splitlines()
    return dict(line.split(" ", 1) for line in lines)


def leftovers(repository: Path) -> list[Path]:
    return [
        *repository.glob("objects/pack/tmp_*"),
        *repository.glob("fast_import_*"),
        *repository.glob("incoming.git"),
        *repository.glob("incoming.trash/*"),
    ]


def object_count(repository: Path) -> int:
    counts = dict(line.split(": ") for line in git(repository, "count-objects", "-v").splitlines())
    return int(counts["count"]) + int(counts["in-pack"])


def corrupt_object(repository: Path, name: str, *, packed: bool) -> None:
    """Damage one object of a repository, in a pack or in a file of its own."""
    oid = git(repository, "rev-parse", name)
    git(repository, "gc", "-q")
    pack = next(repository.glob("objects/pack/*.pack"))
    if packed:
        listing = git(repository, "verify-pack", "-v", str(pack.with_suffix(".idx")))
        size, offset = next(map(int, x.split()[3:5]) for x in listing.splitlines() if oid in x)
        victim, position = pack, offset + size // 2
    else:
        packs = pack.read_bytes()
        pack.unlink()
        unpack = ["git", "--git-dir", str(repository), "unpack-objects", "-q"]
        subprocess.run(unpack, input=packs, check=True)
        victim = repository / "objects" / oid[:2] / oid[2:]
        position = victim.stat().st_size // 2
    content = bytearray(victim.read_bytes())
    content[position] ^= 0x55
    victim.chmod(0o644)
    victim.write_bytes(content)
