"""Settings: frozen dataclasses, read from presets, files and ``key=value`` pairs; unknown keys are errors."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources
from typing import Any, TypeVar, get_type_hints

from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.imputation import METHODS

SettingsType = TypeVar('SettingsType', bound='Settings')

KNN_MISSING = ('drop_after', 'exclude_before')
KNN_INDEX = ('exact', 'approximate')
LARGEST_INTEGER = 2**31 - 1

_CHOICES: dict[str, tuple[str, ...]] = {
    'ranking_loss': ('softmax', 'bpr'),
    'generate_for': ('none', 'single', 'all'),
    'generate_from': ('features', 'encodings'),
    'feature_scale': ('given', 'unit'),
    'reconstruction_items': ('all', 'batch', 'observed'),
    'inference_graph': ('refreshed', 'initial'),
    'knn_missing': KNN_MISSING,
    'knn_index': KNN_INDEX,
    'imputation': tuple(METHODS),
}
_POSITIVE = {'hidden_channels', 'knn_k', 'graph_refresh_every', 'inter_modal_temperature', 'intra_modal_temperature',
             'behavior_alignment_temperature', 'learning_rate', 'learning_rate_decay', 'batch_size', 'epochs',
             'patience', 'eval_every', 'contrastive_temperature', 'num_hyperedges', 'dirichlet_concentration',
             'transport_temperature', 'temperature', 'ranking_temperature', 'self_supervised_temperature'}
_RATES = {'graph_refresh_rate', 'dropout', 'edge_dropout', 'image_weight', 'fixed_graph_share'}


@dataclass(frozen=True)
class Settings:
    """What all settings have in common: checked values, and ways from and to plain dicts."""

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(type(self)).items():
            object.__setattr__(self, name, _checked(name, getattr(self, name), kind))

    @classmethod
    def from_dict(cls: type[SettingsType], values: Mapping[str, Any]) -> SettingsType:
        """Builds settings from a dict.

        Args:
            values (Mapping[str, Any]): Values by field name; fields that are not named keep their default.

        Raises:
            UserError: If a key is not a field, or a value does not fit.
        """
        return cls().replace(**values)

    def to_dict(self) -> dict[str, Any]:
        """Returns all fields and their values."""
        return dataclasses.asdict(self)

    def replace(self: SettingsType, **values: Any) -> SettingsType:
        """Returns a copy with some fields changed.

        Raises:
            UserError: If a key is not a field, or a value does not fit.
        """
        known = [field.name for field in fields(self)]
        for name in values:
            if name not in known:
                raise UserError(f"unknown setting '{name:.60}' of {type(self).__name__}{near_miss(name, known)} "
                                f"(known: {', '.join(known)})")
        return dataclasses.replace(self, **values)


@dataclass(frozen=True)
class DGMRecConfig(Settings):
    """Settings of :class:`~dgmrec_pyg.nn.DGMRec`; the name of the released implementation in brackets."""

    hidden_channels: int = 128
    """Size of embeddings [embedding_size]."""
    num_layers: int = 3
    """LightGCN layers over the user-item graph."""
    num_modality_layers: int = 2
    """Layers over each modality's item graph [n_mm_layers]."""
    knn_k: int = 10
    """Neighbors of an item in its item graphs, itself included [knn_k]."""
    graph_refresh_every: int = 5
    """Epochs between two refreshes of the item graphs."""
    graph_refresh_rate: float = 0.4
    """Share of the new graph in the rows of items that lack the modality [avg_lambda]."""
    ranking_loss: str = 'softmax'
    """``'softmax'`` tells a user's item from all negatives of the batch at once, by cosines
    (:func:`~dgmrec_pyg.nn.sampled_softmax_loss`), and ranks by them; ``'bpr'`` tells it from one (as released), and
    ranks by products."""
    ranking_temperature: float = 0.2
    """Temperature of the softmax for users with many interactions."""
    ranking_temperature_spread: float = 1.0
    r"""How much higher it is for users with few: :math:`\tau (1 + s / n)` for one with :math:`n` interactions,
    about whose taste less is known; 0 for one temperature."""
    user_balance: float = 0.5
    r"""How far users count alike in the ranking's loss, as they do in its metrics: an interaction of a user with
    :math:`n` of them has the weight :math:`n^{-b}`; 0 counts all interactions alike (as released), 1 all users."""
    modality_weight: float = 0.1
    """What filtered features count beside the LightGCN part, 1 as released. With little, they come in as far as
    training makes them longer."""
    inter_modal_weight: float = 0.0
    """Weight of the alignment between modalities' general parts [interModal]."""
    intra_modal_weight: float = 0.0
    """Weight of the alignment of users and items within each kind of embedding [intraModal]."""
    behavior_alignment_weight: float = 0.0
    """Weight of the alignment of collaborative and general embeddings [alignBM]."""
    reconstruction_weight: float = 0.1
    """Weight of the reconstruction of features [recon]; like all that concerns generators and decoders it counts only
    with ``generate_from='encodings'``, as do the two weights of generation, ``noise_scale`` and
    ``reconstruction_items``."""
    feature_reg_weight: float = 0.1
    """Weight of the norm of filtered item features [reg]."""
    club_weight: float = 0.0
    """Weight of the mutual information bound between general and specific parts [sampler]."""
    generation_weight: float = 1.0
    """Weight of the generation losses [additive]."""
    feature_generation_weight: float = 1.0
    """Weight of the error of generated features, on items that have the modality; its gradient reaches the generators
    alone (0: not trained for, as released)."""
    inter_modal_temperature: float = 0.4
    """InfoNCE temperature between modalities [interModalTemp]."""
    intra_modal_temperature: float = 0.2
    """InfoNCE temperature between users and items [intraModalTemp]."""
    behavior_alignment_temperature: float = 0.4
    """InfoNCE temperature between collaborative and general embeddings [alignBMTemp]."""
    contrastive_pairs: int = 2048
    """Most pairs of a batch that the alignments contrast with each other, and most negatives of the softmax; 0 takes
    all (as released)."""
    noise_scale: float = 0.1
    """Length of the noise on what generators and decoders read; 0 turns it off."""
    train_features: bool = False
    """Whether the feature tables are parameters (as released), which drift with the loss until what is generated means
    nothing to anybody else, or stay as given."""
    feature_scale: str = 'unit'
    """Whether each modality's features are divided by the root mean square of those observed (as a power of two),
    ``'unit'``, so that none rules the loss by its scale, or stay as ``'given'`` (as released)."""
    feature_channels: int = 0
    """Size to which wider features are brought once, before training (:class:`~dgmrec_pyg.nn.FeatureProjection`); 0
    leaves features as given (as released)."""
    reconstruction_items: str = 'observed'
    """Whether features are reconstructed of all items in each step (as released), of the ``'batch'``'s, or of those of
    the batch that have the modality, ``'observed'``."""
    generate_for: str = 'all'
    """``'single'`` generates for items that lack exactly one modality (as released), ``'all'`` for every item;
    ``'none'`` leaves what was imputed in place, for comparison."""
    generate_from: str = 'features'
    """``'features'`` generates by regression on the item's other features and on its co-purchases
    (:class:`~dgmrec_pyg.regression.FeatureRegression`), once, or before each epoch where features are trained;
    ``'encodings'`` decodes what the trained generators make of the general parts of its other modalities and of its
    users' preferences, before each epoch (as released)."""
    inference_graph: str = 'refreshed'
    """``'refreshed'`` ranks with the present item graphs, ``'initial'`` with the first ones."""
    knn_missing: str = 'exclude_before'
    """Whether missing items are dropped from the neighbors found, ``'drop_after'`` (as released), or excluded from the
    search, ``'exclude_before'``."""
    knn_index: str = 'exact'
    """Whether nearest neighbors are found by comparing all items, ``'exact'``, or most of them by an index,
    ``'approximate'``, which is for hundreds of thousands of items and needs faiss."""
    imputation: str = 'mean'
    """How missing features are filled before anything is generated."""

    @classmethod
    def reference(cls, name: str = 'tiktok') -> DGMRecConfig:
        """Returns the released behavior with the released settings of a set.

        Args:
            name (str): Name of the set; any other than the released ones gets those of tiktok, with a warning where it
                looks like a misspelt one. (default: :obj:`'tiktok'`)
        """
        known = preset_names('reference')
        if name not in known and (hint := near_miss(name, known)):
            warnings.warn(f"there are no released settings for '{name}', so these are those of tiktok{hint}",
                          stacklevel=2)
        return cls.from_dict(load_preset('reference', name)['model'])


@dataclass(frozen=True)
class TrainingConfig(Settings):
    """Settings of :class:`~dgmrec_pyg.training.Trainer`."""

    learning_rate: float = 0.001
    """Adam's learning rate."""
    learning_rate_decay: float = 0.96
    """The learning rate is multiplied by this every 50 epochs, smoothly."""
    batch_size: int = 2048
    """Training interactions per step."""
    max_steps: int = 128
    """Most steps per epoch: a set with more than ``max_steps * batch_size`` training interactions gets larger batches.
    A step goes through the whole graph, so without a limit the time of an epoch grows with the square of the set (0: no
    limit, as released)."""
    epochs: int = 500
    """Most epochs to train."""
    patience: int = 20
    """Evaluations without a better validation Recall@20 after which training stops."""
    eval_every: int = 1
    """Epochs between two evaluations on validation."""
    mask_validation: bool = False
    """Whether validation items, like training items, are left out of the ranking on test (as released: no)."""

    def learning_rate_factor(self, epochs: int) -> float:
        """Returns what the learning rate is multiplied by after so many epochs."""
        return self.learning_rate_decay ** (epochs / 50)

    def interactions_per_step(self, num_interactions: int) -> int:
        """Returns the size of a batch on a set of so many training interactions."""
        return max(self.batch_size, -(-num_interactions // self.max_steps) if self.max_steps > 0 else 0)


def load_preset(kind: str, name: str, model: str = 'dgmrec') -> dict[str, dict[str, Any]]:
    """Reads a preset that comes with the package.

    Of other models than DGMRec, ``'reference'`` holds what DGMRec's authors found best for them on the set, as their
    release keeps it; settings that are not in it have their defaults.

    Args:
        kind (str): ``'reference'`` (the released settings) or ``'default'`` (the project's own).
        name (str): Name of the set. Where there is no preset of that name, ``'reference'`` gives the one of tiktok
            and ``'default'`` nothing beyond the defaults of the dataclasses.
        model (str): Name of the model. (default: :obj:`'dgmrec'`)

    Returns:
        dict: Settings under ``'model'`` (such as :class:`DGMRecConfig`) and ``'training'`` (:class:`TrainingConfig`);
        empty ones where there is no preset for the model on this set.
    """
    if kind == 'reference' and name not in preset_names(kind):
        name = 'tiktok'
    if name not in preset_names(kind, model):
        return {'model': {}, 'training': {}}
    return json.loads((_presets(kind, model) / f'{name}.json').read_text(encoding='utf-8'))


def preset_names(kind: str, model: str = 'dgmrec') -> list[str]:
    """Returns the names of the sets that a kind of preset knows, sorted.

    Args:
        kind (str): ``'reference'`` or ``'default'``.
        model (str): Name of the model. (default: :obj:`'dgmrec'`)
    """
    folder = _presets(kind, model)
    if not folder.is_dir():
        return []
    return sorted(entry.name[:-len('.json')] for entry in folder.iterdir() if entry.name.endswith('.json'))


def _presets(kind: str, model: str) -> Any:
    """The folder of a model's presets; DGMRec's lie in that of their kind."""
    folder = resources.files('dgmrec_pyg') / 'presets' / kind
    return folder if model == 'dgmrec' else folder / model


def parse_settings(pairs: list[str], *configs: Settings) -> tuple[Settings, ...]:
    """Applies ``key=value`` strings to whichever settings have that key.

    Args:
        pairs (list): The strings, such as ``'knn_k=20'``.
        *configs: Settings to start from.

    Returns:
        tuple: The changed settings, in the order given.

    Raises:
        UserError: If a string has no ``=``, a key is in none of the settings, or a value does not fit.
    """
    changed = list(configs)
    known = [field.name for config in configs for field in fields(config)]
    for pair in pairs:
        key, equals, text = pair.partition('=')
        if not equals:
            raise UserError(f"--set takes key=value (got '{pair:.60}')")
        if key not in known:
            raise UserError(f"unknown setting '{key:.60}' in --set{near_miss(key, known)} (known: {', '.join(known)})")
        for position, config in enumerate(changed):
            if key in [field.name for field in fields(config)]:
                changed[position] = config.replace(**{key: _from_text(text)})
    return tuple(changed)


def settings_as_text(values: Mapping[str, Any]) -> list[str]:
    """Returns settings as the ``key=value`` strings that :func:`parse_settings` takes.

    Args:
        values (Mapping[str, Any]): Values by name.
    """
    return [f'{name}={value if isinstance(value, str) else json.dumps(value)}' for name, value in values.items()]


def _from_text(text: str) -> Any:
    """A number or a truth value where the text is one (as in JSON, in any case), else the text."""
    try:
        return json.loads(text.lower())
    except (ValueError, RecursionError):  # Also integers of thousands of digits, and brackets as deep.
        return text


def _checked(name: str, value: Any, kind: type) -> Any:
    """The value as its field's type, or an error that says what would fit."""
    if isinstance(value, int) and abs(value) > LARGEST_INTEGER:  # Not shown: Python refuses to print very long ones.
        raise UserError(f"setting '{name}' takes whole numbers of at most {LARGEST_INTEGER} in size")
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise UserError(f"setting '{name}' must be of type {kind.__name__} (got {value!r:.60})")
    if name in _CHOICES and value not in _CHOICES[name]:
        raise UserError(f"setting '{name}' must be one of {', '.join(_CHOICES[name])} (got {value!r:.60})")
    if isinstance(value, (int, float)):
        _check_number(name, value)
    return value


def _check_number(name: str, value: float) -> None:
    if not abs(value) < float('inf'):
        raise UserError(f"setting '{name}' must be a finite number (got {value})")
    if name in _POSITIVE and value <= 0:
        raise UserError(f"setting '{name}' must be greater than 0 (got {value})")
    if value < 0:
        raise UserError(f"setting '{name}' must not be negative (got {value})")
    if name in _RATES and value > 1:
        raise UserError(f"setting '{name}' must be between 0 and 1 (got {value})")
