"""Writing files so that a reader finds either the old content or the new one, never half of it."""

from __future__ import annotations

import csv
import io
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dgmrec_pyg.errors import UserError

_UNFINISHED = '.unfinished.'
_STARTS_A_FORMULA = tuple('=+-@\uff1d\uff0b\uff0d\uff20')  # the last four are full-width
_BREAKS = re.compile('[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+')
_PLAIN = re.compile(r'[-+@][\w.-]*([eE]\+\d+)?')


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path in the folder of :obj:`path`; moves it into place when the block succeeds.

    The file is flushed to disk before the move, and its folder after it, so that the move outlives a power cut. When
    the block raises, the temporary file is removed and :obj:`path` is left as it was. A killed process leaves its
    temporary file behind: see :func:`unfinished_files`.

    Args:
        path (str or PathLike): Where the finished file is to stand.

    Raises:
        UserError: If the folder cannot be written to.
    """
    target = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f'{_UNFINISHED}{target.name}.', suffix=target.suffix)
    except OSError as error:
        raise UserError(f"cannot write '{target}': {error.strerror}; choose a folder that can be written to") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        # mkstemp makes private files; results are meant to be read by others as umask allows.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
        if os.name == 'posix':  # Elsewhere folders cannot be opened.
            _flush(target.parent)
    except OSError as error:
        raise UserError(f"cannot write '{target}': {error.strerror}; free some space or choose another "
                        'folder') from error
    finally:
        temporary.unlink(missing_ok=True)


def unfinished_files(folder: str | os.PathLike[str]) -> set[Path]:
    """Returns the temporary files that :func:`atomic_path` has in a folder: what it writes now, and what killed
    processes have left behind. A folder of such a name is somebody else's.

    Args:
        folder (str or PathLike): Where to look.
    """
    return {path for path in Path(folder).glob(f'{_UNFINISHED}*') if not path.is_dir()}


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Returns rows as the text of a CSV file; text that others have written goes through :func:`csv_cell` before.

    Args:
        rows (Iterable): The rows.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator='\n').writerows(rows)
    return text.getvalue()


def csv_cell(value: object) -> str:
    """Returns a value as a cell of a CSV file that spreadsheets do not take for a formula.

    Text that begins with ``=``, ``+``, ``-`` or ``@``, also full-width ones, gets an apostrophe in front, as
    spreadsheets use it to mark text; spaces, quotes and invisible characters before the sign do not hide it. The same
    holds after each ``;`` and ``,`` in the text, where a spreadsheet of another language may split it. Line breaks and
    tabs become a space.

    Numbers (``-3``, ``+1.5e-3``) and ids of letters, digits, ``_``, ``.`` and ``-`` (``-dQw4w9``, ``@anna``) stay as
    they are: without brackets, operators, quotes or separators they call and fetch nothing, though a spreadsheet may
    show an error in their place. What else a program makes of a text (dates, links) is not prevented.

    Args:
        value (object): What is to be written.
    """
    return ''.join(map(_marked_as_text, re.split('([;,])', _BREAKS.sub(' ', str(value)))))


def _marked_as_text(part: str) -> str:
    """Puts an apostrophe in front of what would be a formula if a cell began with it."""
    start = next((place for place, letter in enumerate(part) if letter.isprintable() and letter not in ' "'), len(part))
    shown = part[start:]
    return f"'{part}" if shown.startswith(_STARTS_A_FORMULA) and not _PLAIN.fullmatch(shown) else part
