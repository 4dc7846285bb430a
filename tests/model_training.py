"""A plain training loop and a set where the right answer is known; used by the tests of models."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.nn import Recommender
from dgmrec_pyg.schema import build_data, set_training_edges, training_edges

NUM_BLOCKS, BLOCK_SIZE = 2, 12


def draw_batch(data: HeteroData, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """All training pairs, each with an item that its user has not and that is not held out as new."""
    user, item = training_edges(data)
    unseen = torch.ones(data['user'].num_nodes, data['item'].num_nodes)
    unseen[user, item] = 0.0
    if 'is_new' in data['item']:
        unseen[:, data['item'].is_new] = 0.0
    negative = torch.multinomial(unseen[user], 1, generator=torch.Generator().manual_seed(seed))
    return user, item, negative.squeeze(1)


def with_few_and_many(data: HeteroData) -> HeteroData:
    """The data with half of its training pairs, so that users differ in how many they have."""
    data, edges = data.clone(), training_edges(data)
    set_training_edges(data, edges[:, torch.rand(edges.size(1), generator=torch.Generator().manual_seed(0)) < 0.5])
    return data


def train(model: Recommender, data: HeteroData, epochs: int, learning_rate: float = 0.01) -> list[float]:
    """Trains with one batch per epoch and returns the losses."""
    model.generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.trainable_parameters(), lr=learning_rate)
    losses = []
    for epoch in range(1, epochs + 1):
        model.start_epoch(epoch)
        optimizer.zero_grad()
        loss = model.loss(*draw_batch(data, epoch))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def all_scores(model: Recommender) -> Tensor:
    return model.scorer()(torch.arange(model.num_users))


def make_checkerboard() -> tuple[HeteroData, list[set[int]]]:
    """Users like the items whose number leaves the same rest as theirs; two of these are held out of each user's
    training. Returns the set and each user's held-out items."""
    num_nodes, edges, held_out = NUM_BLOCKS * BLOCK_SIZE, [], []
    for user in range(num_nodes):
        liked = [item for item in range(num_nodes) if item % NUM_BLOCKS == user % NUM_BLOCKS]
        hidden = {liked[user // NUM_BLOCKS], liked[(user // NUM_BLOCKS + 3) % BLOCK_SIZE]}
        edges += [(user, item) for item in liked if item not in hidden]
        held_out.append(hidden)
    generator = torch.Generator().manual_seed(0)
    data = build_data(num_users=num_nodes, num_items=num_nodes, edge_index=torch.tensor(edges).t().contiguous(),
                      features={m: torch.randn(num_nodes, 6, generator=generator) for m in ('image', 'text')},
                      missing={'image': torch.arange(num_nodes) % 5 == 0})
    return data, held_out
