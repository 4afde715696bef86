"""etc, check, show: a chroot's /etc/portage, what its Portage says of it, and what is in it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tasks.errors import BinmillError
from tasks.flow import chroots
from tasks.records import Record
from tasks.site import Site, identity
from tasks.system.files import closed_folder, write_atomic
from tasks.system.terminal import say


def etc(site: Site, name: str) -> Record:
    """Generate a chroot's /etc/portage.

    Its name is that of all but the mirrors: where files come from changes nothing that is built.
    """
    from tasks.portage import etc_portage

    made = portage_files(site, name)
    link = etc_portage.profile_link(site.config, name)
    settled = portage_files(replace(site, config=etc_portage.without_mirrors(site.config)), name)
    target = site.layout.etc(name) / identity([settled, link])[:32]
    closed_folder(target.parent.parent)  # a mirror's password may be in it
    etc_portage.write(made, link, target, site.layout.trash)
    etc_portage.vouched(target, settled, settled)
    etc_portage.renew_mirrors(made, target)
    return {"path": str(target.relative_to(site.layout.state)), "files": sorted(settled)}


def portage_files(site: Site, name: str, **more: Any) -> dict[str, str]:
    """The files of a chroot's /etc/portage, its own ones among them; `more` goes to files()."""
    from tasks.portage import etc_portage

    made = etc_portage.files(site.config, name, **more)
    own = site.config.chroots[name].portage_dir
    if own:
        made = etc_portage.merged(made, etc_portage.own_files(site.layout.site / own))
    return made


def check(site: Site, name: str) -> Record:
    """Ask the chroot's own Portage about every word of its config; raises with all problems."""
    from tasks.portage import config_check
    from tasks.system import sandbox
    from tasks.system.sandbox import Bind

    config = site.config
    with chroots.workspace(site, f"check-{name}") as space:
        folder = space / "asked"
        folder.mkdir()
        shutil.copy(config_check.PROGRAM, folder)
        write_atomic(folder / "request.json", json.dumps(config_check.request(config, name)))
        inside = chroots.plan(site, name, space, binds=(Bind(str(folder), config_check.INSIDE),))
        info = sandbox.run(inside, ["emerge", "--info", "--color=n"], check=False)
        if info.returncode != 0:
            raise BinmillError(
                f"Portage cannot work with what config.toml says of {name}: "
                f"{_last_line(info.stderr or info.stdout)}",
                f"see it all with: doit enter {name} -- emerge --info",
            )
        answer = sandbox.run(inside, config_check.COMMAND)
    found = config_check.problems(answer.stdout)
    for each in found:
        if not each.fatal:
            say(f"  warning: {config_check.worded(config, name, each)}")
    wrong = [config_check.worded(config, name, each) for each in found if each.fatal]
    if wrong:
        count = f"{len(wrong)} word{'s' if len(wrong) > 1 else ''}"
        lines = "".join(f"\n  {line}" for line in wrong)
        raise BinmillError(
            f"Portage does not take {count} that config.toml has for {name}:{lines}",
            "correct config.toml; nothing was built",
        )
    say(f"  Portage takes what config.toml says of {name}")
    return {"asked": identity(config_check.request(config, name))}


def show(site: Site, words: Sequence[str]) -> None:
    """`doit show NAME [FILE]`: the generated /etc/portage of a chroot, or one file of it."""
    from tasks.portage import etc_portage

    name, wanted = (words[0] if words else ""), list(words[1:])
    if name not in site.config.chroots:
        known = ", ".join(site.config.chroots)
        raise BinmillError(
            f"there is no chroot {name!r}", f"doit show NAME [FILE], NAME one of: {known}"
        )
    made = {
        **portage_files(site, name),
        etc_portage.PROFILE: f"-> {etc_portage.profile_link(site.config, name)}\n",
    }
    for path in wanted:
        if path not in made:
            raise BinmillError(
                f"{name} has no /etc/portage/{path}", f"it has: {', '.join(sorted(made))}"
            )
    # what is in another encoding is shown as far as it can be
    text = {path: content.encode("utf-8", "replace").decode() for path, content in made.items()}
    if wanted:
        say("\n".join(text[path].rstrip("\n") for path in wanted))
    else:
        say("\n".join(f"==> {Path('/etc/portage', p)} <==\n{text[p]}" for p in sorted(text)))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    told = lines[-1] if lines else "it said nothing"
    return "".join(c if c.isprintable() else "?" for c in told[:300])
