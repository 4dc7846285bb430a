"""What all commands of the package have in common: errors and warnings in one line, exit codes.

0 means done, 2 an error that the user can put right, 130 Ctrl-C. Nothing heavy is imported here.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol, TextIO

from dgmrec_pyg.errors import UserError, install_hint, near_miss, printable

USER_ERROR = 2
INTERRUPTED = 130
PYTORCH_VARIABLES = {'THP_MEM_ALLOC_ENABLE': '1'}
"""Makes PyTorch begin tables of 2 MB and more at whole pages, huge ones where Linux gives them to who asks. Else the
few bytes in front of each stay in glibc's caches for something small, and the next table finds its place too narrow."""


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are those of the package, which name what a misspelt option may mean, and which a
    shell asks for completions where argcomplete is installed."""

    def parse_args(  # type: ignore[override]
            self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None) -> argparse.Namespace:
        if '_ARGCOMPLETE' in os.environ:  # Set by the shell's completion, which argcomplete answers, and leaves.
            import argcomplete

            argcomplete.autocomplete(self)
        found, unknown = self.parse_known_args(args, namespace)
        if unknown:
            options = [text.partition('=')[0] for text in unknown if text.startswith('-')]
            guess = near_miss(options[0], self._option_string_actions) if options else ''
            self.error(f"unrecognized arguments: {' '.join(unknown)}{guess}")
        return found

    def error(self, message: str) -> NoReturn:
        raise UserError(f'{message} (see --help)')


def set_pytorch_variables() -> None:
    """Sets :obj:`PYTORCH_VARIABLES` where they are not set, unless PyTorch, which reads them once, is loaded."""
    if 'torch' not in sys.modules:
        for name, value in PYTORCH_VARIABLES.items():
            os.environ.setdefault(name, value)


def require_library(library: str, what: str) -> None:
    """Refuses an option whose library is not installed.

    Args:
        library (str): The library, by the name of its module, one of :obj:`~dgmrec_pyg.errors.EXTRAS`.
        what (str): What needs it, as the subject of the message.

    Raises:
        UserError: If it is not installed.
    """
    if importlib.util.find_spec(library) is None:
        raise UserError(f'{what} needs {library}: {install_hint(library)}')


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what every command that takes up a finished run is told about it.

    Args:
        parser (argparse.ArgumentParser): The command's parser.
    """
    run = parser.add_argument_group('run')
    run.add_argument('--run', required=True, metavar='DIR', help='the run directory that dgmrec_pyg.run has written')
    run.add_argument('--dataset', metavar='NAME|DIR', help='where the set is now (default: where the run found it)')
    run.add_argument('--root', metavar='DIR', help='folder of the named sets (default: as in the run)')
    run.add_argument('--device', default='auto', choices=('auto', 'cpu', 'cuda'),
                     help='where to compute (default: auto, CUDA where there is one)')


def run_command(command: Callable[[list[str]], int], argv: list[str] | None) -> int:
    """Runs a command.

    Args:
        command (Callable): Takes the arguments and returns the exit code.
        argv (list, optional): The arguments; those of the process where it is :obj:`None`.

    Returns:
        int: The exit code: the command's own, or that of the error it ended with.
    """
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            return command(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f'error: {one_line(error)}', file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print('stopped', file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


class Main(Protocol):
    """The ``main`` of a command line.

    Args:
        argv (list, optional): The arguments. (default: those of the process)

    Returns:
        int: The exit code.
    """

    def __call__(self, argv: list[str] | None = None) -> int:
        ...


def make_main(command: Callable[[list[str]], int]) -> Main:
    """Returns the ``main`` of a command, which runs it as :func:`run_command` does.

    Args:
        command (Callable): Takes the arguments and returns the exit code.
    """
    def main(argv: list[str] | None = None) -> int:
        return run_command(command, argv)
    return main


def one_line(message: object) -> str:
    """Returns the text of a message without its line breaks."""
    return ' '.join(str(message).splitlines())


def show_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int,
                 file: TextIO | None = None, line: str | None = None) -> None:
    """Prints a warning as one line on the error output, in place of :func:`warnings.showwarning`."""
    print(f'warning: {printable(one_line(message))}', file=sys.stderr)
