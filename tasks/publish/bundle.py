"""What a client needs to use one view of a binhost, as one tar: `client.tar` in the view. Pure.

    README          what to do with it
    portage/        for /etc/portage: binrepos.conf/ and repos.conf/, the tree pinned to its tag
    key.asc         the public key that signs, for Portage's keyring; key.gpg is the same for gpgv
    fingerprint     of that key
    check           is the binhost what was signed, and not an old state of it? (check.sh)

The same content gives the same bytes.
"""

from __future__ import annotations

import base64
import io
import re
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tasks.errors import NotTrusted

NAME = "client.tar"
PORTAGE = "portage/"
_CHECK = Path(__file__).with_name("check.sh")
_REPOS = "/var/db/repos"
_ACCESS = "/etc/portage/access"  # where docs/serving.md puts a client's password
_EVERYBODY = "public"
_LIMIT = 16 << 20


@dataclass(frozen=True)
class Repo:
    """A repository that the packages were built from. `tag` and `url` may be "": not known."""

    name: str
    commit: str
    tag: str = ""
    url: str = ""


@dataclass(frozen=True)
class Place:
    """A view as its clients see it: at `url`, called `label` in binrepos.conf.

    `channels` has the URL of each channel beside that.
    """

    binhost: str
    group: str
    label: str
    url: str
    channels: Mapping[str, str] = field(default_factory=dict)


def files(
    place: Place, repos: Sequence[Repo], profile: str, key: bytes, fingerprint: str
) -> dict[str, bytes]:
    """The bundle's files by path; `key` is the armored public key, the main repository first."""
    made = {
        "README": _readme(place, repos, profile, fingerprint),
        f"{PORTAGE}binrepos.conf/{place.label}.conf": _binrepos(place),
        f"{PORTAGE}repos.conf/{place.label}.conf": _repos_conf(repos),
        "fingerprint": f"{fingerprint}\n",
        "check": _CHECK.read_text(encoding="utf-8"),
    }
    return {path: text.encode() for path, text in made.items()} | {
        "key.asc": key,
        "key.gpg": dearmored(key),
    }


def packed(made: Mapping[str, bytes], when: int) -> bytes:
    """The files as a tar, below one folder; `when` (epoch seconds) is the time of all of them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in sorted(made.items()):
            member = tarfile.TarInfo(f"client/{path}")
            member.size, member.mtime = len(data), when
            member.mode = 0o755 if path == "check" else 0o644
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def unpacked(data: bytes) -> dict[str, bytes]:
    """The files of a bundle by path; raises NotTrusted for what is none."""
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                top, _, path = member.name.partition("/")
                stream = archive.extractfile(member) if member.isreg() else None
                if top != "client" or ".." in path.split("/") or stream is None:
                    raise NotTrusted(f"{member.name!r} has no place in a client's bundle")
                found[path] = stream.read(_LIMIT)
    except tarfile.TarError as error:
        raise NotTrusted(f"this is no client's bundle ({error})") from error
    return found


def dearmored(armored: bytes) -> bytes:
    """A key in binary form, which alone gpgv takes: its base64 (RFC 4880, 6.2) decoded."""
    found = re.search(
        rb"(?s)-----BEGIN [^\n]+-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.+?)\r?\n=", armored
    )
    if found is None:
        raise NotTrusted("the public key is not armored as gpg does it")
    return base64.b64decode(found[1])


def _binrepos(place: Place) -> str:
    """For a group, wget(1) finds the password by HOME; Portage itself reads no such file."""
    text = (
        f"# packages of {place.binhost} for {place.group}\n[{place.label}]\npriority = 9999\n"
        f"sync-uri = {place.url}\nverify-signature = true\n"
    )
    if place.group != _EVERYBODY:
        command = f"env HOME={_ACCESS} wget{{}} -t 3 -T 60 --passive-ftp"
        command += ' -O "${{DISTDIR}}/${{FILE}}" "${{URI}}"\n'
        text += "fetchcommand = " + command.format("") + "resumecommand = " + command.format(" -c")
    return text


def _repos_conf(repos: Sequence[Repo]) -> str:
    """The repositories at the commits that the packages are of; no sync moves them by itself."""
    parts = [f"[DEFAULT]\nmain-repo = {repos[0].name}\n"]
    for repo in repos:
        lines = [f"[{repo.name}]", f"location = {_REPOS}/{repo.name}", "auto-sync = no"]
        if repo.url:
            lines += ["sync-type = git", f"sync-uri = {repo.url}"]
            if repo.tag:
                lines.append(f"sync-git-clone-extra-opts = --branch {repo.tag}")
        parts.append("\n".join([f"# {repo.tag or 'commit'} {repo.commit}", *lines, ""]))
    return "\n".join(parts)


def _readme(place: Place, repos: Sequence[Repo], profile: str, fingerprint: str) -> str:
    trees = []
    for repo in repos:
        folder, wanted = f"{_REPOS}/{repo.name}", repo.tag or repo.commit
        url = repo.url or f"URL-OF-{repo.name.upper()}"
        trees.append(
            f"   test -d {folder}/.git || git clone --no-checkout {url} {folder}\n"
            f"   git -C {folder} fetch {url} {f'tag {wanted}' if repo.tag else wanted}\n"
            f"   git -C {folder} checkout --detach {wanted}\n"
        )
    return f"""\
Packages of {place.binhost} for {place.group}, at {place.url}
Profile {profile}. They are signed by {fingerprint}:
ask your operator for that fingerprint by another way than this one, and compare.

As root, in this folder:

1. Let Portage know the binhost, and trust its key.

   cp -R portage/. /etc/portage/
   getuto
   gpg --homedir /etc/portage/gnupg --import key.asc
   echo '{fingerprint}:6:' | gpg --homedir /etc/portage/gnupg --import-ownertrust
   gpg --homedir /etc/portage/gnupg --check-trustdb
{_password(place)}{_channels(place)}
2. Have the trees that the packages were built from. Packages and trees belong together: with each
   new bundle, do it again.

{"".join(trees)}
3. Before each update, check that the binhost is what was signed, and not an old state of it.

   {_home(place)}./check {place.url} {place.binhost} {place.group} \\
       {fingerprint} key.gpg &&
   emerge --getbinpkg --usepkg --update --deep --newuse @world
"""


def _home(place: Place) -> str:
    return "" if place.group == _EVERYBODY else f"HOME={_ACCESS} "


def _password(place: Place) -> str:
    """How a member says who it is; "" where nobody is asked."""
    if place.group == _EVERYBODY:
        return ""
    return f"""
   The packages are for members of {place.group}: your operator has a name and a password for you.

   install -d -o root -g portage -m 750 {_ACCESS}
   install -o root -g portage -m 640 /dev/stdin {_ACCESS}/.netrc <<'END'
   machine {urlsplit(place.url).hostname} login NAME password PASSWORD
   END
"""


def _channels(place: Place) -> str:
    if not place.channels:
        return ""
    lines = "".join(f"   {name}: {url}\n" for name, url in place.channels.items())
    return f"\n   Channels, for sync-uri and the check, have what was tested first:\n{lines}"
