"""binmill's tasks; `doit list` shows them, docs/architecture.md draws them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from doit.exceptions import InvalidDodoFile

PROJECT = Path(__file__).resolve().parent

if not any(each.entry_points for each in distributions(name="binmill")):
    raise InvalidDodoFile(
        f"binmill is not installed for this doit; run: pip install -e {PROJECT}  (or: make setup)"
    )

from tasks import graph, site  # noqa: E402 - only once it is known to be installed
from tasks.engine.old_runs import prune_logs_at_exit  # noqa: E402
from tasks.engine.signals import end_cleanly  # noqa: E402
from tasks.errors import BinmillError  # noqa: E402
from tasks.system.proxy import use_proxy  # noqa: E402

try:
    SITE = site.load(PROJECT)
except BinmillError as error:
    raise InvalidDodoFile(str(error)) from error

end_cleanly()
prune_logs_at_exit(SITE.layout, SITE.config.logs.keep_days, SITE.config.logs.keep_mb)
use_proxy(SITE.config.network.proxy, SITE.no_proxy)

DOIT_CONFIG = {
    "backend": "binmill",
    "reporter": "binmill",
    "dep_file": str(SITE.layout.database),
    "default_tasks": graph.defaults(SITE),
    "verbosity": 2,
}


def task_binmill() -> Iterator[Any]:
    """All tasks of the site."""
    yield from graph.build(SITE)
