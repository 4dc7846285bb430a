"""Reading arrays out of a pickle without running anything that the pickle asks for."""

from __future__ import annotations

import io
import pickle
import pickletools
import re

import numpy as np

_NUMPY_NAMES = {
    ('numpy.core.multiarray', '_reconstruct'),
    ('numpy._core.multiarray', '_reconstruct'),
    ('numpy', 'ndarray'),
    ('numpy', 'dtype'),
}
_INTEGER = re.compile('[iu][1248]')


class _Parts:
    """Stands where the pickle builds an array or a dtype: keeps what it was to be built from, and does nothing."""

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments
        self.state: tuple = ()

    def __setstate__(self, state: tuple) -> None:
        self.state = state


class _PartsUnpickler(pickle.Unpickler):

    def find_class(self, module: str, name: str) -> type:
        if (module, name) not in _NUMPY_NAMES:
            raise pickle.UnpicklingError(f'it asks for {f"{module}.{name}"[:80]!r}, which arrays do not need, and is '
                                         'not to be trusted')
        return _Parts


def load_array_dict(content: bytes) -> dict[str, np.ndarray]:
    """Reads a pickled dict of integer arrays, itself in an object array as :func:`numpy.save` leaves it.

    No class or function that the pickle names is looked up or called, not even NumPy's: the arrays are made here,
    from their bytes.

    Args:
        content (bytes): The pickle.

    Returns:
        dict[str, numpy.ndarray]: Its arrays, int64 ``[n]`` each.

    Raises:
        Exception: Whatever a damaged pickle leads to; :class:`pickle.UnpicklingError` if it names anything but arrays.
    """
    # genops also fails where a length goes beyond the data, before memory is taken for it.
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name in ('PUT', 'LONG_BINPUT') and (argument or 0) > len(content):
            raise pickle.UnpicklingError('it numbers its parts beyond its own length')
    holder = _PartsUnpickler(io.BytesIO(content)).load()
    (arrays,) = holder.state[-1] if isinstance(holder, _Parts) else [holder]
    if not isinstance(arrays, dict) or not all(isinstance(key, str) for key in arrays):
        raise ValueError('it holds no dict with names as keys')
    return {key: _integers(value) for key, value in arrays.items()}


def _integers(value: object) -> np.ndarray:
    """Makes an int64 array from the parts of a pickled one, or from a plain list of whole numbers."""
    if isinstance(value, _Parts):
        _, shape, dtype, _, content = value.state
        if shape == (0,):
            return np.zeros(0, dtype=np.int64)
        code, order = str(dtype.arguments[0]), dtype.state[1]
        if len(shape) != 1 or not _INTEGER.fullmatch(code):
            raise ValueError(f'it holds an array {code} {list(shape)} where a list of item ids is needed')
        return np.frombuffer(content, dtype=np.dtype(code).newbyteorder(order), count=shape[0]).astype(np.int64)
    if isinstance(value, list | tuple | set) and all(type(number) is int for number in value):
        return np.array(sorted(value), dtype=np.int64)
    raise ValueError(f'it holds {type(value).__name__} where a list of item ids is needed')
