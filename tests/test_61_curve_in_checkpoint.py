"""Rows of the learning curve, and the manifest of a checkpoint."""

import numpy as np
import pytest
from small_training import bits, recipe, start, waves

from refmaml.training import Row, Rows, train, trainer
from refmaml.training import checkpoint as file_format


def test_rows_are_a_sequence_of_rows():
    rows, expected = Rows(), []
    for t in range(1, 200):
        expected.append(Row(t, 1 / t, 0.5, 2.0 * t, 0.1 * t, *np.arange(0.1, 0.85, 0.1)))
        rows.put(expected[-1])
    assert (
        list(rows) == expected
        and rows == expected
        and rows[5] == expected[5]
        and rows[-1] == expected[-1]
    )
    assert (
        rows[3:9] == expected[3:9]
        and len(rows) == 199
        and rows.column("loss").tolist() == [row.loss for row in expected]
    )
    rows.put(Row(100, 0.0, 0.0, 0.0, 0.0))  # a step that is repeated is the last one
    assert (
        len(rows) == 100
        and rows[98] == expected[98]
        and rows[99].loss == 0
        and type(rows[99].step) is int
    )


def rewritten(path, change):
    """A checkpoint whose manifest `change` has changed, with a right sha256."""
    import json

    from refmaml.storage.npz import digest

    with np.load(path) as file:
        members = dict(file)
    manifest = json.loads(members.pop("manifest").tobytes())
    del manifest["sha256"]
    change(manifest, members)
    manifest["sha256"] = digest(manifest, members)
    np.savez(path, manifest=np.frombuffer(json.dumps(manifest).encode(), np.uint8), **members)
    return file_format.load(path)


@pytest.fixture
def kept(tmp_path):
    now = train(recipe(waves), start(recipe(waves)), steps=5)
    file_format.save(tmp_path / "c.npz", now, {"a": 1})
    return tmp_path / "c.npz", now


def test_a_checkpoint_of_the_first_schema_is_resumed_to_the_same_bits(kept):
    path, now = kept

    def first(manifest, members):
        manifest["schema"] = "refmaml-checkpoint-1"
        del manifest["columns"], manifest["random"]
        members["curve"] = np.ascontiguousarray(members["curve"][:, :5])

    old, config = rewritten(path, first)
    assert config == {"a": 1} and bits(old) == bits(now)
    assert bits(train(recipe(waves), old, steps=9)) == bits(
        train(recipe(waves), start(recipe(waves)), steps=9)
    )


def test_columns_are_identified_by_name(kept):
    path, now = kept

    def shuffled(manifest, members):
        manifest["columns"] = manifest["columns"][::-1]
        members["curve"] = np.ascontiguousarray(members["curve"][:, ::-1])

    assert bits(rewritten(path, shuffled)[0]) == bits(now)


@pytest.mark.parametrize(
    "entry, value",
    [
        ("columns", ["step", "loss"]),
        ("columns", ["step"] * 5),
        ("columns", None),
        ("random", "dice"),
        ("step", 4),
        ("step", True),
        ("schema", "refmaml-checkpoint-1"),
    ],
)
def test_a_manifest_with_a_wrong_entry_is_refused(kept, entry, value):
    with pytest.raises(file_format.DataError, match="c.npz: expected a checkpoint"):
        rewritten(kept[0], lambda manifest, members: manifest.update({entry: value}))


def test_arrays_of_another_library_are_saved_through_as_numpy(tmp_path):
    class Elsewhere:
        def __init__(self, a):
            self.a = a

    now = train(recipe(waves), start(recipe(waves)), steps=2)
    away = trainer.Progress(
        Elsewhere(now.meta), {k: Elsewhere(a) for k, a in now.state.items()}, now.curve, 2
    )
    file_format.save(tmp_path / "c.npz", away, {}, as_numpy=lambda a: a.a)
    assert bits(file_format.load(tmp_path / "c.npz")[0]) == bits(now)
