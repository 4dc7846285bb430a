"""The dataset: which folder, which mask, and what it does not do (writing, fetching unasked)."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch_geometric.data import HeteroData
from torch_geometric.transforms import BaseTransform

from dgmrec_pyg.datasets import MultimodalDataset, data_hash, write_mask_file
from dgmrec_pyg.datasets.multimodal import find_mask_file
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.schema import build_data

NUM_ITEMS = 5
IMAGE = np.arange(10, dtype=np.float32).reshape(NUM_ITEMS, 2)


def mask(*items: int) -> torch.Tensor:
    return torch.zeros(NUM_ITEMS, dtype=torch.bool).index_fill_(0, torch.tensor(items, dtype=torch.long), True)


def make_set(folder: Path) -> Path:
    """A set whose item 4 lacks text by NaN, with masks of the ratios 0.2 and 0.4."""
    folder.mkdir(parents=True)
    (folder / f'{folder.name}.inter').write_text('userID\titemID\tx_label\n0\t0\t0\n0\t1\t1\n1\t2\t0\n1\t3\t2\n')
    np.save(folder / 'image_feat.npy', IMAGE)
    text = np.ones((NUM_ITEMS, 3), dtype=np.float32)
    text[4] = np.nan
    np.save(folder / 'text_feat.npy', text)
    write_mask_file(folder / 'missing_0.4.npz', {'image': mask(1, 2)})
    write_mask_file(folder / 'missing_0.2.npz', {'image': mask(1), 'text': mask(1)})
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_set(tmp_path / 'data' / 'toy')
    return tmp_path / 'data'


class Mark(BaseTransform):

    def forward(self, data: HeteroData) -> HeteroData:
        data.marks = data.marks + 1 if 'marks' in data else 1
        return data


@pytest.mark.parametrize(('missing', 'image', 'text'), [
    ('auto', [1], [1, 4]),
    (0.2, [1], [1, 4]),
    (0.4, [1, 2], [4]),
    (0.1 + 0.1 + 0.2 + 1e-12, [1, 2], [4]),
    ('none', [], [4]),
])
def test_the_mask_is_joined_with_rows_of_nan(root: Path, missing: str | float, image: list[int],
                                             text: list[int]) -> None:
    item = MultimodalDataset(root, 'toy', missing=missing)[0]['item']
    assert item.missing_image.nonzero().flatten().tolist() == image
    assert item.missing_text.nonzero().flatten().tolist() == text
    assert torch.equal(item.x_image, torch.from_numpy(IMAGE))  # the truth stays where the mask hides it
    assert item.x_text[4].isnan().all()


def test_a_mask_file_from_elsewhere(root: Path, tmp_path: Path) -> None:
    write_mask_file(tmp_path / 'mine.npz', {'image': mask(0, 3)})
    dataset = MultimodalDataset(str(root), 'toy', missing=str(tmp_path / 'mine.npz'))
    assert torch.equal(dataset[0]['item'].missing_image, mask(0, 3))
    assert dataset.mask_file == tmp_path / 'mine.npz'


def test_no_mask_file_means_no_mask(root: Path) -> None:
    for path in (root / 'toy').glob('missing_*'):
        path.unlink()
    dataset = MultimodalDataset(root, 'toy')
    assert dataset.mask_file is None
    assert not dataset[0]['item'].missing_image.any()


@pytest.mark.parametrize(('ratio', 'name'), [
    (0.2, 'missing_0.2.npz'), (0.4, 'missing_0.4.npz'), (0.7 - 0.3, 'missing_0.4.npz'), (0.3, None), (0.0, None)])
def test_find_mask_file(root: Path, ratio: float, name: str | None) -> None:
    assert 0.7 - 0.3 != 0.4
    assert find_mask_file(root / 'toy', ratio) == (None if name is None else root / 'toy' / name)
    assert find_mask_file(root / 'none', ratio) is None


def test_is_a_pyg_dataset(root: Path) -> None:
    dataset = MultimodalDataset(root, 'toy', transform=Mark(), pre_transform=Mark(), force_reload=True)
    assert len(dataset) == 1
    assert dataset[0].marks == 2
    assert dataset[0].marks == 2  # taking it does not change what is held
    assert all(Path(path).is_file() for path in dataset.raw_paths)
    assert copy.deepcopy(dataset)[0]['item'].num_nodes == NUM_ITEMS


def test_repr(root: Path) -> None:
    assert repr(MultimodalDataset(root, 'toy')) == (
        "MultimodalDataset('toy', users=2, items=5, train=2, val=1, test=1, modalities={image: 2, text: 3}, "
        "mask='missing_0.2.npz')")
    assert repr(MultimodalDataset(root, 'toy', missing='none')).endswith('mask=None)')


def test_nothing_is_written(root: Path) -> None:
    before = sorted(root.rglob('*'))
    MultimodalDataset(root, 'toy')
    assert sorted(root.rglob('*')) == before


def test_from_folder_reads_what_is_there(tmp_path: Path) -> None:
    folder = make_set(tmp_path / 'elec')  # with the name of an official set, and not all of its files
    (folder / 'image_feat.npy').unlink()
    (folder / 'missing_0.2.npz').unlink()
    (folder / 'missing_0.4.npz').unlink()
    dataset = MultimodalDataset.from_folder(folder, transform=Mark())
    assert dataset.name == 'elec'
    assert dataset[0].marks == 1
    assert 'x_image' not in dataset[0]['item']
    with pytest.raises(UserError, match='there is no folder'):
        MultimodalDataset.from_folder(tmp_path / 'nowhere')


def test_from_folder_and_by_name_are_the_same(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = data_hash(MultimodalDataset(root, 'toy')[0])
    monkeypatch.chdir(root / 'toy')
    assert data_hash(MultimodalDataset.from_folder('.')[0]) == by_name


@pytest.mark.parametrize(('arguments', 'words'), [
    ({'name': 'toi'}, ["no set 'toi'", "did you mean 'toy'?", 'baby', 'data']),
    ({'name': 'babi'}, ["did you mean 'baby'?", 'sports']),
    ({'name': 'tiktok'}, ["'tiktok' is not there", 'tiktok.inter, image_feat.npy', 'DiffMM', 'DGMRec', 'tiktok']),
    ({'name': '../data/toy'}, ['no name of a folder', 'from_folder']),
    ({'name': ''}, ['no name of a folder']),
    ({'name': '..'}, ['no name of a folder']),
    ({'name': 'toy', 'missing': 0.5}, ['missing ratio 0.5', '0.2, 0.4', 'MissingModality']),
    ({'name': 'toy', 'missing': 'non'}, ["no mask file 'non'", "did you mean 'none'?"]),
    ({'name': 'toy', 'missing': 'x.npz'}, ["no mask file 'x.npz'"]),
], ids=str)
def test_wrong_arguments_are_one_line(root: Path, arguments: dict, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        MultimodalDataset(root, **arguments)
    assert '\n' not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert sorted(path.name for path in root.iterdir()) == ['toy']


def test_tiktok(real_data_root: Path) -> None:
    data = MultimodalDataset(real_data_root, 'tiktok')[0]
    edges = data['user', 'interacts', 'item']
    assert (data['user'].num_nodes, data['item'].num_nodes) == (9308, 6710)
    assert [edges[key].size(1) for key in ('edge_index', 'val_edge_label_index', 'test_edge_label_index')] == [
        59541, 6130, 3051]
    assert data['item'].missing_image.sum() == 2685
    assert MultimodalDataset(real_data_root, 'tiktok', missing=0.75).mask_file.name == 'missing_items_0.75.npy'


def test_lfm2k(real_data_root: Path) -> None:
    data = MultimodalDataset(real_data_root, 'lfm2k')[0]
    assert data['item'].num_nodes == len(data.item_name) == len(data.raw_id['item']) == 1425
    assert (data.raw_id['item'][1], data.item_name[1]) == ('66', 'Faithless')
    assert 'user' not in data.raw_id


def small(**changes: object) -> HeteroData:
    arguments = {'num_users': 2, 'num_items': NUM_ITEMS, 'edge_index': torch.tensor([[0, 1], [0, 2]]),
                 'features': {'image': torch.from_numpy(IMAGE), 'text': torch.ones(NUM_ITEMS, 3)},
                 'missing': {'image': mask(1)}} | changes
    return build_data(**arguments)


def test_hash_does_not_depend_on_order_of_modalities_or_raw_ids() -> None:
    features = {'text': torch.ones(NUM_ITEMS, 3), 'image': torch.from_numpy(IMAGE.copy())}
    assert data_hash(small()) == data_hash(small(features=features, raw_id={'user': ['a', 'b']}))
    assert len(data_hash(small())) == 64


@pytest.mark.parametrize('changes', [
    {'num_users': 3},
    {'edge_index': torch.tensor([[0, 1], [0, 3]])},
    {'val_edge_label_index': torch.tensor([[0], [1]])},
    {'test_edge_label_index': torch.tensor([[0], [1]])},
    {'features': {'image': torch.from_numpy(IMAGE) + 1, 'text': torch.ones(NUM_ITEMS, 3)}},
    {'features': {'image': torch.from_numpy(IMAGE), 'texts': torch.ones(NUM_ITEMS, 3)}},
    {'missing': {'image': mask(2)}},
    {'missing': {'text': mask(1)}},
], ids=lambda changes: '-'.join(changes))
def test_hash_changes_with_the_content(changes: dict) -> None:
    assert data_hash(small(**changes)) != data_hash(small())


def test_hash_sees_held_out_items() -> None:
    data = small()
    data['item'].is_new = mask(1)
    assert data_hash(data) != data_hash(small())
