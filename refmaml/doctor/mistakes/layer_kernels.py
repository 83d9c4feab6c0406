"""Batch-norm, max-pooling and softmax: kernels of wrong_kernels.py."""

from refmaml.doctor.mistakes.mistake import HESSIAN, Mistake, fix

STATISTICS = fix(
    "normalise with the batch's own statistics, and differentiate them",
    torch="module.train(), or F.batch_norm(..., training=True) with running statistics None",
    jax="use_running_average=False, and no stop_gradient on mean and variance",
)
OF_ONE_TASK = fix(
    "normalise each task with its own statistics",
    jax="no axis_name of the tasks in batch-norm, and no pmean over them",
)
OF_ONE_SET = fix("pass the support set and the query set through the net one after the other")
MODES = {
    "detached statistics": "batch-norm's mean and variance are treated as constants",
    "running statistics": "batch-norm runs in evaluation mode on fresh running statistics",
}
SECOND_DERIVATIVE = fix(
    "write the operation's backward pass in operations that can be differentiated",
    torch="in a custom autograd.Function: save_for_backward, no ctx attributes and no "
    ".detach() in backward, which must itself be differentiable; or plain operations",
    jax="in a custom_vjp: a backward pass of differentiable operations, no stop_gradient",
)
UNBIASED = fix("divide by n, not n - 1 (torch: unbiased=False)")
EPS = fix("use the net's eps")


def both(kernel):
    """The same wrong kernel on support and query sets."""
    return {"kernels": kernel, "query_kernels": kernel}


def batch_norm_everywhere(kernel):
    """Statistics that are constants, on support and query sets."""
    return Mistake("19", MODES[kernel], both(kernel), STATISTICS, True)


def other_formulas():
    """Batch-norm with another variance or another eps."""
    unbiased = "batch-norm uses the unbiased variance"
    return [
        Mistake("21", unbiased, both("unbiased variance"), UNBIASED),
        *(
            Mistake("21", f"batch-norm uses eps = {eps}", both(f"eps {eps}"), EPS)
            for eps in ("1e-5", "1e-3", "1e-2")
        ),
    ]


def batch_norm():
    """Everything known of batch-norm, for a method with an inner loop."""
    found = []
    for kernel, text in MODES.items():
        inner, query = {"kernels": kernel}, {"query_kernels": kernel}
        found += [
            batch_norm_everywhere(kernel),
            Mistake("19", f"{text}, in the inner loop only", inner, STATISTICS),
            Mistake("19", f"{text}, on the query set only", query, STATISTICS),
        ]
    support = "query points are normalised with the support set's statistics"
    changes = {"query_kernels": "support statistics"}
    joint = "batch-norm's statistics are over the support and the query set together"
    tasks = "batch-norm's statistics are over all tasks together"
    return [
        *found,
        *other_formulas(),
        Mistake("21", support, changes, STATISTICS),
        Mistake("21", tasks, both("statistics over all tasks"), OF_ONE_TASK),
        Mistake("21", joint, {"support": "support first", "query": "query first"}, OF_ONE_SET),
        Mistake("21", f"{joint}, in the inner loop", {"support": "support first"}, OF_ONE_SET),
    ]


def lost_second_derivatives():
    """Second derivatives that one operation drops."""
    softmax = "softmax's probabilities are constants in the second derivative"
    pooling = "no second derivative through max-pooling"
    activation = "the second derivative of an operation is wrong: that of activations is 0"
    return [
        Mistake("43", activation, {"kernels": "lost activation"}, SECOND_DERIVATIVE),
        Mistake("22", pooling, {"kernels": "lost pooling"}, HESSIAN),
        Mistake("23", softmax, {"kernels": "constant probabilities"}, HESSIAN),
    ]
