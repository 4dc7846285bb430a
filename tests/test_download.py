"""Fetching from a local server that behaves well, badly, and very badly."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from dgmrec_pyg.datasets import MultimodalDataset
from dgmrec_pyg.datasets.download import fetch
from dgmrec_pyg.datasets.sources import SOURCES, Source, SourceFile, fetch_source
from dgmrec_pyg.errors import UserError

DATA = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
HALF = len(DATA) // 2


class Handler(BaseHTTPRequestHandler):
    """What is sent depends on the path; the server notes each request as (path, start of the range or None)."""

    server: Server
    protocol_version = 'HTTP/1.1'

    def do_GET(self) -> None:
        start = self.headers.get('Range')
        start = int(start.removeprefix('bytes=').removesuffix('-')) if start else None
        self.server.requests.append((self.path, start))
        self.close_connection = True
        getattr(self, self.path.strip('/').replace('-', '_'))(start)

    def send(self, content: bytes, status: int = 200, length: int | None = None, content_range: str = '') -> None:
        self.send_response(status)
        self.send_header('Content-Length', str(len(content) if length is None else length))
        if content_range:
            self.send_header('Content-Range', content_range)
        self.end_headers()
        self.wfile.write(content)

    def rest(self, start: int | None, last: int = len(DATA)) -> None:
        """Sends from start up to last, having announced everything up to the end."""
        if start is None:
            self.send(DATA[:last], length=len(DATA))
        elif start >= len(DATA):
            self.send(b'', 416, content_range=f'bytes */{len(DATA)}')
        else:
            self.send(DATA[start:last], 206, len(DATA) - start, f'bytes {start}-{len(DATA) - 1}/{len(DATA)}')

    def good(self, start: int | None) -> None:
        self.rest(start)

    def breaks_once(self, start: int | None) -> None:
        self.rest(start, HALF if start is None else len(DATA))

    def always_breaks(self, start: int | None) -> None:
        self.rest(start, (start or 0) + 1000)

    def without_range(self, start: int | None) -> None:
        self.send(DATA[:HALF] if len(self.server.requests) == 1 else DATA, length=len(DATA))

    def resumes_elsewhere(self, start: int | None) -> None:
        self.rest(start and 7)

    def busy_once(self, start: int | None) -> None:
        if len(self.server.requests) == 1:
            self.send(b'busy', 503)
        else:
            self.rest(start)

    def web_page(self, start: int | None) -> None:
        self.send(b'\n <!DOCTYPE html><html>too many downloads</html>')

    def empty(self, start: int | None) -> None:
        self.send(b'')

    def forwards(self, start: int | None) -> None:
        self.send_response(302)
        self.send_header('Location', self.server.other_url)
        self.send_header('Content-Length', '0')
        self.end_headers()

    def packed(self, start: int | None) -> None:
        bomb = gzip.compress(bytes(200 * 2**20), compresslevel=1)
        self.send_response(200)
        self.send_header('Content-Encoding', 'gzip')
        self.send_header('Content-Length', str(len(bomb)))
        self.end_headers()
        with suppress(OSError):  # hung up
            self.wfile.write(bomb)

    def odd_length(self, start: int | None) -> None:
        self.send_response(200)
        self.send_header('Content-Length', '\xb2')  # a superscript two, which is a digit to Python
        self.end_headers()
        self.wfile.write(DATA)

    def gone(self, start: int | None) -> None:
        self.send(b'<html>gone</html>', 404)

    def endless(self, start: int | None) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(bytes(100_000))
        except OSError:
            self.server.hung_up.set()

    def log_message(self, *arguments: object) -> None:
        pass


class Server(ThreadingHTTPServer):

    def __init__(self) -> None:
        super().__init__(('127.0.0.1', 0), Handler)
        self.requests: list[tuple[str, int | None]] = []
        self.hung_up = threading.Event()
        self.other_url = ''
        self.scheme = 'http'

    def url(self, path: str) -> str:
        return f'{self.scheme}://127.0.0.1:{self.server_port}/{path}'


@contextmanager
def running_server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    with running_server() as server:
        yield server


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / 'new' / 'folder' / 'image_feat.npy'


def part_of(target: Path, content: bytes) -> Path:
    target.parent.mkdir(parents=True)
    part = target.with_name(f'{target.name}.part')
    part.write_bytes(content)
    return part


def starts(server: Server) -> list[int | None]:
    return [start for _, start in server.requests]


@pytest.mark.parametrize(('path', 'number_of_requests'), [
    ('good', 1),
    ('breaks-once', 2),
    ('without-range', 2),
    ('busy-once', 2),
    ('odd-length', 1),
])
def test_fetch(server: Server, target: Path, path: str, number_of_requests: int) -> None:
    fetch(server.url(path), target, len(DATA), SHA256, wait_seconds=0)
    assert target.read_bytes() == DATA
    assert len(server.requests) == number_of_requests
    assert [file.name for file in target.parent.iterdir()] == [target.name]


def test_a_broken_transfer_goes_on_where_it_stopped(server: Server, target: Path) -> None:
    fetch(server.url('breaks-once'), target, wait_seconds=0)
    first, second = starts(server)
    assert first is None
    assert 0 < second <= HALF
    assert target.read_bytes() == DATA


def test_a_later_run_goes_on_too(server: Server, target: Path) -> None:
    part_of(target, DATA[:12345])
    fetch(server.url('good'), target, len(DATA), SHA256)
    assert starts(server) == [12345]
    assert target.read_bytes() == DATA


def test_what_was_complete_is_only_checked(server: Server, target: Path) -> None:
    part_of(target, DATA)
    fetch(server.url('good'), target, len(DATA), SHA256)
    assert target.read_bytes() == DATA
    assert starts(server) == [len(DATA)]


@pytest.mark.parametrize(('path', 'rest'), [('good', DATA + b'more'), ('resumes-elsewhere', DATA[:HALF])])
def test_a_rest_that_does_not_fit_is_thrown_away(server: Server, target: Path, path: str, rest: bytes) -> None:
    part_of(target, rest)
    fetch(server.url(path), target, len(DATA), SHA256, wait_seconds=0)
    assert target.read_bytes() == DATA
    assert starts(server) == [len(rest), None]


@pytest.mark.parametrize(('path', 'expected', 'words'), [
    ('good', {'sha256': '0' * 64}, [f'SHA-256 {SHA256}', f'expected {"0" * 64}']),
    ('good', {'size': len(DATA) + 1}, ['3,000,000 bytes', 'expected 3,000,001']),
    ('good', {'size': len(DATA) - 1}, ['more than', '2,999,999']),
    ('web-page', {}, ['web page', 'browser']),
    ('web-page', {'size': len(DATA), 'sha256': SHA256}, ['web page']),
    ('empty', {}, ['empty file']),
    ('endless', {'max_bytes': 2_000_000}, ['more than', '2,000,000']),
    ('gone', {}, ['404', 'image_feat.npy', '/gone']),
    ('packed', {}, ['packed answer', '/packed']),
])
def test_wrong_answers_leave_nothing(server: Server, target: Path, path: str, expected: dict,
                                     words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        fetch(server.url(path), target, **expected, wait_seconds=0)
    assert '\n' not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert list(target.parent.iterdir()) == []
    assert len(server.requests) == 1


def test_an_endless_answer_is_hung_up(server: Server, target: Path) -> None:
    with pytest.raises(UserError):
        fetch(server.url('endless'), target, size=len(DATA))
    assert server.hung_up.wait(timeout=30)


def test_a_transfer_that_always_breaks_keeps_what_it_got(server: Server, target: Path) -> None:
    with pytest.raises(UserError, match=r'2 attempts\); try again, it goes on where it stopped'):
        fetch(server.url('always-breaks'), target, attempts=2, wait_seconds=0)
    assert len(server.requests) == 2
    assert not target.exists()
    assert DATA.startswith(target.with_name(f'{target.name}.part').read_bytes())


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate that says it is of 127.0.0.1, signed by itself, with its key in one file."""
    program = shutil.which('openssl')
    if program is None:
        pytest.skip('needs the program openssl')
    key, path = tmp_path / 'key.pem', tmp_path / 'certificate.pem'
    subprocess.run([program, 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                    '-subj', '/CN=127.0.0.1', '-addext', 'subjectAltName=IP:127.0.0.1', '-days', '2', '-keyout', key,
                    '-out', path], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path


@pytest.fixture
def secure_server(server: Server, certificate: Path) -> Server:
    """The server, which now speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.scheme = 'https'
    server.handle_error = lambda *arguments: None  # the client hangs up, which is what is tested
    return server


def test_a_certificate_that_nobody_vouches_for(secure_server: Server, target: Path) -> None:
    with pytest.raises(UserError, match='has no certificate that can be trusted') as caught:
        fetch(secure_server.url('good'), target, len(DATA), SHA256)
    assert '\n' not in str(caught.value)
    assert secure_server.requests == []  # not even the address was told
    assert list(target.parent.iterdir()) == []


def test_a_certificate_that_is_vouched_for(secure_server: Server, target: Path, certificate: Path,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(certificate))
    fetch(secure_server.url('good'), target, len(DATA), SHA256)
    assert target.read_bytes() == DATA


def test_nothing_is_taken_from_where_tls_ends(secure_server: Server, target: Path, certificate: Path,
                                              monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(certificate))
    with running_server() as plain:
        secure_server.other_url = plain.url('good')
        with pytest.raises(UserError, match=r"cannot fetch 'image_feat\.npy'"):
            fetch(secure_server.url('forwards'), target, len(DATA), SHA256)
    assert plain.requests == []
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost'])
def test_a_server_on_this_machine_forwards_to_no_other(server: Server, target: Path, host: str) -> None:
    with running_server() as other:
        server.other_url = other.url('good').replace('127.0.0.1', host)
        with pytest.raises(UserError, match=r"cannot fetch 'image_feat\.npy'") as caught:
            fetch(server.url('forwards'), target, len(DATA), SHA256)
    assert '\n' not in str(caught.value)
    assert other.requests == []
    assert list(target.parent.iterdir()) == []


def test_a_server_on_this_machine_may_forward_to_itself(server: Server, target: Path) -> None:
    server.other_url = server.url('good')
    fetch(server.url('forwards'), target, len(DATA), SHA256)
    assert target.read_bytes() == DATA


@pytest.mark.parametrize('url', ['http://example.org/x', 'http://127.0.0.1.example.org/x', 'ftp://127.0.0.1/x',
                                 'http://localhost@example.org/x', '//127.0.0.1/x'])
def test_only_https_but_on_this_machine(target: Path, url: str) -> None:
    with pytest.raises(UserError, match='only https addresses are read'):
        fetch(url, target, attempts=1)
    assert not target.parent.exists()


def test_a_link_in_place_of_what_has_arrived_is_not_written_through(server: Server, target: Path,
                                                                    tmp_path: Path) -> None:
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    target.parent.mkdir(parents=True)
    for name in (target.name, f'{target.name}.part'):
        (target.parent / name).symlink_to(victim)
    fetch(server.url('good'), target, len(DATA), SHA256)
    assert victim.read_text() == 'mine'
    assert target.read_bytes() == DATA
    assert not target.is_symlink()


@pytest.mark.parametrize('url', ['http://127.0.0.1:9/x', 'file:///etc/hostname', 'nonsense'])
def test_addresses_that_lead_nowhere(target: Path, url: str) -> None:
    with pytest.raises(UserError, match=r"cannot fetch 'image_feat\.npy'") as caught:
        fetch(url, target, attempts=1)
    assert '\n' not in str(caught.value)


def test_a_target_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match='cannot write'):
        fetch(server.url('good'), tmp_path / 'file' / 'image_feat.npy')


def test_no_progress_bar_without_a_terminal(server: Server, target: Path, capfd: pytest.CaptureFixture[str]) -> None:
    fetch(server.url('good'), target)
    assert capfd.readouterr().err == ''


TOY = Source('toy', (SourceFile('toy.inter'), SourceFile('image_feat.npy', len(DATA), SHA256)), 'https://toy.example')


@pytest.fixture
def list_files(server: Server) -> Callable[[], dict[str, str]]:
    return lambda: {'toy/toy.inter': server.url('good'), 'toy/image_feat.npy': server.url('breaks-once')}


def test_a_set_is_fetched_once(server: Server, tmp_path: Path, list_files: Callable[[], dict[str, str]],
                               capsys: pytest.CaptureFixture[str]) -> None:
    fetch_source(TOY, tmp_path / 'toy', list_files)
    assert (tmp_path / 'toy' / 'image_feat.npy').read_bytes() == DATA
    assert json.loads((tmp_path / 'toy' / 'checksums.json').read_text()) == {'toy.inter': SHA256}
    assert 'no official checksum is known' in capsys.readouterr().err
    number = len(server.requests)
    fetch_source(TOY, tmp_path / 'toy', list_files)
    assert len(server.requests) == number


def test_no_kill_leaves_a_file_without_its_record(tmp_path: Path, list_files: Callable[[], dict[str, str]],
                                                  monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def kill(source: Path, target: Path) -> None:
        if Path(target).name == 'toy.inter':
            raise Killed
        replace(source, target)

    replace = os.replace
    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', kill)
        with pytest.raises(Killed):
            fetch_source(TOY, tmp_path / 'toy', list_files)
    assert json.loads((tmp_path / 'toy' / 'checksums.json').read_text()) == {'toy.inter': SHA256}
    assert not (tmp_path / 'toy' / 'toy.inter').exists()
    fetch_source(TOY, tmp_path / 'toy', list_files)
    assert (tmp_path / 'toy' / 'toy.inter').read_bytes() == DATA


def test_a_file_without_official_checksum_is_compared_with_the_first(
        tmp_path: Path, list_files: Callable[[], dict[str, str]]) -> None:
    fetch_source(TOY, tmp_path / 'toy', list_files)
    (tmp_path / 'toy' / 'toy.inter').unlink()
    (tmp_path / 'toy' / 'checksums.json').write_text(json.dumps({'toy.inter': 'f' * 64}))
    with pytest.raises(UserError, match=f'expected {"f" * 64}'):
        fetch_source(TOY, tmp_path / 'toy', list_files)
    assert not (tmp_path / 'toy' / 'toy.inter').exists()


@pytest.mark.parametrize('content', ['{', '[]'])
def test_a_damaged_record_of_checksums(tmp_path: Path, content: str,
                                       list_files: Callable[[], dict[str, str]]) -> None:
    (tmp_path / 'checksums.json').write_text(content)
    with pytest.raises(UserError, match=r'checksums\.json.*delete it'):
        fetch_source(TOY, tmp_path, list_files)


def test_a_file_that_is_gone_from_its_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'toy\.inter' of 'toy' is no longer at its source; put toy\.inter, image"):
        fetch_source(TOY, tmp_path, dict)


def by_hand(message: str, folder: Path) -> bool:
    words = ('baby.inter, image_feat.npy, text_feat.npy', f"'{folder}'", SOURCES['baby'].origin,
             'pip install "dgmrec-pyg[download]"')
    return '\n' not in message and all(word in message for word in words)


def test_without_gdown_the_message_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, 'gdown', None)
    with pytest.raises(UserError, match='gdown is not installed') as caught:
        MultimodalDataset(tmp_path, 'baby')
    assert by_hand(str(caught.value), tmp_path / 'baby')


def test_without_a_network_the_message_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip('gdown')
    monkeypatch.setenv('HTTPS_PROXY', 'http://127.0.0.1:9')
    monkeypatch.setenv('NO_PROXY', '')
    with pytest.raises(UserError, match="cannot fetch 'baby'") as caught:
        MultimodalDataset(tmp_path, 'baby')
    assert by_hand(str(caught.value), tmp_path / 'baby')
    assert list(tmp_path.iterdir()) == []


def test_official_checksums_are_well_formed() -> None:
    checksums = [file.sha256 for source in SOURCES.values() for file in source.files if file.sha256]
    assert len(set(checksums)) == 6
    assert all(len(bytes.fromhex(checksum)) == 32 for checksum in checksums)
