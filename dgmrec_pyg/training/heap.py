"""How the C library deals with freed memory."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from contextlib import suppress

_MALLOC_TRIM_THRESHOLD, _MALLOC_MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt
_KEPT_BLOCK_BYTES = (2**28, 2**25)  # older versions accept the second alone
_KEPT_BYTES = 2**29
_LARGEST_ADAPTIVE_BYTES = 2**25  # where glibc's own limits, which rise with what is freed, end


def keep_freed_memory() -> None:
    """Lets glibc keep what a step frees for the next step, where it would go back to the system and have to be fetched
    anew, page by page: a fifth of a step's time on a set of 60,000 interactions. Other C libraries are left alone,
    and so is glibc where its environment variables say something else."""
    _set_limits(_KEPT_BLOCK_BYTES, _KEPT_BYTES)


def stop_keeping_freed_memory() -> None:
    """Ends :func:`keep_freed_memory`, for when training is over: what is free goes back to the system, since what comes
    next needs blocks of other sizes. From now on as much is kept as glibc would come to keep by itself: a process that
    goes on is no slower than before."""
    _set_limits((_LARGEST_ADAPTIVE_BYTES, ), 2 * _LARGEST_ADAPTIVE_BYTES)
    give_back_freed_memory()


def _set_limits(block_bytes: Sequence[int], kept_bytes: int) -> None:
    """Sets from which size on blocks are returned (the first one that is accepted), and how much else is kept."""
    if any(name.startswith('MALLOC_') or name == 'GLIBC_TUNABLES' for name in os.environ):
        return
    with suppress(AttributeError, OSError, TypeError):
        set_option = ctypes.CDLL(None).mallopt
        any(set_option(_MALLOC_MMAP_THRESHOLD, size) for size in block_bytes)
        set_option(_MALLOC_TRIM_THRESHOLD, kept_bytes)


def give_back_freed_memory() -> None:
    """Gives back to the system what glibc has kept so far; what is allocated next has to be fetched anew."""
    with suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
