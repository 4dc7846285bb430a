"""Checkpoints: plain tensors and numbers, written in one move, read without running anything in them."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.files import atomic_path

FORMAT = 1


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Writes a state of tensors, numbers and texts.

    Args:
        path (str or PathLike): The file; an older one is replaced only when the new one is complete.
        state (dict): What to keep.

    Raises:
        UserError: If the file cannot be written.
    """
    with atomic_path(path) as temporary:
        torch.save({'format': FORMAT, **state}, temporary)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads what :func:`save_checkpoint` wrote, onto the CPU.

    Args:
        path (str or PathLike): The file.

    Raises:
        UserError: If there is no such file, it is damaged, or of another format.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # PyTorch's guesses about foreign files; the error below says it.
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no checkpoint '{path}'; start the run anew") from error
    except Exception as error:  # A damaged or foreign file fails in many ways.
        raise UserError(f"checkpoint '{path}' cannot be read ({type(error).__name__}); it is damaged or no checkpoint "
                        'of this package: start the run anew') from error
    if not isinstance(state, dict) or state.get('format') != FORMAT:
        found = state.get('format') if isinstance(state, dict) else None
        raise UserError(f"checkpoint '{path}' has format {found}, this version reads format {FORMAT}: start the run "
                        'anew')
    return state
