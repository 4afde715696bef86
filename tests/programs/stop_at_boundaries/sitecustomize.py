"""Stop the process before and after each call that changes the disk."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any


def _stopping(real: Callable[..., Any]) -> Callable[..., Any]:
    def call(*arguments: Any, **more: Any) -> Any:
        os.kill(os.getpid(), signal.SIGSTOP)
        result = real(*arguments, **more)
        os.kill(os.getpid(), signal.SIGSTOP)
        return result

    return call


for _name in ("fsync", "rename", "replace"):
    setattr(os, _name, _stopping(getattr(os, _name)))
