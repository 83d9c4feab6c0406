"""Few-shot tasks from a table of pictures: classes, rotations, orders, refusals."""

import numpy as np
import pytest

from refmaml.errors import ArgumentError
from refmaml.methods import Reptile
from refmaml.tasks.few_shot import ROTATIONS, FewShot

CLASSES, EXAMPLES = 7, 6


def table():
    """Pictures of four corners: class, example, and two marks for the quarter turn."""
    images = np.zeros((CLASSES, EXAMPLES, 4, 4), np.uint8)
    images[:, :, 0, 0] = 255
    images[:, :, 0, 3] = 100
    images[:, :, 3, 0] = np.arange(CLASSES)[:, None]
    images[:, :, 3, 3] = np.arange(EXAMPLES)
    return images


def few_shot(**options):
    return FewShot(table(), [f"class {i}" for i in range(CLASSES)], **options)


def read(x):
    """Quarter turns, class and example of images (..., 1, 4, 4), from their corners."""
    pictures = np.rint(x[..., 0, :, :] * 255).astype(int)
    turns = np.argmax([pictures[..., i, j] for i, j in ((0, 0), (3, 0), (3, 3), (0, 3))], axis=0)
    upright = np.empty_like(pictures)
    for index in np.ndindex(turns.shape):
        upright[index] = np.rot90(pictures[index], -turns[index])
    assert (upright[..., 0, 0] == 255).all() and (upright[..., 0, 3] == 100).all()
    return turns, upright[..., 3, 0], upright[..., 3, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_has_the_promised_shapes_and_types(dtype):
    batch = few_shot().sample(3, n_way=5, k_shot=2, k_query=3, dtype=dtype)
    assert batch.x_support.shape == (3, 10, 1, 4, 4) and batch.x_query.shape == (3, 15, 1, 4, 4)
    assert batch.y_support.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4]] * 3
    assert (
        batch.y_query.shape == (3, 15) and batch.y_query.dtype == batch.y_support.dtype == np.int64
    )
    assert batch.x_support.dtype == batch.x_query.dtype == dtype
    assert batch.x_support.flags.c_contiguous and batch.x_query.flags.c_contiguous
    assert batch.x_query.min() == 0 and batch.x_query.max() == 1


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_a_task_does_not_depend_on_what_is_sampled_beside_it(rotations):
    data = few_shot(rotations=rotations)
    whole = data.sample(8, 3, 1, 2, seed=5, step=6)
    for part, tasks in ((whole[:3], 3), (whole[4:8], range(4, 8)), (whole[7:8], range(7, 8))):
        again = data.sample(tasks, 3, 1, 2, seed=5, step=6)
        assert np.array_equal(part.x_support, again.x_support) and np.array_equal(
            part.x_query, again.x_query
        )
    assert not np.array_equal(whole.x_query, data.sample(8, 3, 1, 2, seed=5, step=7).x_query)
    assert not np.array_equal(whole.x_query, data.sample(8, 3, 1, 2, seed=6, step=6).x_query)


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_every_label_is_one_class_and_no_two_labels_share_one(rotations):
    batch = few_shot(rotations=rotations).sample(40, n_way=5, k_shot=2, k_query=3)
    for x, k in ((batch.x_support, 2), (batch.x_query, 3)):
        turns, classes, _ = (a.reshape(40, 5, k) for a in read(x))
        assert (turns == turns[:, :, :1]).all() and (classes == classes[:, :, :1]).all()
        identity = classes[:, :, 0] + (CLASSES * turns[:, :, 0] if rotations == "as_classes" else 0)
        assert all(len(set(task)) == 5 for task in identity.tolist())
    assert np.array_equal(read(batch.x_support)[1][:, ::2], read(batch.x_query)[1][:, ::3])


def test_support_and_query_share_no_picture():
    batch = few_shot().sample(40, n_way=5, k_shot=3, k_query=3)
    examples = [read(x)[2].reshape(40, 5, 3) for x in (batch.x_support, batch.x_query)]
    # 3 + 3 of 6 examples: all of them, each once.
    assert (np.sort(np.concatenate(examples, axis=2), axis=2) == np.arange(EXAMPLES)).all()


@pytest.mark.parametrize("rotations", ROTATIONS)
def test_a_shuffled_support_set_is_the_same_examples_with_their_labels_in_an_order_of_each_task(
    rotations,
):
    data = few_shot(rotations=rotations)
    straight, shuffled = (
        data.sample(20, 5, 3, 2, seed=4, step=9, support_order=order)
        for order in ("by_class", "shuffled")
    )
    assert np.array_equal(straight.x_query, shuffled.x_query) and np.array_equal(
        straight.y_query, shuffled.y_query
    )

    def sorted_rows(batch):
        rows = zip(
            batch.y_support.tolist(), *(a.tolist() for a in read(batch.x_support)), strict=True
        )
        return [sorted(zip(*row, strict=True)) for row in rows]

    assert sorted_rows(straight) == sorted_rows(shuffled)
    assert (
        len(set(map(tuple, shuffled.y_support.tolist()))) > 15
    )  # 15! / 3!^5 orders: hardly two alike
    part = data.sample(range(7, 9), 5, 3, 2, seed=4, step=9, support_order="shuffled")
    assert np.array_equal(part.x_support, shuffled.x_support[7:9]) and np.array_equal(
        part.y_support, shuffled.y_support[7:9]
    )


def test_mini_batches_of_shuffled_support_sets_have_every_label_equally_often():
    """By class, the labels have the same order in all tasks; shuffled, they do not."""
    tasks, n_way, k_shot = 400, 5, 3
    places = np.concatenate(
        Reptile(0.1, inner_steps=3, inner_batch=5).mini_batches(n_way * k_shot)
    ).reshape(3, 5)
    by_class, shuffled = (
        few_shot().sample(tasks, n_way, k_shot, 1, support_order=order).y_support[:, places]
        for order in ("by_class", "shuffled")
    )
    assert (by_class == by_class[:1]).all()
    counts = np.stack([np.bincount(shuffled[:, k].ravel(), minlength=n_way) for k in range(3)])
    # Hypergeometric counts have a smaller variance than the binomial 5 tasks (1/5)
    # (4/5): none of the 15 is beyond five deviations.
    assert abs(counts - tasks).max() < 5 * np.sqrt(5 * tasks * 0.16)
    assert (
        abs(
            np.stack([np.bincount(by_class[:, k].ravel(), minlength=n_way) for k in range(3)])
            - tasks
        ).max()
        >= tasks
    )


def test_rotations_are_what_their_names_say():
    turns = {
        option: read(few_shot(rotations=option).sample(60, 5, 1, 1).x_support)[0]
        for option in ROTATIONS
    }
    assert (turns["none"] == 0).all()
    assert set(turns["per_task"].ravel()) == set(turns["as_classes"].ravel()) == {0, 1, 2, 3}
    assert len(few_shot(rotations="as_classes")) == 4 * CLASSES and len(few_shot()) == CLASSES
    batch = few_shot(rotations="as_classes").sample(1, n_way=4 * CLASSES, k_shot=1, k_query=1)
    assert (
        len(set(zip(*(a.ravel().tolist() for a in read(batch.x_support)[:2]), strict=True)))
        == 4 * CLASSES
    )


def test_classes_and_examples_are_drawn_uniformly():
    _, classes, examples = read(few_shot().sample(2000, n_way=3, k_shot=1, k_query=1).x_support)
    for drawn, n in ((classes, CLASSES), (examples, EXAMPLES)):
        expected = drawn.size / n
        # Binomial counts of standard deviation below sqrt(expected): none of the 13 is
        # beyond five of them.
        assert abs(np.bincount(drawn.ravel(), minlength=n) - expected).max() < 5 * np.sqrt(expected)


def test_inversion_swaps_ink_and_background_exactly():
    plain, inverted = (
        few_shot(invert=i).sample(4, 3, 1, 2, dtype=np.float64) for i in (False, True)
    )
    # Both are integers over 255, correctly rounded: their sum is 1 to one rounding.
    assert abs(plain.x_query + inverted.x_query - 1).max() <= np.finfo(float).eps
    assert ((inverted.x_query == 1) == (plain.x_query == 0)).all()


@pytest.mark.parametrize(
    "bad, argument",
    [
        ({"tasks": 0}, "tasks"),
        ({"n_way": 0}, "n_way"),
        ({"n_way": CLASSES + 1}, "n_way"),
        ({"n_way": 2.0}, "n_way"),
        ({"k_shot": 0}, "k_shot"),
        ({"k_query": -1}, "k_query"),
        ({"k_shot": 4, "k_query": 3}, r"k_shot \+ k_query"),
        ({"seed": -1}, "seed"),
        ({"step": 2**64}, "step"),
        ({"dtype": int}, "dtype"),
        ({"support_order": "random"}, "support_order"),
    ],
)
def test_a_sample_that_cannot_be_drawn_is_refused_in_one_line(bad, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected .*, got ") as error:
        few_shot().sample(**{"tasks": 2, "n_way": 3, "k_shot": 1, "k_query": 2, **bad})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "images, names, options, argument",
    [
        (table().astype(float), range(CLASSES), {}, "images"),
        (table()[0], range(CLASSES), {}, "images"),
        (table()[:, :, :3], range(CLASSES), {}, "images"),
        (table()[:0], (), {}, "images"),
        ([[1]], range(1), {}, "images"),
        (table(), range(2), {}, "names"),
        (table(), range(CLASSES), {"rotations": "some"}, "rotations"),
        (table(), range(CLASSES), {"invert": 1}, "invert"),
    ],
)
def test_a_table_that_is_none_is_refused(images, names, options, argument):
    with pytest.raises(ArgumentError, match=f"^{argument}: expected .*, got "):
        FewShot(images, names, **options)


def test_the_table_itself_is_never_written_to():
    data = few_shot()
    data.sample(20, 5, 1, 2)
    assert np.array_equal(data.images, table())


def test_its_repr_describes_it():
    assert (
        repr(few_shot())
        == "FewShot(7 classes, 6 examples of 4 x 4, rotations='per_task', invert=False)"
    )
