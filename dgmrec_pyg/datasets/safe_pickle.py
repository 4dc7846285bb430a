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

# What pickling a dict of integer arrays takes since Python 3.0; whatever else a pickle can ask for is refused unread.
_OPCODES = {
    'PROTO', 'FRAME', 'STOP', 'MARK', 'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BUILD',
    'BINPUT', 'LONG_BINPUT', 'MEMOIZE', 'BINGET', 'LONG_BINGET',
    'NONE', 'NEWTRUE', 'NEWFALSE', 'BININT', 'BININT1', 'BININT2', 'LONG1',
    'BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES', 'SHORT_BINBYTES',
    'EMPTY_DICT', 'SETITEM', 'SETITEMS', 'EMPTY_LIST', 'APPEND', 'APPENDS', 'EMPTY_SET', 'ADDITEMS',
    'EMPTY_TUPLE', 'TUPLE', 'TUPLE1', 'TUPLE2', 'TUPLE3',
}
# What makes a part that a pickle may refer to again. No tuples: hashing t = (t, t), done n times, takes 2 ** n steps. A
# call (REDUCE) makes a _Parts, which is hashed without a look at what it holds.
_SHAREABLE = {
    'GLOBAL', 'STACK_GLOBAL', 'REDUCE', 'BINUNICODE', 'SHORT_BINUNICODE', 'BINBYTES', 'SHORT_BINBYTES',
    'EMPTY_DICT', 'EMPTY_LIST', 'EMPTY_SET',
}
# An array takes 6. Hashing a tuple in a tuple in a tuple ... exhausts the stack, which ends the process, and comparing
# many of one hash takes long.
_MAX_TUPLES = 1_000
_MAX_INTEGER_BYTES = 9  # an unsigned integer of 64 bits; sets of longer ones can be made to take hours


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
    _check_opcodes(content)
    holder = _PartsUnpickler(io.BytesIO(content)).load()
    (arrays,) = holder.state[-1] if isinstance(holder, _Parts) else [holder]
    if not isinstance(arrays, dict) or not all(isinstance(key, str) for key in arrays):
        raise ValueError('it holds no dict with names as keys')
    items, total = {}, 0
    for key, value in arrays.items():
        items[key] = _integers(value)
        total += len(items[key])
        if total > len(content):  # An id takes a byte or more, so that one array must stand under many keys.
            raise ValueError('it names one array again and again')
    return items


def _check_opcodes(content: bytes) -> None:
    """Goes through a pickle without carrying it out, and refuses what would take too much memory, stack or time."""
    tuples = 0
    before = ''
    memo: dict[int, str] = {}  # the opcode that each numbered part was made by, as far as that is certain
    # genops also fails where a length goes beyond the data, before memory is taken for it.
    for opcode, argument, _ in pickletools.genops(content):
        number = argument if isinstance(argument, int) else 0
        if opcode.name not in _OPCODES:
            raise pickle.UnpicklingError(f'it uses {opcode.name}, which arrays do not need, and is not to be trusted')
        if opcode.name == 'LONG_BINPUT' and number > len(content):
            raise pickle.UnpicklingError('it numbers its parts beyond its own length')
        if opcode.name == 'LONG1' and number.bit_length() > 8 * _MAX_INTEGER_BYTES:
            raise pickle.UnpicklingError('it holds a number of more than 64 bits')
        if opcode.name in ('MEMOIZE', 'BINPUT', 'LONG_BINPUT'):
            memo[len(memo) if opcode.name == 'MEMOIZE' else number] = before
        if opcode.name in ('BINGET', 'LONG_BINGET') and memo.get(number) not in _SHAREABLE:
            raise pickle.UnpicklingError('it refers to a tuple again, which arrays do not need')
        if opcode.name != 'FRAME':  # stands between a long text and its number, and makes nothing
            before = opcode.name
        tuples += 'TUPLE' in opcode.name
    if tuples > _MAX_TUPLES:
        raise pickle.UnpicklingError(f'it holds {tuples:,} tuples, far more than arrays need')


def _integers(value: object) -> np.ndarray:
    """Makes an int64 array from the parts of a pickled one, or from a plain list of whole numbers."""
    if isinstance(value, _Parts):
        _, shape, dtype, _, content = value.state
        if shape == (0,):
            return np.zeros(0, dtype=np.int64)
        code, order = str(dtype.arguments[0]), dtype.state[1]
        if len(shape) != 1 or shape[0] < 0 or not _INTEGER.fullmatch(code):
            raise ValueError(f'it holds an array {code} {list(shape)} where a list of item ids is needed')
        return np.frombuffer(content, dtype=np.dtype(code).newbyteorder(order), count=shape[0]).astype(np.int64)
    if isinstance(value, list | tuple | set) and all(type(number) is int for number in value):
        return np.array(sorted(value), dtype=np.int64)
    raise ValueError(f'it holds {type(value).__name__} where a list of item ids is needed')
