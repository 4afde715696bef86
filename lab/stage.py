"""The lab's stage: the machine's own distribution, small, with Portage where Gentoo has it."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

from lab import archive, keys
from lab.upstream import STAGE, Upstream
from tasks.errors import HostLacks
from tasks.system import sandbox
from tasks.system.command import run
from tasks.system.files import digests, remove_tree, write_atomic

PORTAGE = "portage==3.0.83"
# Portage's build tools, by pip: a distribution's may be too old for it.
_MESON = ("meson==1.9.1", "ninja==1.13.0")
_PACKAGES = (
    "python3 gcc g++ libc6-dev make patch autoconf automake libtool m4 bash xz-utils zstd bzip2 "
    "file pax-utils rsync wget gnupg ca-certificates procps"
)
_UNWANTED = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
    "/usr/bin/*-lto-dump-*",
    "/usr/lib/*/lib[atlu]*san.*",
    "/usr/lib/gcc/*/lib[atlu]*san*.a",
    "/usr/lib/gcc/*/lib[atlu]*san_preinit.o",
)
# What programs inside the stage see of an environment.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}
# unshare(1): whatever is mounted below it is private, and gone when it ends
_UNSHARE = (
    "unshare",
    "--mount",
    "--propagation",
    "private",
    "--pid",
    "--fork",
    "--kill-child=KILL",
    "--mount-proc",
)
_CHOST = "x86_64-pc-linux-gnu"
_TOOLS = (
    "gcc g++ cpp ar as ld nm ranlib strip objcopy objdump readelf strings addr2line size "
    "gcc-ar gcc-nm gcc-ranlib c++filt"
)
_GNU = {"gtar": "tar", "gmake": "make", "gsed": "sed", "gfind": "find", "gxargs": "xargs"}
# Directories where the distribution keeps libraries; env-update(1) writes ld.so.conf from it.
_LDPATH = 'LDPATH="/usr/local/lib:/usr/lib/x86_64-linux-gnu:/usr/lib"\n'
_KEEPFILES = ("var/db/repos", "var/db/pkg", "var/cache/distfiles", "var/cache/binpkgs")
_PORTAGE_ID = "250"  # the uid and gid that Gentoo gives to portage


def make_root(lab: Upstream) -> None:
    """Make the stage's root directory with Portage in it, unless it is complete already."""
    if lab.stage_root.exists():
        return
    scratch = lab.work / "stage-root.unfinished"
    remove_tree(scratch, lab.trash)
    _bootstrap(lab, scratch)
    _name_things(scratch)
    _install_portage(lab, scratch)
    _clean(scratch)
    scratch.rename(lab.stage_root)


def pack(lab: Upstream, made: datetime) -> str:
    """Pack and sign the stage as a Gentoo mirror lays it out; the archive's name.

    `made` is the time in its name. The pointer is written last.
    """
    moment = made.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{STAGE}-{moment}.tar.xz"
    place = lab.autobuilds / moment
    if not lab.pointer.exists():
        if not place.exists():
            scratch = lab.work / "stage.unfinished"
            remove_tree(scratch, lab.trash)
            scratch.mkdir()
            _pack_archive(lab, scratch / name, made)
            _describe(lab, scratch / name)
            place.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(place)
        size = (place / name).stat().st_size
        head = f"# Latest as of {made:%a, %d %b %Y %H:%M:%S +0000}\n# ts={made.timestamp():.0f}\n"
        text = f"{head}{moment}/{name} {size}\n"
        write_atomic(lab.pointer, keys.sign_clear(lab, "stages", text))
    return name


def _bootstrap(lab: Upstream, root: Path) -> None:
    suite = archive.main_suite()
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED]
    options = [f"--aptopt={line.rstrip(';')}" for line in archive.proxy_options()]
    program = shutil.which("mmdebstrap")
    if program is None:
        raise HostLacks("mmdebstrap is not installed", "apt-get install mmdebstrap")
    # in a namespace of our own: whatever it mounts in the root is gone when it ends
    run(
        *_UNSHARE,
        program,
        "--mode=root",
        "--variant=minbase",
        f"--include={_PACKAGES.replace(' ', ',')}",
        *excludes,
        *options,
        suite.name,
        root,
        suite.line("deb"),
        log=lab.logs / "stage.log",
    )


def _name_things(root: Path) -> None:
    for name, target in _GNU.items():
        _link(root / "usr/bin" / name, target)
    _link(root / "usr/bin/python", "python3")
    for tool in _TOOLS.split():
        if (root / "usr/bin" / tool).exists() or (root / "usr/bin" / tool).is_symlink():
            _link(root / "usr/bin" / f"{_CHOST}-{tool}", tool)
    run("groupadd", "--root", root, "--gid", _PORTAGE_ID, "portage")
    user = ("--uid", _PORTAGE_ID, "--gid", _PORTAGE_ID, "--home-dir", "/var/tmp/portage")  # noqa: S108
    run("useradd", "--root", root, *user, "--no-create-home", "--shell", "/bin/false", "portage")
    for folder in _KEEPFILES:
        (root / folder).mkdir(parents=True, exist_ok=True)
    write_atomic(root / "etc/env.d/00lab", _LDPATH)


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _install_portage(lab: Upstream, root: Path) -> None:
    """Portage from its source distribution, by meson, with the stage's own Python.

    The wheel is not for a whole system: in a venv it takes the venv for its EPREFIX.
    """
    kit = lab.work / "portage"
    remove_tree(kit, lab.trash)
    (kit / "tools").mkdir(parents=True)
    log = lab.logs / "portage.log"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "install", "--target", kit / "tools", *_MESON, log=log)
    only = ("--no-deps", "--no-binary", PORTAGE.partition("=")[0])
    run(*pip, "download", *only, "--dest", kit, PORTAGE, log=log)
    (tarball,) = kit.glob("portage-*.tar.gz")
    run("tar", "--extract", "--no-same-owner", "--directory", kit, "--file", tarball, log=log)
    (kit / tarball.name.removesuffix(".tar.gz")).rename(kit / "source")
    meson = ("python3", "-m", "mesonbuild.mesonmain")
    settings = ("--prefix=/usr", "--sysconfdir=/etc", "-Dnative-extensions=false")
    environment = {
        **ENVIRONMENT,
        "DESTDIR": "/kit/image",
        "NINJA": "/kit/tools/bin/ninja",
        "PYTHONPATH": "/kit/tools",
    }
    with sandbox.workspace(lab.work, "portage-sandbox", lab.trash) as space:
        kit_bind = sandbox.Bind(str(kit), "/kit", writable=True)
        inside = sandbox.Sandbox("lab-portage", (root,), space, (kit_bind,), environment)
        sandbox.run(inside, (*meson, "setup", "/kit/build", "/kit/source", *settings), log=log)
        sandbox.run(inside, (*meson, "install", "-C", "/kit/build"), log=log)
    run("cp", "--archive", f"{kit}/image/.", root)
    remove_tree(kit, lab.trash)


def _clean(root: Path) -> None:
    for pattern in ("var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "etc/portage", "tmp/*"):
        for path in root.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)  # nothing is mounted in it: it was never used outside us
            else:
                path.unlink()
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/portage").mkdir()


def _pack_archive(lab: Upstream, target: Path, made: datetime) -> None:
    owner = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--one-file-system")
    order = ("--sort=name", f"--mtime=@{made.timestamp():.0f}", "--clamp-mtime", "--format=posix")
    # level 1 with several threads: three times the size of a good one, in a tenth of the time
    environment = {**os.environ, "XZ_OPT": "-1 -T0"}
    where = ("--directory", lab.stage_root, ".")
    run("tar", "--create", "--xz", "--file", target, *owner, *order, *where, env=environment)


def _describe(lab: Upstream, file: Path) -> None:
    """The files beside a stage: what is in it, its digests, signatures."""
    listing = run("tar", "--list", "--verbose", "--numeric-owner", "--file", file).stdout
    contents = file.with_name(file.name.removesuffix(".tar.xz") + ".CONTENTS.gz")
    with contents.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as stream:
        stream.write(listing.encode())
    digested = {each: digests(each, "blake2b", "sha512", "sha256") for each in (file, contents)}
    sections = [
        f"# {title} HASH\n{found[algorithm]}  {each.name}\n"
        for each, found in digested.items()
        for title, algorithm in (("BLAKE2B", "blake2b"), ("SHA512", "sha512"))
    ]
    beside = file.with_name
    keys.sign_detached(lab, "stages", file, beside(f"{file.name}.asc"))
    write_atomic(beside(f"{file.name}.DIGESTS"), keys.sign_clear(lab, "stages", "".join(sections)))
    sha256 = f"{digested[file]['sha256']}  {file.name}\n"
    write_atomic(beside(f"{file.name}.sha256"), keys.sign_clear(lab, "stages", sha256))
