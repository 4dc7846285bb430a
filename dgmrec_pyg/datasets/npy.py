"""Reading .npy files without trusting their header."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dgmrec_pyg.errors import UserError

HEADER_BYTES = 16_384  # more than NumPy reads of a header
_BLOCK_VALUES = 2**22  # values in memory at once beside the result


@dataclass(frozen=True)
class NpyHeader:
    """What the header of a .npy file claims.

    Attributes:
        shape (tuple): The shape of the array.
        dtype (numpy.dtype): The type of its values.
        fortran_order (bool): Whether its columns, not its rows, lie one after the other.
        offset (int): Where its values begin, in bytes from the start of the file.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fortran_order: bool
    offset: int


def read_header(start: bytes) -> NpyHeader:
    """Reads the header out of the first :obj:`HEADER_BYTES` bytes of a .npy file.

    Args:
        start (bytes): The bytes; no more are needed, whatever length the header claims to have.

    Raises:
        Exception: Whatever a damaged header leads to in NumPy; :class:`ValueError` for a shape that is none.
    """
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    file = io.BytesIO(start[:HEADER_BYTES])
    version = np.lib.format.read_magic(file)
    if version not in readers:
        raise ValueError(f'unknown .npy version {version}')
    shape, fortran_order, dtype = readers[version](file)
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError('its shape is not of whole numbers from 0')
    return NpyHeader(shape, dtype, fortran_order, file.tell())


def open_matrix(path: Path) -> NpyHeader:
    """Returns the header of a .npy file of numbers ``[N, F]``, having compared it with the size of the file.

    No memory is taken for the values yet.

    Args:
        path (Path): The file.

    Raises:
        UserError: If the file cannot be read, holds something else, or less than its header claims.
    """
    need = 'a .npy file of numbers [num_items, F] is needed'
    try:
        with open(path, 'rb') as file:
            start = file.read(HEADER_BYTES)
            size = os.fstat(file.fileno()).st_size
        if start.startswith(b'PK'):
            raise ValueError('it is an archive')
        header = read_header(start)
    except Exception as error:  # a damaged file fails in numpy in many ways
        reason = ' '.join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"cannot read '{path}': {reason}; {need}") from error
    if header.dtype.hasobject:
        raise UserError(f"cannot read '{path}': it holds pickled objects, which are not read; {need}")
    if header.dtype.kind not in 'biuf':
        raise UserError(f"'{path}' holds {str(header.dtype)[:40]}, not numbers; save a float array [num_items, F] "
                        'with numpy.save')
    shape = str(list(header.shape))[:60]
    if len(header.shape) != 2 or 0 in header.shape:
        raise UserError(f"'{path}' has shape {shape}; [num_items, F] is needed, with at least one row and one column")
    if math.prod(header.shape) * header.dtype.itemsize > size - header.offset:
        raise UserError(f"cannot read '{path}': its header claims {header.dtype} {shape}, but only "
                        f'{size - header.offset:,} bytes follow; fetch or save it again')
    return header


def read_matrix(path: Path, header: NpyHeader) -> np.ndarray:
    """Reads the values of a .npy file as float32 ``[N, F]``.

    The file is read block by block, not mapped into memory: the process that maps a file dies if another one shortens
    it.

    Args:
        path (Path): The file.
        header (NpyHeader): Its header, from :func:`open_matrix`.

    Raises:
        UserError: If it cannot be read or has become shorter.
    """
    values = np.empty(header.shape, dtype=np.float32)
    lines = values.T if header.fortran_order else values  # as they lie in the file
    step = max(1, _BLOCK_VALUES // lines.shape[1])
    try:
        with open(path, 'rb') as file:
            file.seek(header.offset)
            for first in range(0, len(lines), step):
                _fill(lines[first:first + step], header.dtype, file)
    except (OSError, EOFError) as error:
        raise UserError(f"cannot read '{path}': {getattr(error, 'strerror', None) or error}; fetch or save it "
                        'again') from error
    return values


def _fill(lines: np.ndarray, dtype: np.dtype, file: BinaryIO) -> None:
    """Fills some lines with the next values of the file."""
    found = np.fromfile(file, dtype, count=lines.size)
    if found.size < lines.size:
        raise EOFError('it ends too early')
    with np.errstate(over='ignore'):  # what is too large for float32 becomes infinite; the caller looks for that
        lines[...] = found.reshape(lines.shape)
