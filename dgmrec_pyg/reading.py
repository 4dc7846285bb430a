"""Reading files that others made: their kind, place and size are checked, and that they stay as they are."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dgmrec_pyg.errors import UserError

MAX_JSON_BYTES = 16 * 2**20


def check_plain_file(path: str | os.PathLike[str]) -> None:
    """Refuses what is no plain file: a folder, and pipes and devices, which never end.

    Args:
        path (str or PathLike): The file, or a link to it.

    Raises:
        UserError: If it is something else, or not there.
    """
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror}") from error
    if not stat.S_ISREG(mode):
        kind = 'a folder' if stat.S_ISDIR(mode) else 'a pipe or a device'
        raise UserError(f"cannot read '{path}': it is {kind}; put a plain file there")


def check_inside(folder: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Refuses a link that leads out of a folder, so that a set from elsewhere reads nothing but its own files.

    The folder itself may be a link.

    Args:
        folder (str or PathLike): The folder.
        path (str or PathLike): A file in it.

    Raises:
        UserError: If the file itself lies elsewhere.
    """
    target = Path(path).resolve()
    if not target.is_relative_to(Path(folder).resolve()):
        raise UserError(f"'{path}' is a link that leads out of its folder, to '{target}'; copy the file there, or make "
                        'the whole folder a link')


@contextmanager
def unchanged(paths: Iterable[Path]) -> Iterator[None]:
    """Refuses what was read in the block if one of the files was written to or replaced meanwhile.

    Args:
        paths (Iterable[Path]): The files.

    Raises:
        UserError: If a file changed. It takes the place of an error that the half-written file led to.
    """
    before = {path: _state(path) for path in paths}
    try:
        yield
    except UserError as error:
        _refuse_changed(before, error)
        raise
    _refuse_changed(before)


def read_bytes(path: str | os.PathLike[str], max_bytes: int) -> bytes:
    """Returns the content of a plain file.

    Args:
        path (str or PathLike): The file.
        max_bytes (int): A larger file is refused; no more than this is read.

    Raises:
        UserError: If it cannot be read, is no plain file, is too large, or changes meanwhile.
    """
    check_plain_file(path)
    with unchanged([Path(path)]):
        try:
            with open(path, 'rb') as file:
                content = file.read(max_bytes + 1)
        except OSError as error:
            raise UserError(f"cannot read '{path}': {error.strerror}") from error
    if len(content) > max_bytes:
        raise UserError(f"'{path}' has {os.path.getsize(path):,} bytes; at most {max_bytes:,} are read, so it is "
                        'refused')
    return content


def read_json(path: str | os.PathLike[str], max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Returns what a JSON file holds.

    Args:
        path (str or PathLike): The file.
        max_bytes (int): A larger file is refused. (default: 16 MiB)

    Raises:
        UserError: If it cannot be read, is too large, is no JSON, or is nested too deeply.
    """
    content = read_bytes(path, max_bytes)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise UserError(f"'{path}' cannot be read: its brackets are nested too deeply") from error
    except ValueError as error:
        raise UserError(f"'{path}' cannot be read: it is no JSON ({' '.join(str(error).split())[:100]})") from error


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:  # whoever reads it says so
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _refuse_changed(before: dict[Path, tuple[int, int, int] | None], error: UserError | None = None) -> None:
    for path, state in before.items():
        if _state(path) != state:
            raise UserError(f"'{path}' changed while it was read; try again when it is written completely") from error
