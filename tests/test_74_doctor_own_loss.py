"""The doctor on a loss of the user's own, in PyTorch."""

import numpy as np
import pytest

import refmaml as rm

pytestmark = pytest.mark.frameworks("torch")
METHOD = rm.MAML(0.4, 2)


def check(fn, method=METHOD, **options):
    """A quick check of a function on the regression of own_loss_regression.py."""
    from own_loss_regression import regression, start, tasks

    given = {"loss": regression, "params": start(), "batch": tasks(), "repeats": 0}
    given |= {"precision": "float64", "framework": "torch"} | options
    return rm.check_meta_gradient(fn, method, **given)


def meta(loss=None, lr=0.4, steps=2, **changes):
    """MAML in PyTorch on a loss, the regression's unless given."""
    from own_loss_mistakes import maml
    from own_loss_regression import regression

    return maml(loss or regression, lr=lr, steps=steps, **changes)


METHODS = {
    "maml": rm.MAML(0.3, 3),
    "step sizes": rm.MAML([0.3, 0.2, 0.1], 3, anchor=0.2, inner_batch=4),
    "adam": rm.MAML(0.05, 3, rule=rm.Adam(eps_root=1e-6)),
    "momentum": rm.MAML(0.1, 3, rule=rm.Clip(rm.SGD(momentum=0.5, weight_decay=0.1), norm=0.3)),
    "fomaml": rm.FirstOrderMAML(0.3, 3),
    "anil": rm.ANIL(0.3, 3),
    "frozen": rm.MAML(0.3, 2, frozen=("*.bias",)),
    "meta-sgd": rm.MetaSGD(0.3, 2),
    "maml++": rm.MAMLPlusPlus(0.3, 3),
    "reptile": rm.Reptile(0.3, 3, optimizer="adam", inner_batch=4),
    "erm": rm.ERM(),
    "imaml": rm.IMAML(2.0, 60, 0.3, cg_steps=40, cg_tol=1e-15),
    "newton": rm.IMAML(2.0, 20, solver="newton_cg", cg_steps=40, cg_tol=1e-15),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_users_loss_has_the_meta_gradient_of_refmamls_same_net(name):
    from own_loss_regression import refmaml_net, regression, start, tasks

    from refmaml.doctor.own_loss import setup
    from refmaml.doctor.own_loss.batch_forms import read_batch

    method, net = METHODS[name], refmaml_net()
    given = {"loss": regression, "params": start(), "forward": None, "gradient": None}
    model, _ = setup.model_of("torch", given)
    meta_vector = method.init(net, net.flat({n: p.numpy() for n, p in start().items()}))
    batch = rm.Batch(*(a.numpy() for a in tasks()))
    expected = method.meta_gradient(net, meta_vector, batch)
    own = method.task_gradients(model, meta_vector, read_batch(tasks(), "torch"), trace=False)
    size = np.abs(expected.grad).max()
    assert np.abs(own.grad.mean(axis=0) - expected.grad).max() <= 1e-12 * size
    assert np.allclose(own.loss, expected.task_losses, rtol=1e-13)


def test_right_code_is_right_in_both_precisions_and_first_order_is_named():
    report = check(meta(), precision=None, repeats=6)
    assert report.ok and [r.precision for r in report.results] == ["float64", "float32"]
    assert report.results[0].worst.error < 1e-10 > report.results[0].worst.tolerance
    report = check(meta(create_graph=False))
    assert report.verdict == "wrong" and report.diagnosis.startswith("first-order")


def test_params_and_batch_come_in_the_users_own_form():
    import torch
    from own_loss_regression import ragged_tasks, regression, start, tasks

    def nested(params, x, y):
        return regression(params["net"][0] | {"2.bias": params["net"][1]}, x["in"], y)

    inner = start()
    bias = inner.pop("2.bias")
    params = {"net": (inner, bias), "steps": 3, "name": "mine"}
    (xs, ys, xq, yq), seen = tasks(), []

    def fn(params, batch):
        seen.append((params, batch))
        flat = {**params["net"][0], "2.bias": params["net"][1]}
        sets = (
            batch["x_support"]["in"],
            batch["y_support"],
            batch["x_query"]["in"],
            batch["y_query"],
        )
        found = meta()(flat, sets)
        return {"net": ({n: found[n] for n in inner}, found["2.bias"])}

    batch = {"x_support": {"in": xs}, "y_support": ys, "x_query": {"in": xq}, "y_query": yq}
    assert check(fn, loss=nested, params=params, batch=batch)
    given, tasks_given = seen[0]
    assert given["steps"] == 3 and given["name"] == "mine" and isinstance(given["net"], tuple)
    assert isinstance(tasks_given["x_support"]["in"], torch.Tensor)

    def by_task(params, batch):
        assert isinstance(batch, list) and all(len(task) == 4 for task in batch)
        return meta()(params, [list(column) for column in zip(*batch, strict=True)])

    assert check(by_task, batch=ragged_tasks())

    def first_order(params, batch):
        return meta(create_graph=False)(params, list(zip(*batch, strict=True)))

    assert not check(first_order, batch=ragged_tasks())
    columns = tuple([list(column) for column in zip(*ragged_tasks(), strict=True)])
    assert check(meta(), batch=columns)
    arrays = rm.Batch(*([a.numpy() for a in column] for column in columns))
    assert check(meta(), batch=arrays)


def test_the_gradient_may_come_in_the_order_of_params():
    assert check(lambda p, b: tuple(meta()(p, b).values()))
    import torch

    assert check(lambda p, b: torch.cat([g.ravel() for g in meta()(p, b).values()]))


def test_a_module_is_called_with_other_parameters_and_put_back():
    import torch
    from torch import nn
    from torch.nn import functional as F

    class Counted(nn.BatchNorm1d):
        def __init__(self):
            super().__init__(8, track_running_stats=False)
            self.register_buffer("calls", torch.zeros(1))

        def forward(self, x):
            self.calls += 1
            return super().forward(x)

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 8), Counted(), nn.GELU(), nn.Linear(8, 2))
    before = {n: a.clone() for n, a in net.state_dict().items()}
    loss = of_module(net, F.mse_loss)
    report = check(meta(loss), loss=F.mse_loss, params=net)
    assert report.ok and any("changes its buffers (1.calls)" in r for r in report.remarks)
    after = net.state_dict()
    assert all(torch.equal(before[n], a) and a.dtype == before[n].dtype for n, a in after.items())
    report = check(meta(loss, create_graph=False), loss=loss, params=net)
    assert report.diagnosis.startswith("first-order")


def of_module(net, loss):
    """loss(params, x, y) of a module."""
    from torch.func import functional_call

    return lambda params, x, y: loss(functional_call(net, params, (x,)), y)


LOSSES = {
    "BCE": lambda F, z, y: F.binary_cross_entropy_with_logits(z, (y > 0).to(z)),
    "Huber": lambda F, z, y: F.huber_loss(z, y),
    "smoothing": lambda F, z, y: F.cross_entropy(z, (y[:, 0] > 0).long(), label_smoothing=0.1),
    "weights": lambda F, z, y: F.cross_entropy(
        z, (y[:, 0] > 0).long(), weight=z.new_tensor([1.0, 3.0])
    ),
}


@pytest.mark.parametrize("name", LOSSES)
def test_any_loss_is_judged(name):
    from torch.nn import functional as F

    def loss(p, x, y):
        h = F.linear(x, p["0.weight"], p["0.bias"]).tanh()
        return LOSSES[name](F, F.linear(h, p["2.weight"], p["2.bias"]), y)

    assert check(meta(loss), loss=loss)
    assert check(meta(loss, create_graph=False), loss=loss).diagnosis.startswith("first-order")


def test_a_function_of_the_problem_is_also_checked_where_curvature_shows():
    methods = []

    def fn(problem, params, batch, create_graph=True, own_rate=None):
        methods.append(problem.method)
        lr = own_rate or problem.method.inner_lr
        found = meta(problem.loss, lr, problem.method.inner_steps, create_graph=create_graph)
        return found(params, batch)

    report = check(fn, rm.MAML(1e-4, 2))
    assert report.ok and [r.case for r in report.results] == ["own net", "large steps"]
    assert methods[0].inner_lr == 1e-4 and methods[1].inner_lr > 0.05
    report = check(lambda problem, p, b: fn(problem, p, b, False), rm.MAML(1e-4, 2))
    assert report.diagnosis.startswith("first-order")
    report = check(lambda problem, p, b: fn(problem, p, b, True, 1e-4), rm.MAML(1e-4, 2))
    assert "a constant of the function's own" in report.diagnosis


def test_an_own_step_size_too_small_to_see_curvature_is_a_remark():
    report = check(meta(lr=1e-9, create_graph=False), rm.MAML(1e-9, 2))
    assert any("mistakes in it cannot be seen there" in remark for remark in report.remarks)


def test_learned_step_sizes_are_params_beside_the_others():
    import torch

    def meta_sgd(params, batch, factor=1.0):
        from own_loss_regression import regression

        theta = {n: p.clone().requires_grad_() for n, p in params.items()}
        names = [n for n in theta if not n.startswith("inner_lr.")]
        total = 0.0
        for xs, ys, xq, yq in zip(*batch, strict=True):
            phi = {n: theta[n] for n in names}
            for _ in range(2):
                value = regression(phi, xs, ys)
                g = torch.autograd.grad(value, list(phi.values()), create_graph=True)
                phi = {
                    n: p - theta[f"inner_lr.{n}"] * d
                    for (n, p), d in zip(phi.items(), g, strict=True)
                }
            total = total + regression(phi, xq, yq) / len(batch[0])
        found = torch.autograd.grad(total, list(theta.values()))
        signs = [factor if n.startswith("inner_lr.") else 1.0 for n in theta]
        return dict(zip(theta, (s * g for s, g in zip(signs, found, strict=True)), strict=True))

    method = rm.MetaSGD(0.3, 2)
    assert check(meta_sgd, method)
    report = check(lambda p, b: meta_sgd(p, b, -1.0), method)
    assert report.diagnosis.startswith("the step sizes' gradient has the wrong sign")


# ---- parameters that are not meta-learned --------------------------------------------


@pytest.mark.parametrize("answer", ["left out", "None", "zeros"])
def test_a_frozen_body_is_right_where_it_is_declared(answer):
    import torch

    def fn(params, batch):
        found = meta(factors={"0.weight": 0.0, "0.bias": 0.0})(params, batch)
        kept = {n: g for n, g in found.items() if n.startswith("2.")}
        body = {n: p for n, p in params.items() if n.startswith("0.")}
        if answer == "left out":
            return kept
        return {
            n: None if answer == "None" else torch.zeros_like(p) for n, p in body.items()
        } | kept

    method = rm.ANIL(0.4, 2)
    assert check(fn, method, not_meta_learned=("0.*",))
    if answer == "left out":
        with pytest.raises(rm.ArgumentError, match="nothing for '0.weight'"):
            check(fn, method)
    else:
        assert check(fn, method).diagnosis.startswith("0.weight, 0.bias: ")


def test_a_gradient_of_what_is_not_meta_learned_is_wrong():
    fn = meta(factors={"0.weight": 0.0, "0.bias": 0.0})
    report = check(fn, rm.ANIL(0.4, 2), not_meta_learned=("0.*",))
    assert report.verdict == "wrong" and "not_meta_learned=('0.*',)" in report.about["again"]
    with pytest.raises(rm.ArgumentError, match="patterns: expected a name"):
        check(fn, rm.ANIL(0.4, 2), not_meta_learned=("7.*",))
