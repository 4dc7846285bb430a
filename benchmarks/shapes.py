"""Sets of a given size, made from a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.memory import DataSizes
from dgmrec_pyg.schema import build_data
from dgmrec_pyg.transforms import MissingModality

FACTORS = 32  # features are mixed from so many, and noise
MISSING_RATIO = 2 / 3


@dataclass(frozen=True)
class Shape:
    """Sizes of a set, and how unevenly its interactions are spread.

    Attributes:
        num_users (int): Number of users.
        num_items (int): Number of items.
        num_train (int): Number of training interactions.
        num_val (int): Number of validation interactions, one per user at least.
        num_test (int): Number of test interactions, likewise.
        features (Mapping[str, int]): Size of the features by modality.
        min_train (int): Fewest training interactions of a user.
        user_spread (float): Standard deviation of the logarithm of a user's activity beyond that.
        zipf (float): Popularity of the item of rank r is ``(r + zipf_offset) ** -zipf``.
        zipf_offset (float): Takes the top off, where Zipf's law would give everything to a few items.
    """

    num_users: int
    num_items: int
    num_train: int
    num_val: int
    num_test: int
    features: Mapping[str, int] = field(default_factory=dict)
    min_train: int = 3
    user_spread: float = 1.0
    zipf: float = 0.75
    zipf_offset: float = 20.0

    def grown(self, factor: int) -> Shape:
        """So many times the users, items and interactions."""
        sizes = ('num_users', 'num_items', 'num_train', 'num_val', 'num_test')
        return replace(self, **{name: factor * getattr(self, name) for name in sizes})

    def sizes(self) -> DataSizes:
        """Returns what the memory of a run depends on."""
        return DataSizes(self.num_users, self.num_items, self.num_train, self.num_val + self.num_test, self.features)


BABY = Shape(19_445, 7_050, 118_551, 20_559, 21_682, {'image': 4096, 'text': 384})
GROWTH = Shape(2_000, 1_000, 16_000, 2_000, 2_000, {'image': 384, 'text': 384})
SMOKE = Shape(120, 80, 900, 120, 120, {'image': 12, 'text': 8})


def make_set(shape: Shape, seed: int = 0) -> HeteroData:
    """Makes a set of exactly these sizes, two thirds of its items lacking a modality.

    Args:
        shape (Shape): The sizes.
        seed (int): The same seed gives the same set. (default: :obj:`0`)
    """
    random = np.random.default_rng(seed)
    activity = random.lognormal(sigma=shape.user_spread, size=shape.num_users)
    counts = [_counts(shape.num_train, shape.min_train, activity, random),
              _counts(shape.num_val, 1, activity, random), _counts(shape.num_test, 1, activity, random)]
    pairs = _draw_pairs(sum(counts), shape, random)
    # The pairs of a user are in random order: the first go to training, the next to validation, the rest to test.
    split = np.tile(np.arange(3), shape.num_users).repeat(np.stack(counts, axis=1).ravel())
    train, val, test = (torch.from_numpy(pairs[:, split == number]) for number in range(3))
    generator = torch.Generator().manual_seed(seed)
    factors = torch.randn(shape.num_items, FACTORS, generator=generator)
    features = {m: torch.randn(shape.num_items, size, generator=generator).addmm_(
        factors, torch.randn(FACTORS, size, generator=generator)) for m, size in shape.features.items()}
    data = build_data(num_users=shape.num_users, num_items=shape.num_items, edge_index=train, features=features,
                      val_edge_label_index=val, test_edge_label_index=test)
    return MissingModality(ratio=MISSING_RATIO, seed=seed)(data)


def _counts(total: int, minimum: int, activity: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """How many interactions each user has: a minimum, and the rest by activity."""
    left = total - minimum * activity.size
    if left < 0:
        raise UserError(f'{activity.size:,} users with {minimum} interactions or more cannot have {total:,} in all')
    return minimum + random.multinomial(left, activity / activity.sum())


def _draw_pairs(count: np.ndarray, shape: Shape, random: np.random.Generator) -> np.ndarray:
    """Draws so many distinct items for each user by popularity; pairs ``[2, E]`` by user, else in random order."""
    if count.max() > shape.num_items // 2:
        raise UserError(f'a user would have {count.max():,} of {shape.num_items:,} items; take more items')
    popularity = (np.arange(shape.num_items) + 1 + shape.zipf_offset) ** -shape.zipf
    bounds = (popularity / popularity.sum()).cumsum()
    name = random.permutation(shape.num_items)
    keys = np.empty(0, dtype=np.int64)
    missing = count
    while missing.any():  # what a user drew twice is drawn again
        user = np.arange(count.size).repeat(missing)
        item = name[np.searchsorted(bounds, random.random(user.size)).clip(max=shape.num_items - 1)]
        keys = np.unique(np.concatenate([keys, user * shape.num_items + item]))
        missing = count - np.bincount(keys // shape.num_items, minlength=count.size)
    order = np.lexsort((random.random(keys.size), keys // shape.num_items))
    return np.stack(np.divmod(keys[order], shape.num_items))
