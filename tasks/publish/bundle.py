"""The client bundle: all that a client needs to use one view of a binhost, as one tar. Pure.

    README          instructions
    portage/        for /etc/portage: binrepos.conf/ and repos.conf/, the tree pinned to its tag
    key.asc         the public signing key, for Portage's keyring; key.gpg is the same for gpgv
    fingerprint     of that key
    check           verifies the signed index and refuses an old one (check.sh)

Equal content gives equal bytes.
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
_PUBLIC = "public"
_LIMIT = 16 << 20


@dataclass(frozen=True)
class Repo:
    """A repository that the packages were built from; `tag` and `url` are "" where unknown."""

    name: str
    commit: str
    tag: str = ""
    url: str = ""


@dataclass(frozen=True)
class ClientView:
    """A view as its clients see it: its URL, and its name (`label`) in binrepos.conf.

    `channels` maps the name of each channel to the URL of this view there.
    """

    binhost: str
    group: str
    label: str
    url: str
    channels: Mapping[str, str] = field(default_factory=dict)


def files(
    view: ClientView, repos: Sequence[Repo], profile: str, key: bytes, fingerprint: str
) -> dict[str, bytes]:
    """The bundle's files by path; `key` is armored, the main repository is the first of `repos`."""
    texts = {
        "README": _readme(view, repos, profile, fingerprint),
        f"{PORTAGE}binrepos.conf/{view.label}.conf": _binrepos(view),
        f"{PORTAGE}repos.conf/{view.label}.conf": _repos_conf(repos),
        "fingerprint": f"{fingerprint}\n",
        "check": _CHECK.read_text(encoding="utf-8"),
    }
    return {path: text.encode() for path, text in texts.items()} | {
        "key.asc": key,
        "key.gpg": dearmor(key),
    }


def pack(contents: Mapping[str, bytes], mtime: int) -> bytes:
    """Pack files into a tar, below one folder and with one mtime (epoch seconds)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.USTAR_FORMAT) as archive:
        for path, data in sorted(contents.items()):
            member = tarfile.TarInfo(f"client/{path}")
            member.size, member.mtime = len(data), mtime
            member.mode = 0o755 if path == "check" else 0o644
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """The files of a bundle by path; raises NotTrusted for anything else."""
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                top, _, path = member.name.partition("/")
                stream = archive.extractfile(member) if member.isreg() else None
                if top != "client" or ".." in path.split("/") or stream is None:
                    raise NotTrusted("bundle-entry-refused", entry=member.name)
                contents[path] = stream.read(_LIMIT)
    except tarfile.TarError as error:
        raise NotTrusted("bundle-unreadable", cause=str(error)) from error
    return contents


def dearmor(armored: bytes) -> bytes:
    """Decode an armored key (RFC 4880, 6.2): gpgv reads only the binary form."""
    match = re.search(
        rb"(?s)-----BEGIN [^\n]+-----\r?\n(?:[^\r\n]+\r?\n)*\r?\n(.+?)\r?\n=", armored
    )
    if match is None:
        raise NotTrusted("key-not-armored")
    return base64.b64decode(match[1])


def _binrepos(view: ClientView) -> str:
    """binrepos.conf; for a group, wget(1) reads a .netrc below HOME, which Portage does not."""
    text = (
        f"# packages of {view.binhost} for {view.group}\n[{view.label}]\npriority = 9999\n"
        f"sync-uri = {view.url}\nverify-signature = true\n"
    )
    if view.group != _PUBLIC:
        command = f"env HOME={_ACCESS} wget{{}} -t 3 -T 60 --passive-ftp"
        command += ' -O "${{DISTDIR}}/${{FILE}}" "${{URI}}"\n'
        text += "fetchcommand = " + command.format("") + "resumecommand = " + command.format(" -c")
    return text


def _repos_conf(repos: Sequence[Repo]) -> str:
    """repos.conf: the repositories at the commits of the packages, never synced automatically."""
    parts = [f"[DEFAULT]\nmain-repo = {repos[0].name}\n"]
    for repo in repos:
        lines = [f"[{repo.name}]", f"location = {_REPOS}/{repo.name}", "auto-sync = no"]
        if repo.url:
            lines += ["sync-type = git", f"sync-uri = {repo.url}"]
            if repo.tag:
                lines.append(f"sync-git-clone-extra-opts = --branch {repo.tag}")
        parts.append("\n".join([f"# {repo.tag or 'commit'} {repo.commit}", *lines, ""]))
    return "\n".join(parts)


def _readme(view: ClientView, repos: Sequence[Repo], profile: str, fingerprint: str) -> str:
    trees = []
    for repo in repos:
        folder, revision = f"{_REPOS}/{repo.name}", repo.tag or repo.commit
        url = repo.url or f"URL-OF-{repo.name.upper()}"
        trees.append(
            f"   test -d {folder}/.git || git clone --no-checkout {url} {folder}\n"
            f"   git -C {folder} fetch {url} {f'tag {revision}' if repo.tag else revision}\n"
            f"   git -C {folder} checkout --detach {revision}\n"
        )
    return f"""\
Packages of {view.binhost} for {view.group}, at {view.url}
Profile: {profile}
Signed by: {fingerprint}

This folder comes from the same server as the packages. Ask the operator for the fingerprint by
another channel (in person, by telephone), and compare.

Run these commands as root, in this folder.

1. Configure the binhost, and trust its key.

   cp -R portage/. /etc/portage/
   getuto
   gpg --homedir /etc/portage/gnupg --import key.asc
   echo '{fingerprint}:6:' | gpg --homedir /etc/portage/gnupg --import-ownertrust
   gpg --homedir /etc/portage/gnupg --check-trustdb
{_password(view)}{_channels(view)}
2. Check out the repositories that the packages were built from. Packages and repositories belong
   together: repeat this step with each new bundle.

{"".join(trees)}
3. Before each update, check that the index is signed, complete and not an old one.

   {_home(view)}./check {view.url} {view.binhost} {view.group} \\
       {fingerprint} key.gpg &&
   emerge --getbinpkg --usepkg --update --deep --newuse @world
"""


def _home(view: ClientView) -> str:
    return "" if view.group == _PUBLIC else f"HOME={_ACCESS} "


def _password(view: ClientView) -> str:
    """Instructions for the password; "" for the public view."""
    if view.group == _PUBLIC:
        return ""
    return f"""
   These packages are for members of {view.group}. The operator gives you a user name and a
   password.

   install -d -o root -g portage -m 750 {_ACCESS}
   install -o root -g portage -m 640 /dev/stdin {_ACCESS}/.netrc <<'END'
   machine {urlsplit(view.url).hostname} login NAME password PASSWORD
   END
"""


def _channels(view: ClientView) -> str:
    if not view.channels:
        return ""
    lines = "".join(f"   {name}: {url}\n" for name, url in view.channels.items())
    return f"""
   There are channels, too: a channel gets packages only after they were tested elsewhere. To use
   one, put its URL into sync-uri and give it to the check.

{lines}"""
