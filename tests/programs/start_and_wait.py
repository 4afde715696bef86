"""Starts a program as this project starts them, prints its process id and waits for its end."""

from __future__ import annotations

from tasks.system.command import started

if __name__ == "__main__":
    with started("sleep", "600") as process:
        print(process.pid, flush=True)
        process.wait()
