"""The one exception that a user of this package is expected to see."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

EXTRAS = {'argcomplete': 'completion', 'faiss': 'ann', 'gdown': 'download', 'matplotlib': 'plot', 'optuna': 'tune',
          'pyarrow': 'parquet', 'safetensors': 'safetensors', 'starlette': 'demo', 'tensorboard': 'track',
          'uvicorn': 'demo'}
"""The extra of the package that brings a library, by the name of its module."""


class UserError(ValueError):
    """Something that the caller can put right: a wrong name, a broken file, a setting that does not fit.

    The message is one line that says what is wrong, where, and what to do about it. The command line
    prints it and leaves with exit code 2; in Python it is an ordinary :class:`ValueError`.

    Args:
        message (str): The message. Line breaks and other control characters, which names in foreign files may hold to
            fool a terminal, are shown as escapes.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))


def printable(text: str) -> str:
    """Returns a text in one line, with line breaks and other control characters as escapes.

    Args:
        text (str): Any text, such as the name of a foreign file.
    """
    return ''.join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def check_name(kind: str, name: str, known: Iterable[str]) -> None:
    """Refuses a name that is not known.

    Args:
        kind (str): What it is to name, such as ``'imputer'``.
        name (str): What was given.
        known (Iterable[str]): What would have been understood.

    Raises:
        UserError: If it is none of them.
    """
    names = list(known)
    if name not in names:
        raise UserError(f"unknown {kind} '{name}'{near_miss(name, names)} (known: {', '.join(names)})")


def near_miss(name: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'baby'?"`` where a known name resembles :obj:`name`, else ``""``.

    Args:
        name (str): What was given.
        known (Iterable[str]): What would have been understood.
    """
    close = get_close_matches(name[:100], list(known), n=1, cutoff=0.5)  # Comparing long ones takes long.
    return f"; did you mean '{close[0]}'?" if close else ''


def install_hint(library: str) -> str:
    """Returns the command that installs a library, by the extra that brings it.

    Args:
        library (str): The library, by the name of its module, one of :obj:`EXTRAS`.
    """
    return f'pip install "dgmrec-pyg[{EXTRAS[library]}]"'
