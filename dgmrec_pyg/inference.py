"""A finished run, taken up again to recommend: for its users, for users it has not seen, with items it has not seen.

.. code-block:: python

    run = load_run('runs/baby-dgmrec')
    run.recommend(['A1B2', 'C3D4'], k=20)             # a pandas.DataFrame: user, rank, item, score
    run.recommend_for_items(['B000', 'B001'], k=20)   # for somebody who likes these
    run.recommend_users(['B000'], k=20)               # the other way round: who would want this
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.datasets import data_hash
from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.experiment import build_model, resolve_device
from dgmrec_pyg.loading import RunSettings, load_data
from dgmrec_pyg.memory import is_out_of_memory
from dgmrec_pyg.new_items import NewItems
from dgmrec_pyg.nn import MODELS, Recommender
from dgmrec_pyg.nn.fold_in import check_features
from dgmrec_pyg.ranking import rank_items
from dgmrec_pyg.rundir import CHECKPOINT, CONFIG, RunDirectory
from dgmrec_pyg.schema import ITEM, USER
from dgmrec_pyg.table_files import audience_table, node_ids, recommendation_table
from dgmrec_pyg.training.checkpoint import load_newest_checkpoint
from dgmrec_pyg.training.saved_state import load_model

if TYPE_CHECKING:
    import pandas as pd

_MOST_COMPARED = 50_000  # ids that a misspelt one is compared with


@dataclass(frozen=True)
class FinishedRun:
    """What :func:`load_run` returns. Users and items go by the ids of the source where the set knows them, else by
    their numbers, as texts.

    Attributes:
        path (Path): The run directory.
        run (RunSettings): The settings of the run.
        data (HeteroData): The set, as the model was trained on it.
        model (Recommender): The model of the best epoch.
    """

    path: Path
    run: RunSettings
    data: HeteroData
    model: Recommender

    @cached_property
    def user_ids(self) -> np.ndarray:
        """The users' ids, texts ``[U]``."""
        return node_ids(self.data, USER)

    @cached_property
    def item_ids(self) -> np.ndarray:
        """The items' ids, texts ``[I]``."""
        return node_ids(self.data, ITEM)

    def users(self, ids: Sequence[object]) -> Tensor:
        """Returns the numbers of users, int64 ``[N]``.

        Args:
            ids (Sequence): Their ids.

        Raises:
            UserError: If some are not known.
        """
        return _numbers(ids, self.user_ids, 'user', self.path).to(self.model.device)

    def items(self, ids: Sequence[object]) -> Tensor:
        """Returns the numbers of items, int64 ``[N]``; see :meth:`users`. Items also go by their names, where the set
        has them and no other item has the same."""
        return self._items(ids, self.item_ids).to(self.model.device)

    def _items(self, ids: Sequence[object], known: np.ndarray) -> Tensor:
        count = Counter(self.data.get('item_name') or ())
        unique = {name: number for number, name in enumerate(self.data.get('item_name') or ()) if count[name] == 1}
        return _numbers(ids, known, 'item', self.path, unique, len(known) - self.model.num_items)

    def recommend(self, users: Sequence[object] | None = None, k: int = 20, exclude_seen: bool = True,
                  candidates: Sequence[object] | None = None, new_items: NewItems | None = None) -> pd.DataFrame:
        """Ranks items for users of the set; held-out new items of the set are ranked like all others.

        Args:
            users (Sequence, optional): Ids of users. (default: all)
            k (int): Number of items per user. (default: :obj:`20`)
            exclude_seen (bool): Whether to leave out a user's training items. (default: :obj:`True`)
            candidates (Sequence, optional): Ids of the only items to choose from, those of :obj:`new_items` among them.
                (default: all)
            new_items (NewItems, optional): Items that are not in the set, to be ranked as well; they are placed by
                :meth:`~dgmrec_pyg.nn.Recommender.embed_new_items`. (default: none)

        Returns:
            pandas.DataFrame: ``user``, ``rank`` (from 1), ``item``, ``score`` and, where the set has them, ``name``.

        Raises:
            UserError: If an id is not known, :obj:`k` is not positive, or new items do not fit the set.
        """
        model = self.model
        index = torch.arange(model.num_users, device=model.device) if users is None else self.users(users)
        ids = self._ids_with(new_items)
        score = model.scorer() if new_items is None else _products(*self._embed_with(new_items))
        ranking = rank_items(score, index, model.train_edge_index if exclude_seen else None, _positive(k), len(ids),
                             candidates=self._mask(candidates, ids))
        return recommendation_table(self.data, self.user_ids[index.cpu().numpy()], ids, *ranking)

    def recommend_for_items(self, items: Sequence[object], k: int = 20, exclude_seen: bool = True,
                            candidates: Sequence[object] | None = None) -> pd.DataFrame:
        """Ranks items for somebody who was not in training, from a list of items that they like.

        How the model places such a user says its :meth:`~dgmrec_pyg.nn.Recommender.score_for_items`: DGMRec, LightGCN
        and ItemKNN by their own formulas, popularity as always, the others by their most similar training users.

        Args:
            items (Sequence): Ids of the items.
            k (int): Number of items. (default: :obj:`20`)
            exclude_seen (bool): Whether to leave out the items of the list. (default: :obj:`True`)
            candidates (Sequence, optional): Ids of the only items to choose from. (default: all)

        Returns:
            pandas.DataFrame: ``rank``, ``item``, ``score`` and, where the set has them, ``name``.

        Raises:
            UserError: If the list is empty, an id is not known, or the model knows nothing about these items.
        """
        liked = self.items(items).unique()
        if liked.numel() == 0:
            raise UserError('the list of items is empty; give at least one')
        scores = self.model.score_for_items(liked).unsqueeze(0)
        seen = torch.stack([torch.zeros_like(liked), liked]) if exclude_seen else None
        ranking = rank_items(lambda users: scores, liked.new_zeros(1), seen, _positive(k), self.model.num_items,
                             candidates=self._mask(candidates, self.item_ids))
        table = recommendation_table(self.data, np.array([''], dtype=object), self.item_ids, *ranking)
        return table.drop(columns='user')

    def recommend_users(self, items: Sequence[object] | None = None, k: int = 20, exclude_seen: bool = True,
                        candidates: Sequence[object] | None = None, new_items: NewItems | None = None) -> pd.DataFrame:
        """Ranks users for items, by the same scores as :meth:`recommend`: who would want them most.

        Models are trained to order items for a user, not users for an item: who has many items, or items that many
        have, tends to score high for all.

        Args:
            items (Sequence, optional): Ids of items, of the set (held-out new ones among them) or of :obj:`new_items`.
                (default: all of :obj:`new_items`)
            k (int): Number of users per item. (default: :obj:`20`)
            exclude_seen (bool): Whether to leave out users who have the item in training. (default: :obj:`True`)
            candidates (Sequence, optional): Ids of the only users to choose from. (default: all)
            new_items (NewItems, optional): Items that are not in the set, as in :meth:`recommend`. (default: none)

        Returns:
            pandas.DataFrame: ``item``, ``rank`` (from 1), ``user``, ``score`` and, where the set has them, the item's
            ``name``.

        Raises:
            UserError: If neither items nor new items are given, an id is not known, :obj:`k` is not positive, new items
                do not fit the set, or the model has no embeddings.
        """
        if items is None:
            if new_items is None:
                raise UserError('which items are users to be ranked for? give ids of items, or new items')
            items = new_items.ids
        ids = self._ids_with(new_items)
        wanted = self._items(items, ids).to(self.model.device)
        user, item = self._embed_with(new_items)
        ranking = rank_items(_products(item, user), wanted,
                             self.model.train_edge_index.flip(0) if exclude_seen else None, _positive(k), len(user),
                             candidates=self._mask(candidates, self.user_ids, USER))
        return audience_table(self.data, self.user_ids, ids, wanted, *ranking)

    @torch.no_grad()
    def _embed_with(self, new_items: NewItems | None) -> tuple[Tensor, Tensor]:
        """The embeddings of all users and of all items, new ones at the end."""
        user, item = self.model.embed()
        if new_items is None:
            return user, item
        features = check_features(self.data, new_items.features, self.model.device)
        return user, torch.cat([item, self.model.embed_new_items(features, self.data)])

    def _ids_with(self, new_items: NewItems | None) -> np.ndarray:
        if new_items is None:
            return self.item_ids
        new_items.check_ids(self.item_ids)
        return np.concatenate([self.item_ids, np.array(new_items.ids, dtype=object)])

    def _mask(self, candidates: Sequence[object] | None, ids: np.ndarray, kind: str = ITEM) -> Tensor | None:
        if candidates is None:
            return None
        mask = torch.zeros(len(ids), dtype=torch.bool)
        mask[self._items(candidates, ids) if kind == ITEM else _numbers(candidates, ids, kind, self.path)] = True
        return mask.to(self.model.device)


def load_run(path: str | os.PathLike[str], device: str = 'auto', dataset: str | None = None, root: str | None = None
             ) -> FinishedRun:
    """Takes up a run: its set as it was hidden and held out, and its model of the best epoch.

    Other than ``--resume`` it goes with any device and any version of PyTorch that reads the checkpoint.

    Args:
        path (str or PathLike): The run directory.
        device (str): ``'auto'``, ``'cpu'`` or ``'cuda'``. (default: ``'auto'``)
        dataset (str, optional): The set, where it is no longer where the run found it. (default: as in the run)
        root (str, optional): The folder of named sets, likewise. (default: as in the run)

    Raises:
        UserError: If there is no run, it has no model yet, a file is damaged, or the set has changed.
    """
    folder = Path(path).expanduser()
    if not (folder / CONFIG).is_file():
        raise UserError(f"'{folder}' holds no run ({CONFIG} is not there); give a folder that dgmrec_pyg.run has "
                        'written')
    directory = RunDirectory(folder, resume=True)
    config = directory.read_config()
    try:
        run = RunSettings.from_json(config['run'])
        settings = MODELS[run.model].config_class.from_dict(config['model'])
    except (TypeError, KeyError, UserError) as error:
        raise directory.damaged_config(error) from error
    lacking = settings.to_dict().keys() - config['model'].keys()
    if lacking:  # What the model was trained with may differ from today's defaults.
        raise UserError(f"the run in '{folder}' is of an earlier version, whose models had no '{min(lacking)}'; use "
                        'that version, or run anew')
    run = replace(run, dataset=dataset or run.dataset, root=root or run.root, device=device)
    data = load_data(run)
    if data_hash(data) != config['data'].get('hash'):
        raise UserError(f"set '{run.dataset}' is not the one that the run in '{folder}' was made with (its hash "
                        'differs); put the files back as they were, or run anew')
    model = build_model(data, run.model, settings, run.seed, resolve_device(run.device))
    if model.trainable:
        _load_best(model, folder, config)
    return FinishedRun(folder, run, data, model.eval())


def _load_best(model: Recommender, folder: Path, config: Mapping[str, Any]) -> None:
    found = load_newest_checkpoint(folder / CHECKPOINT)
    if found is None:
        raise UserError(f"the run in '{folder}' has no checkpoint yet; let it finish an epoch")
    state, file = found
    if state.get('best_model', model) is None:
        raise UserError(f"the run in '{folder}' has not been evaluated yet; go on with it by --resume")
    try:
        if any(state['made_of'][part] != config[part] for part in ('model', 'data')):
            raise ValueError('it was made with other settings or data than config.json says')
        load_model(model, state['best_model'])
    except Exception as error:  # A damaged state fails in many ways.
        if is_out_of_memory(error):
            raise
        reason = ' '.join(f'{type(error).__name__}: {error}'.split())
        raise UserError(f"checkpoint '{file}' is damaged or of another model ({reason:.200}); run anew") from error


def _numbers(ids: Sequence[object], known: np.ndarray, kind: str, folder: Path,
             other_names: Mapping[str, int] | None = None, num_new: int = 0) -> Tensor:
    """The places of ids among the known ones, the last of which may be new; an id goes before another name."""
    number = {**(other_names or {}), **{name: place for place, name in enumerate(known)}}
    texts = [str(one) for one in ids]
    unknown = [one for one in texts if one not in number]
    if unknown:
        # Numbers are near to each other by their digits alone.
        compared = len(known) <= _MOST_COMPARED and not unknown[0].lstrip('-').isdecimal()
        guess = near_miss(unknown[0], known) if compared else ''
        more = f' ({len(unknown):,} of {len(texts):,} are unknown)' if len(unknown) > 1 else ''
        raise UserError(f"the set of the run in '{folder}' has no {kind} '{unknown[0]:.60}'{more}; its "
                        f"{len(known) - num_new:,} {kind}s have ids such as '{known[0]:.60}'"
                        f'{_new_ids(known, num_new)}{guess}')
    return torch.tensor([number[one] for one in texts], dtype=torch.long)


def _new_ids(known: np.ndarray, num_new: int) -> str:
    """What an error says of the ids of new items, the last of those known."""
    if num_new == 0:
        return ''
    ends = dict.fromkeys(f"'{name:.60}'" for name in (known[-num_new], known[-1]))
    return f'; new items: {" to ".join(ends)}'


def _products(left: Tensor, right: Tensor) -> Callable[[Tensor], Tensor]:
    """A function from some of the left rows to their products with all right ones."""
    right = right.t()
    return lambda rows: left[rows] @ right


def _positive(k: int) -> int:
    if k < 1:
        raise UserError(f'k must be at least 1 (got {k})')
    return k
