"""Recommenders, all under the interface of :class:`~dgmrec_pyg.nn.models.base.Recommender`."""

from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.nn.models.dgmrec import DGMRec
from dgmrec_pyg.nn.models.light_gcn import BPRMF, BPRMFConfig, LightGCN, LightGCNConfig
from dgmrec_pyg.nn.models.popularity import Popularity, PopularityConfig

MODELS: dict[str, type[Recommender]] = {
    'dgmrec': DGMRec,
    'lightgcn': LightGCN,
    'bprmf': BPRMF,
    'popularity': Popularity,
}
"""The recommenders by the name that the command line takes."""

__all__ = [
    'BPRMF',
    'MODELS',
    'BPRMFConfig',
    'DGMRec',
    'LightGCN',
    'LightGCNConfig',
    'Popularity',
    'PopularityConfig',
    'Recommender',
]
