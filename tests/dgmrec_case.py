"""What the tests of DGMRec share: settings, models, and sets with new items."""

from __future__ import annotations

import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.schema import ITEM, set_training_edges, training_edges

WEIGHTS = {
    'feature_reg': 'feature_reg_weight', 'reconstruction': 'reconstruction_weight', 'club': 'club_weight',
    'inter_modal': 'inter_modal_weight', 'intra_modal': 'intra_modal_weight',
    'behavior_alignment': 'behavior_alignment_weight', 'generation': 'generation_weight',
    'feature_generation': 'feature_generation_weight',
}
ENCODINGS = DGMRecConfig(generate_from='encodings')
ALL_TERMS = ENCODINGS.replace(**dict.fromkeys(WEIGHTS.values(), 0.1))
REFERENCE = DGMRecConfig.reference('baby')


def make(data: HeteroData, config: DGMRecConfig | None = None) -> DGMRec:
    """DGMRec on a set, with its weights and its noise from seeds."""
    model = DGMRec.from_data(data, config, torch.Generator().manual_seed(0))
    model.generator = torch.Generator().manual_seed(1)
    return model


def tables(model: DGMRec) -> dict[str, Tensor]:
    """Copies of the model's features."""
    return {m: model.features(m).clone() for m in model.modalities}


def with_new_items(data: HeteroData, share: float = 0.25) -> HeteroData:
    """The data with the first items held out as new."""
    data = data.clone()
    is_new = torch.arange(data[ITEM].num_nodes) < share * data[ITEM].num_nodes
    data[ITEM].is_new = is_new
    edges = training_edges(data)
    set_training_edges(data, edges[:, ~is_new[edges[1]]])
    return data
