"""The command line: ``python -m dgmrec_pyg.recommend --run DIR``; see :mod:`dgmrec_pyg.command_line`."""

from __future__ import annotations

import argparse
import sys
import warnings
from typing import TYPE_CHECKING

from dgmrec_pyg import console
from dgmrec_pyg.command_line import Parser, add_run_arguments, make_main
from dgmrec_pyg.errors import UserError, printable

if TYPE_CHECKING:
    import pandas as pd

    from dgmrec_pyg.inference import FinishedRun
    from dgmrec_pyg.new_items import NewItems


def build_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog='python -m dgmrec_pyg.recommend', usage='%(prog)s --run DIR [options]', allow_abbrev=False,
        description='Recommend items with the model of a finished run. Ids are those of the source (users.csv, '
                    'items.csv), or numbers where the set has none.')
    add_run_arguments(parser)
    whom = parser.add_argument_group('for whom').add_mutually_exclusive_group()
    whom.add_argument('--users', nargs='+', metavar='ID', help='users of the set (default: all, which needs --output)')
    whom.add_argument('--users-file', metavar='FILE', help='a text file with the id of a user in each line')
    whom.add_argument('--items', nargs='+', metavar='ID',
                      help='for somebody who was not in training: items that they like (ids or names)')
    whom.add_argument('--items-file', metavar='FILE', help='the same from a text file')
    whom.add_argument('--who-wants', nargs='*', metavar='ID',
                      help='the other way round: the users who would want these items most (ids or names, or ids of '
                           '--new-items; without any, all of --new-items)')
    what = parser.add_argument_group('what')
    what.add_argument('--k', type=int, default=20, metavar='N', help='items per user, or users per item (default: 20)')
    seen = what.add_mutually_exclusive_group()
    seen.add_argument('--exclude-seen', action='store_true', default=True,
                      help="leave out a user's training items, or those of --items, or an item's users (default)")
    seen.add_argument('--include-seen', action='store_false', dest='exclude_seen', help='rank them, too')
    what.add_argument('--candidates', metavar='FILE',
                      help='a text file with the only items (with --who-wants, users) to choose from, an id in each '
                           'line')
    what.add_argument('--new-items', metavar='FILE',
                      help='rank items that are not in the set, too: an .npz file with an array [N, F] per modality '
                           '(NaN rows where an item lacks it) and optionally their ids under id (else they are '
                           'new-0, new-1, ...); not with --items')
    output = parser.add_argument_group('output')
    output.add_argument('--output', metavar='FILE',
                        help='a .csv, .jsonl (JSON lines) or .parquet file (default: a table on the screen)')
    return parser


def _parse(argv: list[str]) -> argparse.Namespace:
    arguments = build_parser().parse_args(argv)
    for_a_list = arguments.items is not None or arguments.items_file is not None
    for_all_users = not for_a_list and (arguments.users, arguments.users_file, arguments.who_wants) == (None,) * 3
    if arguments.output is None and for_all_users:
        raise UserError('all users are asked for; give --output FILE, or some --users')
    if for_a_list and arguments.new_items is not None:
        raise UserError('--new-items are ranked for users of the set; leave out --items')
    if arguments.who_wants == [] and arguments.new_items is None:
        raise UserError('--who-wants needs ids of items, or --new-items FILE')
    return arguments


def _recommend(argv: list[str]) -> int:
    arguments = _parse(argv)

    from dgmrec_pyg.inference import load_run
    from dgmrec_pyg.new_items import read_new_items
    from dgmrec_pyg.table_files import check_table_path, read_ids, write_table

    if arguments.output is not None:
        check_table_path(arguments.output)
    candidates = None if arguments.candidates is None else read_ids(arguments.candidates)
    new_items = None if arguments.new_items is None else read_new_items(arguments.new_items)
    users = arguments.users if arguments.users_file is None else read_ids(arguments.users_file)
    items = arguments.items if arguments.items_file is None else read_ids(arguments.items_file)
    run = load_run(arguments.run, arguments.device, arguments.dataset, arguments.root)
    _warn_of_large_k(arguments, run, new_items)
    if users is not None and len(set(users)) < len(users):
        warnings.warn('some users are given more than once; each is shown once', stacklevel=1)
        users = list(dict.fromkeys(users))
    choice = arguments.k, arguments.exclude_seen, candidates
    if items is not None:
        found = run.recommend_for_items(items, *choice)
    elif arguments.who_wants is not None:
        found = run.recommend_users(list(dict.fromkeys(arguments.who_wants)) or None, *choice, new_items)
    else:
        found = run.recommend(users, *choice, new_items)
    if arguments.output is None:
        print(_on_screen(found))
    else:
        write_table(found, arguments.output)
        print(f'written to {printable(arguments.output)}: {len(found):,} recommendations')
    return 0


def _warn_of_large_k(arguments: argparse.Namespace, run: FinishedRun, new_items: NewItems | None) -> None:
    if arguments.who_wants is not None:
        number, ranked = run.model.num_users, 'users'
    else:
        number, ranked = run.model.num_items + (0 if new_items is None else len(new_items.ids)), 'items'
    if arguments.k > number:
        warnings.warn(f'--k is {arguments.k:,}, but there are {number:,} {ranked}; all that are left are ranked',
                      stacklevel=1)


def _on_screen(found: pd.DataFrame) -> str:
    """A text table; the user, or item, that a ranking is for stands in its first line alone."""
    cells = found.assign(score=found['score'].map('{:.4f}'.format)).astype(str)
    if cells.columns[0] != 'rank':
        cells.iloc[:, 0] = cells.iloc[:, 0].where(found['rank'] == 1, '')
    return console.table(list(cells), [[printable(cell) for cell in row] for row in cells.to_numpy().tolist()])


main = make_main(_recommend)

if __name__ == '__main__':
    sys.exit(main())
