"""Training and evaluation as a textbook would write them: negatives and metrics from Python loops, plain Adam."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import torch
from textbook import TextbookDGMRec
from torch import Tensor

from dgmrec_pyg.config import TrainingConfig

KS = (5, 10, 20, 50)
CLUB_LEARNING_RATE = 1e-4
USERS_PER_BLOCK = 2048


class TextbookTrainer:
    """Trains by plain Adam, with negatives drawn one after the other.

    Args:
        model (TextbookDGMRec): The model.
        edge_index (torch.Tensor): Training (user, item) pairs.
        config (TrainingConfig): The settings.
        seed (int): Draws batches and negatives.
    """

    def __init__(self, model: TextbookDGMRec, edge_index: Tensor, config: TrainingConfig, seed: int = 0) -> None:
        self.model, self.config = model, config
        self.pairs = edge_index.t().tolist()
        self.seen: dict[int, set[int]] = defaultdict(set)
        for user, item in self.pairs:
            self.seen[user].add(item)
        self.random = np.random.default_rng(seed)
        estimators = list(model.club.parameters())
        own = {id(parameter) for parameter in estimators}
        self.optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad and id(p) not in own],
                                          lr=config.learning_rate)
        self.club_optimizer = torch.optim.Adam(estimators, lr=CLUB_LEARNING_RATE) if estimators else None

    def __len__(self) -> int:
        """The number of steps in an epoch."""
        return math.ceil(len(self.pairs) / self.config.batch_size)

    def train_epoch(self, epoch: int, steps: int | None = None) -> None:
        """Trains one epoch, or its first steps."""
        self.model.start_epoch(epoch, self.club_optimizer)
        for group in self.optimizer.param_groups:
            group['lr'] = self.config.learning_rate * self.config.learning_rate_decay ** ((epoch - 1) / 50)
        order = self.random.permutation(len(self.pairs))
        size, device = self.config.batch_size, self.model.user_degree.device
        for step in range(len(self) if steps is None else min(steps, len(self))):
            batch = [self.pairs[place] for place in order[step * size:(step + 1) * size]]
            triples = torch.tensor([(user, item, self.negative(user)) for user, item in batch], device=device)
            self.optimizer.zero_grad()
            self.model.loss(*triples.t()).backward()
            self.optimizer.step()

    def negative(self, user: int) -> int:
        """Draws items until one is not among the user's training items."""
        while True:
            item = int(self.random.integers(self.model.num_items))
            if item not in self.seen[user]:
                return item


@torch.no_grad()
def evaluate(user_embedding: Tensor, item_embedding: Tensor, train: Tensor, labels: Tensor) -> dict[str, float]:
    """The means of all metrics over the users that have labels and training items, one user after the other."""
    seen, wanted = defaultdict(set), defaultdict(set)
    for user, item in train.t().tolist():
        seen[user].add(item)
    for user, item in labels.t().tolist():
        wanted[user].add(item)
    users = [user for user in sorted(wanted) if user in seen]
    sums: dict[str, float] = defaultdict(float)
    for start in range(0, len(users), USERS_PER_BLOCK):
        block = users[start:start + USERS_PER_BLOCK]
        scores = user_embedding[block] @ item_embedding.t()
        for row, user in enumerate(block):
            scores[row, list(seen[user])] = -math.inf
        values, items = scores.topk(min(max(KS), scores.size(1)), dim=1)
        for user, row, score in zip(block, items.tolist(), values.tolist(), strict=True):
            ranking = [item for item, value in zip(row, score, strict=True) if value > -math.inf]
            for name, value in user_metrics(ranking, wanted[user]).items():
                sums[name] += value
    return {name: value / len(users) for name, value in sums.items()}


def user_metrics(ranking: list[int], wanted: set[int]) -> dict[str, float]:
    """The metrics of one user's ranking."""
    metrics = {}
    for k in KS:
        hits = [item in wanted for item in ranking[:k]]
        best = min(k, len(wanted))
        found = [rank for rank, hit in enumerate(hits, start=1) if hit]
        metrics[f'recall@{k}'] = len(found) / len(wanted)
        metrics[f'precision@{k}'] = len(found) / k
        metrics[f'ndcg@{k}'] = (sum(1 / math.log2(rank + 1) for rank in found)
                                / sum(1 / math.log2(rank + 1) for rank in range(1, best + 1)))
        metrics[f'map@{k}'] = sum(number / rank for number, rank in enumerate(found, start=1)) / best
        metrics[f'mrr@{k}'] = 1 / found[0] if found else 0.0
        metrics[f'hit_ratio@{k}'] = float(bool(found))
    return metrics
