"""Small cases that hold what the released implementation computed; used by test_parity.py.

The files are those under tests/parity, or in the folder that the environment variable ``DGMREC_PARITY`` names.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import HeteroData

from dgmrec_pyg.config import DGMRecConfig
from dgmrec_pyg.nn import DGMRec
from dgmrec_pyg.reference import load_reference_state_dict, reference_names, to_reference_state_dict
from dgmrec_pyg.schema import build_data

FOLDER = Path(os.environ.get('DGMREC_PARITY', Path(__file__).parent / 'parity'))
PATHS = sorted(FOLDER.glob('*.npz'))

SETTINGS = {
    'embedding_size': 'hidden_channels', 'n_mm_layers': 'num_modality_layers', 'knn_k': 'knn_k',
    'avg_lambda': 'graph_refresh_rate', 'interModal': 'inter_modal_weight', 'intraModal': 'intra_modal_weight',
    'alignBM': 'behavior_alignment_weight', 'recon': 'reconstruction_weight', 'reg': 'feature_reg_weight',
    'sampler': 'club_weight', 'additive': 'generation_weight', 'interModalTemp': 'inter_modal_temperature',
    'intraModalTemp': 'intra_modal_temperature', 'alignBMTemp': 'behavior_alignment_temperature',
}
"""Released name of a setting: its name here."""

TERMS = {
    'interModal': 'inter_modal', 'intraModal': 'intra_modal', 'alignBM': 'behavior_alignment',
    'recon': 'reconstruction', 'sampler': 'club', 'reg': 'feature_reg', 'additive': 'generation',
}
"""Released name of a loss term: its name here."""


@dataclass(frozen=True)
class ParityCase:
    """One file: what goes into the model and what is to come out."""

    data: HeteroData
    config: DGMRecConfig
    arrays: dict[str, Tensor]

    @property
    def state(self) -> dict[str, Tensor]:
        """The parameters by their released names."""
        return {name[len('param/'):]: value for name, value in self.arrays.items() if name.startswith('param/')}

    @property
    def modalities(self) -> list[str]:
        return sorted(name[len('missing/'):] for name in self.arrays if name.startswith('missing/'))

    def model(self, **settings: object) -> DGMRec:
        """The model with the parameters of the file, some settings changed."""
        model = DGMRec.from_data(self.data, self.config.replace(**settings), torch.Generator().manual_seed(0))
        load_reference_state_dict(model, self.state)
        return model


def load_case(path: Path) -> ParityCase:
    """Reads a file of the kind that tests/parity holds."""
    with np.load(path) as file:
        released = json.loads(str(file['config_json']))
        arrays = {name: torch.from_numpy(file[name]) for name in file.files if file[name].dtype.kind != 'U'}
    modalities = [name[len('missing/'):] for name in arrays if name.startswith('missing/')]
    data = build_data(
        num_users=int(arrays['n_users']), num_items=int(arrays['n_items']), edge_index=arrays['edge_index'],
        features={m: arrays[f'feature_raw/{m}'] for m in modalities},
        missing={m: arrays[f'missing/{m}'] for m in modalities})
    settings = {SETTINGS[name]: value for name, value in released.items() if name in SETTINGS}
    return ParityCase(data, DGMRecConfig.reference().replace(noise_scale=0.0, **settings), arrays)


def compute(case: ParityCase) -> dict[str, Tensor]:
    """Everything that a file may hold, computed here, by the names of the file."""
    model = case.model()
    found = {f'param/{name}': value.clone() for name, value in to_reference_state_dict(model).items()}
    for m in case.modalities:
        found |= {f'club/{m}/{name.partition(".")[2]}': value for name, value in to_reference_state_dict(model).items()
                  if name.startswith(f'item_{m}_estimator')}
        found |= {f'general/{m}': model.general(m), f'specific/{m}': model.specific(m)}
        found |= graph(model, m, f'knn/{m}')
    found['lightgcn/user'], found['lightgcn/item'] = model.collaborative()
    found['scores_before'] = scores(model)
    found |= losses_and_gradients(case, model)
    for graphs in ('refreshed', 'initial'):
        model = case.model(inference_graph=graphs)
        model.generate_missing()
        found |= {f'generated/{m}': model.features(m) for m in case.modalities}
        model.refresh_graphs()
        found['scores_after' if graphs == 'refreshed' else 'scores_after_initial_graph'] = scores(model)
        for m in case.modalities:
            found |= graph(model, m, f'knn_refreshed/{m}')
        found['loss/total_after_refresh'] = model.loss(*batch(case), club_permutation=case.arrays['club_permutation'])
    return {name: value.detach() for name, value in found.items()}


def losses_and_gradients(case: ParityCase, model: DGMRec) -> dict[str, Tensor]:
    """The terms (those of weight 0 too), their weighted sum, and the norms of its gradients."""
    permutation = case.arrays['club_permutation']
    # The weights do not change the terms, but a term of weight 0 is not reported.
    all_weights = {SETTINGS[name]: 1.0 for name in TERMS}
    terms = case.model(**all_weights).loss_terms(*batch(case), club_permutation=permutation)
    found = {f'loss/{released}': terms[name] for released, name in TERMS.items()}
    found['loss/bpr_plus_embedding_reg'] = terms['bpr'] + terms['embedding_reg']
    found['loss/total'] = model.loss(*batch(case), club_permutation=permutation)
    found['loss/total'].backward()
    parameters = dict(model.named_parameters())
    for own, released in reference_names(model).items():
        if parameters[own].grad is not None:
            found[f'grad_norm/{released}'] = parameters[own].grad.norm()
    return found


def batch(case: ParityCase) -> tuple[Tensor, Tensor, Tensor]:
    return case.arrays['users'], case.arrays['pos_items'], case.arrays['neg_items']


def scores(model: DGMRec) -> Tensor:
    user, item = model.embed()
    return user @ item.t()


def graph(model: DGMRec, modality: str, name: str) -> dict[str, Tensor]:
    """An item graph as (item, neighbor) pairs, in the order of :func:`sort_graph`."""
    edge_index, edge_weight = model.item_graph(modality)
    index, value = sort_graph(edge_index.flip(0), edge_weight, model.num_items)
    return {f'{name}/index': index, f'{name}/value': value}


def sort_graph(index: Tensor, value: Tensor, num_items: int) -> tuple[Tensor, Tensor]:
    """Edges in the order of their rows, then columns."""
    order = (index[0] * num_items + index[1]).argsort()
    return index[:, order], value[order]
