"""What a finished run holds, as files that other programs read: embeddings, filled features, an index, a scorer.

.. code-block:: text

    OUT/users.csv, items.csv          the ids of rows, as a set's own users.csv and items.csv have them
    OUT/user_embedding.npy            float32 [U, d]; products of users and items are the scores
    OUT/item_embedding.npy            float32 [I, d]
    OUT/<modality>_feat.npy           float32 [I, F]: observed rows as the set has them, the others filled
    OUT/<modality>_missing.npy        bool [I]: the item lacks this modality, so its row is filled
    OUT/<modality>_generated.npy      bool [I]: it was filled by the model, not by an imputation
    OUT/items.faiss, scorer.pt2       where asked for
    OUT/export.json                   what all of this was made from

Instead of the ``.npy`` files there may be one ``arrays.safetensors`` with arrays of the same names, or
``users.parquet`` and ``items.parquet`` with a column for each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dgmrec_pyg
from dgmrec_pyg.command_line import require_library
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.files import atomic_path, write_text
from dgmrec_pyg.inference import FinishedRun
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.nn.models.features import filled_features
from dgmrec_pyg.schema import ITEM, USER, item_features, missing_mask, modality_names
from dgmrec_pyg.table_files import require_parquet, write_table

FORMATS = ('npy', 'safetensors', 'parquet')
EMBEDDING = '{}_embedding'
FEATURES, MISSING, GENERATED = '{}_feat', '{}_missing', '{}_generated'


class Scorer(torch.nn.Module):
    """Scores all items for some users, as plain tensors; what :func:`write_scorer` exports.

    Args:
        user_embedding (torch.Tensor): ``[U, d]``.
        item_embedding (torch.Tensor): ``[I, d]``.
    """

    user_embedding: Tensor
    item_embedding: Tensor

    def __init__(self, user_embedding: Tensor, item_embedding: Tensor) -> None:
        super().__init__()
        self.register_buffer('user_embedding', user_embedding)
        self.register_buffer('item_embedding', item_embedding)

    def forward(self, users: Tensor) -> Tensor:
        """Returns the scores ``[B, I]`` of users, int64 ``[B]``."""
        return self.user_embedding[users] @ self.item_embedding.t()


def filled_tables(run: FinishedRun) -> dict[str, np.ndarray]:
    """Returns the features of all items, and which rows are not the set's own.

    Observed rows are those of the set. What an item lacks is filled by DGMRec's generated features, where its
    ``generate_for`` has it generated, else as the model imputes it before training (other models: by the mean, unless
    the run has an imputer).

    Args:
        run (FinishedRun): The run.

    Returns:
        dict: For each modality ``<modality>_feat`` float32 ``[I, F]``, ``<modality>_missing`` and
        ``<modality>_generated`` bool ``[I]``.
    """
    names, model = modality_names(run.data), run.model
    if not names:
        return {}
    imputed = filled_features(run.data, getattr(model.config, 'imputation', 'mean'))
    lacks = torch.stack([missing_mask(run.data, m) for m in names], dim=1)
    generates = getattr(model.config, 'generate_for', 'none') if isinstance(model, DGMRec) else 'none'
    generated_items = {'none': torch.zeros(len(lacks), dtype=torch.bool), 'single': lacks.sum(dim=1) == 1,
                       'all': lacks.any(dim=1)}[generates]
    tables: dict[str, np.ndarray] = {}
    for column, m in enumerate(names):
        missing, generated = lacks[:, column], lacks[:, column] & generated_items
        filled = torch.where(missing.unsqueeze(1), imputed[m], item_features(run.data, m).float())
        if isinstance(model, DGMRec):
            filled = torch.where(generated.unsqueeze(1), model.features(m).cpu(), filled)
        tables |= {FEATURES.format(m): filled.numpy(), MISSING.format(m): missing.numpy(),
                   GENERATED.format(m): generated.numpy()}
    return tables


def export_run(run: FinishedRun, folder: str | os.PathLike[str], kind: str = 'npy', index: bool = False,
               scorer: bool = False) -> list[Path]:
    """Writes what a run holds into a new folder; see the module's docstring for its files.

    Args:
        run (FinishedRun): The run.
        folder (str or PathLike): The folder; it must not be there yet, or be empty.
        kind (str): ``'npy'``, ``'safetensors'`` or ``'parquet'``. (default: ``'npy'``)
        index (bool): Whether to write a FAISS index of the items. (default: :obj:`False`)
        scorer (bool): Whether to write a scorer by :func:`torch.export.export`. (default: :obj:`False`)

    Returns:
        list: The files.

    Raises:
        UserError: If the model has no embeddings, a library is not installed, or the folder cannot be used.
    """
    folder = Path(folder).expanduser()
    _check_libraries(kind, index)
    user, item = (x.detach().float().cpu().contiguous() for x in run.model.embed())
    arrays = {EMBEDDING.format(USER): user.numpy(), EMBEDDING.format(ITEM): item.numpy(), **filled_tables(run)}
    _make_empty(folder)
    files = [_write_ids(run, kind, folder) for kind in (USER, ITEM)]
    files += {'npy': _write_npy, 'safetensors': _write_safetensors, 'parquet': _write_parquet}[kind](folder, arrays,
                                                                                                   run)
    if index:
        files.append(write_index(folder / 'items.faiss', item))
    if scorer:
        files.append(write_scorer(folder / 'scorer.pt2', user, item))
    described = {'model': run.run.model, 'dataset': run.run.dataset, 'run': str(run.path.absolute()),
                 'version': dgmrec_pyg.__version__, 'num_users': len(user), 'num_items': len(item),
                 'files': [path.name for path in files],
                 'arrays': {name: [str(array.dtype), *array.shape] for name, array in arrays.items()}}
    write_text(folder / 'export.json', json.dumps(described, indent=2) + '\n')
    return [*files, folder / 'export.json']


def write_index(path: Path, item_embedding: Tensor) -> Path:
    """Writes a FAISS index of items, whose search for a user's embedding gives the best items and their scores.

    It is exact (``IndexFlatIP``): its inner products are the scores, and position i is item i. Training items are not
    left out.

    Args:
        path (Path): The file.
        item_embedding (torch.Tensor): ``[I, d]``, on CPU.

    Returns:
        Path: The file.
    """
    import faiss

    index = faiss.IndexFlatIP(item_embedding.size(1))
    index.add(item_embedding.numpy())
    with atomic_path(path) as temporary:
        faiss.write_index(index, str(temporary))
    return path


def write_scorer(path: Path, user_embedding: Tensor, item_embedding: Tensor) -> Path:
    """Writes :class:`Scorer` as a program of :func:`torch.export.export`, which runs without this package:
    ``torch.export.load(path).module()(users)``, for any number of users.

    Args:
        path (Path): The file.
        user_embedding (torch.Tensor): ``[U, d]``, on CPU.
        item_embedding (torch.Tensor): ``[I, d]``, on CPU.

    Returns:
        Path: The file.
    """
    users = torch.zeros(2, dtype=torch.long)  # Sizes 0 and 1 would be taken for fixed.
    program = torch.export.export(Scorer(user_embedding, item_embedding).eval(), (users,),
                                  dynamic_shapes=({0: torch.export.Dim('num_users', min=1)},))
    with atomic_path(path) as temporary:
        torch.export.save(program, temporary)
    return path


def _check_libraries(kind: str, index: bool) -> None:
    if kind not in FORMATS:
        raise UserError(f"unknown format '{kind}' (known: {', '.join(FORMATS)})")
    if kind == 'parquet':
        require_parquet()
    if kind == 'safetensors':
        require_library('safetensors', f"the format '{kind}'")
    if index:
        require_library('faiss', 'an index')


def _make_empty(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise UserError(f"folder '{folder}' is not empty; give another --output")
    except OSError as error:
        raise UserError(f"cannot make folder '{folder}': {error.strerror}; give another --output") from error


def _write_ids(run: FinishedRun, kind: str, folder: Path) -> Path:
    write_table(_ids(run, kind), folder / f'{kind}s.csv')
    return folder / f'{kind}s.csv'


def _ids(run: FinishedRun, kind: str) -> Any:
    """The numbers, ids and names of users or items, as a pandas.DataFrame."""
    import pandas as pd

    ids = run.user_ids if kind == USER else run.item_ids
    columns: dict[str, Any] = {f'{kind}ID': np.arange(len(ids)), kind: ids}
    if kind == ITEM and 'item_name' in run.data:
        columns['name'] = np.array(run.data.item_name, dtype=object)
    return pd.DataFrame(columns)


def _write_npy(folder: Path, arrays: Mapping[str, np.ndarray], run: FinishedRun) -> list[Path]:
    for name, array in arrays.items():
        with atomic_path(folder / f'{name}.npy') as temporary:
            np.save(temporary, array, allow_pickle=False)
    return [folder / f'{name}.npy' for name in arrays]


def _write_safetensors(folder: Path, arrays: Mapping[str, np.ndarray], run: FinishedRun) -> list[Path]:
    from safetensors.numpy import save_file

    path = folder / 'arrays.safetensors'
    with atomic_path(path) as temporary:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, temporary)
    return [path]


def _write_parquet(folder: Path, arrays: Mapping[str, np.ndarray], run: FinishedRun) -> list[Path]:
    """A row per user and per item; wide arrays as lists of a fixed size."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    files = []
    for kind in (USER, ITEM):
        table = pa.Table.from_pandas(_ids(run, kind), preserve_index=False)
        for name, array in arrays.items():
            if (name == EMBEDDING.format(USER)) == (kind == USER):
                column = pa.array(array.reshape(-1))
                if array.ndim == 2:
                    column = pa.FixedSizeListArray.from_arrays(column, array.shape[1])
                table = table.append_column(name, column)
        files.append(folder / f'{kind}s.parquet')
        with atomic_path(files[-1]) as temporary:
            pq.write_table(table, temporary)
    return files
