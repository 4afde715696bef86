"""The lab's stage: a small root of the machine's own distribution, with Portage in it."""

from __future__ import annotations

import gzip
import os
import shutil
import sys
from collections.abc import Callable
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
# The environment of programs inside the stage.
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
}
# unshare(1): its mounts are private, and disappear when it ends
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
# Directories of the distribution's libraries; env-update(1) writes ld.so.conf from it.
_LDPATH = 'LDPATH="/usr/local/lib:/usr/lib/x86_64-linux-gnu:/usr/lib"\n'
_KEEPFILES = ("var/db/repos", "var/db/pkg", "var/cache/distfiles", "var/cache/binpkgs")
_PORTAGE_ID = "250"  # the uid and gid that Gentoo gives to portage


def make_root(lab: Upstream, install_packages: Callable[[Path], None]) -> None:
    """Create the stage's root directory with Portage and packages in it, unless it is complete."""
    if lab.stage_root.exists():
        return
    scratch = lab.work / "stage-root.unfinished"
    remove_tree(scratch, lab.trash)
    _bootstrap(lab, scratch)
    _add_gentoo_names(scratch)
    _install_portage(lab, scratch)
    install_packages(scratch)
    _clean(scratch)
    scratch.rename(lab.stage_root)


def pack(lab: Upstream, created: datetime) -> str:
    """Pack and sign the stage in the layout of a Gentoo mirror; return the archive's name.

    `created` is the time in its name. The pointer is written last.
    """
    moment = created.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    name = f"{STAGE}-{moment}.tar.xz"
    folder = lab.autobuilds / moment
    if not lab.pointer.exists():
        if not folder.exists():
            scratch = lab.work / "stage.unfinished"
            remove_tree(scratch, lab.trash)
            scratch.mkdir()
            _pack_archive(lab, scratch / name, created)
            _describe(lab, scratch / name)
            folder.parent.mkdir(parents=True, exist_ok=True)
            scratch.rename(folder)
        size = (folder / name).stat().st_size
        head = f"# Latest as of {created:%a, %d %b %Y %H:%M:%S +0000}\n"
        text = f"{head}# ts={created.timestamp():.0f}\n{moment}/{name} {size}\n"
        write_atomic(lab.pointer, keys.sign_clear(lab, "stages", text))
    return name


def _bootstrap(lab: Upstream, root: Path) -> None:
    suite = archive.main_suite()
    excludes = [f"--dpkgopt=path-exclude={pattern}" for pattern in _UNWANTED]
    options = [f"--aptopt={line.rstrip(';')}" for line in archive.proxy_options()]
    program = shutil.which("mmdebstrap")
    if program is None:
        raise HostLacks("lab-without-mmdebstrap")
    # in a namespace of its own: its mounts in the root disappear when it ends
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


def _add_gentoo_names(root: Path) -> None:
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
    """Build and install Portage from its source distribution, with the stage's own Python.

    Its wheel is not made for a whole system: in a venv it uses the venv as EPREFIX.
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
                shutil.rmtree(path)  # nothing is mounted in it: only this module has used it
            else:
                path.unlink()
    for name in ("etc/machine-id", "etc/hostname", "etc/resolv.conf"):
        (root / name).unlink(missing_ok=True)
    (root / "etc/portage").mkdir()


def _pack_archive(lab: Upstream, target: Path, created: datetime) -> None:
    owner = ("--numeric-owner", "--xattrs", "--xattrs-include=*", "--one-file-system")
    order = (
        "--sort=name",
        f"--mtime=@{created.timestamp():.0f}",
        "--clamp-mtime",
        "--format=posix",
    )
    # level 1 with several threads: three times the size of level 6, in a tenth of the time
    environment = {**os.environ, "XZ_OPT": "-1 -T0"}
    content = ("--directory", lab.stage_root, ".")
    run("tar", "--create", "--xz", "--file", target, *owner, *order, *content, env=environment)


def _describe(lab: Upstream, file: Path) -> None:
    """Write the files beside a stage: its list of files, digests and signatures."""
    listing = run("tar", "--list", "--verbose", "--numeric-owner", "--file", file).stdout
    contents = file.with_name(file.name.removesuffix(".tar.xz") + ".CONTENTS.gz")
    with contents.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as stream:
        stream.write(listing.encode())
    digests_by_file = {
        each: digests(each, "blake2b", "sha512", "sha256") for each in (file, contents)
    }
    sections = [
        f"# {title} HASH\n{values[algorithm]}  {each.name}\n"
        for each, values in digests_by_file.items()
        for title, algorithm in (("BLAKE2B", "blake2b"), ("SHA512", "sha512"))
    ]
    beside = file.with_name
    keys.sign_detached(lab, "stages", file, beside(f"{file.name}.asc"))
    write_atomic(beside(f"{file.name}.DIGESTS"), keys.sign_clear(lab, "stages", "".join(sections)))
    sha256 = f"{digests_by_file[file]['sha256']}  {file.name}\n"
    write_atomic(beside(f"{file.name}.sha256"), keys.sign_clear(lab, "stages", sha256))
