"""Downloads one file and checks its md5."""

import hashlib

from refmaml.errors import DataError
from refmaml.progress import bar
from refmaml.storage.atomic import atomic_write

_CHUNK = 1 << 16
_LIMIT = 1 << 27  # bytes; no file of a data set is larger than 128 MiB


def download(url, path, md5):
    """Download `url` to the pathlib.Path `path`; its folder is made if it is missing.

    A progress bar is drawn on terminals.
    md5  the published checksum, in hexadecimal
    Raises DataError, and leaves no file, if the network fails or the checksum differs.
    """
    from http.client import HTTPException  # slow to import

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (
            atomic_write(path) as file,
            _open(url) as answer,
            bar(desc=path.name, total=_length(answer), unit="B", unit_scale=True) as progress,
        ):
            _expect_md5(url, md5, _copy(url, answer, file, progress))
    except DataError:
        raise
    # URLError, timeouts and full disks are OSErrors. A proxy or a truncated answer
    # raises HTTPException.
    except (OSError, HTTPException) as error:
        raise DataError(f"{path}: expected to download it from {url}, got {error}") from error


def _open(url):
    from urllib.request import urlopen

    return urlopen(url, timeout=60)


def _length(answer):
    length = answer.headers.get("Content-Length") or ""
    return int(length) if length.isdecimal() else None


def _copy(url, answer, file, progress):
    """Copy everything and return its md5, in hexadecimal."""
    digest = hashlib.md5(usedforsecurity=False)
    size = 0
    while chunk := answer.read(_CHUNK):
        size += len(chunk)
        if size > _LIMIT:
            raise DataError(f"{url}: expected at most {_LIMIT} bytes, got more")
        digest.update(chunk)
        file.write(chunk)
        progress.update(len(chunk))
    return digest.hexdigest()


def _expect_md5(url, expected, got):
    if got != expected:
        raise DataError(f"{url}: expected a file of md5 {expected}, got md5 {got}")
