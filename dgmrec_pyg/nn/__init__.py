"""Layers, losses and models: tensors and graphs in, embeddings and losses out."""

from dgmrec_pyg.nn.club import CLUB
from dgmrec_pyg.nn.conv import LightGCNConv, ModalityGraphConv
from dgmrec_pyg.nn.encoder import DisentangledEncoder
from dgmrec_pyg.nn.feature_projection import FeatureProjection
from dgmrec_pyg.nn.generator import ModalityGenerator, perturb
from dgmrec_pyg.nn.item_graphs import ItemGraphs
from dgmrec_pyg.nn.knn_graph import build_knn_graph
from dgmrec_pyg.nn.losses import bpr_loss, info_nce_loss, sampled_softmax_loss
from dgmrec_pyg.nn.models import (
    BM3,
    BPRMF,
    FREEDOM,
    LATTICE,
    MODELS,
    VBPR,
    DGMRec,
    ItemKNN,
    LightGCN,
    Popularity,
    Recommender,
    SLMRec,
)
from dgmrec_pyg.nn.preference import ModalityPreference
from dgmrec_pyg.nn.ranking_loss import RankingLoss

__all__ = [
    'BM3',
    'BPRMF',
    'CLUB',
    'FREEDOM',
    'LATTICE',
    'MODELS',
    'VBPR',
    'DGMRec',
    'DisentangledEncoder',
    'FeatureProjection',
    'ItemGraphs',
    'ItemKNN',
    'LightGCN',
    'LightGCNConv',
    'ModalityGenerator',
    'ModalityGraphConv',
    'ModalityPreference',
    'Popularity',
    'RankingLoss',
    'Recommender',
    'SLMRec',
    'bpr_loss',
    'build_knn_graph',
    'info_nce_loss',
    'perturb',
    'sampled_softmax_loss',
]
