"""Guessing what items lack by regression; see :class:`FeatureRegression`."""

from dgmrec_pyg.regression.embedding_regression import EmbeddingRegression
from dgmrec_pyg.regression.feature_regression import FeatureRegression

__all__ = ['EmbeddingRegression', 'FeatureRegression']
