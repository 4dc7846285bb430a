"""The official sets: where they come from, and fetching them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dgmrec_pyg.datasets.download import fetch, file_sha256, one_line
from dgmrec_pyg.errors import UserError, install_hint
from dgmrec_pyg.files import write_text
from dgmrec_pyg.reading import read_json

MMREC_FOLDER_ID = '13cBy1EA_saTUuXxVllKgtfci2A09jyaG'
MMREC_FOLDER_URL = f'https://drive.google.com/drive/folders/{MMREC_FOLDER_ID}'
DRIVE_FILE_URL = 'https://drive.usercontent.google.com/download?export=download&confirm=t&id={id}'
DGMREC_URL = 'https://github.com/ptkjw1997/DGMRec'
CHECKSUM_FILE = 'checksums.json'


@dataclass(frozen=True)
class SourceFile:
    """One file of an official set.

    Args:
        name (str): Its name.
        size (int, optional): Its size in bytes, where known. (default: :obj:`None`)
        sha256 (str, optional): Its SHA-256, where known. (default: :obj:`None`)
    """

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """An official set.

    Args:
        name (str): Name of the set and of its folder.
        files (tuple[SourceFile, ...]): The files it needs.
        origin (str): Where a person finds them.
        can_be_fetched (bool): Whether the package can fetch them from there. (default: :obj:`True`)
    """

    name: str
    files: tuple[SourceFile, ...]
    origin: str
    can_be_fetched: bool = True


def _mmrec(name: str, image: tuple[int | None, str | None] = (None, None),
           text: tuple[int | None, str | None] = (None, None)) -> Source:
    files = (SourceFile(f'{name}.inter'), SourceFile('image_feat.npy', *image), SourceFile('text_feat.npy', *text))
    return Source(name, files, f"{MMREC_FOLDER_URL} (folder '{name}')")


_ALL = (
    _mmrec('baby', image=(231014528, '36c3be592b98506189a7d5de71b21577cf626f0293b539d861534673b3e9fd70'),
           text=(10828928, '6667f2ad655c9ecc97cb3383f58988864ef51ec0b39c158b15986c66769f2dc4')),
    _mmrec('sports', image=(601522304, '222f924a0694b6c7e2bc26ea4bc2ef4ec89f7045aa5105ef463af8455c7a7695'),
           text=(28196480, '27d6087f0d8644b8245c60052425530c6446dffe61024b8126db0009ad94de84')),
    _mmrec('clothing', image=(754745472, '050ea2d0d05bdd441053cc4d9ac38fd570c9611cc49357f442c1c7b8c9943fbc'),
           text=(35378816, '17d9e036514283fb0a0dda71789fe56d0c128b60d8f350e7b7ab83ac4c5960dd')),
    _mmrec('elec'),
    # The text features of TikTok are not to be had everywhere; they are read where they are.
    Source('tiktok', (SourceFile('tiktok.inter'), SourceFile('image_feat.npy'), SourceFile('audio_feat.npy')),
           f'features as released with DiffMM, interactions and masks from data/masks/tiktok of {DGMREC_URL}',
           can_be_fetched=False),
)
SOURCES = {source.name: source for source in _ALL}


def fetch_source(source: Source, folder: Path, list_files: Callable[[], dict[str, str]] | None = None) -> None:
    """Fetches those files of an official set that are not yet in :obj:`folder`.

    A file without a known SHA-256 is compared with what was fetched the first time, which is recorded in
    ``checksums.json`` beside it.

    Args:
        source (Source): The set.
        folder (Path): Where its files belong.
        list_files (Callable, optional): Returns the address of each file under ``<set>/<file>``.
            (default: :func:`list_drive_files`)

    Raises:
        UserError: If a file cannot be fetched; the message says how to get it by hand.
    """
    absent = [file for file in source.files if not (folder / file.name).is_file()]
    if not absent:
        return
    if not source.can_be_fetched:
        if (folder / f'{source.name}.inter').is_file() and any(folder.glob('*_feat.npy')):
            return  # not all modalities, but a set
        raise UserError(f"'{source.name}' is not there and cannot be fetched; {_by_hand(source, folder)}")
    urls = _list_files(source, folder, list_files or list_drive_files)
    for file in absent:
        url = urls.get(f'{source.name}/{file.name}')
        if url is None:
            raise UserError(f"'{file.name}' of '{source.name}' is no longer at its source; {_by_hand(source, folder)}")
        try:
            _fetch_file(url, file, folder)
        except UserError as error:
            raise UserError(f'{error} -- or {_by_hand(source, folder)}') from error


def list_drive_files() -> dict[str, str]:
    """Returns the address of every file in MMRec's Google Drive folder under ``<set>/<file>``.

    Raises:
        ImportError: If gdown is not installed.
        Exception: Whatever gdown raises without a network.
    """
    import gdown

    files: Any = gdown.download_folder(id=MMREC_FOLDER_ID, skip_download=True, quiet=True, use_cookies=False)
    return {'/'.join(Path(file.path).parts[-2:]): DRIVE_FILE_URL.format(id=file.id) for file in files or ()}


def _list_files(source: Source, folder: Path, list_files: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return list_files()
    except ImportError as error:
        reason = 'gdown is not installed'
        cause: Exception = error
    except Exception as error:  # gdown raises many, and not the same in every version
        reason = one_line(error)
        cause = error
    raise UserError(f"cannot fetch '{source.name}' ({reason}): with a network and "
                    f'{install_hint("gdown")} try again, or {_by_hand(source, folder)}') from cause


def _fetch_file(url: str, file: SourceFile, folder: Path) -> None:
    recorded = _read_checksums(folder / CHECKSUM_FILE)

    def record(arrived: Path) -> None:  # Before it has its name: a kill between the two leaves no file without record.
        recorded[file.name] = file_sha256(arrived)
        write_text(folder / CHECKSUM_FILE, json.dumps(recorded, indent=2) + '\n')
        print(f"'{folder / file.name}': no official checksum is known; its SHA-256 is now in {CHECKSUM_FILE}, and "
              'fetching it again compares with that', file=sys.stderr)

    expected = file.sha256 or recorded.get(file.name)
    fetch(url, folder / file.name, file.size, expected, on_verified=record if expected is None else None)


def _read_checksums(path: Path) -> dict[str, str]:
    try:
        recorded = read_json(path) if path.exists() else {}
    except UserError as error:
        raise UserError(f'{error}; delete it to record checksums anew') from error
    if not isinstance(recorded, dict):
        raise UserError(f"'{path}' holds no dict of checksums; delete it to record them anew")
    return recorded


def _by_hand(source: Source, folder: Path) -> str:
    names = ', '.join(file.name for file in source.files)
    return f"put {names} into '{folder.absolute()}' (from: {source.origin})"
