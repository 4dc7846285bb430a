"""Layers, losses and models: tensors and graphs in, embeddings and losses out."""

from dgmrec_pyg.nn.club import CLUB
from dgmrec_pyg.nn.conv import LightGCNConv, ModalityGraphConv
from dgmrec_pyg.nn.encoder import DisentangledEncoder
from dgmrec_pyg.nn.generator import ModalityGenerator, perturb
from dgmrec_pyg.nn.item_graphs import ItemGraphs
from dgmrec_pyg.nn.knn_graph import build_knn_graph
from dgmrec_pyg.nn.losses import bpr_loss, info_nce_loss
from dgmrec_pyg.nn.models import BPRMF, MODELS, DGMRec, LightGCN, Popularity, Recommender
from dgmrec_pyg.nn.preference import ModalityPreference

__all__ = [
    'BPRMF',
    'CLUB',
    'MODELS',
    'DGMRec',
    'DisentangledEncoder',
    'ItemGraphs',
    'LightGCN',
    'LightGCNConv',
    'ModalityGenerator',
    'ModalityGraphConv',
    'ModalityPreference',
    'Popularity',
    'Recommender',
    'bpr_loss',
    'build_knn_graph',
    'info_nce_loss',
    'perturb',
]
