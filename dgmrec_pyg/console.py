"""What a run prints."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from dgmrec_pyg.errors import printable

COLUMNS = ('recall@20', 'ndcg@20', 'precision@20', 'hit_ratio@20')


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Returns a text table: the first columns to the left, all others to the right.

    Args:
        header (Sequence[str]): Names of the columns.
        rows (Sequence[Sequence[str]]): The cells.
        left (int): Number of columns to the left. (default: :obj:`1`)
    """
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    text = ['  '.join(cell.ljust(width) if column < left else cell.rjust(width)
                      for column, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in lines]
    return '\n'.join([text[0], '-' * sum([*widths, 2 * (len(widths) - 1)]), *text[1:]])


def describe_data(data: Mapping[str, Any], dataset: str) -> str:
    """Returns the sizes of a set in two lines.

    Args:
        data (Mapping): ``data`` of ``config.json``.
        dataset (str): Its name.
    """
    num_items = data['num_items']
    modalities = ', '.join(f'{printable(name)} {size} ({100 * data["missing"][name] / num_items:.0f} % missing)'
                           for name, size in data['modalities'].items())
    if modalities:
        modalities += f"; {100 * data['missing_any'] / num_items:.0f} % of the items lack at least one"
    new = f", {data['is_new']:,} new" if data['is_new'] else ''
    return (f"{printable(dataset)}: {data['num_users']:,} users, {num_items:,} items{new}, "
            f"{data['num_train']:,} training / {data['num_val']:,} validation / {data['num_test']:,} test "
            f"interactions\nmodalities: {modalities or 'none'}")


def describe_batches(training: Mapping[str, Any], num_train: int) -> str:
    """Returns a line where batches are larger than asked for, else nothing.

    Args:
        training (Mapping): ``training`` of ``config.json``.
        num_train (int): Number of training interactions.
    """
    from dgmrec_pyg.config import TrainingConfig

    size = TrainingConfig.from_dict(dict(training)).interactions_per_step(num_train)
    if size <= training['batch_size']:
        return ''
    return (f"batches of {size:,} interactions, so that an epoch has at most {training['max_steps']:,} steps; --set "
            f"max_steps=0 for batches of {training['batch_size']:,}")


def results(metrics: Mapping[str, Any], model: str) -> str:
    """Returns the test results of a run and of what it is compared with.

    Args:
        metrics (Mapping): The content of ``metrics.json``.
        model (str): The run's model.
    """
    models = {model: metrics, **metrics.get('compare', {})}
    text = table(['model', 'val recall@20', *(f'test {name}' for name in COLUMNS), 'best epoch', 'seconds'],
                 [_row(name, found) for name, found in models.items()])
    if 'among_new_items' not in metrics:
        return text
    number = metrics['among_new_items']['num_items']
    return text + f'\n\ntest metrics where only the {number:,} new items are ranked\n' + table(
        ['model', *COLUMNS],
        [[name, *(f"{found['among_new_items'][column]:.4f}" for column in COLUMNS)] for name, found in models.items()])


def _row(name: str, metrics: Mapping[str, Any]) -> list[str]:
    return [name, f"{metrics['val']['recall@20']:.4f}", *(f"{metrics['test'][column]:.4f}" for column in COLUMNS),
            str(metrics['best_epoch'] or '-'), f"{metrics['seconds']:.1f}"]


def generation(metrics: Mapping[str, Any]) -> str:
    """Returns how near generated features come to the true ones, beside the imputed mean.

    Args:
        metrics (Mapping): The content of ``metrics.json``; nothing is returned where nothing was hidden.
    """
    rows = [
        [modality, str(quality['all']['num_items']), *(f"{quality['all'][kind][source]:.3f}"
                                                       for kind in ('cosine', 'centered_cosine')
                                                       for source in ('generated', 'imputed'))]
        for modality, quality in metrics.get('generation', {}).items()
    ]
    if not rows:
        return ''
    return ('similarity to the true features of hidden items (centered: after subtracting the mean of the observed '
            'ones)\n') + table(
        ['modality', 'items', 'cosine: generated', 'mean imputed', 'centered: generated', 'mean imputed'], rows)


def presets(kinds: Sequence[str], width: int = 80) -> str:
    """Returns what each preset changes of models' settings and of training, as a table.

    Args:
        kinds (Sequence[str]): The kinds, as ``--preset`` takes them.
        width (int): Most letters in a line. (default: :obj:`80`)
    """
    from dgmrec_pyg.config import load_preset, preset_names
    from dgmrec_pyg.nn import MODELS

    rows = []
    for kind in kinds:
        for name in preset_names(kind):
            rows.append([kind, 'dgmrec', name, ' '.join(_changed(load_preset(kind, name), 'dgmrec')) or 'nothing'])
        rows.append([kind, 'dgmrec', 'others', 'as tiktok' if kind == 'reference' else 'nothing'])
        rows += [[kind, model, name, ' '.join(_changed(load_preset(kind, name, model), model)) or 'nothing']
                 for model in MODELS if model != 'dgmrec' for name in preset_names(kind, model)]
    header = ['preset', 'model', 'dataset', 'what it changes']
    room = width - sum(2 + max(len(row[column]) for row in [header, *rows]) for column in range(3))
    lines = [[*(row[:3] if place == 0 else [''] * 3), part] for row in rows
             for place, part in enumerate(textwrap.wrap(row[3], room, break_long_words=False))]
    return table(header, lines, left=4) + '\n' + textwrap.fill(
        "DGMRec's settings of training hold for other models, too, save for those that are their own (such as the "
        'learning rate with --preset reference). All settings of a run: --dry-run', width)


def _changed(preset: Mapping[str, Mapping[str, Any]], model: str) -> list[str]:
    from dgmrec_pyg.config import TrainingConfig, settings_as_text
    from dgmrec_pyg.nn import MODELS

    kind = MODELS[model]
    defaults = {**kind.config_class().to_dict(), **TrainingConfig().to_dict(), **kind.training_defaults}
    values = {**preset['model'], **preset['training']}
    return settings_as_text({key: value for key, value in values.items() if value != defaults[key]})
