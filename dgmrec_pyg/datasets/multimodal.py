r"""Sets in MMRec's layout as a PyTorch Geometric dataset."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

from torch_geometric.data import HeteroData, InMemoryDataset

from dgmrec_pyg.datasets.edge_split import EdgeSplit
from dgmrec_pyg.datasets.masks import find_mask_files, read_mask_file
from dgmrec_pyg.datasets.mmrec import find_feature_files, find_inter_file, read_mmrec
from dgmrec_pyg.datasets.sources import SOURCES, fetch_source
from dgmrec_pyg.errors import UserError, near_miss
from dgmrec_pyg.schema import INTERACTS, ITEM, USER, item_features, missing_key, missing_mask, modality_names

AUTO = 'auto'
NONE = 'none'
Transform = Callable[[HeteroData], HeteroData]


class MultimodalDataset(EdgeSplit, InMemoryDataset):
    r"""Users, items with several modalities, and who interacted with what.

    ``MultimodalDataset(root, name)[0]`` is the :class:`~torch_geometric.data.HeteroData` of
    :mod:`dgmrec_pyg.schema`, read from the folder ``root/name`` in the layout of `MMRec
    <https://github.com/enoche/MMRec>`_ (see :func:`~dgmrec_pyg.datasets.mmrec.read_mmrec`). The official sets
    ``'baby'``, ``'sports'``, ``'clothing'`` and ``'elec'`` are fetched when their files are not there.

    An item lacks a modality if the mask says so or its row of features is NaN throughout. What the file holds for a
    masked item stays in ``x_<modality>``, as the truth to compare generated features with.

    Nothing is written beside the files: reading them is quick, and a cached copy could be out of date unseen.

    Args:
        root (str or PathLike): The folder in which the folder :obj:`name` is. (default: :obj:`'data'`)
        name (str): Name of the set and of its folder. (default: :obj:`'baby'`)
        missing (str, float or PathLike): Which items lack which modality. ``'auto'``: by the mask file of the set, that
            of the smallest ratio if there are several, and no mask if there is none. ``'none'``: no mask. A number:
            by the set's mask file for this ratio. A path: by this mask file. (default: :obj:`'auto'`)
        transform (Callable, optional): Applied whenever the graph is taken from the set. (default: :obj:`None`)
        pre_transform (Callable, optional): Applied once, on reading. (default: :obj:`None`)
        force_reload (bool): Taken because every PyG dataset takes it; there is no cache, so it changes nothing.
            (default: :obj:`False`)

    Raises:
        UserError: If there is no such set, it cannot be fetched, or one of its files is wrong.
    """

    def __init__(
        self,
        root: str | os.PathLike[str] = 'data',
        name: str = 'baby',
        missing: str | float | os.PathLike[str] = AUTO,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
        force_reload: bool = False,
    ) -> None:
        folder = Path(root).expanduser() / name
        if name != Path(name).name or name in ('', '.', '..'):
            raise UserError(f"'{name}' is no name of a folder under '{root}'; MultimodalDataset.from_folder reads a "
                            'folder at any place')
        if name in SOURCES:
            fetch_source(SOURCES[name], folder)
        elif not folder.is_dir():
            raise _unknown(name, folder.parent)
        self._read(folder, missing, transform, pre_transform, force_reload)

    @classmethod
    def from_folder(
        cls,
        path: str | os.PathLike[str],
        missing: str | float | os.PathLike[str] = AUTO,
        transform: Transform | None = None,
        pre_transform: Transform | None = None,
    ) -> MultimodalDataset:
        """Reads the set in the folder :obj:`path`, whatever its name; nothing is fetched.

        Args:
            path (str or PathLike): A folder with one ``.inter`` file and the feature files.
            missing (str, float or PathLike): See :class:`MultimodalDataset`. (default: :obj:`'auto'`)
            transform (Callable, optional): See :class:`MultimodalDataset`. (default: :obj:`None`)
            pre_transform (Callable, optional): See :class:`MultimodalDataset`. (default: :obj:`None`)

        Raises:
            UserError: If there is no such folder or one of its files is wrong.
        """
        dataset = cls.__new__(cls)
        dataset._read(Path(path).expanduser(), missing, transform, pre_transform)
        return dataset

    @property
    def raw_dir(self) -> str:
        """The folder of the set."""
        return str(self._folder)

    @property
    def raw_file_names(self) -> list[str]:
        """The names of the files that were read, without masks and raw ids."""
        return [path.name for path in (find_inter_file(self._folder), *find_feature_files(self._folder))]

    def _read(self, folder: Path, missing: str | float | os.PathLike[str], transform: Transform | None,
              pre_transform: Transform | None, force_reload: bool = False) -> None:
        self._folder = folder.absolute()
        self.name = self._folder.name
        super().__init__(str(self._folder.parent), transform, pre_transform, force_reload=force_reload)
        data = read_mmrec(self._folder)
        self.mask_file = _choose_mask_file(self._folder, missing)
        if self.mask_file is not None:
            _apply_mask_file(data, self.mask_file)
        if pre_transform is not None:
            data = pre_transform(data)
        self.data, self.slices = self.collate([data])

    def __repr__(self) -> str:
        data = self._data
        edges = data[INTERACTS]
        sizes = ', '.join(f'{name}: {item_features(data, name).size(1)}' for name in modality_names(data))
        mask = f"'{self.mask_file.name}'" if self.mask_file else None
        return (f"{self.__class__.__name__}('{self.name}', users={data[USER].num_nodes}, items={data[ITEM].num_nodes}, "
                f'train={edges.edge_index.size(1)}, val={edges.val_edge_label_index.size(1)}, '
                f'test={edges.test_edge_label_index.size(1)}, modalities={{{sizes}}}, mask={mask})')


def find_mask_file(folder: str | os.PathLike[str], ratio: float) -> Path | None:
    """Returns the mask file of a missing ratio in the folder of a set, or :obj:`None` if there is none.

    Args:
        folder (str or PathLike): The folder.
        ratio (float): The missing ratio.
    """
    return next((path for known, path in find_mask_files(folder).items() if math.isclose(known, ratio)), None)


def _unknown(name: str, root: Path) -> UserError:
    folders = sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    known = sorted({*SOURCES, *folders})
    return UserError(f"there is no set '{name}' under '{root.absolute()}'{near_miss(name, known)} "
                     f'(known: {", ".join(known[:20])}); put its files into '
                     f"'{(root / name).absolute()}', or give the folder that holds it (--root)")


def _choose_mask_file(folder: Path, missing: str | float | os.PathLike[str]) -> Path | None:
    """Returns the mask file that :obj:`missing` speaks of."""
    if missing == NONE:
        return None
    if missing == AUTO:
        return next(iter(find_mask_files(folder).values()), None)
    if isinstance(missing, int | float):
        found = find_mask_file(folder, missing)
        if found is not None:
            return found
        ratios = ', '.join(map(str, find_mask_files(folder))) or 'none'
        raise UserError(f"'{folder}' has no mask file for the missing ratio {missing} (there: {ratios}); the transform "
                        'MissingModality draws a mask of any ratio')
    path = Path(missing).expanduser()
    if not path.is_file():
        raise UserError(f"there is no mask file '{path}'; give '{AUTO}', '{NONE}', a ratio or a mask file"
                        + near_miss(str(missing), [AUTO, NONE]))
    return path


def _apply_mask_file(data: HeteroData, path: Path) -> None:
    masks = read_mask_file(path, modality_names(data), data[ITEM].num_nodes)
    for modality, mask in masks.items():
        data[ITEM][missing_key(modality)] = missing_mask(data, modality) | mask
