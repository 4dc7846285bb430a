"""What the benchmarks that compare models do with their arguments, and with cells that fail or are there already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cells
import numpy as np
import paired
import pytest
from benchmark_case import NAMES, QUICK, SCRIPTS, write_set

from dgmrec_pyg.experiment import resolve_settings
from dgmrec_pyg.results import CELLS, read_results

Run = Callable[..., int]


@pytest.fixture(scope='module')
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp('sets') / 'small')


@pytest.fixture
def run(dataset: Path, tmp_path: Path) -> Run:
    """Calls a benchmark in this process."""
    def call(name: str, *arguments: str, seeds: tuple[str, ...] = ('0', '1'), out: Path = tmp_path) -> int:
        return SCRIPTS[name].main(['--dataset', str(dataset), '--seeds', *seeds, '--out', str(out), *QUICK, *arguments])
    return call


def test_masks_are_the_same_for_all_models_of_a_ratio_and_seed(run: Run, tmp_path: Path) -> None:
    run('missing_ratio', '--models', 'popularity', 'bprmf', '--ratios', '0', '0.3', '0.6')
    hashes: dict[tuple[float, int], set[str]] = {}
    for cell in read_results(tmp_path).cells:
        hashes.setdefault((cell.cell['missing_ratio'], cell.cell['seed']), set()).add(cell.data_hash)
    assert all(len(found) == 1 for found in hashes.values())
    assert hashes[0.0, 0] == hashes[0.0, 1] == {read_results(tmp_path).header.data_hash}  # nothing is hidden
    assert len(set.union(*hashes.values())) == 1 + 2 * 2


def test_official_masks_are_used_where_asked_for(run: Run, dataset: Path, tmp_path: Path) -> None:
    masks = dataset / 'missing_0.4.npz'
    lacks = np.arange(100) < 40
    np.savez(masks, image=lacks, text=~lacks & (np.arange(100) < 60))
    try:
        run('missing_ratio', '--models', 'popularity', '--ratios', '0.4', '--official-masks', out=tmp_path / 'official')
        run('missing_ratio', '--models', 'popularity', '--ratios', '0.4', out=tmp_path / 'drawn')
        run('compare', '--models', 'popularity', '--missing-ratio', '0.4', out=tmp_path / 'compare')
        run('compare', '--models', 'popularity', out=tmp_path / 'own')
    finally:
        masks.unlink()
    official = {cell.data_hash for cell in read_results(tmp_path / 'official').cells}
    assert len(official) == 1
    assert not official & {cell.data_hash for cell in read_results(tmp_path / 'drawn').cells}
    for name in ('compare', 'own'):
        assert {cell.data_hash for cell in read_results(tmp_path / name).cells} == official


def test_a_failing_cell_is_recorded_and_the_others_go_on(run: Run, tmp_path: Path,
                                                         capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ['--models', 'bprmf', 'popularity']
    failing = [*arguments, '--set', 'bprmf:learning_rate=1e38']
    assert run('compare', *failing) == 1
    results = read_results(tmp_path)
    assert {cell.cell['model'] for cell in results.done} == {'popularity'}
    assert {cell.cell['model'] for cell in results.failed} == {'bprmf'}
    assert all('not finite' in cell.error for cell in results.failed)
    assert all(cell.configuration['training']['learning_rate'] == 1e38 for cell in results.failed)
    output = capsys.readouterr()
    assert output.err.count('failed: bprmf') == 2
    assert '**2 of 4 cells failed**' in (tmp_path / 'table.md').read_text()
    assert run('compare', *arguments) == 0  # tried again, and now with what works
    assert not read_results(tmp_path).failed


def test_without_a_finished_cell_there_is_no_table(run: Run, tmp_path: Path,
                                                   capsys: pytest.CaptureFixture[str]) -> None:
    assert run('compare', '--models', 'bprmf', '--set', 'bprmf:learning_rate=1e38', seeds=('0', )) == 1
    assert 'no cell' in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / 'table.md').exists()


@pytest.mark.parametrize(('arguments', 'message'), [
    (['--epochs', '3'], 'settings'),
    (['--preset', 'reference'], 'preset'),
    (['--metric', 'mrr@5'], 'metrics'),
    (['--no-missing'], 'missing'),
    (['--imputer', 'zero'], 'imputer'),
    (['--set', 'popularity:patience=3'], 'made with patience 20, now it is 3'),
])
def test_results_of_other_settings_are_refused(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str],
                                               arguments: list[str], message: str) -> None:
    assert run('compare', '--models', 'popularity', seeds=('0', )) == 0
    before = (tmp_path / CELLS).read_bytes()
    capsys.readouterr()
    assert run('compare', '--models', 'popularity', *arguments, seeds=('0', )) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert message in error
    assert 'not mixed' in error
    assert (tmp_path / CELLS).read_bytes() == before


def test_results_of_another_benchmark_are_refused(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run('compare', '--models', 'popularity', seeds=('0', )) == 0
    assert run('new_items', '--models', 'popularity', seeds=('0', )) == 2
    assert "benchmark 'compare', now it is 'new_items'" in capsys.readouterr().err


@pytest.mark.parametrize(('name', 'arguments', 'message'), [
    ('compare', ['--models', 'dgmrex'], "unknown model 'dgmrex'; did you mean 'dgmrec'?"),
    ('compare', ['--metric', 'recal@20'], "unknown metric 'recal@20'; did you mean 'recall@20'?"),
    ('compare', ['--imputer', 'meen'], "unknown imputer 'meen'; did you mean 'mean'?"),
    ('compare', ['--set', 'patiense=3'], "unknown setting 'patiense' in --set; did you mean 'patience'?"),
    ('compare', ['--set', 'knn_k=3'], "unknown setting 'knn_k'"),  # one model's, not the training of all
    ('compare', ['--models', 'dgmrec', '--set', 'dgmrec:knn_kk=3'], "unknown setting 'knn_kk'"),
    ('compare', ['--models', 'dgmrec', '--set', 'lightgcn:num_layers=3'], "model 'lightgcn' is not among those"),
    ('compare', ['--jobs', '0'], '--jobs must be at least 1'),
    ('compare', ['--seeds', '-1'], 'seed must be from 0'),
    ('compare', ['--no-missing', '--missing-ratio', '0.5'], 'not allowed with'),
    ('compare', ['--models'], 'expected at least one argument'),
    ('compare', ['--against', 'dgmrec', '--models', 'popularity'], '--against dgmrec'),
    ('compare', ['--against', 'dgmrex'], "unknown model 'dgmrex'; did you mean 'dgmrec'?"),
    ('missing_ratio', ['--ratios', '1.5'], 'ratio is 1.5'),
    ('missing_level', ['--levels', '3'], '--levels 3: give 0 to 2'),
    ('ablation', ['--without', 'nois'], "unknown part 'nois'; did you mean 'noise'?"),
    ('retrieval', ['--no-missing'], 'leave out --no-missing'),
    ('retrieval', ['--metric', 'recall@20'], "unknown metric 'recall@20'"),
])
def test_bad_arguments_are_one_line(run: Run, capsys: pytest.CaptureFixture[str], name: str, arguments: list[str],
                                    message: str) -> None:
    assert run(name, *arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith('error: ')
    assert error.count('\n') == 1
    assert message in error


def test_an_unknown_set_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert SCRIPTS['compare'].main(['--dataset', 'smal', '--root', str(tmp_path), '--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('name', NAMES)
def test_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        SCRIPTS[name].main(['--help'])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ('--dataset', '--seeds', '--jobs', '--out', '--set'))


def test_imputed_features_reach_the_model_and_not_the_truth(run: Run, tmp_path: Path) -> None:
    # With a weight at which features change rankings at once.
    arguments = ['--models', 'vbpr', 'dgmrec', '--missing-ratio', '0.6', '--set', 'dgmrec:generate_from=encodings',
                 'dgmrec:modality_weight=1']
    run('compare', *arguments, seeds=('0', ), out=tmp_path / 'plain')
    run('compare', *arguments, '--imputer', 'random', seeds=('0', ), out=tmp_path / 'random')
    plain, imputed = (read_results(tmp_path / name) for name in ('plain', 'random'))
    for model in ('vbpr', 'dgmrec'):
        (one, ), (other, ) = plain.select(model=model), imputed.select(model=model)
        assert one.metrics != other.metrics
        assert one.data_hash == other.data_hash  # of the set as it is measured
    # Had the imputed values been taken for the truth, imputing the mean would have come as near to it in both.
    quality = [results.select(model='dgmrec')[0].generation['image']['all']['cosine']['imputed']
               for results in (plain, imputed)]
    assert quality[0] == quality[1]


def test_comparisons_go_by_seeds_that_both_have(run: Run, tmp_path: Path) -> None:
    run('compare', '--models', 'lightgcn', 'popularity')
    run('compare', '--models', 'lightgcn', seeds=('2', ))
    results = read_results(tmp_path)
    found = paired.compare(results, 'model', 'lightgcn', 'recall@20')['popularity']
    assert found.seeds == 2
    means = [np.mean([results.users(*results.select(model=model, seed=seed))['recall@20'] for seed in (0, 1)], axis=0,
                     dtype=np.float64) for model in ('lightgcn', 'popularity')]
    assert found.test.difference.mean == pytest.approx(float(np.mean(means[0] - means[1])), abs=1e-9)
    assert found.t_test_p == found.test.t_test_p  # a single comparison needs no correction


@pytest.mark.parametrize(('flags', 'of_dgmrec', 'of_peers'), [
    ([], 'default', 'default'),
    (['--preset', 'reference'], 'reference', 'reference'),
    (['--peer-preset', 'reference'], 'default', 'reference'),
])
def test_peers_may_have_a_preset_of_their_own(flags: list[str], of_dgmrec: str, of_peers: str) -> None:
    arguments = cells.build_parser(SCRIPTS['compare'].BENCHMARK).parse_args(['--dataset', 'lfm2k', *flags])
    assert cells.base_run(arguments, 'dgmrec', 0).preset == of_dgmrec
    run = cells.base_run(arguments, 'bm3', 0)
    assert run.preset == of_peers
    assert resolve_settings(run)[0].dropout == {'default': 0.5, 'reference': 0.3}[of_peers]


@pytest.mark.parametrize('flags', [
    [], ['--preset', 'reference'],
    ['--set', 'dgmrec:ranking_loss=bpr', 'dgmrec:ranking_temperature=0.5', 'dgmrec:learning_rate=0.03'],
])
def test_what_is_left_without_modalities_is_trained_as_the_whole(flags: list[str]) -> None:
    ablation = SCRIPTS['ablation']
    arguments = cells.build_parser(ablation.BENCHMARK).parse_args(
        ['--dataset', 'lfm2k', '--seeds', '0', '--without', 'modalities', *flags])
    full, without = ablation.tasks(arguments)
    assert (full.run.model, without.run.model) == ('dgmrec', 'lightgcn')
    of_model = ('ranking_loss', 'ranking_temperature', 'ranking_temperature_spread', 'user_balance', 'hidden_channels')
    for part, names in (('model', of_model), ('training', ('learning_rate', ))):
        for name in names:
            assert without.configuration()[part][name] == full.configuration()[part][name]
