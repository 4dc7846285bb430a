"""Tests of dgmrec_pyg.memory."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_set import write_small_set
from torch.utils._python_dispatch import TorchDispatchMode
from torch_geometric.data import HeteroData

from dgmrec_pyg import experiment, memory, run
from dgmrec_pyg.config import DGMRecConfig, Settings, TrainingConfig
from dgmrec_pyg.datasets import mmrec
from dgmrec_pyg.errors import UserError
from dgmrec_pyg.imputation import observed_mean
from dgmrec_pyg.memory import DataSizes, available_bytes, check_memory, describe_memory, estimate_memory, require_bytes
from dgmrec_pyg.nn import losses
from dgmrec_pyg.nn.models import LightGCNConfig
from dgmrec_pyg.nn.models.dgmrec import _scale
from dgmrec_pyg.transforms import HoldOutNewItems

TIKTOK = DataSizes(9_308, 6_710, 59_541, 9_000, {'audio': 128, 'image': 128})
CONFIG, TRAINING = DGMRecConfig(), TrainingConfig()
GROUP_FILES = {
    1: ('4:memory:/a/b', 'sys/fs/cgroup/memory', 'memory.limit_in_bytes', 'memory.usage_in_bytes',
        'total_inactive_file'),
    2: ('0::/a/b', 'sys/fs/cgroup', 'memory.max', 'memory.current', 'inactive_file'),
}


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding='utf-8')


@pytest.fixture
def system(tmp_path: Path) -> Path:
    """The files of a system with 900 kB available, in which this process holds 50 kB."""
    write(tmp_path / 'proc/meminfo', 'MemTotal: 2000 kB\nMemFree: 10 kB\nMemAvailable: 900 kB\n')
    write(tmp_path / 'proc/self/status', 'Name: python\nVmHWM: 80 kB\nVmRSS: 50 kB\n')
    return tmp_path


def set_limit(root: Path, version: int, folder: str, limit: str, usage: int, inactive: int = 0) -> None:
    line, mount, limit_file, usage_file, inactive_name = GROUP_FILES[version]
    write(root / 'proc/self/cgroup', f'7:cpu:/elsewhere\n{line}\n')
    write(root / mount / folder / limit_file, f'{limit}\n')
    write(root / mount / folder / usage_file, f'{usage}\n')
    write(root / mount / folder / 'memory.stat', f'cache 5\n{inactive_name} {inactive}\n')


def test_available_is_what_linux_says_and_what_the_process_has(system: Path) -> None:
    assert available_bytes(root=system) == 950 * 1024


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('folder', ['', 'a', 'a/b'])
def test_a_lower_limit_of_any_group_above_counts(system: Path, version: int, folder: str) -> None:
    set_limit(system, version, folder, '500000', 300_000, inactive=40_000)
    assert available_bytes(root=system) == 240_000 + 50 * 1024


@pytest.mark.parametrize('version', [1, 2])
@pytest.mark.parametrize('limit', ['9223372036854771712', 'max'])
def test_a_group_without_a_limit_does_not_count(system: Path, version: int, limit: str) -> None:
    set_limit(system, version, 'a/b', limit, 300_000)
    assert available_bytes(root=system) == 950 * 1024


def test_the_lowest_limit_counts(system: Path) -> None:
    set_limit(system, 2, 'a', '400000', 0)
    set_limit(system, 2, 'a/b', '700000', 0)
    assert available_bytes(root=system) == 400_000 + 50 * 1024


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert available_bytes(root=tmp_path) is None


def test_this_system_says_something() -> None:
    if not Path('/proc/meminfo').exists():
        pytest.skip('there is no /proc here')
    assert (available_bytes() or 0) > 50 * 2**20


@pytest.mark.parametrize(('field', 'part'), [
    ('num_users', 'embeddings'), ('num_items', 'embeddings'), ('num_items', 'features'), ('num_items', 'item graphs'),
    ('num_train', 'interactions'), ('num_labels', 'interactions'), ('num_users', 'interactions')])
def test_more_data_needs_more_memory(field: str, part: str) -> None:
    larger = dataclasses.replace(TIKTOK, **{field: 3 * getattr(TIKTOK, field)})
    assert (estimate_memory(larger, CONFIG, TRAINING).parts[part]
            > 1.02 * estimate_memory(TIKTOK, CONFIG, TRAINING).parts[part])


@pytest.mark.parametrize(('setting', 'value', 'part'), [
    ('hidden_channels', 256, 'embeddings'), ('knn_k', 20, 'item graphs'), ('train_features', True, 'features')])
def test_settings_change_their_part(setting: str, value: object, part: str) -> None:
    before = estimate_memory(TIKTOK, CONFIG, TRAINING)
    after = estimate_memory(TIKTOK, CONFIG.replace(**{setting: value}), TRAINING)
    assert after.parts[part] > before.parts[part]
    assert after.total != before.total


def test_batches_need_memory_up_to_the_size_of_the_set() -> None:
    sizes = [estimate_memory(TIKTOK, CONFIG, TRAINING.replace(batch_size=size)).total
             for size in (512, 4096, 60_000, 120_000)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


@pytest.mark.parametrize(('settings', 'copies'), [
    ({}, 1), ({'reconstruction_items': 'batch', 'feature_generation_weight': 0.0}, 1), ({'train_features': True}, 2),
    ({'reconstruction_items': 'all', 'feature_generation_weight': 0.0}, 0),
    ({'reconstruction_weight': 0.0, 'feature_generation_weight': 0.0}, 0), ({'generate_from': 'features'}, 0)])
def test_features_of_a_batch_are_copied_where_they_are_compared(settings: dict[str, object], copies: int) -> None:
    config = CONFIG.replace(**{'generate_from': 'encodings', **settings})
    wide = dataclasses.replace(TIKTOK, features={'audio': 128, 'image': 1128})
    grown = (estimate_memory(sizes, config, TRAINING).parts['batch'] for sizes in (wide, TIKTOK))
    assert next(grown) - next(grown) == copies * 4 * 4096 * 1000  # positive and negative items of 2,048 interactions


@pytest.mark.parametrize(('settings', 'tables'), [
    ({'train_features': False}, 2), ({'reconstruction_items': 'all'}, 4), ({'reconstruction_items': 'batch'}, 5),
    ({'reconstruction_items': 'batch', 'reconstruction_weight': 0.0}, 4), ({'generate_from': 'features'}, 4)])
def test_a_trained_table_has_a_gradient_where_rows_are_selected(settings: dict[str, object], tables: int) -> None:
    config = CONFIG.replace(**{'train_features': True, 'generate_from': 'encodings', **settings})
    cuda = torch.device('cuda')  # There the estimate of features is the tables alone.
    wide = dataclasses.replace(TIKTOK, features={'audio': 128, 'image': 1128})
    grown = (estimate_memory(sizes, config, TRAINING, cuda).parts['features'] for sizes in (wide, TIKTOK))
    assert next(grown) - next(grown) == tables * 4 * TIKTOK.num_items * 1000


def test_fewer_contrasted_pairs_need_less() -> None:
    sizes = [estimate_memory(TIKTOK, CONFIG.replace(contrastive_pairs=pairs), TRAINING.replace(batch_size=50_000)).total
             for pairs in (100, 2048, 60_000, 0)]
    assert sizes[0] < sizes[1] < sizes[2] == sizes[3]


def test_narrow_features_need_less_and_new_items_a_copy_more() -> None:
    config = CONFIG.replace(generate_from='encodings')
    before = estimate_memory(WIDE, config, TRAINING)
    narrow = estimate_memory(WIDE, config.replace(feature_channels=64), TRAINING)
    assert narrow.parts['features'] < before.parts['features']
    assert narrow.parts['batch'] < before.parts['batch']
    new = estimate_memory(dataclasses.replace(WIDE, has_new_items=True), config, TRAINING)
    # One modality's centered features beside the few columns of both.
    assert new.parts['features'] - before.parts['features'] == 4 * 6_710 * (4096 + 2 * 256)


def test_new_items_of_a_set_are_known(small_data: HeteroData) -> None:
    assert not experiment.data_sizes(small_data).has_new_items
    assert experiment.data_sizes(HoldOutNewItems()(small_data)).has_new_items


class Largest(TorchDispatchMode):
    """Notes how many values the largest tensor has that an operation made."""

    numel = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.numel = max(self.numel, made.numel() if isinstance(made, torch.Tensor) else 0)
        return made


@pytest.mark.parametrize(('measure', 'expected'), [
    (lambda x, missing: _scale(x, ~missing), 4.0), (observed_mean, torch.full((2000, ), 3.0))])
def test_wide_features_are_measured_without_a_copy(measure: Callable[..., Any], expected: Any) -> None:
    missing = torch.arange(3000) % 3 == 0
    x = torch.full((3000, 2000), 3.0).masked_fill(missing[:, None], math.nan)
    with Largest() as largest:
        found = measure(x, missing)
    assert torch.equal(torch.as_tensor(found), torch.as_tensor(expected))
    assert 0 < largest.numel <= 2**21 < x.numel()


def test_a_model_without_modalities_needs_less() -> None:
    lightgcn = estimate_memory(TIKTOK, LightGCNConfig(), TRAINING)
    assert lightgcn.total < estimate_memory(TIKTOK, CONFIG, TRAINING).total
    assert lightgcn.parts['features'] == 4 * 6_710 * 256  # they are loaded all the same


def test_a_gpu_holds_neither_libraries_nor_the_set() -> None:
    on_cpu, on_gpu = (estimate_memory(TIKTOK, CONFIG, TRAINING, device) for device in ('cpu', 'cuda'))
    assert 'libraries' not in on_gpu.parts
    # Nor what the regression keeps: features of 128 by each modality twice, places of 256, and one as filled.
    assert on_cpu.parts['features'] - on_gpu.parts['features'] == 4 * 6_710 * (256 + 2 * 256 + 256 + 128)
    assert on_gpu.host_bytes > memory.LIBRARY_BYTES
    assert on_cpu.host_bytes == 0


WIDE = dataclasses.replace(TIKTOK, features={'image': 4096, 'text': 4096})
FEW_ITEMS = DataSizes(1000, 500, 10**7, features={'image': 8, 'text': 8})


@pytest.mark.parametrize(('sizes', 'config', 'training', 'advice'), [
    (WIDE, CONFIG.replace(train_features=True), TRAINING, 'train_features=false.*feature_channels='),
    (WIDE, CONFIG, TRAINING, r'make features narrower \(--set feature_channels=...\), or take a smaller set$'),
    (WIDE, LightGCNConfig(hidden_channels=1), TRAINING, '(?<=available; )take a smaller set$'),
    (dataclasses.replace(TIKTOK, num_users=10**7), CONFIG, TRAINING, 'lower hidden_channels'),
    (FEW_ITEMS, CONFIG.replace(hidden_channels=512), TRAINING.replace(batch_size=10**7), 'lower batch_size'),
    (FEW_ITEMS, CONFIG.replace(hidden_channels=512), TRAINING.replace(max_steps=1), 'smaller batches.*max_steps=...'),
])
def test_refusal_names_what_takes_most(sizes: DataSizes, config: Settings, training: TrainingConfig, advice: str,
                                       monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 300 * 10**6)
    with pytest.raises(UserError, match=r'^this run needs about [\d.,]+ GB of memory on cpu, but 0.30 GB are '
                                        f'available; .*{advice}') as error:
        check_memory(estimate_memory(sizes, config, training))
    assert '\n' not in str(error.value)


def test_what_fits_exactly_is_not_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 1000)
    require_bytes(1000, 'this', 'do that')
    with pytest.raises(UserError, match=r'this needs about .* of memory on cpu, but .* are available; do that'):
        require_bytes(1001, 'this', 'do that')


def test_nothing_is_refused_where_the_system_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: None)
    require_bytes(10**18, 'this', 'do that')
    assert describe_memory(estimate_memory(TIKTOK, CONFIG, TRAINING)).endswith('available: unknown')


def test_description_adds_up() -> None:
    estimate = estimate_memory(TIKTOK, CONFIG, TRAINING, torch.device('cpu'))
    line = describe_memory(estimate)
    assert f'about {estimate.total / 1e9:.2f} GB at the peak' in line
    assert all(part in line for part in estimate.parts)
    assert '\n' not in line


def test_a_run_that_does_not_fit_is_refused_before_a_model_is_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
                                                                    capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 450 * 10**6)
    monkeypatch.setattr(experiment, 'build_model', lambda *arguments: pytest.fail('a model was built'))
    assert run.main(['--set', 'hidden_channels=512', '--device', 'cpu', '--output', str(tmp_path / 'run')]) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: this run needs about ')
    assert 'lower hidden_channels' in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'run').exists()


def test_dry_run_shows_the_estimate_and_refuses_nothing(monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(memory, 'available_bytes', lambda device: 10**6)
    assert run.main(['--dry-run', '--device', 'cpu']) == 0
    line = capsys.readouterr().out.splitlines()[-2]
    assert line.startswith('memory on cpu: about 0.')
    assert line.endswith('available: 0.00 GB')


def test_features_that_do_not_fit_are_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = write_small_set(tmp_path / 'small')
    monkeypatch.setattr(memory, 'available_bytes', lambda device: memory.LIBRARY_BYTES)
    monkeypatch.setattr(mmrec, 'read_matrix', lambda *arguments: pytest.fail('features were read'))
    with pytest.raises(UserError, match=r"^reading '.*small' needs about 0.43 GB of memory on cpu"):
        mmrec.read_mmrec(folder)


def test_blocks_of_logits_are_those_of_the_losses() -> None:
    assert memory._CONTRASTED_ROWS == losses._BLOCK_ROWS
    assert memory._CUDA_LOGITS == losses._CUDA_BLOCK_LOGITS
