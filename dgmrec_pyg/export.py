"""The command line: ``python -m dgmrec_pyg.export --run DIR --output DIR``; see :mod:`dgmrec_pyg.command_line`."""

from __future__ import annotations

import sys

from dgmrec_pyg.command_line import Parser, add_run_arguments, make_main
from dgmrec_pyg.errors import printable


def build_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog='python -m dgmrec_pyg.export', usage='%(prog)s --run DIR --output DIR [options]', allow_abbrev=False,
        description='Write what a finished run holds: embeddings of users and items, and for each modality features '
                    'in which nothing is missing, with flags that say which rows were missing and which generated.')
    add_run_arguments(parser)
    output = parser.add_argument_group('output')
    output.add_argument('--output', required=True, metavar='DIR', help='a new or empty folder')
    output.add_argument('--format', default='npy', choices=('npy', 'safetensors', 'parquet'),
                        help='a .npy file per array, one .safetensors file, or users.parquet and items.parquet '
                             '(default: npy)')
    output.add_argument('--index', action='store_true',
                        help='also items.faiss, an exact FAISS index of the items (needs the extra ann)')
    output.add_argument('--scorer', action='store_true',
                        help='also scorer.pt2, a torch.export program from users to the scores of all items')
    return parser


def _export(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)

    from dgmrec_pyg.exporting import export_run
    from dgmrec_pyg.inference import load_run

    run = load_run(arguments.run, arguments.device, arguments.dataset, arguments.root)
    files = export_run(run, arguments.output, arguments.format, arguments.index, arguments.scorer)
    print(f'written to {printable(arguments.output)}')
    for path in files:
        print(f'  {printable(path.name)}  {path.stat().st_size:,} bytes')
    return 0


main = make_main(_export)

if __name__ == '__main__':
    sys.exit(main())
