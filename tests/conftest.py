"""Fixtures that several test files use."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch_geometric.data import HeteroData

from dgmrec_pyg.schema import build_data

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope='session')
def real_data_root() -> Path:
    """The folder of the real sets (``DGMREC_DATA``, else beside the repository); skips where there is none."""
    root = Path(os.environ.get('DGMREC_DATA', REPOSITORY.parent / 'shared' / 'data'))
    if not (root / 'tiktok' / 'tiktok.inter').is_file():
        pytest.skip(f"no real data under '{root}' (set DGMREC_DATA)")
    return root


def make_data(num_users: int = 30, num_items: int = 40, seed: int = 0, missing_rate: float = 0.3,
              modalities: dict[str, int] | None = None) -> HeteroData:
    """A small random set: distinct pairs split into train, validation and test; every user has training edges."""
    generator = torch.Generator().manual_seed(seed)
    modalities = modalities or {'audio': 6, 'image': 12, 'text': 8}
    order = torch.rand(num_users, num_items, generator=generator).argsort(dim=1)
    users = torch.arange(num_users)

    def pairs(first: int, last: int) -> torch.Tensor:
        return torch.stack([users.repeat_interleave(last - first), order[:, first:last].reshape(-1)])

    return build_data(
        num_users=num_users,
        num_items=num_items,
        edge_index=pairs(0, 6),
        val_edge_label_index=pairs(6, 8),
        test_edge_label_index=pairs(8, 10),
        features={name: torch.randn(num_items, size, generator=generator) for name, size in modalities.items()},
        missing={name: torch.rand(num_items, generator=generator) < missing_rate for name in modalities},
    )


@pytest.fixture
def small_data() -> HeteroData:
    """30 users, 40 items, modalities audio, image and text with about 30 % of each missing."""
    return make_data()
