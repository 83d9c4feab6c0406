"""The folder of golden vectors: its bytes, its reader, and the C++ reader."""

import hashlib
import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from refmaml.cli import main
from refmaml.execution import Sequential
from refmaml.golden import files
from refmaml.golden.problems import problems

ROOT = Path(__file__).parent.parent
KNOWN = problems()
FILE = "mlp.maml-3.npz"


def load(folder, name):
    with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as arrays:
        return dict(arrays)


# ---- the bytes of the files, read without NumPy's reader -----------------------------


def test_every_array_is_the_bytes_whose_sha256_the_manifest_states(golden):
    manifest = json.loads((golden / "manifest.json").read_text())
    for path, stated in manifest["files"].items():
        assert hashlib.sha256((golden / path).read_bytes()).hexdigest() == stated["sha256"]
        with zipfile.ZipFile(golden / path) as archive:
            assert sorted(archive.namelist()) == sorted(f"{name}.npy" for name in stated["arrays"])
            for name, entry in stated["arrays"].items():
                data = archive.read(f"{name}.npy")
                start = 10 + int.from_bytes(data[8:10], "little")
                assert (
                    data[:8] == b"\x93NUMPY\x01\x00"
                    and entry["dtype"].encode() in data[:start]
                    and b"False" in data[:start]
                )
                assert (
                    hashlib.sha256(data[start:]).hexdigest() == entry["sha256"] and entry["meaning"]
                )
                assert len(data) - start == int(np.prod(entry["shape"])) * int(entry["dtype"][2])


# ---- the reader ----------------------------------------------------------------------


def verdict(capsys, folder):
    """(exit status, lines on stdout, the line on stderr) of refmaml golden --check."""
    status = main(["golden", "--check", str(folder)])
    out, err = capsys.readouterr()
    assert err.count("\n") == (status == 2)
    return status, out.splitlines(), err.strip()


def test_what_was_written_passes(golden, capsys):
    status, out, _ = verdict(capsys, golden)
    assert (
        status == 0 and len(out) == 1 and "every sha256 as stated" in out[0] and ", 0 not" in out[0]
    )


def flip_a_bit(path, place=-1):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def bit_of_array(path, name):
    """The position in a file of the lowest bits of an array's last number."""
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(f"{name}.npy")
    data = path.read_bytes()
    start = (
        info.header_offset
        + 30
        + int.from_bytes(data[info.header_offset + 26 : info.header_offset + 28], "little")
    )
    return start + info.file_size - 8


def rewrite(folder, path, change, restate=True):
    """Write a file with changed arrays; restate=True: change the manifest as well."""
    arrays = change(load(folder, path.removesuffix(".npz")))
    entry = files.write_arrays(folder / path, arrays)
    if restate:

        def edit(manifest):
            old = manifest["files"][path]["arrays"]
            manifest["files"][path] = {
                **entry,
                "arrays": {
                    n: {**e, "meaning": old.get(n, {}).get("meaning", "")}
                    for n, e in entry["arrays"].items()
                },
            }

        edit_manifest(folder, edit)


def edit_manifest(folder, change):
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def without(name):
    return lambda arrays: {k: a for k, a in arrays.items() if k != name}


def compress(folder):
    arrays = load(folder, "mlp.maml-3")
    np.savez_compressed(folder / FILE, **arrays)


DAMAGE = {
    "one bit flipped in an array": (
        lambda f: flip_a_bit(f / FILE, bit_of_array(f / FILE, "lam")),
        "CRC",
    ),
    "one bit flipped, with the zip's own checksums corrected": (
        lambda f: rewrite(f, FILE, lambda a: a | {"lam": np.nextafter(a["lam"], 1)}, restate=False),
        "array lam of sha256",
    ),
    "a wrong sha256 of an array": (
        lambda f: edit_manifest(
            f, lambda m: m["files"][FILE]["arrays"]["phi"].update(sha256="0" * 64)
        ),
        "array phi of sha256",
    ),
    "a wrong sha256 of a file": (
        lambda f: edit_manifest(f, lambda m: m["files"][FILE].update(sha256="0" * 64)),
        "sha256",
    ),
    "a missing array": (
        lambda f: rewrite(f, FILE, without("lam"), restate=False),
        "array ['lam'] in only one",
    ),
    "a missing array that the manifest does not miss": (
        lambda f: rewrite(f, FILE, without("lam")),
        "an array lam",
    ),
    "an array more": (
        lambda f: rewrite(f, FILE, lambda a: a | {"extra": a["lam"]}, restate=False),
        "array ['extra'] in only one",
    ),
    "a changed shape": (
        lambda f: rewrite(f, FILE, lambda a: a | {"lam": a["lam"].reshape(-1)}, restate=False),
        "array lam of shape",
    ),
    "another type": (
        lambda f: rewrite(f, FILE, lambda a: a | {"lam": a["lam"].astype(np.float16)}),
        "of dtype <f2",
    ),
    "another schema version": (
        lambda f: edit_manifest(f, lambda m: m.update(schema="refmaml-golden-3")),
        "schema 'refmaml-golden-3'",
    ),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "no such file"),
    "a manifest that is no JSON": (
        lambda f: (f / "manifest.json").write_text("{"),
        "Expecting property name",
    ),
    "a manifest that is a list": (lambda f: (f / "manifest.json").write_text("[]"), "schema None"),
    "a missing file": (lambda f: (f / FILE).unlink(), f"{FILE} in only one"),
    "a file too many": (lambda f: (f / "stray.npz").write_bytes(b""), "stray.npz in only one"),
    "a file name that leads out": (
        lambda f: edit_manifest(f, lambda m: m["files"].update({"../x.npz": {}})),
        "a file name",
    ),
    "half a file": (
        lambda f: (f / FILE).write_bytes((f / FILE).read_bytes()[:2000]),
        "not a zip file",
    ),
    "a compressed file": (compress, "a compressed member"),
    "another step size in the manifest": (
        lambda f: edit_manifest(
            f, lambda m: m["problems"]["mlp"]["methods"]["maml-3"]["fields"].update(inner_lr=0.5)
        ),
        "this version's methods of mlp",
    ),
    "another order of parameters": (
        lambda f: edit_manifest(f, lambda m: m["problems"]["mlp"]["parameters"].reverse()),
        "this version's parameters of mlp",
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_folder_is_refused_with_one_line(copy, capsys, what):
    damage, said = DAMAGE[what]
    damage(copy)
    status, out, err = verdict(capsys, copy)
    assert status == 2 and out == [] and err.startswith(f"refmaml: {copy}")
    assert said in err and ": expected " in err and ", got " in err


@pytest.mark.slow
@pytest.mark.parametrize("name", ["lam", "grad", "phi", "grad_float32"])
def test_a_wrong_value_is_found_even_where_all_sums_agree_with_it(copy, capsys, name):
    def spoil(arrays):
        wrong = arrays[name].copy()
        wrong.flat[np.abs(wrong).argmax()] *= 1.001
        return arrays | {name: wrong}

    rewrite(copy, FILE, spoil)
    status, out, _ = verdict(capsys, copy)
    assert status == 1 and out[0].startswith(f"{FILE}: {name} is ") and ", 1 not" in out[-1]


def test_an_engine_with_a_wrong_hessian_fails_the_check(golden, capsys, monkeypatch):
    right = Sequential.hvp
    monkeypatch.setattr(
        Sequential, "hvp", lambda self, primal, v: (1 + 1e-9) * right(self, primal, v)
    )
    status, out, _ = verdict(capsys, golden)
    wrong = {line.split(":")[0] for line in out[:-1]}
    assert status == 1 and {"mlp.maml-3.npz", "conv.maml-3.npz", "conv.npz"} <= wrong
    assert not any(
        path.startswith("quadratic") or ".fomaml" in path or ".erm" in path for path in wrong
    )


# ---- the guide -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """docs/read_golden.cpp, compiled."""
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed: the guide's reader is in C++")
    program = tmp_path_factory.mktemp("reader") / "read_golden"
    subprocess.run(
        [
            "g++",
            "-std=c++17",
            "-Wall",
            "-Wextra",
            "-Werror",
            ROOT / "docs" / "read_golden.cpp",
            "-o",
            program,
        ],
        check=True,
    )
    return program


def test_the_guide_s_reader_in_another_language_agrees(golden, reader):
    done = subprocess.run([reader, golden], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].startswith(
        "right: the largest error is "
    )


def test_the_guide_s_reader_notices_a_wrong_number(copy, reader):
    rewrite(copy, "quadratic.maml-3.npz", lambda a: a | {"lam": a["lam"] * (1 + 1e-12)})
    done = subprocess.run([reader, copy], capture_output=True, text=True)
    assert done.returncode == 1 and done.stdout.splitlines()[-1].startswith("WRONG: ")
