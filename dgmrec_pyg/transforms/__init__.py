"""Transforms of a graph in the package's schema; they return a new object and compose as PyG's own do."""

from dgmrec_pyg.transforms.hold_out_new_items import HoldOutNewItems
from dgmrec_pyg.transforms.impute_missing import ImputeMissing
from dgmrec_pyg.transforms.missing_modality import MissingModality
from dgmrec_pyg.transforms.scale_features import ScaleFeatures

__all__ = ['HoldOutNewItems', 'ImputeMissing', 'MissingModality', 'ScaleFeatures']
