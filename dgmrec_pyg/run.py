"""The command line: ``python -m dgmrec_pyg.run``.

Arguments come in, an exit code goes out: 0, 2 for an error that the user can put right (one line on the error output),
130 after Ctrl-C. A warning is one line on the error output, too. Nothing heavy is imported before the arguments are
understood.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from dgmrec_pyg import console
from dgmrec_pyg.command_line import INTERRUPTED, make_main, require_library, set_pytorch_variables
from dgmrec_pyg.errors import UserError, printable
from dgmrec_pyg.run_arguments import MODELS, PRESETS, build_parser

if TYPE_CHECKING:
    from dgmrec_pyg.loading import RunSettings
    from dgmrec_pyg.rundir import RunDirectory

_RUN_FLAGS = ('dataset', 'root', 'model', 'preset', 'missing_ratio', 'missing_file', 'no_missing', 'missing_seed',
              'imputer', 'new_items', 'seed', 'device', 'deterministic')
# What may differ from the run to resume: where its set is now, and a device (which the run directory compares).
_FREE_TO_RESUME = ('root', 'device')


def run_settings(arguments: argparse.Namespace) -> RunSettings:
    """Turns parsed arguments into the settings of a run.

    Args:
        arguments (argparse.Namespace): What :func:`build_parser` parsed.
    """
    from dgmrec_pyg.loading import SYNTHETIC, RunSettings
    from dgmrec_pyg.settings_file import read_settings

    settings = [] if arguments.config is None else read_settings(arguments.config, arguments.model)
    settings += arguments.settings
    if arguments.epochs is not None:
        settings.append(f'epochs={arguments.epochs}')
    if arguments.batch_size is not None:
        settings.append(f'batch_size={arguments.batch_size}')
    compare = arguments.compare
    if compare is None:
        compare = ('popularity', 'lightgcn') if arguments.dataset == SYNTHETIC else ()
    others = tuple(name for name in dict.fromkeys(compare) if name != arguments.model)
    return RunSettings(settings=tuple(settings), compare=others,
                       **{flag: getattr(arguments, flag) for flag in _RUN_FLAGS})


def _run(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    if _answered(arguments):
        return 0
    _check_together(arguments)
    set_pytorch_variables()

    from dgmrec_pyg.experiment import run_experiment
    from dgmrec_pyg.rundir import RunDirectory

    if arguments.quiet:
        warnings.simplefilter('ignore')
    run = run_settings(arguments)
    say = (lambda text: None) if arguments.quiet else partial(print, flush=True)
    if arguments.tune is not None:
        return _tune(arguments, run, say)
    output = RunDirectory(arguments.output or _new_folder(run), arguments.resume, arguments.tensorboard)
    if arguments.resume:
        run = _resumed(argv, output)
    if arguments.dry_run:
        _describe(run, output.path)
        return 0
    metrics = run_experiment(run, output, progress=not arguments.quiet, say=say)
    say('\n' + console.results(metrics, run.model))
    if console.generation(metrics):
        say('\n' + console.generation(metrics))
    say(f'\nwritten to {printable(str(output.path))}')
    if metrics['interrupted']:
        say(f'stopped early; to go on: --resume --output {printable(str(output.path))}')
        return INTERRUPTED
    return 0


def _answered(arguments: argparse.Namespace) -> bool:
    """Prints what is asked for in place of a run, if anything is."""
    if arguments.list_models:
        print(console.table(['model', 'what it is'], list(MODELS.items()), left=2))
    elif arguments.list_presets:
        print(console.presets(PRESETS))
    elif arguments.print_completion is not None:
        require_library('argcomplete', '--print-completion')
        from argcomplete.shell_integration import shellcode

        print(shellcode(['dgmrec'], shell=arguments.print_completion))
    else:
        return False
    return True


def _check_together(arguments: argparse.Namespace) -> None:
    if arguments.resume and arguments.output is None:
        raise UserError('--resume needs --output, the folder of the run to go on with')
    if arguments.resume and arguments.config is not None:
        raise UserError('--resume goes on with the settings of the run; leave out --config')
    if arguments.tune is not None and arguments.resume:
        raise UserError('--tune goes on by itself with the trials in --output; leave out --resume')
    if arguments.tune is not None and arguments.config is not None:
        raise UserError('--tune searches settings; leave out --config, and give by --set what is to be kept')


def _tune(arguments: argparse.Namespace, run: RunSettings, say: Callable[[str], None]) -> int:
    from dgmrec_pyg.loading import dataset_name
    from dgmrec_pyg.tuning import TuningSettings, describe_spaces, tune

    output = Path(arguments.output or Path('runs') / f'{dataset_name(run.dataset)}-{run.model}-tune').expanduser()
    tuning = TuningSettings(arguments.tune, output, arguments.tensorboard, progress=not arguments.quiet)
    if arguments.dry_run:
        print(describe_spaces(run))
        return 0
    say('\n' + tune(run, tuning, say))
    say(f"\nwritten to {printable(str(output))}; for a run with the best settings: --model {run.model} --config "
        f'{printable(str(output / run.model))}.json')
    return 0


def _describe(run: RunSettings, output: Path) -> None:
    """Shows the set, all settings, and what memory and disk space the run needs."""
    from dgmrec_pyg.disk import describe_disk
    from dgmrec_pyg.experiment import describe, estimate_files, estimate_run, resolve_device
    from dgmrec_pyg.loading import load_data
    from dgmrec_pyg.memory import describe_memory

    data = load_data(run)
    _show(describe(data, run), run.dataset)
    print('\n' + describe_memory(estimate_run(data, run), resolve_device(run.device)))
    print(describe_disk(estimate_files(data, run), output))


def _resumed(argv: list[str], output: RunDirectory) -> RunSettings:
    """The settings of the run that is resumed, with what is given beside --resume on top; most of it must agree."""
    from dgmrec_pyg.loading import RunSettings

    before = output.read_config()['run']
    try:
        settings_before = RunSettings.from_json(before)
    except (TypeError, UserError) as error:
        raise output.damaged_config(error) from error
    parser = build_parser()
    parser.set_defaults(**{name: before[name] for name in (*_RUN_FLAGS, 'settings', 'compare') if name in before})
    run = run_settings(parser.parse_args(argv))
    for flag in _RUN_FLAGS:
        given, was = getattr(run, flag), getattr(settings_before, flag)
        if given != was and flag not in _FREE_TO_RESUME:
            raise UserError(f"--{flag.replace('_', '-')} is {given!r}, but the run to resume has {was!r}; leave it out "
                            'or start a new run')
    return run


def _new_folder(run: RunSettings) -> Path:
    from dgmrec_pyg.loading import dataset_name

    folder = Path('runs') / f"{dataset_name(run.dataset)}-{run.model}-{time.strftime('%Y%m%d-%H%M%S')}"
    others = (folder.with_name(f'{folder.name}-{number}') for number in count(2))  # A run may take less than a second.
    return next(path for path in chain([folder], others) if not path.exists())


def _show(description: dict, dataset: str) -> None:
    print(console.describe_data(description['data'], dataset))
    for part in ('model', 'training'):
        print(f'\n{part}')
        for key, value in description[part].items():
            print(f'  {key} = {value}')
    batches = console.describe_batches(description['training'], description['data']['num_train'])
    if batches:
        print('\n' + batches)


main = make_main(_run)

if __name__ == '__main__':
    sys.exit(main())
