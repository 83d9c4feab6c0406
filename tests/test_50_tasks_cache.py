"""The cache and the download: files are complete or absent; bad ones are not used."""

import hashlib
import os
import sys
from http.client import BadStatusLine, IncompleteRead, InvalidURL
from pathlib import Path

import numpy as np
import pytest

from refmaml.errors import DataError
from refmaml.storage.atomic import atomic_write
from refmaml.tasks.cache import cache_folder, cached
from refmaml.tasks.download import download


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "refmaml"


class Build:
    """A function that counts its calls and returns arrays."""

    calls = 0

    def __call__(self):
        self.calls += 1
        return {"numbers": np.arange(5, dtype=np.uint8), "names": np.array(["a", "ξ"])}


def ask(build, ingredients=("a", 1)):
    arrays = cached(
        "thing", ingredients, build, lambda arrays: arrays.keys() == {"numbers", "names"}
    )
    assert arrays["numbers"].dtype == np.uint8 and arrays["numbers"].tolist() == [0, 1, 2, 3, 4]
    assert arrays["names"].tolist() == ["a", "ξ"]


def test_what_was_built_once_is_read_the_second_time(folder):
    build = Build()
    ask(build)
    ask(build)
    assert build.calls == 1 and len(list(folder.iterdir())) == 1


def test_other_ingredients_are_built_again():
    build = Build()
    ask(build, ("a", 1))
    ask(build, ("a", 2))
    assert build.calls == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda b: b"",
        lambda b: b[:-30],
        lambda b: b[:100] + b"\0" * 90 + b[190:],
        lambda b: b"\x93NUMPY junk",
        lambda b: b"hello",
        lambda b: b"\x80\x04.",
    ],
    ids=["empty", "cut", "zeros", "no npz", "text", "pickle"],
)
def test_a_damaged_cache_is_rebuilt_and_repaired(folder, damage):
    build = Build()
    ask(build)
    file = next(folder.iterdir())
    file.write_bytes(damage(file.read_bytes()))
    ask(build)
    ask(build)
    assert build.calls == 2


def test_a_cache_that_cannot_be_written_costs_only_time(folder):
    folder.write_text("a file where the folder should be")
    build = Build()
    ask(build)
    ask(build)
    assert build.calls == 2


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", no_home)
    ask(Build())


def test_the_cache_follows_the_xdg_specification(monkeypatch, tmp_path):
    assert cache_folder() == tmp_path / "refmaml"
    for ignored in ("", "relative/path"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert cache_folder() == Path.home() / ".cache" / "refmaml"


def test_a_write_that_fails_half_way_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_a_download_with_the_right_checksum_takes_its_place(tmp_path):
    source, target = tmp_path / "source", tmp_path / "new folder" / "target"
    source.write_bytes(bytes(range(256)) * 1000)
    download(source.as_uri(), target, hashlib.md5(source.read_bytes()).hexdigest())
    assert target.read_bytes() == source.read_bytes()


def test_a_download_with_another_checksum_is_refused_and_leaves_nothing(tmp_path):
    source, target = tmp_path / "source", tmp_path / "folder" / "target"
    source.write_bytes(b"not what was published")
    with pytest.raises(DataError, match="expected a file of md5 0123, got md5 [0-9a-f]{32}$"):
        download(source.as_uri(), target, "0123")
    assert list(target.parent.iterdir()) == []


@pytest.mark.parametrize(
    "trouble",
    [InvalidURL("nonnumeric port: 'abc'"), BadStatusLine("<html>"), IncompleteRead(b"half", 100)],
)
def test_a_proxy_that_is_none_and_an_answer_cut_short_are_one_clear_line(
    tmp_path, monkeypatch, trouble
):
    def met(url):
        raise trouble

    monkeypatch.setattr(sys.modules["refmaml.tasks.download"], "_open", met)
    with pytest.raises(
        DataError, match="^.*target: expected to download it from http://.*, got .+"
    ) as error:
        download("http://example.invalid/a", tmp_path / "target", "0123")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []


def test_a_download_that_cannot_be_reached_is_one_clear_line(tmp_path):
    with pytest.raises(
        DataError, match="^.*target: expected to download it from file:.*, got "
    ) as error:
        download((tmp_path / "absent").as_uri(), tmp_path / "target", "0123")
    assert "\n" not in str(error.value) and list(tmp_path.iterdir()) == []
