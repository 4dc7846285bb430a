"""What a run is asked to be, and the set that it works on."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from torch_geometric.data import HeteroData

from dgmrec_pyg.datasets import MultimodalDataset, SyntheticMultimodal, data_hash
from dgmrec_pyg.datasets.multimodal import AUTO, NONE, find_mask_file
from dgmrec_pyg.datasets.sources import SOURCES
from dgmrec_pyg.errors import UserError, check_name, near_miss
from dgmrec_pyg.evaluation import evaluation_users
from dgmrec_pyg.schema import INTERACTS, USER, training_edges
from dgmrec_pyg.transforms import HoldOutNewItems, ImputeMissing, MissingModality
from dgmrec_pyg.transforms.impute_missing import IMPUTERS

SYNTHETIC = 'synthetic'
SYNTHETIC_MISSING_RATIO = 0.6
LARGEST_SEED = 2**32 - 1  # NumPy's
CHOICES = {'preset': ('default', 'reference'), 'device': ('auto', 'cpu', 'cuda')}


@dataclass(frozen=True)
class RunSettings:
    """What one run is made of; see ``python -m dgmrec_pyg.run --help``.

    Attributes:
        dataset (str): ``'synthetic'``, a name, or a folder.
        root (str): Where the folders of named sets are.
        model (str): A name in :obj:`dgmrec_pyg.nn.MODELS`.
        preset (str): ``'default'`` or ``'reference'``.
        settings (tuple): ``key=value`` strings for the model's and the training settings.
        missing_ratio (float, optional): Share of items that lack at least one modality.
        missing_file (str, optional): A mask file.
        no_missing (bool): Whether to use no mask at all.
        missing_seed (int): Draws the mask where there is no file, and what a random imputer fills in.
        imputer (str, optional): How missing features are filled before any model reads them; without one, by each model
            in its own way.
        new_items (bool): Whether to hold out new items.
        compare (tuple): Models that are trained as well.
        seed (int): Draws parameters, batches and noise.
        device (str): ``'auto'``, ``'cpu'`` or ``'cuda'``.
        deterministic (bool): Whether to use only algorithms that give the same bits each time.

    Raises:
        UserError: If a value is of a wrong type, unknown or out of range.
    """

    dataset: str = SYNTHETIC
    root: str = 'data'
    model: str = 'dgmrec'
    preset: str = 'default'
    settings: tuple[str, ...] = ()
    missing_ratio: int | float | None = None
    missing_file: str | None = None
    no_missing: bool = False
    missing_seed: int = 0
    imputer: str | None = None
    new_items: bool = False
    compare: tuple[str, ...] = ()
    seed: int = 0
    device: str = 'auto'
    deterministic: bool = False

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(RunSettings).items():
            value = getattr(self, name)
            if not (_are_texts(value) if kind == tuple[str, ...] else isinstance(value, kind)):
                raise UserError(f"'{name}' of a run is {value!r:.60}, of a wrong type")
        for name, known in CHOICES.items():
            check_name(name, getattr(self, name), known)
        if self.imputer is not None:
            check_name('imputer', self.imputer, IMPUTERS)
        if self.missing_ratio is not None and not 0 <= self.missing_ratio <= 1:
            raise UserError('the missing ratio is the share of items that lack a modality, from 0 to 1 '
                            f'(got {self.missing_ratio})')
        for name, seed in (('seed', self.seed), ('missing seed', self.missing_seed)):
            if not 0 <= seed <= LARGEST_SEED:
                raise UserError(f'the {name} must be from 0 to {LARGEST_SEED} (got {seed})')

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> RunSettings:
        """Builds the settings from what ``config.json`` holds of them, where tuples have become lists.

        Args:
            values (Mapping[str, Any]): Values by field name.

        Raises:
            TypeError: If a name is not known.
            UserError: If a value does not fit.
        """
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value
                                  for name, value in values.items()}
        return cls(**fields)


def load_data(run: RunSettings) -> HeteroData:
    """Loads the set of a run, holds out new items where asked for, hides modalities, and imputes them where asked for.

    Unless they are imputed, features that are hidden stay in the graph, where nothing but the comparison with generated
    ones reads them.

    Args:
        run (RunSettings): The run.

    Raises:
        UserError: If the set cannot be read or has an empty split.
    """
    data, needs_mask = _read(run)
    if run.new_items:
        data = HoldOutNewItems()(data)
    if needs_mask:
        ratio = SYNTHETIC_MISSING_RATIO if run.missing_ratio is None else run.missing_ratio
        data = MissingModality(ratio=ratio, seed=run.missing_seed)(data)
    if run.imputer is not None:
        data = ImputeMissing(run.imputer, seed=run.missing_seed)(data)
    for name, split in (('validation', 'val'), ('test', 'test')):
        labels = data[INTERACTS][f'{split}_edge_label_index']
        if evaluation_users(labels, training_edges(data), data[USER].num_nodes).numel() == 0:
            raise UserError(f"set '{run.dataset}' has no {name} interactions of users with training interactions "
                            '(x_label: 0 training, 1 validation, 2 test); a run needs both splits')
    return data


def load_again(run: RunSettings, expected_hash: str) -> HeteroData:
    """Loads the set of a run that has been trained, whose features were let go meanwhile.

    Args:
        run (RunSettings): The run.
        expected_hash (str): :func:`~dgmrec_pyg.datasets.data_hash` of the set that it was trained on.

    Raises:
        UserError: If the set cannot be read any more or is another one now.
    """
    advice = ('so what the model has generated is not compared with the true features; put the files back as they were '
              'and give --resume for that')
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')  # It has warned before training.
            data = load_data(run)
    except UserError as error:
        raise UserError(f"set '{run.dataset}' cannot be read any more ({error}), {advice}") from error
    if data_hash(data) != expected_hash:
        raise UserError(f"the files of set '{run.dataset}' have changed while the model was trained, {advice}")
    return data


def _read(run: RunSettings) -> tuple[HeteroData, bool]:
    """The set with the mask of its own files, and whether one is still to be drawn."""
    if run.dataset == SYNTHETIC:
        if run.missing_file is not None:
            raise UserError('the synthetic set has no mask files; use --missing-ratio')
        return SyntheticMultimodal()[0], not run.no_missing
    folder, is_named = set_folder(run.dataset, run.root)
    guess = near_miss(run.dataset, [SYNTHETIC, *SOURCES])
    if is_named and not folder.is_dir() and run.dataset not in SOURCES and SYNTHETIC in guess:
        raise UserError(f"there is no set '{run.dataset}'{guess}")
    missing: str | Path = AUTO
    if run.no_missing:
        missing = NONE
    elif run.missing_file is not None:
        missing = Path(run.missing_file).expanduser()
        if not missing.is_file():
            raise UserError(f"there is no mask file '{missing}'; give a file missing_<ratio>.npz or "
                            'missing_items_<ratio>.npy')
    elif run.missing_ratio is not None:
        missing = find_mask_file(folder, run.missing_ratio) or NONE
    needs_mask = missing == NONE and not run.no_missing
    if is_named:
        return MultimodalDataset(run.root, run.dataset, missing=missing)[0], needs_mask
    return MultimodalDataset.from_folder(folder, missing=missing)[0], needs_mask


def set_folder(dataset: str, root: str) -> tuple[Path, bool]:
    """Returns the folder of a set, and whether it is that of a named set under :obj:`root`.

    What is no plain name, such as ``./baby``, is a folder anywhere; a plain name is one only if :obj:`root` has no such
    set.

    Args:
        dataset (str): A name or a folder.
        root (str): Where the folders of named sets are.
    """
    folder, named = Path(dataset).expanduser(), Path(root).expanduser() / dataset
    is_named = folder.name == dataset and (named.is_dir() or not folder.is_dir())
    return (named if is_named else folder), is_named


def _are_texts(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(text, str) for text in value)


def dataset_name(dataset: str) -> str:
    """Returns the name of a set, which is that of its folder."""
    return os.path.basename(os.path.abspath(os.path.expanduser(dataset)))
