"""Recommenders, all under the interface of :class:`~dgmrec_pyg.nn.models.base.Recommender`."""

from dgmrec_pyg.nn.models.base import Recommender
from dgmrec_pyg.nn.models.bm3 import BM3, BM3Config
from dgmrec_pyg.nn.models.ci2mg import CI2MG, CI2MGConfig
from dgmrec_pyg.nn.models.dgmrec import DGMRec
from dgmrec_pyg.nn.models.freedom import FREEDOM, FREEDOMConfig
from dgmrec_pyg.nn.models.item_knn import ItemKNN, ItemKNNConfig
from dgmrec_pyg.nn.models.lattice import LATTICE, LATTICEConfig
from dgmrec_pyg.nn.models.lgmrec import LGMRec, LGMRecConfig
from dgmrec_pyg.nn.models.light_gcn import BPRMF, BPRMFConfig, LightGCN, LightGCNConfig
from dgmrec_pyg.nn.models.mgcn import MGCN, MGCNConfig
from dgmrec_pyg.nn.models.milk import MILK, MILKConfig
from dgmrec_pyg.nn.models.popularity import Popularity, PopularityConfig
from dgmrec_pyg.nn.models.sibrar import SiBraR, SiBraRConfig
from dgmrec_pyg.nn.models.slmrec import SLMRec, SLMRecConfig
from dgmrec_pyg.nn.models.vbpr import VBPR, VBPRConfig

MODELS: dict[str, type[Recommender]] = {
    'dgmrec': DGMRec,
    'lightgcn': LightGCN,
    'bprmf': BPRMF,
    'popularity': Popularity,
    'itemknn': ItemKNN,
    'vbpr': VBPR,
    'bm3': BM3,
    'freedom': FREEDOM,
    'lattice': LATTICE,
    'slmrec': SLMRec,
    'mgcn': MGCN,
    'lgmrec': LGMRec,
    'sibrar': SiBraR,
    'milk': MILK,
    'ci2mg': CI2MG,
}
"""The recommenders by the name that the command line takes."""

__all__ = [
    'BM3',
    'BPRMF',
    'CI2MG',
    'FREEDOM',
    'LATTICE',
    'MGCN',
    'MILK',
    'MODELS',
    'VBPR',
    'BM3Config',
    'BPRMFConfig',
    'CI2MGConfig',
    'DGMRec',
    'FREEDOMConfig',
    'ItemKNN',
    'ItemKNNConfig',
    'LATTICEConfig',
    'LGMRec',
    'LGMRecConfig',
    'LightGCN',
    'LightGCNConfig',
    'MGCNConfig',
    'MILKConfig',
    'Popularity',
    'PopularityConfig',
    'Recommender',
    'SLMRec',
    'SLMRecConfig',
    'SiBraR',
    'SiBraRConfig',
    'VBPRConfig',
]
