"""The command line: ``python -m dgmrec_pyg.demo --run DIR``; see :mod:`dgmrec_pyg.command_line`."""

from __future__ import annotations

import socket
import sys
from ipaddress import ip_address

from dgmrec_pyg.command_line import Parser, add_run_arguments, make_main, require_library
from dgmrec_pyg.errors import UserError, install_hint

LAST_PORT = 65535


def build_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(
        prog='python -m dgmrec_pyg.demo', usage='%(prog)s --run DIR [options]', allow_abbrev=False,
        description='Show a finished run in the browser: recommendations of a user with what their scores are made of, '
                    f'and what was generated for an item. Needs the extra demo ({install_hint("starlette")}).')
    add_run_arguments(parser)
    server = parser.add_argument_group('server')
    server.add_argument('--host', default='127.0.0.1', metavar='HOST',
                        help='the address to listen at; any but 127.0.0.1 and ::1, this machine alone, shows the run '
                             'to everybody who can reach it (default: 127.0.0.1)')
    server.add_argument('--port', type=int, default=8000, metavar='N',
                        help='the port; 0 for any that is free (default: 8000)')
    return parser


def _serve(argv: list[str]) -> int:
    arguments = build_parser().parse_args(argv)
    _check_libraries()

    with _listen(arguments.host, arguments.port) as listener:
        import uvicorn

        from dgmrec_pyg.demo.app import LOOPBACK, build_app
        from dgmrec_pyg.inference import load_run

        run = load_run(arguments.run, arguments.device, arguments.dataset, arguments.root)
        host = f'[{arguments.host}]' if ':' in arguments.host else arguments.host
        address, port = listener.getsockname()[:2]
        app = build_app(run, (*LOOPBACK, host) if ip_address(address).is_loopback else ('*',))
        print(f'http://{host}:{port}/ shows the run; Ctrl-C ends it', flush=True)
        uvicorn.Server(uvicorn.Config(app, log_level='warning', server_header=False)).run([listener])
    return 0


def _check_libraries() -> None:
    for library in ('starlette', 'uvicorn'):
        require_library(library, 'the page')


def _listen(host: str, port: int) -> socket.socket:
    """A socket that is listening already, so that a port that is taken is known before anything is computed."""
    if not 0 <= port <= LAST_PORT:
        raise UserError(f'--port must be between 0 and {LAST_PORT} (got {port})')
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ':' in host else socket.AF_INET)
    except OSError as error:
        reason = str(error.strerror or error).partition(' (')[0]  # Python adds the address, which stands here anyway.
        raise UserError(f"cannot listen at '{host}', port {port} ({reason}); give another --host or "
                        '--port (0 for any port that is free)') from error


main = make_main(_serve)

if __name__ == '__main__':
    sys.exit(main())
