"""Writing files so that a reader finds either the old content or the new one, never half of it."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dgmrec_pyg.errors import UserError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of :obj:`path`; moves it into place when the block succeeds.

    The file is flushed to disk before the move. When the block raises, the temporary file is removed
    and :obj:`path` is left as it was.

    Args:
        path (str or PathLike): Where the finished file is to stand.

    Raises:
        UserError: If the folder cannot be written to.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f'.{target.name}.', suffix=target.suffix)
    except OSError as error:
        raise UserError(f"cannot write '{target}': {error.strerror}; choose a folder that can be written to") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with open(temporary, 'rb') as file:
            os.fsync(file.fileno())
        # mkstemp makes private files; results are meant to be read by others as umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(f"cannot write '{target}': {error.strerror}; free some space or choose another "
                        'folder') from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes :obj:`text` to :obj:`path` in one move (UTF-8).

    Args:
        path (str or PathLike): The file.
        text (str): Its whole content.

    Raises:
        UserError: If the folder cannot be written to.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')
