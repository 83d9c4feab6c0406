"""Fetching one file from the web and believing it only by its checksum."""

import hashlib

from refmaml.errors import DataError
from refmaml.progress import bar
from refmaml.storage.atomic import atomic_write

_CHUNK = 1 << 16
_LIMIT = 1 << 27  # bytes; a server that sends more than 128 MiB is not sending what was asked for


def download(url, path, md5):
    """Fetch `url` to the pathlib.Path `path`, whose folder is made if need be; a progress bar on terminals.

    md5  the published checksum, in hexadecimal
    Raises DataError, and leaves nothing behind, where the network fails or the checksum is another.
    """
    from http.client import HTTPException  # takes as long to import as all tasks together

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
    except (
        OSError,
        HTTPException,
    ) as error:  # URLError, timeouts and full disks are all OSErrors; odd proxies and cut answers
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
