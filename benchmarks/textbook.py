"""DGMRec as a textbook would write it: one formula after the other, and nothing done to make it fast.

Products are COO ``torch.sparse.mm``, item graphs come from dense items x items similarities, InfoNCE is a cross
entropy over all pairs of the batch, and every embedding is computed for all users and items. ``speed.py`` times the
package against it, and the tests take it for the right answer; ``textbook_losses.py`` has the terms of its
loss, ``textbook_training.py`` trains and evaluates it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from textbook_losses import loss_terms, total
from torch import Tensor
from torch.nn import Embedding, Linear, ModuleDict, Parameter, ParameterDict, Sequential, Tanh
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import CLUB, DGMRec
from dgmrec_pyg.schema import ITEM, USER, item_features, missing_mask, modality_names, training_edges

CLUB_STEPS, CLUB_BATCH_SIZE = 5, 2048


@dataclass
class Forward:
    """What one forward pass makes of all users and items; dicts go by modality."""

    user: Tensor
    item: Tensor
    general: dict[str, Tensor]
    specific: dict[str, Tensor]
    preference: dict[str, Tensor]
    item_general: dict[str, Tensor]
    item_specific: dict[str, Tensor]
    user_general: dict[str, Tensor]
    user_specific: dict[str, Tensor]


class TextbookDGMRec(torch.nn.Module):
    """The model of :class:`dgmrec_pyg.nn.DGMRec`, with its names of parameters, without held-out new items.

    Features stay on the scale on which they are given, and what is missing is generated from encodings, before each
    epoch, whatever :obj:`feature_scale` and :obj:`generate_from` say.

    Args:
        data (HeteroData): A graph in the package's schema, on the device to compute on.
        config (DGMRecConfig): The settings.
        generator (torch.Generator, optional): Draws the weights, on CPU. (default: the global one)

    Raises:
        UserError: If there are held-out new items.
    """

    def __init__(self, data: HeteroData, config: DGMRecConfig, generator: torch.Generator | None = None) -> None:
        super().__init__()
        if 'is_new' in data[ITEM]:
            raise UserError('the textbook version knows no held-out new items; load the set without them')
        if config.generate_from == 'features':  # What trains decoders is left out where these generate nothing.
            config = config.replace(reconstruction_weight=0.0, generation_weight=0.0, feature_generation_weight=0.0)
        self.config = config
        self.num_users, self.num_items = int(data[USER].num_nodes), int(data[ITEM].num_nodes)
        self.modalities = modality_names(data)
        self.missing = {m: missing_mask(data, m) for m in self.modalities}
        self._make_parameters(data, generator)
        self._make_interactions(training_edges(data))
        self.initial_graph: dict[str, Tensor] = {}
        self.graph: dict[str, Tensor] = {}
        self.build_graphs()

    def _make_parameters(self, data: HeteroData, generator: torch.Generator | None) -> None:
        names, size = self.modalities, self.config.hidden_channels
        features = {m: fill(item_features(data, m), self.missing[m], self.config.imputation) for m in names}
        width = {m: x.size(1) for m, x in features.items()}
        self.user_embedding, self.item_embedding = Embedding(self.num_users, size), Embedding(self.num_items, size)
        self.encoder = ModuleDict({'general': ModuleDict({m: Linear(width[m], size) for m in names}),
                                   'specific': ModuleDict({m: Linear(width[m], size) for m in names}),
                                   'shared': Linear(size, size)})
        self.preference = ModuleDict({'lin': ModuleDict({m: Linear(size, size, bias=False) for m in names})})
        self.generator_net = ModuleDict({
            'translator': ModuleDict({m: two_layers((len(names) - 1) * size, size) for m in names}),
            'specific': ModuleDict({m: two_layers(size, size) for m in names}),
            'decoder': ModuleDict({m: Linear(2 * size, width[m]) for m in names})})
        for parameter in self.parameters():
            if parameter.dim() == 2:
                torch.nn.init.xavier_uniform_(parameter, generator=generator)
        self.club = ModuleDict({m: CLUB(size, size) for m in names} if self.config.club_weight > 0 else {})
        self.to(training_edges(data).device)
        self.feature_tables = ParameterDict({
            m: Parameter(x, requires_grad=self.config.train_features) for m, x in features.items()})

    def _make_interactions(self, edge_index: Tensor) -> None:
        """The interactions R, the degrees, and the normalized adjacency of users and items together, all COO."""
        ones = torch.ones(edge_index.size(1), device=edge_index.device)
        size = (self.num_users, self.num_items)
        self.interactions = coo(edge_index, ones, size)
        self.user_degree = torch.sparse.sum(self.interactions, dim=1).to_dense()
        self.item_degree = torch.sparse.sum(self.interactions, dim=0).to_dense()
        user, item = edge_index
        weight = (self.user_degree[user] * self.item_degree[item]).rsqrt()
        both_ways = torch.cat([torch.stack([user, item + self.num_users]), torch.stack([item + self.num_users, user])],
                              dim=1)
        self.adjacency = coo(both_ways, torch.cat([weight, weight]), (sum(size), sum(size)))

    def copy_from(self, model: DGMRec) -> TextbookDGMRec:
        """Takes over the values of all parameters of the package's model."""
        own = dict(self.named_parameters())
        for name, parameter in model.named_parameters():
            own[name].data.copy_(parameter.data)
        return self

    # What the model computes ##########################################################################################

    def build_graphs(self) -> None:
        """Builds the item graphs of the present features, without the items that lack them."""
        for m in self.modalities:
            self.graph[m] = self.initial_graph[m] = item_graph(
                self.feature_tables[m].detach(), self.config.knn_k, self.missing[m], self.config.knn_missing)

    def spread(self, m: str, x: Tensor, initial: bool = False) -> Tensor:
        """Multiplies by the item graph of a modality, once per layer."""
        for _ in range(self.config.num_modality_layers):
            x = torch.sparse.mm((self.initial_graph if initial else self.graph)[m], x)
        return x

    def encode(self, m: str) -> tuple[Tensor, Tensor]:
        """The general and the specific part of a modality."""
        x = self.feature_tables[m]
        general = torch.sigmoid(self.encoder['shared'](torch.tanh(self.encoder['general'][m](x))))
        return general, torch.sigmoid(self.encoder['specific'][m](x))

    def item_preference(self, m: str) -> Tensor:
        """The mean preference of each item's users."""
        wanted = torch.tanh(self.preference['lin'][m](self.user_embedding.weight))
        return torch.sparse.mm(self.interactions.t(), wanted) / (self.item_degree + 1e-7)[:, None]

    def forward(self, initial: bool = False) -> Forward:
        """Computes everything for all users and items."""
        e = torch.cat([self.user_embedding.weight, self.item_embedding.weight])
        layers = [e]
        for _ in range(self.config.num_layers):
            layers.append(torch.sparse.mm(self.adjacency, layers[-1]))
        user, item = torch.stack(layers).mean(dim=0).split([self.num_users, self.num_items])
        made = Forward(user, item, {}, {}, {}, {}, {}, {}, {})
        of_user = (self.user_degree + 1e-7)[:, None]
        for m in self.modalities:
            made.general[m], made.specific[m] = self.encode(m)
            made.preference[m] = self.item_preference(m)
            made.item_general[m] = self.spread(m, made.preference[m] * made.general[m], initial)
            made.item_specific[m] = self.spread(m, made.preference[m] * made.specific[m], initial)
            made.user_general[m] = torch.sparse.mm(self.interactions, made.item_general[m]) / of_user
            made.user_specific[m] = torch.sparse.mm(self.interactions, made.item_specific[m]) / of_user
        return made

    def fuse(self, made: Forward) -> tuple[Tensor, Tensor]:
        """The embeddings z of all users and items."""
        count = len(self.modalities)
        share = self.config.modality_weight / (count + 1)
        user = made.user + share * (total(made.user_general) / count + total(made.user_specific))
        item = made.item + share * (total(made.item_general) / count + total(made.item_specific))
        return user, item

    @torch.no_grad()
    def embed(self) -> tuple[Tensor, Tensor]:
        """The embeddings to rank with."""
        user, item = self.fuse(self.forward(initial=self.config.inference_graph == 'initial'))
        return (F.normalize(user), F.normalize(item)) if self.config.ranking_loss == 'softmax' else (user, item)

    def loss_terms(self, user: Tensor, pos: Tensor, neg: Tensor, permutation: Tensor | None = None
                   ) -> dict[str, Tensor]:
        """The unweighted terms that have a weight, for a batch of triples."""
        return loss_terms(self, user, pos, neg, permutation)

    def loss(self, user: Tensor, pos: Tensor, neg: Tensor, permutation: Tensor | None = None) -> Tensor:
        """The weighted sum of the terms."""
        return sum(getattr(self.config, f'{name}_weight', 1.0) * term
                   for name, term in self.loss_terms(user, pos, neg, permutation).items())

    def perturb(self, x: Tensor) -> Tensor:
        """Adds noise of a fixed length to each row."""
        if self.config.noise_scale == 0:
            return x
        return x + self.config.noise_scale * torch.sign(x.detach()) * F.normalize(torch.rand_like(x))

    # Once per epoch ###################################################################################################

    @torch.no_grad()
    def generate_missing(self) -> None:
        """Generates features and writes them where they are missing."""
        general = {m: self.encode(m)[0] for m in self.modalities}
        lacking = torch.stack([self.missing[m] for m in self.modalities]).sum(dim=0)
        for m in self.modalities:
            others = torch.cat([general[o] for o in self.modalities if o != m], dim=1)
            of_general = self.spread(m, self.generator_net['translator'][m](others))
            of_specific = self.spread(m, self.generator_net['specific'][m](self.item_preference(m)))
            parts = self.perturb(torch.cat([of_general, of_specific], dim=1))
            rows = self.missing[m] & (lacking == 1) if self.config.generate_for == 'single' else self.missing[m]
            self.feature_tables[m].data[rows] = self.generator_net['decoder'][m](parts)[rows]

    @torch.no_grad()
    def refresh_graphs(self) -> None:
        """Blends the rows of items that lack a modality with a graph of all present features."""
        rate, nothing = self.config.graph_refresh_rate, torch.zeros_like(self.missing[self.modalities[0]])
        for m in self.modalities:
            new = item_graph(self.feature_tables[m].detach(), self.config.knn_k, nothing, 'drop_after').to_dense()
            old = self.graph[m].to_dense()
            self.graph[m] = torch.where(self.missing[m][:, None], rate * new + (1 - rate) * old, old).to_sparse()

    def start_epoch(self, epoch: int, club_optimizer: torch.optim.Optimizer | None) -> None:
        """Trains the CLUB estimators, generates, and refreshes every so often; epochs count from 1."""
        for _ in range(CLUB_STEPS if club_optimizer is not None else 0):
            some = torch.randperm(self.num_items, device=self.user_degree.device)[:CLUB_BATCH_SIZE]
            club_optimizer.zero_grad()
            for m in self.modalities:
                y, x = (part.detach()[some] for part in self.encode(m))
                mean, log_variance = self.club[m].mean(x), self.club[m].log_variance(x)
                ((mean - y) ** 2 / log_variance.exp() + log_variance).sum(dim=1).mean().backward()
            club_optimizer.step()
        if any(bool(mask.any()) for mask in self.missing.values()):
            self.generate_missing()
            if epoch % self.config.graph_refresh_every == 0:
                self.refresh_graphs()


# Pieces ###############################################################################################################


def two_layers(in_channels: int, out_channels: int) -> Sequential:
    """Two linear layers with a tanh between them."""
    return Sequential(Linear(in_channels, out_channels), Tanh(), Linear(out_channels, out_channels))


def coo(index: Tensor, value: Tensor, size: tuple[int, int]) -> Tensor:
    """A sparse matrix in coordinate form."""
    return torch.sparse_coo_tensor(index, value, size, check_invariants=False).coalesce()


def fill(x: Tensor, missing: Tensor, method: str) -> Tensor:
    """A copy of features whose missing rows are the mean of the others, or zeros."""
    x = x.clone()
    x[missing] = 0.0 if method == 'zero' or bool(missing.all()) else x[~missing].mean(dim=0)
    return x


def item_graph(x: Tensor, k: int, missing: Tensor, knn_missing: str) -> Tensor:
    """The normalized graph of nearest neighbors, COO; row i holds the neighbors of item i."""
    similarity = F.normalize(x) @ F.normalize(x).t()
    if knn_missing == 'exclude_before':
        similarity[:, missing] = -math.inf
    value, index = similarity.topk(min(k, len(x)), dim=1)
    if knn_missing == 'exclude_before':
        value = value.clamp(min=0.0)
    graph = torch.zeros_like(similarity).scatter_(1, index, value)
    graph[missing] = 0.0
    graph[:, missing] = 0.0
    graph[missing, missing] = 1.0
    degree = graph.sum(dim=1)
    scale = torch.where(degree > 1e-12, degree.clamp(min=1e-12) ** -0.5, torch.zeros_like(degree))
    return (scale[:, None] * graph * scale[None, :]).to_sparse()
