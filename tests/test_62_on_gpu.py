"""The engine on arrays of a GPU, tried on the stand-in for CuPy with the CUDA kernels compiled by g++: nothing goes over or comes back, and
nobody waits, but where it is said; the numbers are those of the reference kernels."""
from dataclasses import dataclass, replace

import numpy as np
import pytest
from cuda_shim.build import ABSENT
from cuda_shim.memory import MemoryPool
from cuda_shim.memory import OutOfMemoryError as MemoryPoolIsFull

import refmaml as rm
from refmaml import kernels
from refmaml.errors import OutOfMemoryError
from refmaml.layers import BatchNorm2d, Conv2d, CrossEntropy, FiLM, Flatten, Linear, MaxPool2d, ReLU
from refmaml.methods.recorded_gradient import RecordedGradient
from refmaml.nets import mlp
from refmaml.network import Sequential
from refmaml.oracles import cases, chain_checks, kernel_checks
from refmaml.oracles.net_checks import method_terms
from refmaml.oracles.tolerance import relative_error, tolerance
from refmaml.oracles.unrolled import fixed_rates
from refmaml.training import SGD, Adam, Schedule, checkpoint, evaluate, train
from refmaml.training.trainer import Recipe

pytestmark = pytest.mark.skipif(bool(ABSENT), reason=str(ABSENT))
STEPS = {"inner_lr": 0.1, "inner_steps": 2}
IMPLICIT = {"regularization": 2.0, "inner_steps": 2, "inner_lr": 0.1, "cg_steps": 3}
METHODS = [rm.MAML(**STEPS), rm.MAML(**STEPS, recompute=True), rm.FirstOrderMAML(**STEPS), rm.ANIL(**STEPS), rm.FirstOrderANIL(**STEPS),
           rm.MetaSGD(**STEPS), rm.MAMLPlusPlus(**STEPS), rm.CAVIA(**STEPS), rm.ERM(), rm.Reptile(**STEPS),
           rm.Reptile(**STEPS, inner_batch=4, optimizer="adam"), rm.IMAML(**IMPLICIT), rm.IMAML(**IMPLICIT, frozen=("BatchNorm2d",)),
           rm.IMAML(**IMPLICIT, solver="newton_cg")]
COUNTED = ("to the GPU", "to the host", "wait")


def name_of(method):
    return type(method).__name__ + "".join(f", {f}" for f in ("recompute", "inner_batch", "solver", "frozen") if getattr(method, f, None))


def tiny(context=False):
    """Every kind of layer that a second-order method meets, as small as it gets. No bias before batch-norm: its gradient would be rounding
    alone, which Adam blows up to full steps."""
    film = [FiLM(2, 2)] if context else []
    return Sequential([Conv2d(1, 2, 3, padding=1, bias=False), BatchNorm2d(2), *film, ReLU(), MaxPool2d(2), Flatten(), Linear(8, 3)],
                      CrossEntropy(), (1, 4, 5))


def case(method, seed=0):
    """(net, meta, batch) away from kinks, in float64."""
    net = tiny(isinstance(method, rm.CAVIA))
    theta, batch, _ = cases.method_case(net, fixed_rates(net, method), seed)
    return net, method.init(net, theta), batch


@pytest.fixture
def cuda(cupy):
    return kernels.cuda(version=1)


def counted(cupy):
    """{what: how often} since the last call, of what costs a wait or a copy."""
    seen = {name: cupy.gpu.counts[name] for name in COUNTED if cupy.gpu.counts[name]}
    cupy.gpu.counts.clear()
    return seen


def looks(method):
    """How often a method must know what it computed before it can go on: at most, for iMAML's searches."""
    if not isinstance(method, rm.IMAML):
        return 0, 0
    outer = method.cg_steps + 1                             # CG asks once an iteration, and how it ended
    return (outer, 0) if method.solver == "gradient_descent" else (outer + method.inner_steps * outer, method.inner_steps * 30)


# ---- meta-gradients -----------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, cuda, method):
    net, meta, batch = case(method)
    exact, far = method.meta_gradient(net, meta, batch), net.with_kernels(cuda)
    there, = cuda.bring(meta)
    method.meta_gradient(far, there, batch)                 # which parameters adapt goes over once and stays
    counted(cupy)
    out = method.meta_gradient(far, there, batch)
    seen, (more, waits) = counted(cupy), looks(method)
    over = 1 + (getattr(method, "inner_batch", None) is not None)     # mini-batches are dealt on the host
    assert seen["to the GPU"] == over and 1 <= seen["to the host"] <= 1 + more and seen.get("wait", 0) <= waits, seen
    assert more or "wait" not in seen
    assert isinstance(out.grad, cupy.ndarray)
    limit = tolerance(np.float64, method_terms(method, net, batch))
    assert relative_error(out.grad.get(), exact.grad) <= limit and abs(out.loss - exact.loss) <= limit * abs(exact.loss)
    assert out.accuracy == exact.accuracy and list(out.report) == list(exact.report)
    assert out.task_losses.dtype == exact.task_losses.dtype and type(out.task_losses) is np.ndarray
    for name, value in exact.report.items():
        texts = value.dtype.kind == "U"                     # a residual is a difference of what agrees to 1e-13: six digits are left
        assert np.array_equal(out.report[name], value) if texts else relative_error(out.report[name], value) <= 1e-6, name


@pytest.mark.parametrize("method", [rm.MAML(**STEPS), rm.MetaSGD(**STEPS), rm.CAVIA(**STEPS)], ids=name_of)
def test_numpy_in_is_numpy_out_with_the_same_bits_and_traces_too(cupy, cuda, method):
    net, meta, batch = case(method)
    far, (there, *arrays) = net.with_kernels(cuda), cuda.bring(meta, *(a for part in batch.sets for a in part))
    here = method.meta_gradient(far, meta, batch, trace=True)
    on_gpu = method.meta_gradient(far, there, rm.Batch(*arrays), trace=True)
    assert type(here.grad) is np.ndarray and np.array_equal(here.grad, on_gpu.grad.get())
    exact = method.meta_gradient(net, meta, batch, trace=True)
    for name, steps in exact.trace.items():
        for a, b, c in zip(steps, here.trace[name], on_gpu.trace[name], strict=True):
            assert type(b) is np.ndarray and np.array_equal(b, c.get()) and relative_error(b, a) <= 1e-12
    counted(cupy)
    method.meta_gradient(far, meta, batch)
    assert counted(cupy) == {"to the GPU": 1, "to the host": 2}         # theta with the batch; the gradient, and the rest
    method.meta_gradient(far, there, rm.Batch(*arrays))
    assert counted(cupy) == {"to the host": 2}                          # which labels there are, and the rest


def test_the_chunk_changes_no_bit(cupy, cuda):
    method = rm.MAMLPlusPlus(**STEPS)
    net, meta, batch = case(method)
    batch = rm.Batch(*(np.repeat(a, 2, axis=0) for part in batch.sets for a in part))
    grads = [method.meta_gradient(net.with_kernels(cuda), meta, batch, chunk=chunk).grad for chunk in (None, 3, 1)]
    assert all(np.array_equal(grads[0], g) for g in grads)


def test_a_look_too_many_is_noticed(cupy, cuda):
    """Planted: a kernel that looks at a number of its own."""
    def linear_forward(y, x, w):
        cuda.linear_forward(y, x, w)
        assert float(y[0, 0, 0]) < 1e9
    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, cuda.replace(linear_forward=linear_forward), METHODS[0])


def test_a_copy_too_many_is_noticed(cupy, cuda):
    """Planted: a kernel that fetches its weights."""
    def linear_forward(y, x, w):
        cuda.linear_forward(y, x, cupy.asarray(w.get()))
    with pytest.raises(AssertionError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, cuda.replace(linear_forward=linear_forward), METHODS[0])


def test_an_implicit_conversion_is_noticed(cupy, cuda):
    """Planted: a method that takes a NumPy function."""
    @dataclass(frozen=True)
    class Careless(rm.MAML):
        def start(self, net, meta):
            phi, rates = super().start(net, meta)
            return phi, [np.multiply(1, A) for A in rates]
    with pytest.raises(TypeError):
        test_every_method_stays_on_the_gpu_and_agrees_with_the_reference(cupy, cuda, Careless(**STEPS))


# ---- what people call beside it -----------------------------------------------------------------------------------------------------

def test_adaptation_losses_and_products_come_back_as_they_came(cupy, cuda):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    far, (x, y), rng = net.with_kernels(cuda), batch.sets[0], np.random.default_rng(0)
    v = rng.standard_normal((len(x), net.num_params))
    w = np.repeat(theta[None], len(x), axis=0)
    there, there_w, there_v, there_x, there_y = cuda.bring(theta, w, v, x, y)
    calls = {"adapt": lambda net, theta, w, v, x, y: method.adapt(net, theta, x, y),
             "loss": lambda net, theta, w, v, x, y: net.loss(w, x, y),
             "gradient": lambda net, theta, w, v, x, y: net.gradient(w, x, y),
             "hvp": lambda net, theta, w, v, x, y: net.hvp(net.primal(w, x, y), v),
             "G v": lambda net, theta, w, v, x, y: net.gauss_newton_product(net.primal(w, x, y), v)}
    for name, call in calls.items():
        exact, here = call(net, theta, w, v, x, y), call(far, theta, w, v, x, y)
        on_gpu = call(far, there, there_w, there_v, there_x, there_y)
        assert type(here) is np.ndarray and isinstance(on_gpu, cupy.ndarray), name
        assert np.array_equal(here, on_gpu.get()) and relative_error(here, exact) <= 1e-13, name
    for operator in ("hessian", "gauss_newton"):
        H = getattr(net, operator)(theta, x, y)
        for start in (theta, there):                        # a scipy operator's vectors are NumPy's, wherever theta is
            assert relative_error(getattr(far, operator)(start, x, y) @ v[0], H @ v[0]) <= 1e-13


def test_every_solver_adapts_as_the_reference_does(cupy, cuda):
    for method in (rm.IMAML(**IMPLICIT), rm.Reptile(**STEPS), rm.ERM(), rm.CAVIA(**STEPS)):
        net, meta, batch = case(method)
        x, y = batch.sets[0]
        assert relative_error(method.adapt(net.with_kernels(cuda), meta, x, y), method.adapt(net, meta, x, y)) <= 1e-13


def test_labels_beyond_the_outputs_are_refused_before_a_kernel_reads_there(cupy, cuda):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    far, bad = net.with_kernels(cuda), batch.y_query.copy()
    bad[1, 0] = 3
    for query in (bad, cupy.asarray(bad)):
        wrong = rm.Batch(batch.x_support, batch.y_support, batch.x_query, query)
        for call in (lambda wrong=wrong: method.meta_gradient(far, theta, wrong),
                     lambda wrong=wrong: RecordedGradient(method, far, theta, wrong),
                     lambda wrong=wrong: far.loss(theta[None], wrong.x_query, wrong.y_query)):
            with pytest.raises(rm.ArgumentError, match=r"^y: expected labels in 0..2, got a label 3$"):
                call()


def test_lists_and_other_libraries_arrays_are_refused_by_name(cupy, cuda):
    method = rm.MAML(**STEPS)
    net, theta, batch = case(method)
    with pytest.raises(rm.ArgumentError, match=r"^theta: expected an array of shape \(\d+,\), got list"):
        method.meta_gradient(net.with_kernels(cuda), list(theta), batch)
    with pytest.raises(rm.ArgumentError, match=r"^theta: expected an array of shape \(\d+,\), got Array"):
        method.meta_gradient(net, cupy.asarray(theta), batch)            # the GPU's on a net that computes with NumPy's


def non_finite_cases():
    net, theta, batch = case(METHODS[0])
    x = batch.x_support.copy()
    x[1, 2] = np.inf
    huge = theta.copy()
    huge[:net.num_params] *= 1e200
    nan = theta.copy()
    nan[3] = np.nan
    return net, {"theta": (nan, batch), "inputs": (theta, replace(batch, x_support=x)), "weights": (huge, batch)}


@pytest.mark.parametrize("where", ["theta", "inputs", "weights"])
def test_what_is_not_finite_is_named_as_the_reference_names_it(cupy, cuda, where):
    net, trouble = non_finite_cases()
    meta, batch = trouble[where]
    method = replace(METHODS[0], adapts=("5.*",)) if where == "weights" else METHODS[0]
    said = []
    far = net.with_kernels(cuda)
    for act in (lambda: method.meta_gradient(net, meta, batch, chunk=1), lambda: method.meta_gradient(far, meta, batch, chunk=1),
                lambda: RecordedGradient(method, far, np.zeros(len(meta)), batch, chunk=1)(meta, batch)):
        try:
            act()
            said.append("nothing")
        except rm.NonFiniteError as error:
            said.append(str(error))
    assert len(set(said)) == 1, said
    assert said[0] != "nothing" or where == "weights"


# ---- graphs -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", [m for m in METHODS if m.replayable], ids=name_of)
def test_a_replayed_gradient_has_the_bits_of_the_launched_one(cupy, cuda, method):
    net, meta, batch = case(method)
    far, (_, other, tasks) = net.with_kernels(cuda), case(method, seed=1)
    recorded = RecordedGradient(method, far, meta, batch, chunk=1)
    assert cupy.gpu.counts["malloc while capturing"] == 0
    there, = cuda.bring(meta)
    for at, some in ((other, tasks), (there, batch), (other, tasks)):
        counted(cupy)
        out = recorded(at, some)
        assert counted(cupy) == {"to the GPU": 1, "to the host": 1 + isinstance(at, np.ndarray)}
        eager = method.meta_gradient(far, at, some)
        assert np.array_equal(cuda.back(out.grad) if at is there else out.grad, cuda.back(eager.grad) if at is there else eager.grad)
        assert out.loss == eager.loss and out.accuracy == eager.accuracy and np.array_equal(out.task_losses, eager.task_losses)


def test_methods_that_go_on_by_what_they_find_are_not_recorded(cupy, cuda):
    for method in METHODS:
        if not method.replayable:
            net, meta, batch = case(method)
            with pytest.raises(rm.ArgumentError, match="method: expected one whose launches do not depend on what it computes"):
                RecordedGradient(method, net.with_kernels(cuda), meta, batch)


# ---- evaluation and training --------------------------------------------------------------------------------------------------------

def sinusoids(dtype=np.float64):
    return lambda step: rm.Sinusoids().sample(3, 4, 5, seed=0, step=step, dtype=dtype)


def recipe(k, method=METHODS[0], optimizer=None, dtype=np.float64, lr=1e-2):
    return Recipe(mlp((1, 3, 1), "tanh", kernels=k), method, optimizer or Adam(), Schedule(lr), sinusoids(dtype), chunk=2)


def theta_of(recipe, dtype=np.float64):
    return recipe.net.init(0, dtype)


def test_evaluation_takes_a_copy_over_and_one_back_for_each_chunk(cupy, cuda):
    method, near, far = METHODS[0], mlp((1, 3, 1), "tanh"), mlp((1, 3, 1), "tanh", kernels=cuda)
    theta = near.init(0, np.float64)

    def held_out(tasks):
        return rm.Sinusoids().sample(tasks, 4, 5, seed=0, step=9, dtype=np.float64)
    exact = evaluate(near, method, theta, held_out, 5, chunk=2)
    evaluate(far, method, theta, held_out, 2)
    counted(cupy)
    result = evaluate(far, method, cuda.bring(theta)[0], held_out, 5, chunk=2)
    assert counted(cupy) == {"to the GPU": 4, "to the host": 3}          # theta, and three chunks
    assert result.quantity == exact.quantity and relative_error(result.values, exact.values) <= 1e-13


@pytest.mark.parametrize("method", [rm.MAML(**STEPS), rm.MAMLPlusPlus(**STEPS), rm.IMAML(**IMPLICIT)], ids=name_of)
@pytest.mark.parametrize("optimizer", [Adam(), SGD()], ids=["adam", "sgd"])
def test_training_is_a_copy_over_and_one_back_a_step_and_agrees_with_the_reference(cupy, cuda, method, optimizer):
    seen, near, far = [], recipe(kernels.reference(), method, optimizer), recipe(cuda, method, optimizer)
    start = far.start(theta_of(far))
    counted(cupy)
    exact = train(near, near.start(theta_of(near)), steps=5)
    now = train(far, start, steps=5, show=lambda now: seen.append((counted(cupy), cupy.gpu.counts["graph"])))
    assert type(now.meta) is np.ndarray
    for row, right in zip(now.rows, exact.rows, strict=True):
        assert abs(row.loss - right.loss) <= 1e-12 * right.loss and abs(row.grad_norm - right.grad_norm) <= 1e-12 * right.grad_norm
    assert relative_error(now.meta, exact.meta) <= 1e-12
    looked = 2 * looks(method)[0]                           # in each of two chunks
    assert all(s["to the GPU"] == 1 and 1 <= s["to the host"] <= 1 + looked and "wait" not in s for s, _ in seen[2:]), seen


def test_a_replayed_step_has_the_bits_of_a_launched_one_and_resumes_to_the_bit(cupy, cuda, tmp_path):
    @dataclass(frozen=True)
    class Launched(rm.MAML):
        replayable = False
    graphs, saved = [], []
    for dtype in (np.float32, np.float64):
        graphs.clear()
        launched, replayed = recipe(cuda, Launched(**STEPS), dtype=dtype), recipe(cuda, dtype=dtype)
        one = train(launched, launched.start(theta_of(launched, dtype)), steps=6)
        cupy.gpu.counts.clear()
        other = train(replayed, replayed.start(theta_of(replayed, dtype)), steps=4, save=saved.append,
                      show=lambda now: graphs.append(cupy.gpu.counts["graph"]))
        assert graphs == [0, 1, 2, 3] and all(type(a) is np.ndarray for p in saved for a in (p.meta, *p.state.values()))
        path = tmp_path / f"{np.dtype(dtype).name}.npz"
        checkpoint.save(path, saved[-1], {})
        again = train(replayed, checkpoint.load(path)[0], steps=6)
        assert other.step == 4 and np.array_equal(again.meta, one.meta)
        assert all(np.array_equal(again.state[name], one.state[name]) for name in one.state)
        assert [row[:4] for row in again.rows] == [row[:4] for row in one.rows] or np.isnan(one.rows[0].accuracy)
        assert [row.loss for row in again.rows] == [row.loss for row in one.rows]


def test_a_step_that_overflows_is_named_as_the_reference_names_it(cupy, cuda):
    said = []
    for k in (kernels.reference(), cuda):
        r = recipe(k, optimizer=SGD(), lr=1e200)
        with pytest.raises(rm.NonFiniteError, match="^meta-step 2: ") as raised:
            train(r, r.start(theta_of(r)), steps=5)
        said.append(str(raised.value))
    assert said[0] == said[1]


def test_a_run_that_is_stopped_saves_numpy_s_arrays(cupy, cuda):
    saved, r = [], recipe(cuda)

    def stop(now):
        if now.step == 3:
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt):
        train(r, r.start(theta_of(r)), steps=9, show=stop, save=saved.append)
    assert saved[-1].step == 3 and type(saved[-1].meta) is np.ndarray and type(saved[-1].state["m"]) is np.ndarray


# ---- too little memory --------------------------------------------------------------------------------------------------------------

def needed(cupy, act):
    """The most bytes that are held while acting."""
    most, empty = [0], cupy.gpu.empty

    def watching(shape, dtype):
        out = empty(shape, dtype)
        most[0] = max(most[0], cupy.gpu.held)
        return out
    cupy.gpu.empty = watching
    act()
    cupy.gpu.empty = empty
    return most[0]


def many(tasks=8):
    """A case whose activations are most of its memory."""
    net, theta, batch = case(METHODS[0])
    return net, theta, rm.Batch(*(np.concatenate([a] * (tasks // 2)) for part in batch.sets for a in part))


def test_with_too_little_memory_fewer_tasks_are_taken_at_once_and_the_bits_are_the_same(cupy, cuda):
    net, theta, batch = many()
    far, method, sizes = net.with_kernels(cuda), METHODS[0], []
    enough = method.meta_gradient(far, theta, batch)
    whole = needed(cupy, lambda: method.meta_gradient(far, theta, batch))

    @dataclass(frozen=True)
    class Noting(rm.MAML):
        def task_gradients(self, net, theta, batch, trace):
            sizes.append(len(batch))
            return super().task_gradients(net, theta, batch, trace)
    cupy.gpu.limit = whole * 2 // 5
    out = Noting(**STEPS).meta_gradient(far, theta, batch)
    assert np.array_equal(out.grad, enough.grad) and np.array_equal(out.task_losses, enough.task_losses)
    assert sizes == [8, 4, 2, 2, 2, 2] and cupy.gpu.counts["free_all_blocks"] == 2


def test_where_not_one_task_fits_it_is_one_clear_line(cupy, cuda):
    net, theta, batch = many()
    cupy.gpu.limit = 10_000
    with pytest.raises(OutOfMemoryError, match=r"^the GPU's memory: expected room for the tasks themselves, got Out of memory [^\n]*$"):
        METHODS[0].meta_gradient(net.with_kernels(cuda), theta, batch)
    cupy.gpu.limit = 40_000
    with pytest.raises(OutOfMemoryError, match=r"^the GPU's memory: expected room for one task, got Out of memory allocating [\d,]+ bytes "
                       r"\(allocated so far: [\d,]+ bytes\) \(recompute=True, [^\n]*\)$"):
        METHODS[0].meta_gradient(net.with_kernels(cuda), theta, batch)


def test_evaluation_with_too_little_memory_gives_the_same_values(cupy, cuda):
    net, theta, batch = many()
    far = net.with_kernels(cuda)

    def held_out(tasks):
        return batch[tasks.start:tasks.stop]
    values = evaluate(far, METHODS[0], theta, held_out, 8, chunk=8).values
    done = []
    cupy.gpu.limit = needed(cupy, lambda: evaluate(far, METHODS[0], theta, held_out, 8, chunk=8)) * 2 // 3
    assert np.array_equal(evaluate(far, METHODS[0], theta, held_out, 8, chunk=8, show=done.append).values, values) and done == [4, 8]


def test_a_graph_that_does_not_fit_beside_the_rest_is_done_without(cupy, cuda):
    r, one, other = recipe(cuda), [], []
    right = train(r, r.start(theta_of(r)), steps=4, show=lambda now: one.append(cupy.gpu.counts["graph"]))
    cupy.gpu.counts.clear()

    class Full(MemoryPool):
        def malloc(self, size):
            raise MemoryPoolIsFull("Out of memory allocating 512 bytes (allocated so far: 512 bytes).")
    cupy.cuda.MemoryPool = lambda: Full(cupy.gpu)
    now = train(r, r.start(theta_of(r)), steps=4, show=lambda now: other.append(cupy.gpu.counts["graph"]))
    assert one == [0, 1, 2, 3] and other == [0, 0, 0, 0] and np.array_equal(now.meta, right.meta)


# ---- what refmaml verify asks of it -------------------------------------------------------------------------------------------------

def test_the_checks_of_verify_pass_on_the_gpu_s_arrays_and_refuse_a_wrong_kernel(cupy, cuda):
    reference = kernels.reference()

    def wrong(y, x, w):
        cuda.linear_forward(y, x, w)
        y *= 1.001
    net = tiny().with_kernels(reference)
    theta, batch, _ = cases.method_case(net, fixed_rates(net, METHODS[0]))
    for k, right in ((cuda, True), (cuda.replace(linear_forward=wrong), False)):
        rows = kernel_checks.layer_kernel_checks(cases.LAYERS[5], k, reference, np.float32, shared=True)
        rows += chain_checks.chain_check("mlp", chain_checks.nets()["two-layer linear"], k, np.float64, shared=False)
        rows.append(kernel_checks.method_kernel_check(METHODS[0], net, theta, batch, k, np.float64))
        assert all(row.passed for row in rows) == right
    assert kernel_checks.recorded_check(METHODS[0], net, theta, batch, cuda, np.float32).error == 0
