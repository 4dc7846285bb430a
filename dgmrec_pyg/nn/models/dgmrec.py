"""DGMRec: disentangling and generating modality recommender."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch.nn import Embedding, Linear
from torch_geometric.data import HeteroData
from torch_geometric.nn.module_dict import ModuleDict

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn.club import CLUB
from dgmrec_pyg.nn.encoder import DisentangledEncoder
from dgmrec_pyg.nn.feature_projection import FeatureProjection
from dgmrec_pyg.nn.generator import ModalityGenerator
from dgmrec_pyg.nn.interaction_graph import InteractionGraph
from dgmrec_pyg.nn.item_graphs import ItemGraphs
from dgmrec_pyg.nn.models import dgmrec_terms as terms
from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.nn.models.dgmrec_explain import ScoreParts
from dgmrec_pyg.nn.models.dgmrec_fold_in import borrow_side, fill_new_features
from dgmrec_pyg.nn.models.dgmrec_generation import from_encodings, from_features
from dgmrec_pyg.nn.models.dgmrec_terms import Batch, Parts, Side
from dgmrec_pyg.nn.models.features import feature_tables, filled_features
from dgmrec_pyg.nn.nearest import rows_per_block
from dgmrec_pyg.nn.preference import ModalityPreference, filter_features
from dgmrec_pyg.nn.ranking_loss import RankingLoss
from dgmrec_pyg.nn.rows import select_and_pass
from dgmrec_pyg.nn.wide_linear import TakeGradient
from dgmrec_pyg.regression import EmbeddingRegression, FeatureRegression
from dgmrec_pyg.schema import ITEM, missing_mask, modality_names

CLUB_STEPS = 5
CLUB_BATCH_SIZE = 2048
CLUB_LEARNING_RATE = 1e-4


class DGMRec(Recommender):
    r"""The recommender from the `"Disentangling and Generating Modalities for Recommendation in Missing Modality
    Scenarios" <https://arxiv.org/abs/2504.16352>`_ paper, for two or more modalities.

    Features are split into general and specific parts, filtered by the preferences of an item's users, spread over
    one item graph per modality and fused with LightGCN embeddings:

    .. math::
        \mathbf{z} = \mathbf{e} + \frac{w}{M + 1} \left( \frac{1}{M} \sum_m \tilde{\mathbf{G}}_m
        + \sum_m \tilde{\mathbf{S}}_m \right) \qquad s_{ui} = \mathbf{z}_u^\top \mathbf{z}_i

    or, trained by the softmax, the cosine of the two. What an item lacks is generated from its other modalities and its
    users (:meth:`start_epoch`).
    Held-out new items take no part in training. When ranking, each of them borrows collaborative embedding and
    filtered features from the old items next to which its present features place it
    (:func:`~dgmrec_pyg.nn.models.dgmrec_fold_in.borrow_side`), in place of an id embedding that nothing has trained.
    This is the package's own, not the paper's.

    Args:
        data (HeteroData): A graph in the package's schema. Features of missing items are not used.
        config (DGMRecConfig): The settings.

    Raises:
        UserError: If there are fewer than two modalities, or observed features are not finite.
    """

    config_class = DGMRecConfig
    training_defaults = {'learning_rate': 0.002}
    config: DGMRecConfig
    missing: Tensor
    is_new: Tensor | None
    old_items: Tensor | None

    def __init__(self, data: HeteroData, config: DGMRecConfig) -> None:
        super().__init__(data, config)
        self.modalities = modality_names(data)
        if len(self.modalities) < 2:
            raise UserError(f'DGMRec needs two or more modalities (got {self.modalities or "none"}); add a '
                            "'<modality>_feat.npy' or take a model without modalities, such as lightgcn")
        size = config.hidden_channels
        features = filled_features(data, config.imputation)
        missing = {m: missing_mask(data, m) for m in self.modalities}
        # Held-out new items take no part in this, either.
        known = {m: ~(missing[m] | data[ITEM].get('is_new', torch.zeros_like(missing[m]))) for m in self.modalities}
        self.projection = ModuleDict({m: FeatureProjection(x[known[m]], config.feature_channels)
                                      for m, x in features.items() if 0 < config.feature_channels < x.size(1)})
        tables = {m: self.projection[m](x) if m in self.projection else x for m, x in features.items()}
        self.scale = {m: _scale(x, known[m]) if config.feature_scale == 'unit' else 1.0 for m, x in tables.items()}
        tables = {m: x if self.scale[m] == 1.0 else x / self.scale[m] for m, x in tables.items()}
        in_channels = {m: x.size(1) for m, x in tables.items()}
        self.register_buffer('missing', torch.stack([missing[m] for m in self.modalities], dim=1), persistent=False)
        is_new = data[ITEM].get('is_new')
        self.register_buffer('is_new', is_new, persistent=False)
        self.register_buffer('old_items', None if is_new is None else (~is_new).nonzero().view(-1), persistent=False)
        self.any_missing = bool(self.missing.any())

        self.user_embedding = Embedding(self.num_users, size)
        self.item_embedding = Embedding(self.num_items, size)
        self.feature_tables = feature_tables(tables, config.train_features)
        self.encoder = DisentangledEncoder(in_channels, size)
        self.preference = ModalityPreference(self.modalities, size)
        self.generator_net = ModalityGenerator(in_channels, size, config.noise_scale)
        self.generator_net.requires_grad_(config.generate_from == 'encodings')  # Else nothing is asked of it.
        # Without a weight nothing reads the estimators, so there are none.
        self.club = ModuleDict({m: CLUB(size, size) for m in self.modalities} if config.club_weight > 0 else {})
        self.club_optimizer = torch.optim.Adam(self.club.parameters(), lr=CLUB_LEARNING_RATE) if self.club else None
        self.graph = InteractionGraph(self.train_edge_index, self.num_users, self.num_items)
        self.ranking_loss = RankingLoss(config.ranking_loss, self.train_edge_index, self.num_users,
                                        config.ranking_temperature, config.ranking_temperature_spread,
                                        config.user_balance)
        self.item_graphs = ItemGraphs(missing, config.knn_k, config.num_modality_layers, config.knn_missing,
                                      self.is_new, config.knn_index)
        self.item_graphs.build(features)
        self._take_gradient: dict[str, TakeGradient] = {}
        self._feature_regression: FeatureRegression | None = None
        # By the features as given, so that a run that is taken up again reads the same of features that are trained.
        self._embedding_regression = None if is_new is None else EmbeddingRegression(self.feature_tables, ~is_new)
        self._columns_of_tables: tuple[tuple[int, ...], Tensor] | None = None

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws embeddings and weights (Xavier uniform) and biases (PyTorch's default) anew; features stay.

        Args:
            generator (torch.Generator, optional): Draws them. (default: the global one)
        """
        for module in self.modules():
            if isinstance(module, Embedding):
                torch.nn.init.xavier_uniform_(module.weight, generator=generator)
            elif isinstance(module, Linear):
                bound = module.in_features ** -0.5
                torch.nn.init.xavier_uniform_(module.weight, generator=generator)
                if module.bias is not None:
                    torch.nn.init.uniform_(module.bias, -bound, bound, generator=generator)
        for module in self.club.modules():
            if isinstance(module, Linear):  # PyTorch's default, as released.
                torch.nn.init.kaiming_uniform_(module.weight, a=5 ** 0.5, generator=generator)

    def trainable_parameters(self) -> list[torch.nn.Parameter]:
        """Returns what the main optimizer trains: all but the CLUB estimators, which :meth:`start_epoch` trains."""
        own = {id(parameter) for parameter in self.club.parameters()}
        return [parameter for parameter in super().trainable_parameters() if id(parameter) not in own]

    def auxiliary_optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Returns the optimizer of the CLUB estimators, where there are any."""
        return {} if self.club_optimizer is None else {'club': self.club_optimizer}

    # What the model computes ##########################################################################################

    def features(self, modality: str) -> Tensor:
        """Returns the feature table of a modality with generated rows in place, ``[I, F]``."""
        table = self.feature_tables[self._known(modality)].detach() * self.scale[modality]
        return self.projection[modality].inverse(table) if modality in self.projection else table

    def general(self, modality: str) -> Tensor:
        """Returns the general part of a modality as encoded, ``[I, d]``."""
        return self.encoder({self._known(modality): self.feature_tables[modality]})[0][modality]

    def specific(self, modality: str) -> Tensor:
        """Returns the specific part of a modality as encoded, ``[I, d]``."""
        return self.encoder({self._known(modality): self.feature_tables[modality]})[1][modality]

    def item_graph(self, modality: str) -> tuple[Tensor, Tensor]:
        """Returns the present item graph of a modality: (source, target) pairs ``[2, E]`` and weights ``[E]``."""
        edge_index, edge_weight = self.item_graphs.graph(self._known(modality))
        return edge_index.as_tensor(), edge_weight

    def collaborative(self) -> tuple[Tensor, Tensor]:
        """Returns the LightGCN part: users ``[U, d]`` and items ``[I, d]``."""
        return self.graph.light_gcn(self.user_embedding.weight, self.item_embedding.weight, self.config.num_layers)

    @torch.compiler.disable  # As in InteractionGraph.
    def item_preference(self) -> dict[str, Tensor]:
        """Returns the preferences of the items' users by modality, ``[I, d]`` each."""
        return self.preference(self.user_embedding.weight, *self.graph.adjacencies['item_mean'])

    def parts(self, role: str = 'current', users: Tensor | None = None, items: Tensor | None = None) -> Parts:
        """Computes everything that embeddings and losses are made of.

        Args:
            role (str): Which item graphs to use; see :class:`~dgmrec_pyg.nn.ItemGraphs`. (default: ``'current'``)
            users (torch.Tensor, optional): The only users to compute, distinct, int64. (default: all)
            items (torch.Tensor, optional): The only items to return, but for :attr:`Parts.all_items`, int64.
                (default: all)
        """
        of_users, of_items = self.collaborative()
        encoded, features = self.encoder.encode(self.feature_tables, self._take_gradient)
        preference = self.item_preference()
        # General and specific parts share a filter and a graph: side by side they cost one product.
        filtered = [self.item_graphs(m, filter_features(encoded[m], preference[m]), role) for m in self.modalities]
        for_users = tuple(filtered)
        rows = all_rows = Side(of_items, for_users, self.config.modality_weight)
        if items is not None:
            # The table as passed on is for the mean alone: only a product's gradient may be added to in place.
            selected, for_users = zip(*(select_and_pass(x, items) for x in filtered), strict=True)
            rows = replace(all_rows, collaborative=of_items.index_select(0, items), filtered=selected)
            encoded = {m: x.index_select(0, items) for m, x in encoded.items()}
            preference = {m: x.index_select(0, items) for m, x in preference.items()}
        return Parts(replace(all_rows, collaborative=of_users if users is None else of_users.index_select(0, users),
                             filtered=tuple(self.graph.mean_to_users(x, users) for x in for_users)),
                     rows, encoded, preference, all_rows, features)

    @torch.no_grad()
    def embed(self) -> tuple[Tensor, Tensor]:
        """Returns the fused embeddings, users ``[U, d]`` and items ``[I, d]``, over the graphs for inference."""
        users, items = self._sides_for_inference()
        return self._ranked(users).fused(), self._ranked(items).fused()

    @torch.no_grad()
    def explainer(self) -> ScoreParts:
        """Returns what splits scores into their parts; as in :meth:`scorer`, embeddings are computed once, here."""
        users, items = self._sides_for_inference()
        return ScoreParts(self._ranked(users), self._ranked(items), self.modalities)

    def score_parts(self, users: int | Sequence[int] | Tensor, items: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Returns what scores are made of: parts that add up to them, ``[B, k]`` each, by the names ``collaborative``,
        ``general_<modality>`` and ``specific_<modality>``; see
        :class:`~dgmrec_pyg.nn.models.dgmrec_explain.ScoreParts`.

        Args:
            users (int, sequence or torch.Tensor): One user, or some, ``[B]``.
            items (sequence or torch.Tensor): Items of each, ``[k]`` of one user, ``[B, k]`` of some, as
                :meth:`recommend` returns them.

        Raises:
            UserError: If a user or item is not known, or the two do not fit.
        """
        return self.explainer()(self._ids(users, self.num_users, 'user'), self._ids(items, self.num_items, 'item'))

    @torch.no_grad()
    def score_for_items(self, items: Tensor) -> Tensor:
        """Returns the scores ``[I]`` for a user who joins after training: the collaborative part as
        :meth:`~dgmrec_pyg.nn.interaction_graph.InteractionGraph.light_gcn_of_new_user` has it, filtered features as the
        mean over the user's items, as for all users.

        Args:
            items (torch.Tensor): The user's items, distinct, int64 ``[N]``.
        """
        of_items = self._items_for_inference()
        collaborative = self.graph.light_gcn_of_new_user(self.user_embedding.weight, self.item_embedding.weight,
                                                         self.config.num_layers, items)
        user = replace(of_items, collaborative=collaborative.unsqueeze(0),
                       filtered=tuple(x[items].mean(dim=0, keepdim=True) for x in of_items.filtered))
        return self._ranked(of_items).fused() @ self._ranked(user).fused()[0]

    @torch.no_grad()
    def embed_new_items(self, features: Mapping[str, Tensor], data: HeteroData) -> Tensor:
        """Returns embeddings ``[N, d]`` of items that were not in training, by what is done for held-out new items:
        missing modalities are generated (:func:`~dgmrec_pyg.nn.models.dgmrec_fold_in.fill_new_features`), and each item
        borrows from the old items next to which these place it.

        Args:
            features (Mapping[str, torch.Tensor]): As :func:`~dgmrec_pyg.nn.fold_in.check_features` returns them.
            data (HeteroData): The set that the model was made for; not read.
        """
        return self._ranked(self._borrow(self._items_for_inference(), fill_new_features(self, features))).fused()

    def _role(self) -> str:
        return 'initial' if self.config.inference_graph == 'initial' else 'current'

    def _ranked(self, side: Side) -> Side:
        """The side as scores compare it: by products, or by cosines."""
        return side if self.config.ranking_loss == 'bpr' else side.to_unit()

    def _sides_for_inference(self) -> tuple[Side, Side]:
        parts = self.parts(self._role())
        items = parts.items if self.is_new is None else self._connect_new_items(parts.items, self.is_new)
        return parts.users, items

    def _items_for_inference(self) -> Side:
        return self._sides_for_inference()[1]

    def _connect_new_items(self, items: Side, is_new: Tensor) -> Side:
        """Puts what new items borrow in place of what nothing has trained."""
        new = is_new.nonzero().view(-1)
        borrowed = self._borrow(items, {m: x[new] for m, x in self.feature_tables.items()})
        return replace(items, collaborative=items.collaborative.index_copy(0, new, borrowed.collaborative),
                       filtered=tuple(x.index_copy(0, new, rows)
                                      for x, rows in zip(items.filtered, borrowed.filtered, strict=True)))

    def _borrow(self, items: Side, features: Mapping[str, Tensor]) -> Side:
        """What items without interactions, of these features, get from old ones."""
        regression = self._embedding_regression
        if regression is None:
            regression = EmbeddingRegression(self.feature_tables, torch.ones(self.num_items, dtype=torch.bool))
        return borrow_side(items, self._ranked(items).fused(), regression, self._columns(regression), features)

    def _columns(self, regression: EmbeddingRegression) -> Tensor:
        """What a regression reads of all items. The model's own reads it anew only where tables have changed since the
        last evaluation, which their versions tell, but for trained ones: Adam's fused step does not count."""
        if self.config.train_features or regression is not self._embedding_regression:
            return regression.columns(self.feature_tables)
        versions = tuple(x._version for x in self.feature_tables.values())
        if self._columns_of_tables is None or self._columns_of_tables[0] != versions:
            self._columns_of_tables = versions, regression.columns(self.feature_tables)
        return self._columns_of_tables[1]

    # Training #########################################################################################################

    def term_weights(self) -> dict[str, float]:
        """Returns the weight of each term of the loss; those that train generators and decoders have none where these
        generate nothing."""
        config = self.config
        of_generators = 1.0 if config.generate_from == 'encodings' else 0.0
        return {
            config.ranking_loss: 1.0,
            'embedding_reg': 1.0,
            'feature_reg': config.feature_reg_weight,
            'reconstruction': of_generators * config.reconstruction_weight,
            'club': config.club_weight,
            'inter_modal': config.inter_modal_weight,
            'intra_modal': config.intra_modal_weight,
            'behavior_alignment': config.behavior_alignment_weight,
            'generation': of_generators * config.generation_weight,
            'feature_generation': of_generators * config.feature_generation_weight,
        }

    def loss_terms(self, user: Tensor, pos_item: Tensor, neg_item: Tensor,
                   club_permutation: Tensor | None = None) -> dict[str, Tensor]:
        """Computes the unweighted terms of the loss of a batch; a term of weight 0 is neither computed nor named. What
        items lack is imputed until :meth:`start_epoch` has generated it.

        Args:
            user (torch.Tensor): Users, int64 ``[B]``.
            pos_item (torch.Tensor): A training item of each, int64 ``[B]``.
            neg_item (torch.Tensor): An item that is not theirs, int64 ``[B]``.
            club_permutation (torch.Tensor, optional): CLUB's shuffle of all items, int64 ``[I]``. (default: drawn)
        """
        config, generator = self.config, self.generator
        users, user = terms.distinct(user)
        items, item = terms.distinct(torch.cat([pos_item, neg_item]))
        parts = self.parts(users=users, items=items)
        missing = dict(zip(self.modalities, self.missing.t(), strict=True))
        batch = terms.make_batch(parts, user, items, item, missing, config.contrastive_pairs)
        first = {
            'feature_reg': lambda: terms.feature_reg(batch),
            'reconstruction': lambda: self._reconstruction(parts, batch),
            'club': lambda: terms.club(self._learned(parts), self.club, club_permutation, generator),
        }
        then = {
            'inter_modal': lambda: terms.inter_modal(parts, batch, config.inter_modal_temperature),
            'intra_modal': lambda: terms.intra_modal(batch.pairs, config.inter_modal_temperature,
                                                     config.intra_modal_temperature),
            'behavior_alignment': lambda: terms.behavior_alignment(batch.pairs, config.behavior_alignment_temperature),
            'generation': lambda: terms.generation(parts, batch, self.generator_net, config.noise_scale, generator),
            'feature_generation': lambda: terms.feature_generation(parts, batch, self.generator_net, config.noise_scale,
                                                                   generator),
        }
        weights = self.term_weights()
        found = terms.ranking_terms(parts, batch, self.ranking_loss, users)
        found |= {name: compute() for name, compute in first.items() if weights[name] != 0.0}
        parts = replace(parts, all_items=None)  # No gradient reads the tables of all items: they are free here.
        return found | {name: compute() for name, compute in then.items() if weights[name] != 0.0}

    def _learned(self, parts: Parts) -> Side:
        """All items but held-out new ones, which take no part in training."""
        items = cast(Side, parts.all_items)
        return items if self.old_items is None else items.select(self.old_items)

    def _reconstruction(self, parts: Parts, batch: Batch) -> Tensor:
        """The reconstruction of all items, or of the batch's."""
        which, features, items = self.config.reconstruction_items, parts.features, parts.items.filtered
        if which == 'all':
            items = self._learned(parts).filtered
            if self.old_items is not None:
                features = {m: x.index_select(0, self.old_items) for m, x in features.items()}
        elif which == 'batch':
            features = {m: x.index_select(0, batch.item_ids) for m, x in features.items()}
        else:
            rows = batch.observed.values()
            items = tuple(x.index_select(0, some) for x, some in zip(items, rows, strict=True))
            features = {m: x.index_select(0, batch.item_ids[some])
                        for (m, x), some in zip(features.items(), rows, strict=True)}
        return terms.reconstruction(dict(zip(features, items, strict=True)), features, self.generator_net,
                                    self.config.noise_scale, self.generator)

    def give_table_gradients(self, take: Callable[[Tensor], TakeGradient] | None) -> None:
        """Hands over the gradients of the feature tables, where they are trained: only the encoders, in one product
        each, and losses that these pass the features on to read them.

        Args:
            take (Callable, optional): Called with a table, returns what takes its gradient.
        """
        self._take_gradient = {} if take is None else {m: take(x) for m, x in self.feature_tables.items()}

    def start_epoch(self, epoch: int) -> None:
        """Trains the CLUB estimators, generates what is missing (by regression on features that are not trained: in the
        first epoch only) and, every so often, refreshes the item graphs.

        Args:
            epoch (int): The epoch, counted from 1.
        """
        if self.club_optimizer is not None:
            self._train_club(self.club_optimizer)
        if self.any_missing and self.config.generate_for != 'none':
            if epoch == 1 or not self._generates_once():
                self.generate_missing()
            if epoch % self.config.graph_refresh_every == 0:
                self.refresh_graphs()

    def _train_club(self, optimizer: torch.optim.Optimizer) -> None:
        """Fits q(general | specific) to what the encoders give now; nothing of it reaches the encoders."""
        with torch.no_grad():
            general, specific = self.encoder(self.feature_tables)
        pool = torch.arange(self.num_items, device=self.device) if self.old_items is None else self.old_items
        for _ in range(CLUB_STEPS):
            order = torch.randperm(pool.numel(), generator=self.generator, device=self.device)
            items = pool[order[:CLUB_BATCH_SIZE]]
            optimizer.zero_grad()
            torch.stack([club.learning_loss(specific[m][items], general[m][items])
                         for m, club in self.club.items()]).sum().backward()
            optimizer.step()
        optimizer.zero_grad()

    def _generates_once(self) -> bool:
        """Whether what is generated is the same in all epochs."""
        return self.config.generate_from == 'features' and not self.config.train_features

    @torch.no_grad()
    def generate_missing(self) -> None:
        """Generates features and writes them into the tables of the items that lack them (with
        ``generate_for='single'`` only of items that lack exactly one modality)."""
        made = from_features(self) if self.config.generate_from == 'features' else from_encodings(self)
        single = self.missing.sum(dim=1) == 1
        for column, m in enumerate(self.modalities):
            rows = self.missing[:, column]
            if self.config.generate_for == 'single':
                rows = rows & single
            self.feature_tables[m][rows] = made(m, rows)

    def feature_regression(self) -> FeatureRegression:
        """Returns the regression that generates from features. It fits what it is asked for, from what items have: so
        none of it belongs to the state of the model. Where features are not trained, it is always the same one."""
        if self._feature_regression is None or self.config.train_features:
            self._feature_regression = FeatureRegression(
                dict(self.feature_tables.items()), dict(zip(self.modalities, self.missing.t(), strict=True)),
                self.train_edge_index, self.num_users, self.is_new)
        return self._feature_regression

    @torch.no_grad()
    def refresh_graphs(self) -> None:
        """Connects items that lack a modality by their present, generated features."""
        self.item_graphs.refresh({m: x.detach() for m, x in self.feature_tables.items()},
                                 self.config.graph_refresh_rate)

    def _known(self, modality: str) -> str:
        if modality not in self.modalities:
            raise UserError(f"unknown modality '{modality}' (known: {', '.join(self.modalities)})")
        return modality


def _scale(x: Tensor, known: Tensor) -> float:
    """The root mean square of all values in some rows as a power of two, by which numbers are divided without rounding;
    1 where there is nothing but zeros."""
    size = rows_per_block(x)
    total = sum(float(block[some].double().square().sum())
                for block, some in zip(x.split(size), known.split(size), strict=True))
    return 2.0 ** round(math.log2(total / (int(known.sum()) * x.size(1))) / 2) if total > 0.0 else 1.0
