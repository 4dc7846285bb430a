"""What ``speed.py`` compares with, and how it shows what it measured: tables and plots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PARTS = {'epoch': 'training epoch', 'evaluation': 'evaluation of one split', 'item_graphs': 'item graphs',
         'generation': 'generation', 'refresh': 'refresh'}

RELEASED: dict[str, dict[str, float]] = {
    'tiktok': {'epoch': 440, 'evaluation': 73, 'peak_bytes': 1180e6, 'recall': 0.1048, 'time_to': 41_000},
    'lfm2k': {'epoch': 350, 'evaluation': 18, 'recall': 0.3874, 'time_to': 40_000},
    'baby-shaped': {'epoch': 2500, 'evaluation': 166, 'peak_bytes': 2080e6},
}
"""What the released implementation costs, in units (on two quiet cores, with the unit of the same minutes)."""

TARGETS: dict[str, dict[str, float]] = {
    'tiktok': {'epoch': 110, 'evaluation': 12, 'peak_bytes': 590e6, 'time_to': 4_100},
    'lfm2k': {'epoch': 88, 'time_to': 4_000},
    'baby-shaped': {'epoch': 1250, 'peak_bytes': 1040e6},
}
"""What the package may cost at most, in units."""


def speed_table(report: Mapping[str, Any]) -> str:
    """Returns the table of a report: seconds and units of each part, of the package, textbook and others.

    Args:
        report (Mapping[str, Any]): What ``speed-<dataset>.json`` holds.
    """
    versions, released, targets = report['versions'], report['released'], report['targets']
    rows = [['', *(f'{name} s' for name in versions), *(f'{name} units' for name in versions), 'textbook/package',
             'released units', 'released/package', 'target units', 'target met']]
    for part, title in PARTS.items():
        units = {name: version['units'][part] for name, version in versions.items()}
        limit = targets.get(part)
        rows.append([title, *(f"{version['seconds'][part]:.3f}" for version in versions.values()),
                     *(f'{value:.1f}' for value in units.values()), _ratio(units),
                     _number(released.get(part)),
                     f"{released[part] / units['package']:.1f}" if part in released else '', _number(limit),
                     '' if limit is None else 'yes' if units['package'] <= limit else 'no'])
    # What was not measured for the set takes no place.
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    lines = _aligned([list(row) for row in zip(*columns, strict=True)])
    for name, version in versions.items():
        lines.append(_memory_line(name, version, released, targets))
        if version['steps_timed'] < version['steps_per_epoch']:
            lines.append(f"The {name}'s epoch is extrapolated from {version['steps_timed']} of its "
                         f"{version['steps_per_epoch']} steps.")
    return '\n'.join(lines)


def growth_table(report: Mapping[str, Any]) -> str:
    """Returns the table of a growth report, and how steeply its lines rise at the end."""
    rows = [['size', 'users', 'items', 'edges', 'epoch s', 'step s', 'steps timed', 'item graphs s', 'exact ones s',
             'peak MB']]
    for cell, line in zip(report['cells'], zip(*growth_lines(report).values(), strict=True), strict=True):
        size, measured = cell['set'], cell['measured']
        epoch, step, graphs, exact, peak = line
        rows.append([f"x{cell['factor']}", *(f'{size[name]:,}' for name in ('num_users', 'num_items', 'num_train')),
                     f'{epoch:.2f}', f'{step:.3f}', f"{measured['steps_timed']} of {measured['steps_per_epoch']}",
                     f'{graphs:.2f}', f'{exact:.2f}', _megabytes(peak)])
    edges = [cell['set']['num_train'] for cell in report['cells']]
    rises = [f'{name} {exponent(edges, values):.2f}' for name, values in growth_lines(report).items()]
    note = '' if len(edges) < 2 else ('\nGrowth between the last two sizes, as a power of the edges (1 is linear): '
                                      + ', '.join(rises) + '.')
    return '\n'.join(_aligned(rows)) + note


def growth_lines(report: Mapping[str, Any]) -> dict[str, list[float]]:
    """Returns what a growth report measured by size: seconds of an epoch, a step, the item graphs as built and exact,
    and bytes at the peak."""
    cells = report['cells']
    seconds = [cell['measured']['seconds'] for cell in cells]
    return {
        'epoch': [parts['epoch'] for parts in seconds],
        'step': [parts['epoch'] / cell['measured']['steps_per_epoch']
                 for parts, cell in zip(seconds, cells, strict=True)],
        'item graphs': [parts['item_graphs'] for parts in seconds],
        'exact item graphs': [cell['exact_item_graphs'] for cell in cells],
        'peak memory': [cell['measured']['peak_bytes'] or 0 for cell in cells],
    }


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Returns the p of ``value = c * size ** p`` through the last two points; NaN where there are none."""
    if len(sizes) < 2 or min(*values[-2:]) <= 0:
        return math.nan
    return math.log(values[-1] / values[-2]) / math.log(sizes[-1] / sizes[-2])


def time_to_line(measured: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    """Returns a sentence on the way to a validation recall."""
    what = (f"reached validation recall@20 {measured['recall']:.4f}" if measured['reached'] else
            f"did not reach validation recall@20 {measured['recall']:.4f} (best: {measured['best_recall']:.4f})")
    line = (f"The package {what} after {measured['epochs']} epochs, {measured['seconds']:.1f} s, "
            f"{measured['units']:.0f} units.")
    released = report['released']
    if measured['recall'] >= released.get('recall', float('inf')):
        line += (f" Released: {released['time_to']:.0f} units to {released['recall']:.4f}, "
                 f"{released['time_to'] / measured['units']:.1f} times as much.")
    return line


def profile_table(measured: Mapping[str, Any]) -> str:
    """Returns the dearest operations of a training step."""
    rows = [['operation', 'ms per step', 'share', 'calls per step']]
    rows += [[event['name'][:60], f"{event['milliseconds']:.2f}", f"{event['share']:.1%}", f"{event['calls']:.1f}"]
             for event in measured['operations']]
    copies = ', '.join(f'{count} {name}' for name, count in measured['copies'].items()) or 'none'
    return '\n'.join([*_aligned(rows), f"Copies between host and device in {measured['steps']} steps: {copies}."])


def plot_speed(report: Mapping[str, Any], path: Path) -> None:
    """Draws units by part; needs matplotlib."""
    pyplot = open_pyplot()
    bars = {name: version['units'] for name, version in report['versions'].items()}
    bars |= {'released': report['released'], 'target': report['targets']}
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout='constrained')
    height = 0.8 / len(bars)
    for number, (name, units) in enumerate(bars.items()):
        known = [(place, units[part]) for place, part in enumerate(PARTS) if part in units]
        axes.barh([place + number * height for place, _ in known], [value for _, value in known], height, label=name)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(PARTS))], list(PARTS.values()))
    axes.invert_yaxis()
    axes.set(xscale='log', xlabel='units (one naive InfoNCE of 2,048 x 64)', title=f"{report['dataset']}, one run")
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def plot_growth(report: Mapping[str, Any], path: Path) -> None:
    """Draws seconds and memory against training edges, on logarithmic axes; needs matplotlib."""
    pyplot = open_pyplot()
    edges = [cell['set']['num_train'] for cell in report['cells']]
    lines = growth_lines(report)
    lines['peak memory'] = [count / 1e6 for count in lines['peak memory']]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.8), layout='constrained')
    panels = ((left, ('epoch', 'step', 'item graphs', 'exact item graphs'), 'seconds'),
              (right, ('peak memory',), 'MB, libraries included'))
    for axes, names, unit in panels:
        for name in names:
            rise = exponent(edges, lines[name])
            axes.plot(edges, lines[name], marker='o', label=f'{name} (rises with power {rise:.2f})')
        start = lines[names[0]][0]
        axes.plot(edges, [start * count / edges[0] for count in edges], ':', color='gray', label='linear, slope 1')
        axes.set(xscale='log', yscale='log', xlabel='training edges (users and items grow with them)', ylabel=unit)
        axes.xaxis.set_minor_formatter(lambda *_: '')  # Within a decade the labels would overlap.
        axes.grid(alpha=0.3)
        axes.legend(fontsize='small')
    left.set(title='time; powers between the last two sizes')
    right.set(title='peak memory')
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def open_pyplot() -> Any:
    """Returns matplotlib's pyplot, set up for files."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot
    return pyplot


def _memory_line(name: str, version: Mapping[str, Any], released: Mapping[str, float],
                 targets: Mapping[str, float]) -> str:
    line = f"Peak memory of the {name}: {_megabytes(version['peak_bytes'])} MB"
    if version['library_bytes']:
        line += f", the libraries' own share {_megabytes(version['library_bytes'])} MB"
    line += '; peak after ' + ', '.join(f'{stage} {_megabytes(count)}'
                                        for stage, count in version['peak_bytes_after'].items())
    if name == 'package' and 'peak_bytes' in released and version['device'] == 'cpu':
        line += f" (released {_megabytes(released['peak_bytes'])}, target {_megabytes(targets['peak_bytes'])})"
    return line + '.'


def _ratio(units: Mapping[str, float]) -> str:
    return f"{units['textbook'] / units['package']:.1f}" if 'textbook' in units else ''


def _number(value: float | None) -> str:
    return '' if value is None else f'{value:g}'


def _megabytes(count: float | None) -> str:
    return 'unknown' if count is None else f'{count / 1e6:.0f}'


def _aligned(rows: list[list[str]]) -> list[str]:
    """Columns of one width each, the first to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ['  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in
                                                  zip(row[1:], widths[1:], strict=True))]).rstrip() for row in rows]
