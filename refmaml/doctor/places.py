"""What to do about a mistake that has a place and no name."""

DIFFERENCE = "compare it with a difference of two losses along a random direction"
PLACES = {
    "inner gradient": DIFFERENCE,
    "query gradient": DIFFERENCE,
    "step": "phi - inner_lr * gradient, by the method's own rule and step size",
    "own step size": "read it from problem.method: it differs from case to case",
    "own number of steps": "read it from problem.method.inner_steps, and check again: then the "
    "step that is wrong can be found",
    "adapted parameters": "query loss and gradient belong to phi_K, the last of the steps",
    "query loss": "the mean over the query examples of one task, at phi_K",
    "Hessian-vector product": "compare it with a difference of two gradients, at the same phi_k",
    "way back": "compare a Hessian-vector product with a difference of two gradients, then one "
    "operation after another",
    "linear system": "compare u with what (I + H / lambda) u gives: it must be grad g(phi*)",
    "step sizes' gradient": "dM/dA = sum over steps of -grad f(phi_k) * lam_{k+1}",
    "mini-batches": "if they are meant, declare them: inner_batch=n, or a function (k, examples) "
    "-> the places that step k sees",
    "mean over tasks": "start every task afresh, from the same meta-parameters",
    "batch-norm": "normalise with the batch's own statistics, and differentiate them",
}
