"""The command line: ``python -m dgmrec_pyg.info SET``, statistics of a set, or all that is wrong with it.

Exit code 0 where the set is sound, 1 where it has problems, 2 for a wrong argument; see
:mod:`dgmrec_pyg.command_line`.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dgmrec_pyg import console
from dgmrec_pyg.command_line import Parser, make_main, one_line, require_library
from dgmrec_pyg.errors import UserError, near_miss, printable

if TYPE_CHECKING:
    from torch_geometric.data import HeteroData

PROBLEMS = 1
MORE = 'repair these and run it again: what depends on them may show then'
PICTURES = ('.png', '.svg', '.pdf')


def build_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog='python -m dgmrec_pyg.info', usage='%(prog)s SET [options]', allow_abbrev=False,
        description='Show statistics of a set: sizes, density, degrees, missing patterns, scales of features. Where '
                    'something is wrong with its files, list every problem instead (exit code 1).')
    parser.add_argument('dataset', metavar='SET',
                        help="a folder in MMRec's layout, the name of one under --root, or 'synthetic'")
    parser.add_argument('--root', default='data', help='folder of the named sets (default: data)')
    parser.add_argument('--plot', metavar='FILE', help=f'also draw it ({", ".join(PICTURES)}; needs matplotlib)')
    return parser


def _info(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    if arguments.plot is not None:
        _check_picture(Path(arguments.plot))

    from dgmrec_pyg.datasets import MultimodalDataset, SyntheticMultimodal
    from dgmrec_pyg.datasets.check import find_problems
    from dgmrec_pyg.datasets.statistics import set_statistics
    from dgmrec_pyg.loading import SYNTHETIC, SYNTHETIC_MISSING_RATIO, set_folder

    notes: list[str] = []
    if arguments.dataset == SYNTHETIC:
        data = SyntheticMultimodal()[0]
        notes = [f'dgmrec_pyg.run makes {100 * SYNTHETIC_MISSING_RATIO:.0f} % of the items lack at least one modality, '
                 'unless it is told otherwise (--missing-ratio, --no-missing)']
    else:
        folder, is_named = set_folder(arguments.dataset, arguments.root)
        if is_named and not folder.is_dir():
            raise _unknown(arguments.dataset, folder.parent)
        problems = find_problems(folder)
        if problems:
            print('\n'.join([f'{len(problems)} problem{"s" if len(problems) > 1 else ""} in {printable(str(folder))}',
                             *(f'- {problem}' for problem in problems), MORE]))
            return PROBLEMS
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            data = MultimodalDataset.from_folder(folder)[0]
        notes = [printable(one_line(warning.message)) for warning in caught]
    statistics = set_statistics(data)
    print(describe(statistics, arguments.dataset))
    for note in [*notes, *remarks(statistics)]:
        print(f'note: {note}')
    if arguments.plot is not None:
        plot(data, Path(arguments.plot))
        print(f'written to {printable(arguments.plot)}')
    return 0


def _unknown(name: str, root: Path) -> UserError:
    known = ['synthetic', *(sorted(path.name for path in root.iterdir() if path.is_dir()) if root.is_dir() else [])]
    return UserError(f"there is no folder '{name}', neither here nor under '{root}'; give the folder of a "
                     f'set{near_miss(name, known)}')


def describe(statistics: dict[str, Any], dataset: str) -> str:
    """Returns the statistics of a set as text tables.

    Args:
        statistics (dict): What :func:`~dgmrec_pyg.datasets.statistics.set_statistics` returned.
        dataset (str): The set's name.
    """
    sizes = statistics['sizes']
    parts = [f"{console.describe_data(sizes, dataset)}\ndensity: {100 * statistics['density']:.4g} % of all pairs are "
             'training interactions']
    parts.append(console.table(
        ['training interactions', 'least', 'median', 'mean', 'most', 'without any'],
        [[f'of {kind}s', str(of['min']), str(of['median']), f"{of['mean']:.1f}", str(of['max']), str(of['without'])]
         for kind, of in statistics['degrees'].items()]))
    if sizes['modalities']:
        parts.append(console.table(
            ['modality', 'size', 'missing', 'mean', 'deviation', 'median length', 'zero rows', 'constant columns'],
            [[printable(m), str(sizes['modalities'][m]), str(sizes['missing'][m]),
              *(f'{of[key]:.4g}' for key in ('mean', 'deviation', 'length')), str(of['zero_rows']),
              str(of['constant'])] for m, of in statistics['features'].items()]))
        parts.append(console.table(
            ['what items lack', 'items', 'share'],
            [[printable(' + '.join(names)) or 'nothing', str(count), f"{100 * count / sizes['num_items']:.1f} %"]
             for names, count in statistics['patterns'].items()]))
    return '\n\n'.join(parts)


def remarks(statistics: dict[str, Any]) -> list[str]:
    """Returns what is allowed but may surprise, a line each.

    Args:
        statistics (dict): What :func:`~dgmrec_pyg.datasets.statistics.set_statistics` returned.
    """
    found, degrees = [], statistics['degrees']
    if degrees['user']['without']:
        found.append(f"{degrees['user']['without']:,} users have no training interaction; they are left out of "
                     'validation and test')
    if degrees['item']['without']:
        found.append(f"{degrees['item']['without']:,} items have no training interaction")
    if len(statistics['features']) < 2:
        found.append('dgmrec needs two or more modalities; other models go with one')
    for modality, of in statistics['features'].items():
        if of['zero_rows']:
            found.append(f"'{printable(modality)}' is zero throughout for {of['zero_rows']:,} items; if they lack it, "
                         'write NaN')
    return found


def _check_picture(path: Path) -> None:
    if path.suffix not in PICTURES:
        raise UserError(f"'{path}' is no name of a picture (known endings: {', '.join(PICTURES)})")
    require_library('matplotlib', '--plot')
    if not path.absolute().parent.is_dir():
        raise UserError(f"cannot write '{path}': there is no folder '{path.absolute().parent}'; make it first")


def plot(data: HeteroData, path: Path) -> None:
    """Draws the degrees of users and items, the lengths of features, and what items lack.

    Args:
        data (HeteroData): The set.
        path (Path): The file, of an ending in :obj:`PICTURES`.

    Raises:
        UserError: If the file cannot be written.
    """
    from matplotlib.figure import Figure

    from dgmrec_pyg.datasets.statistics import degrees, missing_pattern_counts, observed_rows
    from dgmrec_pyg.files import atomic_path
    from dgmrec_pyg.schema import ITEM, USER, modality_names

    figure = Figure(figsize=(11, 3.2), layout='constrained')
    ranks, lengths, lacking = figure.subplots(1, 3)
    for kind in (USER, ITEM):
        sorted_degrees = degrees(data, kind).sort(descending=True).values
        ranks.step(range(1, len(sorted_degrees) + 1), sorted_degrees, where='mid', label=f'{kind}s')
    ranks.set(xscale='log', yscale='symlog', xlabel='rank', ylabel='training interactions')
    ranks.set_ylim(bottom=0)
    ranks.legend()
    for modality in modality_names(data):
        lengths.hist(observed_rows(data, modality).norm(dim=1).numpy(), bins=50, histtype='step', label=modality)
    lengths.set(xlabel="length of an item's features", ylabel='items')
    if modality_names(data):
        lengths.legend()
    patterns = missing_pattern_counts(data)
    lacking.barh([' + '.join(names) or 'nothing' for names in patterns], list(patterns.values()))
    lacking.invert_yaxis()
    lacking.set(xlabel='items', title='what items lack')
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120)


main = make_main(_info)

if __name__ == '__main__':
    sys.exit(main())
