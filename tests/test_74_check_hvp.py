"""rm.check_hvp: which matrix a product is; noise, offsets, batches, damping."""

import numpy as np
import pytest

import refmaml as rm

R = np.random.default_rng(0)
NET = rm.mlp((6, 5, 4), activation="tanh", loss=rm.CrossEntropy())
THETA = NET.init(seed=0, dtype=np.float64)
X, Y = R.standard_normal((1, 50, 6)), R.integers(0, 4, (1, 50))
PARAMS = {
    name: THETA[block].reshape(shape)
    for (name, shape), block in zip(NET.shapes.items(), NET.blocks, strict=True)
}


def flat(params):
    return np.concatenate([np.ravel(a) for a in params.values()])


def gradient(params, batch):
    x, y = batch
    return NET.gradient(flat(params)[None], x, y)[0]


def hvp(params, v, batch):
    x, y = batch
    return NET.hessian(flat(params), x, y) @ flat(v)


def gauss_newton(params, v, batch):
    x, y = batch
    return NET.gauss_newton(flat(params), x, y) @ flat(v)


def logits(params, batch):
    h = np.tanh(batch[0][0] @ params["0.weight"].T + params["0.bias"])
    return h @ params["2.weight"].T + params["2.bias"]


def log_probability(z, batch):
    z = z - z.max(1, keepdims=True)
    return -(z - np.log(np.exp(z).sum(1, keepdims=True)))[np.arange(len(z)), batch[1][0]]


FUNCTIONS = {
    "gradient": gradient,
    "outputs": logits,
    "output_loss": lambda z, batch: log_probability(z, batch).mean(),
    "example_losses": lambda params, batch: log_probability(logits(params, batch), batch),
}
BATCH = (X, Y)


def fisher(params, v, batch):
    rows = [gradient(params, (batch[0][:, i : i + 1], batch[1][:, i : i + 1])) for i in range(50)]
    G = np.stack(rows)
    return G.T @ (G @ flat(v)) / len(G)


def test_the_hessian_gauss_newton_and_the_fisher_are_told_apart():
    for product, kind in ((hvp, "hessian"), (gauss_newton, "gauss_newton"), (fisher, "fisher")):
        report = rm.check_hvp(product, PARAMS, BATCH, kind=kind, **FUNCTIONS)
        assert report.ok, report
    report = rm.check_hvp(gauss_newton, PARAMS, BATCH, **FUNCTIONS)
    assert report.diagnosis == "the product is Gauss-Newton, not the Hessian"
    assert "kind='gauss_newton'" in report.fix
    report = rm.check_hvp(fisher, PARAMS, BATCH, **FUNCTIONS)
    assert report.diagnosis == "the product is the empirical Fisher, not the Hessian"
    report = rm.check_hvp(hvp, PARAMS, BATCH, kind="gauss_newton", **FUNCTIONS)
    assert report.diagnosis == "the product is the Hessian, not Gauss-Newton"


def test_the_operators_of_a_net_are_right():
    H = NET.hessian(THETA, X, Y)
    assert rm.check_hvp(lambda v: H @ v, THETA, gradient=lambda w: gradient({"w": w}, BATCH)).ok


def spoiled(change):
    return lambda params, v, batch: change(hvp(params, v, batch), flat(v))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda h, v: 50 * h, "50 times the Hessian: a sum over 50"),
        (lambda h, v: -h, "-1 times the Hessian: the sign is wrong"),
        (lambda h, v: h + 0.3 * v, "the product is the Hessian + 0.3 I"),
        (lambda h, v: 2 * h + 0.5 * v, "the product is 2 times the Hessian + 1/2 I"),
        (lambda h, v: 0 * h, "the product is 0"),
        (lambda h, v: h + 0.1, "an offset is added to the product"),
        (lambda h, v: h + 0.1 * R.standard_normal(len(h)), "noise is added to the product"),
        (lambda h, v: h * (1 + 0.01 * R.standard_normal(len(h))), "changes by"),
        (lambda h, v: h * np.abs(h), "it grows with the square of v"),
        (lambda h, v: h / (np.linalg.norm(v) + 1e-300), "it does not grow with v"),
        (lambda h, v: np.abs(h), "not linear"),
        (lambda h, v: np.tanh(h), "not linear"),
        (lambda h, v: h * np.linspace(1, 2, len(h)), "not symmetric, and not that of the Hessian"),
        (lambda h, v: h * 2 ** (np.arange(len(h)) < 30), "not symmetric"),
    ],
)
def test_a_wrong_product_has_a_name(change, words):
    report = rm.check_hvp(spoiled(change), PARAMS, BATCH, gradient=gradient)
    assert not report.ok and words in report.diagnosis, report
    assert report.verdict == ("inconclusive" if words == "changes by" else "wrong")


def test_rows_that_are_wrong_are_named_by_their_array_and_factor():
    report = rm.check_hvp(spoiled(lambda h, v: h * 2 ** (np.arange(len(h)) < 30)), PARAMS, BATCH,
                          gradient=gradient)  # fmt: skip
    assert report.findings == ("rows of 0.weight: off by 1.0e+00, 2 times",)


def test_a_symmetric_product_of_another_matrix_is_wrong_without_a_name():
    D = np.linspace(1, 2, NET.num_params)
    report = rm.check_hvp(spoiled(lambda h, v: h + D * v), PARAMS, BATCH, gradient=gradient)
    assert report.diagnosis == "the product is not that of the Hessian" and report.findings


def test_a_declared_damping_is_right():
    with_damping = spoiled(lambda h, v: h + 0.3 * v)
    assert rm.check_hvp(with_damping, PARAMS, BATCH, gradient=gradient, damping=0.3).ok
    report = rm.check_hvp(with_damping, PARAMS, BATCH, gradient=gradient, damping=0.1)
    assert "+ 0.3 I, where damping=0.1 is declared" in report.diagnosis


def test_each_call_adds_to_the_one_before():
    total = np.zeros(NET.num_params)

    def product(params, v, batch):
        total[:] += hvp(params, v, batch)
        return total.copy()

    report = rm.check_hvp(product, PARAMS, BATCH, gradient=gradient)
    assert report.diagnosis == "each call adds to the result of the call before"


# ---- over batches --------------------------------------------------------------------

BATCHES = [(X[:, i : i + 16], Y[:, i : i + 16]) for i in range(0, 50, 16)]  # the last one has 2


def mean_over_batches(weights, start=lambda: 0.0):
    def product(v):
        parts = [w * hvp(PARAMS, v, b) for w, b in zip(weights, BATCHES, strict=True)]
        return start() + sum(parts)

    return product


def rows_first(params, batch):
    """The gradient of a batch whose first axis is the examples."""
    return gradient(params, (batch[0][None], batch[1][None]))


LOADER = [(x[0], y[0]) for x, y in BATCHES]


def over_batches(weights, **options):
    return rm.check_hvp(
        mean_over_batches(weights, **options), PARAMS, batches=LOADER, gradient=rows_first
    )


def test_a_product_over_a_loader_from_zeros_is_right():
    assert over_batches(np.array([16, 16, 16, 2]) / 50).ok


def test_an_accumulator_that_starts_from_noise():
    report = over_batches(
        np.array([16, 16, 16, 2]) / 50, start=lambda: R.standard_normal(NET.num_params)
    )
    assert report.verdict == "wrong" and "noise is added" in report.diagnosis
    assert "zeros" in report.fix


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1 / 4] * 4, "averaged without their numbers of examples"),
        ([1] * 4, "the batches are summed, each with weight 1"),
        ([16, 16, 16, 2], "not divided by the number of examples"),
        ([1, 0, 0, 0], "the first batch alone counts"),
        ([0, 0, 0, 1], "the last batch alone counts"),
        ([0.3, 0.3, 0.3, 0.1], "do not count by their numbers of examples"),
    ],
)
def test_batches_that_count_wrongly(weights, words):
    report = over_batches(weights)
    assert report.verdict == "wrong" and words in report.diagnosis


def test_the_short_batch_that_counts_too_much_is_named():
    report = over_batches([1 / 4] * 4)
    assert "batch 3 counts 6.25 times as much as it should" in report.findings


def test_a_factor_over_batches_is_a_factor():
    assert "3 times the Hessian" in over_batches(3 * np.array([16, 16, 16, 2]) / 50).diagnosis


# ---- what cannot be judged, and errors -----------------------------------------------


def test_a_product_alone_is_judged_by_what_any_hessian_has():
    report = rm.check_hvp(hvp, PARAMS, BATCH)
    assert report.ok and "nothing says which matrix" in report.remarks[0]
    report = rm.check_hvp(spoiled(lambda h, v: h * np.linspace(1, 2, len(h))), PARAMS, BATCH)
    assert report.verdict == "wrong" and "not symmetric" in report.diagnosis


def test_a_gradient_that_is_none_is_blamed_and_not_the_product():
    def wrong(params, batch):
        return gradient(params, batch) * np.linspace(1, 2, NET.num_params)

    report = rm.check_hvp(hvp, PARAMS, BATCH, gradient=wrong)
    assert report.verdict == "inconclusive" and "not that of any loss" in report.diagnosis


def test_a_kink_of_the_gradient_is_inconclusive():
    report = rm.check_hvp(lambda v: 2 * v, np.zeros(3), gradient=lambda w: 2 * w + np.abs(w))
    assert report.verdict == "inconclusive" and "kink" in report.diagnosis


RIGHT = {"product": hvp, "params": PARAMS, "batch": BATCH, "gradient": gradient}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"product": 1}, "product: expected a function product(v), product(params, v) or"),
        ({"product": lambda p, v, b: np.ones(3)}, "product: expected dict of 4, or a flat vector"),
        ({"product": lambda p, v, b: 1 / 0}, "product: expected a vector, got ZeroDivisionError"),
        ({"gradient": 1}, "gradient: expected a function"),
        ({"gradient": None, "loss": lambda p, b: 1.0}, "loss: expected gradient= instead"),
        ({"kind": "newton"}, "kind: expected one of hessian, gauss_newton, fisher, got 'newton'"),
        ({"kind": "fisher"}, "kind: expected the functions that the empirical Fisher needs"),
        ({"damping": "x"}, "damping: expected a number, got 'x'"),
        ({"outputs": logits}, "outputs: expected outputs and output_loss, both or none"),
        ({"batches": [BATCH]}, "batches: expected batch or batches, got both"),
        ({"batch": None, "batches": [BATCH]}, "batches: expected 2 to 64 batches, got 1"),
    ],
)
def test_wrong_arguments_are_one_line(changed, words):
    with pytest.raises(rm.ArgumentError) as error:
        rm.check_hvp(**(RIGHT | changed))
    assert words in str(error.value) and "\n" not in str(error.value)
