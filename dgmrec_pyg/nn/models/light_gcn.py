"""LightGCN and matrix factorization."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Embedding
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import Settings
from dgmrec_pyg.nn.fold_in import nobody_has_them
from dgmrec_pyg.nn.interaction_graph import InteractionGraph
from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.nn.ranking_loss import RankingLoss

MOST_NEGATIVES = 2048  # Of the softmax, as DGMRec's contrastive_pairs.


@dataclass(frozen=True)
class LightGCNConfig(Settings):
    """Settings of :class:`LightGCN`."""

    hidden_channels: int = 64
    """Size of embeddings."""
    num_layers: int = 3
    """Layers over the user-item graph."""
    embedding_reg_weight: float = 1e-4
    """Weight of half the squared norm of a batch's id embeddings, per member."""
    ranking_loss: str = 'bpr'
    """``'bpr'`` as in the paper, or ``'softmax'``, DGMRec's own: tells what the loss does from what the model does."""
    ranking_temperature: float = 0.25
    """Temperature of the softmax for users with many interactions."""
    ranking_temperature_spread: float = 0.0
    """How much higher it is for users with few, as in :class:`~dgmrec_pyg.config.DGMRecConfig`."""
    user_balance: float = 0.0
    """How far users count alike in the ranking's loss, likewise; 0 counts all interactions alike."""


class LightGCN(Recommender):
    r"""The recommender from the `"LightGCN: Simplifying and Powering Graph Convolution Network for Recommendation"
    <https://arxiv.org/abs/2002.02126>`_ paper, trained by BPR. It uses no features, so nothing can be missing.

    The learning rate is the released one.

    Args:
        data (HeteroData): Users, items and training edges.
        config (LightGCNConfig): The settings.
    """

    config_class = LightGCNConfig
    training_defaults = {'learning_rate': 0.001}
    config: LightGCNConfig

    def __init__(self, data: HeteroData, config: LightGCNConfig) -> None:
        super().__init__(data, config)
        self.user_embedding = Embedding(self.num_users, config.hidden_channels)
        self.item_embedding = Embedding(self.num_items, config.hidden_channels)
        self.graph = InteractionGraph(self.train_edge_index, self.num_users, self.num_items)
        self.ranking_loss = RankingLoss(config.ranking_loss, self.train_edge_index, self.num_users,
                                        config.ranking_temperature, config.ranking_temperature_spread,
                                        config.user_balance)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws the embeddings anew (Xavier uniform)."""
        for embedding in (self.user_embedding, self.item_embedding):
            torch.nn.init.xavier_uniform_(embedding.weight, generator=generator)

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the mean over the layers, users ``[U, d]`` and items ``[I, d]``."""
        users, items = self._propagated()
        if self.config.ranking_loss == 'bpr':
            return users, items
        return F.normalize(users), F.normalize(items)

    def _propagated(self) -> tuple[Tensor, Tensor]:
        return self.graph.light_gcn(self.user_embedding.weight, self.item_embedding.weight, self.config.num_layers)

    @torch.no_grad()
    def score_for_items(self, items: Tensor) -> Tensor:
        """Returns the scores ``[I]`` for a user who joins the graph after training, see
        :meth:`~dgmrec_pyg.nn.interaction_graph.InteractionGraph.light_gcn_of_new_user`; without layers, where items
        tell nothing about users, those of similar users.

        Args:
            items (torch.Tensor): The user's items, distinct, int64 ``[N]``.

        Raises:
            UserError: If no training user has one of these items.
        """
        if self.config.num_layers == 0:
            return super().score_for_items(items)
        user = self.graph.light_gcn_of_new_user(self.user_embedding.weight, self.item_embedding.weight,
                                                self.config.num_layers, items)
        if not user.any():
            raise nobody_has_them()
        return self.embed()[1] @ user

    def loss_terms(self, user: Tensor, pos_item: Tensor, neg_item: Tensor) -> dict[str, Tensor]:
        """Computes ``bpr`` (or ``softmax``) and ``embedding_reg`` of a batch (equation 15)."""
        config, (users, items) = self.config, self._propagated()
        ids = (self.user_embedding(user), self.item_embedding(pos_item), self.item_embedding(neg_item))
        rows, row = user.unique(return_inverse=True)
        return {
            config.ranking_loss: self.ranking_loss(users[rows], items, rows, row, pos_item, neg_item,
                                                   neg_item[:MOST_NEGATIVES].unique()),
            'embedding_reg': torch.stack([x.square().sum() for x in ids]).sum() / (2 * user.numel()),
        }

    def term_weights(self) -> dict[str, float]:
        """Returns the weight of the regularization."""
        return {'embedding_reg': self.config.embedding_reg_weight}


@dataclass(frozen=True)
class BPRMFConfig(LightGCNConfig):
    """Settings of :class:`BPRMF`."""

    num_layers: int = 0
    """None: a user's and an item's embeddings are multiplied as they are."""


class BPRMF(LightGCN):
    r"""Matrix factorization from the `"BPR: Bayesian Personalized Ranking from Implicit Feedback"
    <https://arxiv.org/abs/1205.2618>`_ paper: :class:`LightGCN` without layers.

    The paper gives no learning rate; this one is MMRec's, for its matrix factorization.

    Args:
        data (HeteroData): Users, items and training edges.
        config (BPRMFConfig): The settings.
    """

    config_class = BPRMFConfig
    training_defaults = {'learning_rate': 0.001}
