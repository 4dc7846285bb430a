"""Parameters by the names of the released implementation, for two or three modalities.

The released code names its parameters by the modalities ``image``, ``text`` and ``audio``. Some of its parameters are
never used (``user_*_prefer``, ``*_s_filter_trans``, ``user_*_estimator``); they are passed over and not made up on the
way back.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dgmrec_pyg.errors import UserError
from dgmrec_pyg.nn import DGMRec

_TRANSLATORS: dict[int, dict[str, tuple[str, ...]]] = {
    2: {'image2text': ('image', 'text'), 'text2image': ('text', 'image')},
    3: {'image2text': ('audio', 'image', 'text'), 'text2image': ('text', 'audio', 'image'),
        'text2audio': ('image', 'text', 'audio')},
}
"""Released name of a translator: the modalities in the order in which it reads them, then the one that it makes."""


def reference_names(model: DGMRec) -> dict[str, str]:
    """Returns the released name of every parameter of a model, by the model's own name.

    Args:
        model (DGMRec): A model of two or three modalities out of audio, image and text.

    Raises:
        UserError: If the released implementation has no such model.
    """
    modalities = set(model.modalities)
    if len(modalities) not in _TRANSLATORS or not modalities <= {'audio', 'image', 'text'}:
        raise UserError('the released implementation knows image and text, and audio beside them (got '
                        f"{', '.join(model.modalities)})")
    if modalities == {'audio', 'image'} or modalities == {'audio', 'text'}:
        raise UserError(f"the released implementation has no model of only {' and '.join(model.modalities)}")
    if model.config.feature_scale != 'given' or model.config.feature_channels > 0:
        raise UserError('the released implementation reads features as they are given; take '
                        "DGMRecConfig.reference(...), or feature_scale='given' with feature_channels=0")
    names = {'user_embedding.weight': 'user_embedding.weight', 'item_embedding.weight': 'item_id_embedding.weight'}
    for m in model.modalities:
        names[f'feature_tables.{m}'] = f'{m}_embedding.weight'
        names[f'preference.lin.{m}.weight'] = f'{m}_g_filter_trans.weight'
        names |= _linear(f'encoder.general.{m}', f'{m}_encoder')
        names |= _linear(f'encoder.specific.{m}', f'{m}_encoder_s')
        names |= _linear(f'generator_net.decoder.{m}', f'{m}_decoder')
        names |= _two_layers(f'generator_net.specific.{m}', f'{m}_gen')
        if m in model.club:
            names |= _two_layers(f'club.{m}.mean', f'item_{m}_estimator.p_mu')
            names |= _two_layers(f'club.{m}.log_variance', f'item_{m}_estimator.p_logvar')
    names |= _linear('encoder.shared', 'shared_encoder')
    for name, (*_, made) in _TRANSLATORS[len(modalities)].items():
        names |= _two_layers(f'generator_net.translator.{made}', name)
    return names


def load_reference_state_dict(model: DGMRec, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the parameters of a released model into :obj:`model`.

    Item graphs stay as they are: the released state does not hold them, and its code too builds them from the raw
    features. CLUB's estimators keep their values where the state has none.

    Args:
        model (DGMRec): The model to write into.
        state_dict (Mapping[str, torch.Tensor]): Parameters by their released names.

    Raises:
        UserError: If a parameter is not there or has another shape.
    """
    parameters = dict(model.named_parameters())
    found = {}
    for own, released in reference_names(model).items():
        value = state_dict.get(released)
        if value is None:
            if own.startswith('club.'):
                continue
            raise UserError(f"the released state has no '{released}'; is it a DGMRec of {', '.join(model.modalities)}?")
        value = torch.as_tensor(value)
        if value.shape != parameters[own].shape:
            raise UserError(f"'{released}' has shape {tuple(value.shape)}, the model's {tuple(parameters[own].shape)}; "
                            'are settings and data the same?')
        found[own] = _reorder(model, released, value)
    with torch.no_grad():  # Only now, so that an error leaves the model as it was.
        for own, value in found.items():
            parameters[own].copy_(value)


def to_reference_state_dict(model: DGMRec) -> dict[str, Tensor]:
    """Returns the parameters of :obj:`model` by their released names.

    Args:
        model (DGMRec): A model of two or three modalities out of audio, image and text.

    Raises:
        UserError: If the released implementation has no such model.
    """
    parameters = dict(model.named_parameters())
    return {released: _reorder(model, released, parameters[own].detach())
            for own, released in reference_names(model).items()}


def _reorder(model: DGMRec, released: str, value: Tensor) -> Tensor:
    """Swaps the input blocks of a translator that reads its modalities in another order; its own inverse."""
    translator, _, rest = released.partition('.')
    order = list(_TRANSLATORS[len(model.modalities)].get(translator, ())[:-1])
    if rest != '0.weight' or order == sorted(order):
        return value
    return torch.cat(value.chunk(len(order), dim=1)[::-1], dim=1)


def _linear(own: str, released: str) -> dict[str, str]:
    return {f'{own}.{kind}': f'{released}.{kind}' for kind in ('weight', 'bias')}


def _two_layers(own: str, released: str) -> dict[str, str]:
    return _linear(f'{own}.0', f'{released}.0') | _linear(f'{own}.2', f'{released}.2')
