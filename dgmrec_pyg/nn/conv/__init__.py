"""Message passing layers."""

from dgmrec_pyg.nn.conv.light_gcn_conv import LightGCNConv
from dgmrec_pyg.nn.conv.modality_graph_conv import ModalityGraphConv

__all__ = ['LightGCNConv', 'ModalityGraphConv']
