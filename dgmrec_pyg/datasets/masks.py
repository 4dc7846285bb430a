"""Mask files: which item lacks which modality.

There are two forms. ``missing_<ratio>.npz`` holds a bool array per modality, True where the item lacks it; this is the
form that the package writes. ``missing_items_<ratio>.npy`` is the form released with DGMRec: a pickled dict whose keys
name *exactly* the modalities that its items lack (``t`` text, ``v`` image, ``a`` audio, ``tv`` both, ``all`` all).
"""

from __future__ import annotations

import io
import os
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dgmrec_pyg.datasets.npy import HEADER_BYTES, read_header
from dgmrec_pyg.datasets.safe_pickle import load_array_dict
from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.files import atomic_path
from dgmrec_pyg.reading import check_inside, read_bytes

MODALITY_OF_LETTER = {'a': 'audio', 't': 'text', 'v': 'image'}
ALL_MODALITIES = 'all'
MAX_BYTES = 16 * 2**20  # 40 times the largest released file
_FILE_NAME = re.compile(r'missing_items_(?P<npy>[0-9.]+)\.npy|missing_(?P<npz>[0-9.]+)\.npz')


def find_mask_files(folder: str | os.PathLike[str]) -> dict[float, Path]:
    """Returns the mask files in a folder by their missing ratio, smallest first.

    Where both forms stand for the same ratio, the ``.npz`` is taken.

    Args:
        folder (str or PathLike): The folder of a set.

    Raises:
        UserError: If one of them is a link that leads out of the folder.
    """
    found: dict[float, Path] = {}
    for path in sorted(Path(folder).glob('missing_*')):  # 'missing_0.6.npz' sorts before 'missing_items_0.6.npy'
        match = _FILE_NAME.fullmatch(path.name)
        if match:
            try:
                found.setdefault(float(match['npz'] or match['npy']), path)
            except ValueError:  # such as 0.6.1
                continue
            check_inside(folder, path)
    return dict(sorted(found.items()))


def read_mask_file(path: str | os.PathLike[str], modalities: Sequence[str], num_items: int) -> dict[str, Tensor]:
    """Reads a mask file of either form.

    A released file is read without running anything that it holds. Its keys speak of text, image and audio; a key that
    names a modality which the set does not have says nothing about that one.

    Args:
        path (str or PathLike): The file, ``.npz`` or ``.npy``.
        modalities (Sequence[str]): The modalities of the set.
        num_items (int): Number of items of the set.

    Returns:
        dict[str, torch.Tensor]: For each modality a bool mask ``[num_items]``, True where the item lacks it. A
        modality that the file does not mention is complete.

    Raises:
        UserError: If the file is missing or damaged, or does not fit the set.
    """
    masks = {name: np.zeros(num_items, dtype=bool) for name in modalities}
    _read(Path(path), masks, num_items, nullcontext)
    return {name: torch.from_numpy(mask) for name, mask in masks.items()}


def check_mask_file(path: str | os.PathLike[str], modalities: Sequence[str], num_items: int | None,
                    collect: Callable[[], AbstractContextManager[None]]) -> None:
    """Checks all of a mask file, where :func:`read_mask_file` stops at the first error.

    Args:
        path (str or PathLike): The file, ``.npz`` or ``.npy``.
        modalities (Sequence[str]): The modalities of the set.
        num_items (int, optional): Number of items of the set; with :obj:`None` only names are checked.
        collect (Callable): Returns a context that takes up an error; each array, or key, is looked at in its own.

    Raises:
        UserError: If the file as a whole cannot be read.
    """
    _read(Path(path), {name: np.zeros(num_items or 0, dtype=bool) for name in modalities}, num_items, collect)


def _read(path: Path, masks: dict[str, np.ndarray], num_items: int | None,
          collect: Callable[[], AbstractContextManager[None]]) -> None:
    """Reads a file into :obj:`masks`, each array or key in a context of its own."""
    readers = {'.npz': _read_npz, '.npy': _read_released}
    if path.suffix not in readers:
        raise UserError(f"'{path}' is no mask file; give missing_<ratio>.npz or missing_items_<ratio>.npy")
    readers[path.suffix](path, read_bytes(path, MAX_BYTES), masks, num_items, collect)


def write_mask_file(path: str | os.PathLike[str], missing: Mapping[str, Tensor | np.ndarray]) -> None:
    """Writes masks as ``.npz``, one bool array per modality.

    Args:
        path (str or PathLike): The file; :func:`find_mask_files` looks for ``missing_<ratio>.npz``.
        missing (Mapping[str, torch.Tensor or numpy.ndarray]): For each modality a bool mask ``[num_items]``, True
            where the item lacks it.

    Raises:
        UserError: If a mask is not bool, the name does not end in ``.npz`` or the folder cannot be written to.
    """
    path = Path(path)
    if path.suffix != '.npz':
        raise UserError(f"masks are written as .npz, not as '{path.name}'; name the file missing_<ratio>.npz")
    arrays: dict[str, Any] = {name: torch.as_tensor(mask).cpu().numpy() for name, mask in missing.items()}
    for name, mask in arrays.items():
        if mask.dtype != bool or mask.ndim != 1:
            raise UserError(f"the mask of '{name}' is {mask.dtype} of shape {list(mask.shape)}; give a bool per item, "
                            'True where it lacks the modality')
    with atomic_path(path) as temporary:
        np.savez_compressed(temporary, **arrays)


def _read_npz(path: Path, content: bytes, masks: dict[str, np.ndarray], num_items: int | None,
              collect: Callable[[], AbstractContextManager[None]]) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len({member.filename for member in members}) < len(members):
                raise ValueError('it holds two members of one name')
            for member in members:
                with collect():
                    _read_member(path, archive, member, masks, num_items)
    except UserError:
        raise
    except Exception as error:  # a damaged archive fails in many ways
        raise _damaged(path, error) from error


def _read_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo, masks: dict[str, np.ndarray],
                 num_items: int | None) -> None:
    name = member.filename.removesuffix('.npy')
    if name not in masks:
        raise UserError(f"'{path}' masks {name[:40]!r}, which the set lacks{near_miss(name, masks)} "
                        f'(its modalities: {", ".join(masks)})')
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError('it is packed in another way than NumPy does')
    if num_items is not None:
        with archive.open(member) as file:
            # No more is unpacked than a fitting mask has.
            start = file.read(HEADER_BYTES + num_items)
        masks[name] = _bool_array(path, name, start, num_items)


def _bool_array(path: Path, name: str, content: bytes, num_items: int) -> np.ndarray:
    header = read_header(content)
    if header.dtype != np.bool_ or header.shape != (num_items,):
        raise UserError(f"'{path}': the mask of '{name}' is {str(header.dtype)[:40]} {str(list(header.shape))[:60]}; "
                        f'bool [{num_items}] is needed, a value per item')
    values = np.frombuffer(content[header.offset:header.offset + num_items], dtype=np.uint8)
    if len(values) != num_items:
        raise ValueError('it ends too early')
    return values != 0


def _read_released(path: Path, content: bytes, masks: dict[str, np.ndarray], num_items: int | None,
                   collect: Callable[[], AbstractContextManager[None]]) -> None:
    try:
        header = read_header(content)
        if header.dtype != np.object_:
            raise ValueError(f'it holds {header.dtype}, not a dict of item ids')
        items_of_key = load_array_dict(content[header.offset:])
    except Exception as error:  # a damaged or harmful pickle fails in many ways
        raise _damaged(path, error) from error
    for key, items in items_of_key.items():
        with collect():
            _mark(path, key, items, masks, num_items)


def _mark(path: Path, key: str, items: np.ndarray, masks: dict[str, np.ndarray], num_items: int | None) -> None:
    """Marks the items of a key of a released file."""
    lacking = set(masks) if key == ALL_MODALITIES else _modalities_of(path, key).intersection(masks)
    if items.size and key != ALL_MODALITIES and masks.keys().isdisjoint(MODALITY_OF_LETTER.values()):
        raise UserError(f"'{path}' speaks of text, image and audio, but the set has {', '.join(masks)}; "
                        'give its masks as missing_<ratio>.npz')
    if num_items is None:
        return
    wrong = items[(items < 0) | (items >= num_items)]
    if wrong.size:
        raise UserError(f"'{path}' lists item {wrong[0]} under '{key}' ({wrong.size:,} such); the set has "
                        f'{num_items:,} items, numbered from 0')
    for name in lacking:
        masks[name][items] = True


def _modalities_of(path: Path, key: str) -> set[str]:
    if not key or not MODALITY_OF_LETTER.keys() >= set(key):
        raise UserError(f"'{path}' has the unknown key {key[:40]!r}; known are the letters t (text), v (image), "
                        f"a (audio), together or alone, and '{ALL_MODALITIES}'")
    return {MODALITY_OF_LETTER[letter] for letter in key}


def _damaged(path: Path, error: Exception) -> UserError:
    reason = ' '.join(str(error).split())[:200] or type(error).__name__
    return UserError(f"cannot read the mask file '{path}': {reason}; fetch it again or give masks as .npz")
