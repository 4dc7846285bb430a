"""What tuning searches, for each model.

Each model has its learning rate, what keeps it from fitting the training interactions too closely, and the weights and
temperatures of its own terms. Sizes that cost memory and time (``hidden_channels``, ``batch_size``) are the same for
all models and are not searched. Ranges reach about a factor of ten to both sides of the model's own settings, or as far
as its authors searched where that is known; a setting that is weighed against others, such as a share, has its whole
range. The weights of DGMRec's generators and decoders, which its own settings do not train, are not searched.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from which a setting is drawn: whole ones where both ends are whole numbers.

    Attributes:
        low (int or float): The least.
        high (int or float): The greatest.
        log (bool): Whether it is drawn evenly on a logarithmic scale.
    """

    low: int | float
    high: int | float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are drawn."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', logarithmic' if self.log else ''}"


SearchSpace = Mapping[str, Range | tuple[float, ...]]
"""By setting, of the model or of training, its range or its choices."""

_LEARNING_RATE = Range(1e-4, 0.02, log=True)
_REGULARIZATION = Range(1e-6, 0.01, log=True)
_TEMPERATURE = Range(0.05, 1.0, log=True)
_LAYERS = Range(1, 4)
_NEIGHBORS = Range(5, 40)

SEARCH_SPACES: dict[str, SearchSpace] = {
    'dgmrec': {
        'learning_rate': _LEARNING_RATE,
        'num_modality_layers': Range(1, 3),
        'knn_k': _NEIGHBORS,
        'graph_refresh_rate': Range(0.0, 0.8),
        'ranking_temperature': Range(0.1, 0.5, log=True),
        'ranking_temperature_spread': (0.0, 1.0, 2.0),
        'user_balance': (0.0, 0.5, 1.0),
        'modality_weight': (0.03, 0.1, 0.3, 1.0),
        'intra_modal_weight': (0.0, 0.001, 0.01, 0.1),
        'inter_modal_weight': (0.0, 0.001, 0.01, 0.1),
        'behavior_alignment_weight': (0.0, 0.001, 0.01, 0.1),
        'feature_reg_weight': Range(0.001, 1.0, log=True),
        'club_weight': (0.0, 0.001, 0.01, 0.1),
    },
    'lightgcn': {'learning_rate': _LEARNING_RATE, 'num_layers': _LAYERS, 'embedding_reg_weight': _REGULARIZATION},
    'bprmf': {'learning_rate': _LEARNING_RATE, 'embedding_reg_weight': _REGULARIZATION},
    'popularity': {},
    'itemknn': {'knn_k': Range(5, 1000, log=True), 'shrinkage': Range(0.0, 1000.0)},
    'vbpr': {
        'learning_rate': _LEARNING_RATE,
        'embedding_reg_weight': Range(1e-5, 2.0, log=True),
        'projection_reg_weight': Range(1e-4, 1.0, log=True),
    },
    'bm3': {
        'learning_rate': _LEARNING_RATE,
        'num_layers': Range(1, 3),
        'dropout': Range(0.1, 0.7),
        'contrast_weight': Range(0.1, 10.0, log=True),
        'embedding_reg_weight': Range(0.001, 1.0, log=True),
    },
    'freedom': {
        'learning_rate': _LEARNING_RATE,
        'knn_k': _NEIGHBORS,
        'image_weight': Range(0.0, 1.0),
        'edge_dropout': Range(0.0, 0.95),
        'modality_loss_weight': Range(1e-6, 0.01, log=True),
    },
    'lattice': {
        'learning_rate': _LEARNING_RATE,
        'num_layers': Range(1, 3),
        'knn_k': _NEIGHBORS,
        'fixed_graph_share': Range(0.0, 1.0),
        'embedding_reg_weight': _REGULARIZATION,
    },
    'slmrec': {
        'learning_rate': _LEARNING_RATE,
        'num_layers': _LAYERS,
        'temperature': _TEMPERATURE,
        'self_supervised_temperature': _TEMPERATURE,
        'self_supervised_weight': Range(0.001, 1.0, log=True),
        'embedding_reg_weight': _REGULARIZATION,
    },
    'mgcn': {
        'learning_rate': _LEARNING_RATE,
        'num_layers': _LAYERS,
        'knn_k': _NEIGHBORS,
        'contrastive_weight': Range(1e-4, 1.0, log=True),
        'contrastive_temperature': _TEMPERATURE,
        'embedding_reg_weight': _REGULARIZATION,
    },
    'lgmrec': {
        'learning_rate': _LEARNING_RATE,
        'num_hyperedges': Range(2, 128, log=True),
        'dropout': Range(0.0, 0.8),
        'global_weight': Range(0.0, 1.0),
        'contrastive_weight': Range(1e-6, 0.01, log=True),
        'embedding_reg_weight': Range(1e-7, 0.001, log=True),
    },
    'sibrar': {
        'learning_rate': _LEARNING_RATE,
        'num_branch_layers': Range(1, 3),
        'dropout': Range(0.0, 0.8),
        'contrastive_weight': Range(1e-6, 0.1, log=True),
        'contrastive_temperature': Range(0.05, 10.0, log=True),
        'embedding_reg_weight': _REGULARIZATION,
    },
    'milk': {
        'learning_rate': _LEARNING_RATE,
        'alignment_weight': Range(0.005, 5.0, log=True),
        'invariance_weight': Range(1.0, 1000.0, log=True),
        'dirichlet_concentration': Range(0.01, 1.0, log=True),
        'embedding_reg_weight': _REGULARIZATION,
    },
    'ci2mg': {
        'learning_rate': _LEARNING_RATE,
        'transport_temperature': Range(0.02, 0.5, log=True),
        'generation_weight': Range(0.01, 10.0, log=True),
        'contrastive_weight': Range(0.001, 1.0, log=True),
        'contrastive_temperature': _TEMPERATURE,
        'embedding_reg_weight': _REGULARIZATION,
    },
}
"""By model, as ``--model`` takes it; where there is nothing to search, the model is measured as it is."""
