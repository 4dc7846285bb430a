"""What a trained model comes to: its ranking on validation and test, and what it has generated."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import TrainingConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.evaluation import SplitEvaluator, generation_quality, item_slices
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.nn import DGMRec, Recommender
from dgmrec_pyg.schema import INTERACTS, ITEM, USER, item_features, missing_mask, modality_names, training_edges
from dgmrec_pyg.training import Fit
from dgmrec_pyg.training.heap import give_back_freed_memory


def evaluators(data: HeteroData, device: torch.device, mask_validation: bool = False
               ) -> tuple[SplitEvaluator, SplitEvaluator]:
    """Returns the evaluators of validation and of test.

    Args:
        data (HeteroData): The set.
        device (torch.device): Where scores will be.
        mask_validation (bool): Whether validation items are left out of the ranking on test.
            (default: :obj:`False`)
    """
    train = training_edges(data).to(device)
    val = data[INTERACTS].val_edge_label_index.to(device)
    test = data[INTERACTS].test_edge_label_index.to(device)
    num_users, num_items = data[USER].num_nodes, data[ITEM].num_nodes
    seen = torch.cat([train, val], dim=1) if mask_validation else None
    return (SplitEvaluator(val, train, num_users, num_items),
            SplitEvaluator(test, train, num_users, num_items, seen))


def measure(data: HeteroData, model: Recommender, training: TrainingConfig, fit: Fit | None,
            load_features: Callable[[], HeteroData] | None = None) -> dict[str, Any]:
    """Evaluates a finished model on test; only ever called for the model that validation chose.

    Args:
        data (HeteroData): The set, with the true features where they are known.
        model (Recommender): The model.
        training (TrainingConfig): Says what is left out of the ranking.
        fit (Fit, optional): How training went; :obj:`None` where there was nothing to train.
        load_features (Callable, optional): Returns the set with its features; called last, if generated features are
            compared with them. Where it fails with a :class:`UserError`, there is a warning and no ``generation``.
            (default: they are in :obj:`data`)
    """
    validation, test = evaluators(data, model.device, training.mask_validation)
    score = model.scorer()
    ranking = test.rank(score)
    slices = {name: mask.to(model.device) for name, mask in item_slices(data).items()}
    metrics = {
        'val': fit.best_val if fit is not None else validation.metrics(validation.rank(score)),
        'test': test.metrics(ranking),
        'best_epoch': fit.best_epoch if fit is not None else 0,
        'epochs': fit.epoch if fit is not None else 0,
        'seconds': fit.seconds if fit is not None else 0.0,
        'slices': test.slices(ranking, slices),
    }
    is_new = data[ITEM].get('is_new')
    if is_new is not None:
        metrics['among_new_items'] = {
            'num_items': int(is_new.sum()), **_among(test, score, is_new.to(model.device))}
    if isinstance(model, DGMRec) and 'imputed' not in data[ITEM]:  # Else the true features are no longer there.
        give_back_freed_memory()  # What ranking has freed, since features may be wide.
        try:
            metrics['generation'] = _generation(data if load_features is None else load_features(), model)
        except UserError as error:  # What training has cost is not to be lost for this.
            warnings.warn(str(error), stacklevel=2)
    return metrics


def measure_users(data: HeteroData, model: Recommender, training: TrainingConfig) -> dict[str, torch.Tensor]:
    """Returns the test metrics of each test user, ``[N]`` by name, and the users' ids under ``'user'``.

    For paired tests between models; like :func:`measure` only for the model that validation chose.

    Args:
        data (HeteroData): The set.
        model (Recommender): The model.
        training (TrainingConfig): Says what is left out of the ranking.
    """
    test = evaluators(data, model.device, training.mask_validation)[1]
    return {'user': test.users, **test.per_user(test.rank(model.scorer()))}


def _among(test: SplitEvaluator, score: Callable[[torch.Tensor], torch.Tensor], items: torch.Tensor
           ) -> dict[str, float]:
    """The test metrics where only some items are ranked: beside old items, which have interactions to learn from, new
    ones are hardly ever seen, so this is what tells how well they are told apart."""
    labels = test.edge_label_index[:, items[test.edge_label_index[1]]]
    limited = replace(test, edge_label_index=labels)
    return limited.metrics(limited.rank(lambda users: score(users).masked_fill(~items, -math.inf)))


def _generation(data: HeteroData, model: DGMRec) -> dict[str, Any]:
    missing = {m: missing_mask(data, m) for m in modality_names(data)}
    quality: dict[str, Any] = {}
    for modality, lacks in missing.items():  # One at a time: each takes one more table as wide as its features.
        truth = item_features(data, modality)
        imputed = observed_mean(truth, lacks).expand_as(truth)  # Only items that lack the modality are compared.
        quality |= generation_quality({modality: model.features(modality).cpu()}, {modality: imputed},
                                      {modality: truth}, missing)
    return quality
