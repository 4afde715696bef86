"""candidate: from a set to a signed generation that no client sees yet."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks import records
from tasks.flow import bundles, chroots
from tasks.flow.binpkgs import set_folder
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import sha256, write_atomic
from tasks.system.terminal import say

if TYPE_CHECKING:
    from tasks.portage.index import Stanza
    from tasks.publish.generation import Content
    from tasks.publish.published import File
    from tasks.system.gpgv import Role
    from tasks.system.sandbox import Sandbox


def candidate(site: Site, name: str) -> Record:
    """Sign what is new in a set, verify it as a client would, index it; no client sees it yet."""
    from tasks.publish import generation, published

    layout = site.layout
    made = records.read(layout, f"binpkgs:{name}")
    binhost = layout.binhost(name)
    asked = _asked(site, name, made)
    number = generation.current(binhost)
    if number is None or published.facts(binhost, number).get("asked") != asked:
        with chroots.workspace(site, f"sign-{name}") as space:
            content = _content(site, name, made, asked, space)
            sign = partial(sign_beside, site, name, space)
            number = generation.prepare(
                binhost, content, sign, layout.trash, number=_made_before(binhost, asked)
            )
    chroots.sweep(site, layout.binpkgs(name), keep={set_folder(site, name, made)})
    views = published.facts(binhost, number)["views"]
    told = ", ".join(f"{count} for {view}" for view, count in sorted(views.items()))
    say(f"  {name}: candidate {number}, packages: {told}")
    return {"generation": number, "set": made["set"], "views": views}


def _made_before(binhost: Path, asked: str) -> int | None:
    """The number of a candidate of the same content: a run that was killed counts as one."""
    from tasks.publish import published

    newest = max(published.numbers(binhost), default=0)
    numbers = (n for n in published.numbers(binhost, published.CANDIDATES) if n > newest)
    return next((n for n in numbers if published.facts(binhost, n).get("asked") == asked), None)


def _asked(site: Site, name: str, made: Record) -> str:
    """All that a generation is a function of, but for the time; another one means a new one."""
    from tasks.publish.release_manifest import FORMAT

    binhost, access = site.config.binhost, site.config.access
    return identity(
        [
            made["set"],
            binhost.signing_key,
            binhost.valid_days,
            access.model_dump(),
            {**_pins(site, name), **_touched(made)},
            FORMAT,
            bundles.inputs(site, name),
        ]
    )


def _pins(site: Site, name: str) -> dict[str, Any]:
    """What the lock pins of all that a chroot is made of."""
    revisions = chroots.revisions(site, name)
    tree = records.read(site.layout, "tree")
    seed = site.config.seed_of(name)
    own = site.config.tree.name
    return {
        "tree": {"name": own, "tag": tree["tag"], "commit": tree["commit"]},
        "overlays": {other: commit for other, commit in revisions.items() if other != own},
        "seed": {"name": seed, **records.read(site.layout, f"seed:{seed}")},
    }


def _content(site: Site, name: str, made: Record, asked: str, space: Path) -> Content:
    """What the next generation has, with its packages signed."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.publish import published
    from tasks.publish.generation import Content
    from tasks.serve import policy

    key = str(site.config.binhost.signing_key)
    folder = set_folder(site, name, made)
    written = index.read(folder / INDEX)
    header = next(written, {})
    of_set = index.of_set(written, made["packages"])
    groups, nobodys = _views(site, name, of_set)
    given = {path for paths in groups.values() for path in paths}
    packages = [package for package in made["packages"] if package["path"] in given]
    held = published.held(site.layout.binhost(name), packages, key)
    new = [package for package in packages if package["path"] not in held]
    signed = _signed(site, name, folder, [p["path"] for p in new], space)
    files = held | {p["path"]: published.file_of(signed / p["path"], p["sha512"]) for p in new}
    files |= _told(site, name, files, of_set)
    return Content(
        header=header,
        stanzas={path: of_set[path] for path in given},
        files=files,
        views={policy.as_path(group): paths for group, paths in groups.items()},
        revisions=chroots.revisions(site, name),
        release={
            "name": name,
            "set": made["set"],
            "lock": {"sha256": sha256(site.layout.lock), **_pins(site, name)},
            "config": sha256(site.layout.config),
        },
        valid_days=site.config.binhost.valid_days,
        bundles=bundles.bundles(site, name, map(policy.as_path, groups)),
        about={
            "set": made["set"],
            "signer": key,
            "withheld": len(nobodys),
            "asked": asked,
            **_touched(made),
        },
    )


def _touched(made: Record) -> dict[str, Any]:
    """What a set's record says of chroots that somebody has changed by hand; {} of clean ones."""
    return {"touched": made["touched"]} if "touched" in made else {}


def _told(
    site: Site, name: str, files: Mapping[str, File], stanzas: Mapping[str, Stanza]
) -> dict[str, File]:
    """Those files of which it is not told yet where they come from and what they are, with that."""
    from tasks.publish import sbom

    new = {path: file for path, file in files.items() if not (file.origin and file.component)}
    if not new:
        return {}
    origins = _origins(site, name)
    digests = {path: file.sums["sha512"] for path, file in new.items()}
    made = sbom.components({path: stanzas[path] for path in new}, digests)
    return {
        path: replace(file, origin=origins[path, file.collected], component=made[path])
        for path, file in new.items()
    }


def _origins(site: Site, name: str) -> dict[tuple[str, str], str]:
    """Where each package of a set was built, by its path and digest.

    A stack begins with its base's packages: the lowest chroot that has the very same one built it.
    """
    from importlib.metadata import version

    from tasks.publish import provenance

    found: dict[tuple[str, str], str] = {}
    for chroot in site.config.lineage(name):
        origin = provenance.origin(
            chroot=chroot,
            etc=Path(records.read(site.layout, f"etc:{chroot}")["path"]).name,
            builder=site.config.binhost.builder,
            version=version("binmill"),
            pins=_pins(site, chroot),
        )
        for package in records.read(site.layout, f"binpkgs:{chroot}")["packages"]:
            found.setdefault((package["path"], package["sha512"]), origin)
    return found


def _views(
    site: Site, name: str, stanzas: Mapping[str, Stanza]
) -> tuple[dict[str, list[str]], list[str]]:
    """The paths that each group may have; what nobody may have is said."""
    from tasks.serve import policy

    metadata = {path: policy.metadata(stanza) for path, stanza in stanzas.items()}
    groups, nobodys = policy.views(metadata, site.config.access, name)
    if nobodys:
        say(
            f"  {name}: nobody may have {len(nobodys)} packages, by [access]: "
            + _few(stanzas[path]["CPV"] for path in nobodys)
        )
    return groups, nobodys


def nobodys(site: Site, name: str, made: Record) -> list[str]:
    """The paths of a set that nobody may have."""
    from tasks.portage import index
    from tasks.portage.index import INDEX
    from tasks.serve import policy

    written = index.read(set_folder(site, name, made) / INDEX)
    metadata = {p: policy.metadata(s) for p, s in index.of_set(written, made["packages"]).items()}
    return policy.views(metadata, site.config.access, name)[1]


def _signed(site: Site, name: str, folder: Path, new: Sequence[str], space: Path) -> Path:
    """Signed and verified copies of packages of a set, in a workspace; see publish.sign."""
    from tasks.publish import sign

    role = _role(site, space)
    copy = space / "packages"
    copy.mkdir()
    for path in new:
        (copy / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / path, copy / path)
    if new:
        room = _signing_room(site, name, copy, space)
        sign.sign(room, copy, new, site.layout.log(f"candidate:{name}"))
    sign.verify([copy / path for path in new], role)
    return copy


def sign_beside(site: Site, name: str, space: Path, files: Sequence[Path]) -> None:
    """Sign files, and put each signature beside its file once it has been verified."""
    from tasks.publish import sign
    from tasks.publish.release_manifest import SIGNATURE
    from tasks.system.gpgv import verify_detached

    role = _role(site, space)
    copy = space / "indexes"
    copy.mkdir()
    copies = {file: copy / str(number) for number, file in enumerate(files)}
    for file, other in copies.items():
        shutil.copy2(file, other)
    room = _signing_room(site, name, copy, space)
    names = [other.name for other in copies.values()]
    sign.detached(room, copy, names, role.fingerprints[0], site.layout.log(f"candidate:{name}"))
    for file, other in copies.items():
        proof = other.with_name(other.name + SIGNATURE)
        with file.open("rb") as stream:
            verify_detached(role, stream, file.name, proof)
        write_atomic(file.with_name(file.name + SIGNATURE), proof.read_bytes())


def _role(site: Site, space: Path) -> Role:
    """Whose signature counts; raises HostLacks where the key is missing or cannot sign."""
    from tasks.publish import sign
    from tasks.system.gpgv import Role

    key = site.config.binhost.signing_key
    public = sign.public_key(site.signing_home, key)
    assert key is not None  # noqa: S101 - public_key has seen to it
    write_atomic(space / "key.asc", public)
    return Role("binhost", space / "key.asc", (key,))


def _signing_room(site: Site, name: str, packages: Path, space: Path) -> Sandbox:
    """A throwaway layer over the verified seed, in which no ebuild has ever run."""
    from tasks.portage import etc_portage
    from tasks.publish import sign
    from tasks.system.sandbox import Bind

    variables = sign.variables(str(site.config.binhost.signing_key))
    conf = etc_portage.files(site.config, name, features=(), variables=variables)
    etc_portage.write(
        conf, etc_portage.profile_link(site.config, name), space / "etc", site.layout.trash
    )
    seed = records.read(site.layout, f"seed:{site.config.seed_of(name)}")
    room: Sandbox = chroots.plan(
        site,
        name,
        space,
        etc=space / "etc",
        layers=[site.layout.seed(seed["sha512"])],
        binds=(
            Bind(str(site.signing_home), sign.KEY_HOME, writable=True),
            Bind(str(packages), sign.PACKAGES, writable=True),
            Bind(str(sign.PROGRAM), sign.PROGRAM_INSIDE),
        ),
    )
    return room


def _few(names: Iterable[str], most: int = 5) -> str:
    listed = list(names)
    more = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + more
