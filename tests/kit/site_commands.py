"""Commands of doit on a site of a test, in this process."""

from __future__ import annotations

from doit.cmd_base import NamespaceTaskLoader

from tasks.commands.site_command import SiteCommand
from tasks.site import Site


def run_command(kind: type[SiteCommand], site: Site, *words: str) -> int | None:
    """Run a command with these words; raises InvalidCommand for words that cannot be used."""
    command = kind(task_loader=NamespaceTaskLoader())
    return command.run(site, command.read(words))
