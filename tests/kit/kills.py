"""Code that dies at its Nth system call, as by SIGKILL."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

# Every call that changes a name.
CALLS = ("rename", "replace", "symlink", "link", "unlink", "mkdir", "rmdir")


def killed_before(moment: int, action: Callable[[], object]) -> bool:
    """Run an action in a process that dies, as by SIGKILL, before its `moment`th call of CALLS.

    Returns True if it died. No `finally` and no `except` of it runs.
    """
    child = os.fork()
    if child == 0:
        left = [moment]

        def dying(real: Any) -> Any:
            def step(*arguments: Any, **more: Any) -> Any:
                left[0] -= 1
                if left[0] == 0:
                    os._exit(9)
                return real(*arguments, **more)

            return step

        for name in CALLS:
            setattr(os, name, dying(getattr(os, name)))
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9)
    return code == 9
