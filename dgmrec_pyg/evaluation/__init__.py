"""Metrics of rankings, by slices of the items, and of generated features; knows scores, not models."""

from dgmrec_pyg.evaluation.generation import generation_quality
from dgmrec_pyg.evaluation.metrics import DEFAULT_KS, evaluation_users, per_user_metrics, ranking_metrics
from dgmrec_pyg.evaluation.slices import item_slices, missing_patterns, sliced_metrics
from dgmrec_pyg.evaluation.split import SplitEvaluator

__all__ = [
    'DEFAULT_KS',
    'SplitEvaluator',
    'evaluation_users',
    'generation_quality',
    'item_slices',
    'missing_patterns',
    'per_user_metrics',
    'ranking_metrics',
    'sliced_metrics',
]
