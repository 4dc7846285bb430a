"""DGMRec on PyTorch Geometric: recommendation when items lack modalities."""

__version__ = '0.1.0'
