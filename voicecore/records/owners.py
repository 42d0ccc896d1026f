"""Which processes that write records are alive, in whatever container, without asking for pids.

Each process holds a lock on a file of its own.  The kernel lets go of it when the process is gone,
in whatever way; who can take the lock knows that.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path

FOLDER = ".owners"
_NAME = re.compile(r"[0-9a-f]{16}")


class Owner:
    """This process.  Blocks, though not for long."""

    def __init__(self, directory: Path) -> None:
        """Take the lock.

        Raises:
            OSError: the directory cannot be used.
        """
        self.name = secrets.token_hex(8)
        folder = directory / FOLDER
        folder.mkdir(mode=0o700, exist_ok=True)
        self._path = folder / self.name
        self._file = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600)
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __repr__(self) -> str:
        return f"<Owner {self.name}>"

    def close(self) -> None:
        """Let go.  May be called again."""
        if self._file >= 0:
            with suppress(OSError):
                self._path.unlink()
            os.close(self._file)
            self._file = -1


def is_alive(directory: Path, name: str) -> bool:
    """Return whether the process that has this name is alive."""
    if not _NAME.fullmatch(name):
        return False
    try:
        file = os.open(directory / FOLDER / name, os.O_RDONLY)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # who cannot know should not bury anybody
    try:
        # Shared: two who ask at once are not taken for the owner by each other.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(file)
    return False


def forget_dead(directory: Path) -> None:
    """Remove the files of processes that are gone."""
    with suppress(OSError):
        for path in (directory / FOLDER).iterdir():
            if _NAME.fullmatch(path.name) and not is_alive(directory, path.name):
                with suppress(OSError):
                    path.unlink()
