"""The command line: ``python -m dgmrec_pyg.report RESULTS [--out FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from dgmrec_pyg.command_line import Parser, make_main
from dgmrec_pyg.errors import printable
from dgmrec_pyg.files import write_text

PAGE = 'report.html'


def build_parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog='python -m dgmrec_pyg.report', usage='%(prog)s RESULTS [--out FILE]', allow_abbrev=False,
        description='Write results as one HTML page that needs nothing else: tables that sort, plots, tests, settings.')
    parser.add_argument('results', metavar='RESULTS', type=Path,
                        help='the folder of a benchmark (with cells.jsonl), a run directory, or a folder with run '
                             'directories of one set, masks and held-out items')
    parser.add_argument('--out', '--output', dest='out', metavar='FILE', type=Path,
                        help=f'the page to write (default: {PAGE} in the folder of the results)')
    return parser


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)

    from dgmrec_pyg.report.page import render
    from dgmrec_pyg.report.source import read_source

    source = read_source(arguments.results)
    path = arguments.out or source.folder / PAGE
    write_text(path, render(source))
    print(f'written to {printable(str(path))}')
    return 0


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
