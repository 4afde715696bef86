"""The report of a site as JSON; docs/operate.md describes the keys, which stay as they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from tasks import messages
from tasks.causes import Reason
from tasks.report.model import VERSION, SiteReport


def render(report: SiteReport) -> str:
    """The report as text of one JSON object."""
    return json.dumps(plain(report), indent=1, sort_keys=True)


def plain(report: SiteReport) -> dict[str, Any]:
    """The report as dicts, lists, strings and numbers."""
    fields = asdict(report)
    fields["version"] = VERSION
    fields["tasks"] = {task: _reason(reason) for task, reason in report.tasks.items()}
    for name, chroot in report.chroots.items():
        fields["chroots"][name]["reason"] = _reason(chroot.reason)
    for entry, update in zip(fields["updates"], report.updates, strict=True):
        entry["sentence"] = messages.sentence(update.code, update.fields)
    fields["disk"]["total"] = report.disk.total
    return fields


def _reason(reason: Reason | None) -> dict[str, Any] | None:
    return reason.plain() if reason else None
