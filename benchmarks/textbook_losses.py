"""The loss of ``textbook.py``, term by term."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from textbook import Forward, TextbookDGMRec


def loss_terms(model: TextbookDGMRec, user: Tensor, pos: Tensor, neg: Tensor, permutation: Tensor | None = None
               ) -> dict[str, Tensor]:
    """The unweighted terms that have a weight, for a batch of triples."""
    made, config = model.forward(), model.config
    user_z, item_z = model.fuse(made)
    norms = made.user[user].norm() + made.item[pos].norm() + made.item[neg].norm()
    terms = {config.ranking_loss: ranking_loss(model, user_z, item_z, user, pos, neg),
             'embedding_reg': 1e-5 * norms / len(user)}
    items = torch.cat([pos, neg]).unique()
    if config.feature_reg_weight:
        terms['feature_reg'] = sum((made.item_general[m] + made.item_specific[m])[pos].norm()
                                   for m in model.modalities) / len(pos)
    if config.reconstruction_weight:
        terms['reconstruction'] = reconstruction(model, made, items)
    if config.club_weight:
        if permutation is None:
            permutation = torch.randperm(model.num_items, device=user.device)
        terms['club'] = mutual_information(model, made, permutation)
    if config.inter_modal_weight:
        terms['inter_modal'] = inter_modal(model, made, user, items)
    if config.intra_modal_weight:
        terms['intra_modal'] = intra_modal(model, made, user, pos)
    if config.behavior_alignment_weight:
        t = config.behavior_alignment_temperature
        terms['behavior_alignment'] = (info_nce(made.item[pos], total(made.item_general)[pos], t)
                                       + info_nce(made.user[user], total(made.user_general)[user], t))
    if config.generation_weight:
        terms['generation'] = generation(model, made, items)
    if config.feature_generation_weight:
        terms['feature_generation'] = feature_generation(model, made, items)
    return terms


def ranking_loss(model: TextbookDGMRec, user_z: Tensor, item_z: Tensor, user: Tensor, pos: Tensor, neg: Tensor
                 ) -> Tensor:
    """BPR of products, or the cross entropy of cosines to the positive and to all negatives of the batch, each weighted
    by its user's number of interactions."""
    config, count = model.config, model.user_degree[user]
    if config.ranking_loss == 'bpr':
        losses = -F.logsigmoid((user_z[user] * item_z[pos]).sum(dim=1) - (user_z[user] * item_z[neg]).sum(dim=1))
    else:
        of_user, item_z = F.normalize(user_z)[user], F.normalize(item_z)
        negatives = (neg[:config.contrastive_pairs] if config.contrastive_pairs else neg).unique()
        scores = torch.cat([(of_user * item_z[pos]).sum(dim=1, keepdim=True), of_user @ item_z[negatives].t()], dim=1)
        temperature = config.ranking_temperature * (1 + config.ranking_temperature_spread / count)
        losses = F.cross_entropy(scores / temperature.unsqueeze(1), torch.zeros_like(user), reduction='none')
    weight = count ** -config.user_balance
    return (losses * weight).sum() / weight.sum()


def reconstruction(model: TextbookDGMRec, made: Forward, items: Tensor) -> Tensor:
    """Decoded against present features, on all items, the batch's, or those of them that have the modality."""
    losses = []
    for m in model.modalities:
        rows = {'all': torch.arange(model.num_items, device=items.device), 'batch': items,
                'observed': items[~model.missing[m][items]]}[model.config.reconstruction_items]
        parts = torch.cat([made.item_general[m], made.item_specific[m]], dim=1)[rows].detach()
        decoded = model.generator_net['decoder'][m](model.perturb(parts))
        losses.append(squared_error(decoded, model.feature_tables[m][rows]))
    return sum(losses)


def mutual_information(model: TextbookDGMRec, made: Forward, permutation: Tensor) -> Tensor:
    """The sampled bound of CLUB between specific and general parts, on all items."""
    bounds = []
    for m in model.modalities:
        y = made.item_general[m]
        mean = model.club[m].mean(made.item_specific[m])
        variance = model.club[m].log_variance(made.item_specific[m]).exp()
        positive, negative = -(mean - y) ** 2 / variance, -(mean - y[permutation]) ** 2 / variance
        bounds.append((positive.sum(dim=1) - negative.sum(dim=1)).mean() / 2)
    return sum(bounds)


def inter_modal(model: TextbookDGMRec, made: Forward, user: Tensor, items: Tensor) -> Tensor:
    """The modalities' general parts against each other."""
    complete = items[~torch.stack([model.missing[m][items] for m in model.modalities]).any(dim=0)]
    t = model.config.inter_modal_temperature
    return sum(info_nce(made.general[a][complete], made.general[b][complete], t)
               + info_nce(made.user_general[a][user], made.user_general[b][user], t)
               for a, b in combinations(model.modalities, 2))


def intra_modal(model: TextbookDGMRec, made: Forward, user: Tensor, pos: Tensor) -> Tensor:
    """Users against their items."""
    t_intra, t_inter = model.config.intra_modal_temperature, model.config.inter_modal_temperature
    return (info_nce(made.user[user], made.item[pos], t_intra)
            + info_nce(total(made.user_general)[user], total(made.item_general)[pos], t_inter)
            + sum(info_nce(made.user_specific[m][user], made.item_specific[m][pos], t_intra)
                  for m in model.modalities))


def generation(model: TextbookDGMRec, made: Forward, items: Tensor) -> Tensor:
    """Generated against encoded specific parts, and translated against filtered general parts."""
    complete = items[~torch.stack([model.missing[m][items] for m in model.modalities]).any(dim=0)]
    losses = []
    for m in model.modalities:
        observed = items[~model.missing[m][items]]
        others = torch.cat([made.item_general[o][complete] for o in model.modalities if o != m], dim=1)
        specific = model.generator_net['specific'][m](model.perturb(made.preference[m][observed]))
        translated = model.generator_net['translator'][m](model.perturb(others))
        losses.append(squared_error(made.specific[m][observed], specific))
        losses.append(squared_error(made.item_general[m][complete], translated))
    return sum(losses)


def feature_generation(model: TextbookDGMRec, made: Forward, items: Tensor) -> Tensor:
    """Features generated of encodings and preferences, which learn nothing from it, against present ones."""
    losses = []
    for m in model.modalities:
        observed = items[~model.missing[m][items]]
        others = torch.cat([made.general[o][observed] for o in model.modalities if o != m], dim=1).detach()
        general = model.generator_net['translator'][m](others)
        specific = model.generator_net['specific'][m](made.preference[m][observed].detach())
        generated = model.generator_net['decoder'][m](model.perturb(torch.cat([general, specific], dim=1)))
        losses.append(squared_error(generated, model.feature_tables[m][observed].detach()))
    return sum(losses)


def total(parts: dict[str, Tensor]) -> Tensor:
    """The sum over the modalities."""
    return torch.stack(list(parts.values())).sum(dim=0)


def squared_error(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error; 0 of nothing."""
    return F.mse_loss(a, b) if len(a) > 0 else a.new_zeros(())


def info_nce(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Cross entropy of all cosine similarities with the diagonal as target; 0 of nothing."""
    if len(a) == 0:
        return a.new_zeros(())
    logits = F.normalize(a) @ F.normalize(b).t() / temperature
    return F.cross_entropy(logits, torch.arange(len(a), device=a.device))
