"""etc, check: a chroot's /etc/portage, and what its own Portage says of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import Any

from tasks import text
from tasks.errors import BinmillError
from tasks.records import CheckRecord, EtcRecord, Inputs
from tasks.site import Chroot, identity
from tasks.system.files import private_folder, write_atomic
from tasks.system.notes import note

_REASON = 300  # characters of what Portage says


def generate(chroot: Chroot, _inputs: Inputs) -> EtcRecord:
    """Generate a chroot's /etc/portage, under a name made of all of it but the mirrors.

    A change of mirrors changes nothing that is built.
    """
    from tasks.portage import etc_portage

    site = chroot.site
    files = portage_files(chroot)
    link = etc_portage.profile_link(site.config, chroot.name)
    plain = replace(site, config=etc_portage.without_mirrors(site.config))
    mirrorless_files = portage_files(replace(chroot, site=plain))
    target = chroot.layout.etc(chroot.name) / identity([mirrorless_files, link])[:32]
    private_folder(target.parent.parent)  # a mirror's password may be in it
    etc_portage.write(files, link, target, chroot.layout.trash)
    etc_portage.check_unmodified(target, mirrorless_files, mirrorless_files)
    etc_portage.update_mirrors(files, target)
    return EtcRecord(str(target.relative_to(chroot.layout.state)), tuple(sorted(mirrorless_files)))


def portage_files(chroot: Chroot, **more: Any) -> dict[str, str]:
    """The files of a chroot's /etc/portage, with those of portage_dir; `more` goes to files()."""
    from tasks.portage import etc_portage

    files = etc_portage.files(chroot.site.config, chroot.name, **more)
    own = [etc_portage.read_portage_dir(folder) for folder in chroot.portage_dirs]
    return etc_portage.merge(files, etc_portage.stacked(own))


def check_settings(chroot: Chroot, inputs: Inputs) -> CheckRecord:
    """Ask the chroot's own Portage about every value in its config; raises with all problems."""
    from tasks.chroot import sandboxes
    from tasks.portage import config_check
    from tasks.system import sandbox
    from tasks.system.sandbox import Bind

    config, name = chroot.site.config, chroot.name
    request = config_check.request(config, name)
    with chroot.workspace("check") as space:
        folder = space / "asked"
        folder.mkdir()
        shutil.copy(config_check.PROGRAM, folder)
        write_atomic(folder / "request.json", json.dumps(request))
        inside = sandboxes.own(
            chroot, inputs, space, binds=(Bind(str(folder), config_check.INSIDE),)
        )
        info = sandbox.run(
            inside, ["emerge", "--ignore-default-opts", "--info", "--color=n"], check=False
        )
        if info.returncode != 0:
            raise BinmillError(
                "portage-unusable", chroot=name, reason=_last_line(info.stderr or info.stdout)
            )
        answer = sandbox.run(inside, config_check.COMMAND)
    problems = config_check.problems(answer.stdout)
    for each in problems:
        if not each.fatal:
            note("setting-doubtful", problem=config_check.describe(config, name, each))
    fatal = [config_check.describe(config, name, each) for each in problems if each.fatal]
    if fatal:
        raise BinmillError("settings-rejected", chroot=name, problems=fatal)
    note("settings-accepted", chroot=name)
    return CheckRecord(identity(request))


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return text.one_line(lines[-1] if lines else "it printed nothing", _REASON)
