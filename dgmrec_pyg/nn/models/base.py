"""What every recommender offers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import Settings
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.fold_in import embedding_of_similar_items, scores_of_similar_users
from dgmrec_pyg.nn.wide_linear import TakeGradient
from dgmrec_pyg.ranking import rank_items
from dgmrec_pyg.schema import ITEM, USER, training_edges


class Recommender(torch.nn.Module):
    """The base of all models: trained by the terms of its loss, used by its scores.

    A model says what it computes with :meth:`embed` and :meth:`loss_terms`; one without embeddings overrides
    :meth:`scorer` instead. A model that has nothing to train sets :attr:`trainable` to :obj:`False`.

    Args:
        data (HeteroData): Users, items and training edges.
        config (Settings): The model's settings.
    """

    config_class: ClassVar[type[Settings]] = Settings
    training_defaults: ClassVar[Mapping[str, Any]] = {}
    """Settings of training for this model, where they are not ``TrainingConfig``'s: DGMRec's are the project's own,
    others have the released ones or, where these are not known, those that the docstring names."""
    trainable: ClassVar[bool] = True
    train_edge_index: Tensor

    def __init__(self, data: HeteroData, config: Settings) -> None:
        super().__init__()
        self.config = config
        self.num_users = int(data[USER].num_nodes)
        self.num_items = int(data[ITEM].num_nodes)
        self.generator: torch.Generator | None = None
        """Draws what is random in the losses, on the model's device; the global one where it is :obj:`None`."""
        self.register_buffer('train_edge_index', training_edges(data).clone(), persistent=False)

    @classmethod
    def from_data(cls, data: HeteroData, config: Any = None, generator: torch.Generator | None = None) -> Any:
        """Builds the model for a set.

        Args:
            data (HeteroData): A graph in the package's schema; it is not written to.
            config (Settings, optional): The model's settings. (default: ``config_class()``)
            generator (torch.Generator, optional): Draws the initial parameters, on CPU. (default: the global one)

        Raises:
            UserError: If the settings are another model's, or the model cannot work on the set.
        """
        config = cls.config_class() if config is None else config
        if not isinstance(config, cls.config_class):
            raise UserError(f'{cls.__name__} takes its settings as {cls.config_class.__name__} '
                            f'(got {type(config).__name__})')
        model = cls(data, config)
        model.reset_parameters(generator)
        return model

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.train_edge_index.device

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws all parameters anew: embeddings and weights Xavier uniform, biases zero.

        Args:
            generator (torch.Generator, optional): Draws them. (default: the global one)
        """
        for module in self.modules():
            if isinstance(module, (torch.nn.Embedding, torch.nn.Linear)):
                torch.nn.init.xavier_uniform_(module.weight, generator=generator)
            if isinstance(module, torch.nn.Linear) and module.bias is not None:
                torch.nn.init.zeros_(module.bias)

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Returns the parameters that the main optimizer trains."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def auxiliary_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Returns the optimizers that :meth:`start_epoch` uses on its own parameters, for checkpoints."""
        return {}

    def give_table_gradients(self, take: Callable[[Tensor], TakeGradient] | None) -> None:
        """Hands over the gradients of tables in the backward passes to come, where a model has such tables: see
        :func:`~dgmrec_pyg.nn.wide_linear.linear_and_features`. Until that is ended, each backward pass must be of
        one call of :meth:`loss_terms`, and copies of the model must not be trained.

        Args:
            take (Callable, optional): Called with a table, a trainable parameter, returns what takes its gradient;
                :obj:`None` for gradients in the tables' ``grad``, as at the beginning.
        """

    def start_epoch(self, epoch: int) -> None:
        """Does what is done once per epoch, before the batches.

        Args:
            epoch (int): The epoch, counted from 1.
        """

    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns user embeddings ``[U, d]`` and item embeddings ``[I, d]`` whose products are the scores."""
        raise UserError(f'{type(self).__name__} has no embeddings; use scorer() or recommend()')

    def loss_terms(self, user: Tensor, pos_item: Tensor, neg_item: Tensor) -> dict[str, Tensor]:
        """Computes the unweighted terms of the loss of a batch.

        Args:
            user (torch.Tensor): Users, int64 ``[B]``.
            pos_item (torch.Tensor): An item of each, int64 ``[B]``.
            neg_item (torch.Tensor): An item that is not theirs, int64 ``[B]``.
        """
        raise UserError(f'{type(self).__name__} has nothing to train')

    def term_weights(self) -> dict[str, float]:
        """Returns the weight of each term; a term that is not named has weight 1."""
        return {}

    def loss(self, user: Tensor, pos_item: Tensor, neg_item: Tensor, **kwargs: Any) -> Tensor:
        """Computes the weighted sum of :meth:`loss_terms`, a scalar."""
        return self.total(self.loss_terms(user, pos_item, neg_item, **kwargs))

    def total(self, terms: dict[str, Tensor]) -> Tensor:
        """Adds up terms with their weights."""
        weights = self.term_weights()
        return torch.stack([weights.get(name, 1.0) * term for name, term in terms.items()]).sum()

    @torch.no_grad()
    def scorer(self) -> Callable[[Tensor], Tensor]:
        """Returns a function from users ``[B]`` to the scores of all items ``[B, I]``.

        Embeddings are computed once, here, however many blocks of users are scored afterwards.
        """
        user_embedding, item_embedding = self.embed()
        item_embedding = item_embedding.t().contiguous()
        return lambda users: user_embedding[users] @ item_embedding

    @torch.no_grad()
    def score_for_items(self, items: Tensor) -> Tensor:
        """Returns the scores of all items for a user who was not in training, ``[I]``: those of the training users with
        the most similar items (:func:`~dgmrec_pyg.nn.fold_in.scores_of_similar_users`), unless the model says more.

        Args:
            items (torch.Tensor): The items that the user is known to like, distinct, int64 ``[N]``.

        Raises:
            UserError: If the model knows nothing about these items.
        """
        return scores_of_similar_users(self.scorer(), self.train_edge_index, items, self.num_users)

    @torch.no_grad()
    def embed_new_items(self, features: Mapping[str, Tensor], data: HeteroData) -> Tensor:
        """Returns embeddings ``[N, d]``, to be used beside those of :meth:`embed`, of items that were not in training:
        those of the most similar items (:func:`~dgmrec_pyg.nn.fold_in.embedding_of_similar_items`), unless the model
        says more.

        Args:
            features (Mapping[str, torch.Tensor]): As :func:`~dgmrec_pyg.nn.fold_in.check_features` returns them.
            data (HeteroData): The set that the model was made for.
        """
        return embedding_of_similar_items(self.embed()[1], data, features)

    @torch.no_grad()
    def recommend(self, users: int | Sequence[int] | Tensor, k: int = 20, exclude_seen: bool = True,
                  items: Sequence[int] | Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Ranks items for users.

        Args:
            users (int, sequence or torch.Tensor): One user, or some.
            k (int): Number of items per user. (default: :obj:`20`)
            exclude_seen (bool): Whether to leave out a user's training items. (default: :obj:`True`)
            items (sequence or torch.Tensor, optional): The only items to choose from. (default: all)

        Returns:
            tuple: Item ids and scores, best first: ``[k]`` for one user, ``[len(users), k]`` for some. Where fewer
            items are left the places at the end hold id -1 and score ``-inf``.

        Raises:
            UserError: If a user or item is not known or :obj:`k` is not positive.
        """
        index = self._ids(users, self.num_users, 'user')
        if k < 1:
            raise UserError(f'k must be at least 1 (got {k})')
        candidates = None
        if items is not None:
            candidates = torch.zeros(self.num_items, dtype=torch.bool, device=self.device)
            candidates[self._ids(items, self.num_items, 'item')] = True
        ids, scores = rank_items(self.scorer(), index.view(-1), self.train_edge_index if exclude_seen else None, k,
                                 self.num_items, candidates=candidates)
        return (ids[0], scores[0]) if index.dim() == 0 else (ids, scores)

    def _ids(self, ids: int | Sequence[int] | Tensor, size: int, kind: str) -> Tensor:
        index = torch.as_tensor(ids, dtype=torch.long, device=self.device)
        outside = index[(index < 0) | (index >= size)]
        if outside.numel() > 0:
            raise UserError(f'unknown {kind} {int(outside[0])}: {kind} ids are 0 to {size - 1}')
        return index

    def __repr__(self) -> str:
        return f'{type(self).__name__}(num_users={self.num_users}, num_items={self.num_items})'
