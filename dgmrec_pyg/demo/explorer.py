"""Finds what the pages show about a finished run."""

from __future__ import annotations

import math
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from dgmrec_pyg.demo.views import (
    GENERATED,
    MISSING,
    OBSERVED,
    Item,
    ItemView,
    ModalityView,
    Part,
    Recommendation,
    StartView,
    Truth,
    UserView,
)
from dgmrec_pyg.evaluation import missing_patterns
from dgmrec_pyg.exporting import FEATURES, filled_tables
from dgmrec_pyg.exporting import GENERATED as GENERATED_ROWS
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.inference import FinishedRun
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.nn.models.dgmrec_explain import COLLABORATIVE, GENERAL, SPECIFIC
from dgmrec_pyg.ranking import rank_items
from dgmrec_pyg.schema import (
    INTERACTS,
    ITEM,
    is_true_feature,
    item_features,
    item_popularity,
    missing_mask,
    missing_matrix,
    modality_names,
)

NUM_RECOMMENDED = 20
NUM_NEAREST = 8
NUM_LISTED = 40  # items of a history, users of an item
NUM_FOUND = 12  # by a search
NUM_CELLS = 64  # of a strip
NUM_EXAMPLES = 8  # of users
NUM_EXAMPLE_ITEMS = 4  # that lack the same


class Explorer:
    """Answers what there is to see about users and items. What all answers need is computed once, here.

    Args:
        run (FinishedRun): The run.

    Attributes:
        parts (list): What scores are made of; empty for models other than DGMRec.
    """

    def __init__(self, run: FinishedRun) -> None:
        self.run = run
        self.modalities = modality_names(run.data)
        self.user_ids, self.item_ids = run.user_ids, run.item_ids
        self.names: list[str] = list(run.data.get('item_name') or [''] * len(self.item_ids))
        self._edges = run.model.train_edge_index.cpu()
        self._score = run.model.scorer()
        self._explain = run.model.explainer() if isinstance(run.model, DGMRec) else None
        self.parts = [] if self._explain is None else _parts(self.modalities)
        tables = filled_tables(run)
        self._features = {m: torch.from_numpy(tables[FEATURES.format(m)]) for m in self.modalities}
        self._missing = missing_matrix(run.data).cpu()
        generated = [torch.from_numpy(tables[GENERATED_ROWS.format(m)]) for m in self.modalities]
        self._generated = torch.stack(generated, dim=1) if generated else self._missing

    def start(self) -> StartView:
        """Returns what the start page shows."""
        user, _ = self._edges
        length = torch.bincount(user, minlength=len(self.user_ids))
        # Few users have long histories, so steps grow from the longest on.
        places = torch.logspace(0, math.log10(len(length)), NUM_EXAMPLES).round().long().unique() - 1
        examples = length.argsort(descending=True, stable=True)[places].tolist()
        missing = {m: missing_mask(self.run.data, m).cpu() for m in self.modalities}
        return StartView(
            num_users=len(self.user_ids), num_items=len(self.item_ids), num_interactions=user.numel(),
            missing={m: float(mask.float().mean()) for m, mask in missing.items()},
            users=[(self.user_ids[one], int(length[one])) for one in examples],
            items={pattern.removeprefix('missing:'): self._most_popular(mask)
                   for pattern, mask in missing_patterns(missing).items()} or {
                       'none': self._most_popular(torch.ones(len(self.item_ids), dtype=torch.bool))})

    def user(self, number: int) -> UserView:
        """Returns what a user's page shows.

        Args:
            number (int): The user's number.
        """
        history = self._edges[1, self._edges[0] == number].tolist()
        return UserView(id=self.user_ids[number], history=[self._item(one) for one in history[:NUM_LISTED]],
                        num_history=len(history), recommendations=self._recommend(number))

    def item(self, number: int) -> ItemView:
        """Returns what an item's page shows.

        Args:
            number (int): The item's number.
        """
        users = self._edges[0, self._edges[1] == number].sort().values.tolist()
        is_new = self.run.data[ITEM].get('is_new')
        return ItemView(item=self._item(number), is_new=is_new is not None and bool(is_new[number]),
                        users=[self.user_ids[one] for one in users[:NUM_LISTED]], num_users=len(users),
                        modalities=[self._modality(number, m) for m in self.modalities])

    def find_users(self, text: str) -> list[str]:
        """Returns ids of users that contain a text, in any case."""
        wanted = text.casefold()
        return list(islice((one for one in self.user_ids if wanted in one.casefold()), NUM_FOUND))

    def find_items(self, text: str) -> list[Item]:
        """Returns items whose name or id contains a text, in any case."""
        wanted = text.casefold()
        places = (place for place, (one, name) in enumerate(zip(self.item_ids, self.names, strict=True))
                  if wanted in name.casefold() or wanted in one.casefold())
        return [self._item(place) for place in islice(places, NUM_FOUND)]

    def _item(self, number: int) -> Item:
        status = [OBSERVED if not missing else GENERATED if generated else MISSING for missing, generated in
                  zip(self._missing[number].tolist(), self._generated[number].tolist(), strict=True)]
        return Item(self.item_ids[number], self.names[number], dict(zip(self.modalities, status, strict=True)))

    def _most_popular(self, mask: Tensor) -> list[Item]:
        popularity = item_popularity(self.run.data).cpu().masked_fill(~mask, -1)
        best = popularity.argsort(descending=True, stable=True)[:min(NUM_EXAMPLE_ITEMS, int(mask.sum()))]
        return [self._item(one) for one in best.tolist()]

    def _recommend(self, number: int) -> list[Recommendation]:
        model = self.run.model
        user = torch.tensor([number], device=model.device)
        ids, scores = rank_items(self._score, user, model.train_edge_index, NUM_RECOMMENDED, model.num_items)
        items = ids[ids >= 0]  # Fewer, where there are not so many left.
        parts = {} if self._explain is None else self._explain(user[0], items)
        held_back = self._held_back(number)
        return [Recommendation(rank=place + 1, item=self._item(one), score=float(scores[0, place]),
                               parts={name: float(part[place]) for name, part in parts.items()},
                               held_back=held_back.get(one, ''))
                for place, one in enumerate(items.tolist())]

    def _held_back(self, number: int) -> dict[int, str]:
        """The items that a user took later, and the split that they were held back for."""
        splits = {'validation': 'val_edge_label_index', 'test': 'test_edge_label_index'}
        pairs = {split: self.run.data[INTERACTS][key].cpu() for split, key in splits.items()}
        return {item: split for split, (user, items) in pairs.items() for item in items[user == number].tolist()}

    def _modality(self, number: int, modality: str) -> ModalityView:
        table, missing = self._features[modality], missing_mask(self.run.data, modality).cpu()
        status, query = self._item(number).status[modality], table[number]
        truth = self._truth(number, modality) if status == GENERATED else None
        shown = {} if status == MISSING else {status: query}
        if truth is not None:
            shown['hidden'] = truth
        cosine = F.cosine_similarity(table, query.unsqueeze(0)).masked_fill(missing, -torch.inf)
        cosine[number] = -torch.inf
        best = cosine.topk(min(NUM_NEAREST, int(cosine.isfinite().sum())))
        mean = observed_mean(table, missing)
        return ModalityView(
            name=modality, size=table.size(1), status=status,
            strips={name: _strip(x - mean) for name, x in shown.items()},
            nearest=[] if status == MISSING else [(self._item(int(one)), float(value)) for value, one in
                                                  zip(best.values, best.indices, strict=True)],
            truth=None if truth is None else _compare(query, truth, mean, cosine))

    def _truth(self, number: int, modality: str) -> Tensor | None:
        """The feature that was hidden, as far as the set has it."""
        own = item_features(self.run.data, modality)[number].cpu().float()
        filled_before = self.run.data[ITEM].get('imputed') is not None
        return None if filled_before or not is_true_feature(own.unsqueeze(0)) else own


def _parts(modalities: list[str]) -> list[Part]:
    places = list(enumerate(modalities))
    return [Part(COLLABORATIVE, 'collaborative'),
            *(Part(GENERAL.format(m), 'general', m, place) for place, m in places),
            *(Part(SPECIFIC.format(m), 'specific', m, place) for place, m in places)]


def _compare(generated: Tensor, truth: Tensor, mean: Tensor, cosine: Tensor) -> Truth:
    """How near a generated feature comes to the truth; :obj:`cosine` are those of the observed items."""
    own = F.cosine_similarity(generated, truth, dim=0)
    return Truth(centered_cosine=float(F.cosine_similarity(generated - mean, truth - mean, dim=0)),
                 rank=int((cosine > own).sum()) + 1, num_candidates=int(cosine.isfinite().sum()) + 1)


def _strip(x: Tensor) -> list[float]:
    """Means of neighboring values, the largest of size 1."""
    cells = F.adaptive_avg_pool1d(x.view(1, 1, -1), min(NUM_CELLS, x.numel())).flatten()
    return (cells / cells.abs().max().clamp(min=1e-12)).tolist()
