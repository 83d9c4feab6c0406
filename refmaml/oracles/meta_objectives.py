"""The meta-objective M(meta) of every method: the query loss after the inner loop.

The inner loop runs in whatever arithmetic its argument has. With a complex argument the
imaginary part of M carries the exact derivative. No Hessian and no adjoint is involved,
only forward and backward passes, which the rungs below have proven.

Every function takes meta-parameters (B, M), each row a copy for the same task, and
returns M's value for each row (B,). The methods of refmaml have formulas of their own
here, which share no code with refmaml.methods. Any other method gets M from its own
`adapt`, row by row; see `by_adaptation` and `first_order_by_adaptation`.
"""

import numpy as np

from refmaml.methods import table, table_entry
from refmaml.oracles import inner_rules, laplace, learned_curvature, neural_process, solved_heads
from refmaml.update_rules import UpdateRule


def meta_objective(net, method, task, meta):
    """M(meta) of one task for each row of meta (B, M): (B,)."""
    return formula_of(method)(net, method, task, meta)


def formula_of(method):
    """The function (net, method, task, meta) -> M(meta) of a method."""
    if type(method) in FORMULAS:
        return FORMULAS[type(method)]
    entry = table.entry_of(method)
    first_order = entry is not None and entry.gradient == table_entry.FIRST_ORDER
    return first_order_by_adaptation if first_order else by_adaptation


# ---- any method, through its own `adapt` ---------------------------------------------


def by_adaptation(net, method, task, meta):
    """g(phi_K), phi_K = adapt(meta) in the arithmetic of meta, one row at a time."""
    phi = [method.adapt(net, row, task.x_support, task.y_support)[0] for row in meta]
    return query_loss(net, task, np.array(phi))


def first_order_by_adaptation(net, method, task, meta):
    """g(theta + d), where d = adapt(Re meta) - Re theta does not depend on meta."""
    phi = np.array([method.adapt(net, row.real, task.x_support, task.y_support)[0] for row in meta])
    theta = meta[:, : net.num_params]
    return query_loss(net, task, theta + (phi - theta.real))


# ---- the parts of the formulas -------------------------------------------------------


def inner_loop(net, phi, rates, x, y, method=None):
    """[phi_0, ..., phi_K] with phi_{k+1} = phi_k - A_k * grad f(phi_k).

    method  its update rule makes a direction of the gradient, and its proximal term,
            the parameters that adapt, and its mini-batches count; None: plain steps
    """
    phis, memory, chosen = [phi], {}, slice(None)
    rule, anchor = getattr(method, "rule", UpdateRule()), getattr(method, "anchor", 0)
    mini_batched = getattr(method, "inner_batch", None) is not None
    for k, A in enumerate(rates):
        if mini_batched:
            chosen = method.mini_batches(x.shape[1])[k]
        g = net.gradient(phis[-1], x[:, chosen], y[:, chosen]) + anchor * (phis[-1] - phi)
        if method is not None:
            g = g * adapt_mask(net, method)
        phis.append(phis[-1] - A * inner_rules.direction(rule, net, phis[-1], g, memory, k + 1))
    return phis


def fixed_rates(net, method):
    """A_0 .. A_{K-1} at the method's initial step sizes.

    [] for a method without steps.
    """
    if not (hasattr(method, "inner_steps") and hasattr(method, "inner_lr")):
        return []
    alpha = method.inner_lr
    each = alpha if isinstance(alpha, tuple) else (alpha,) * method.inner_steps
    return [a * adapt_mask(net, method) for a in each]


def adapt_mask(net, method):
    """1 where a parameter adapts, 0 elsewhere, (P,)."""
    mask = net.mask(getattr(method, "adapts", ("*",))).astype(float)
    frozen = getattr(method, "frozen", ())
    return mask * (1 - net.mask(frozen)) if frozen else mask


def copies(a, B):
    """One task's array (1, ...) as B equal tasks, without copying."""
    return np.broadcast_to(a, (B, *a.shape[1:]))


def support_set(task, B):
    """The support set of one task for B rows: x (B, N, ...), y (B, N, ...)."""
    return copies(task.x_support, B), copies(task.y_support, B)


def query_loss(net, task, phi):
    """g(phi) on the query set of one task for each row of phi (B, P): (B,)."""
    return net.loss(phi, copies(task.x_query, len(phi)), copies(task.y_query, len(phi)))


# ---- the methods of refmaml ----------------------------------------------------------


def maml(net, method, task, W):
    """MAML and ANIL: fixed step sizes for the parameters that adapt."""
    phis = inner_loop(net, W, fixed_rates(net, method), *support_set(task, len(W)), method)
    return query_loss(net, task, phis[-1])


def first_order(net, method, task, W):
    """First-order MAML and ANIL: the inner gradients are constants, taken at Re W."""
    phis = inner_loop(net, W.real, fixed_rates(net, method), *support_set(task, len(W)), method)
    return query_loss(net, task, W + (phis[-1] - phis[0]))


def erm(net, method, task, W):
    """ERM: no inner loop."""
    return query_loss(net, task, W)


def meta_sgd(net, method, task, meta):
    """Meta-SGD: meta = [theta, A]."""
    P = net.num_params
    rates = [meta[:, P:]] * method.inner_steps
    phis = inner_loop(net, meta[:, :P], rates, *support_set(task, len(meta)), method)
    return query_loss(net, task, phis[-1])


def meta_curvature(net, method, task, meta):
    """Meta-Curvature: meta = [theta, matrices].

    Each array's gradient is multiplied by the Kronecker product of its matrices.
    """
    P, (x, y) = net.num_params, support_set(task, len(meta))
    mask, start, memory = adapt_mask(net, method), meta[:, :P], {}
    dense = learned_curvature.kronecker_products(net, mask, meta)
    phi = start
    for k, A in enumerate(fixed_rates(net, method)):
        g = mask * (net.gradient(phi, x, y) + method.anchor * (phi - start))
        g = learned_curvature.turned(g, dense)
        phi = phi - A * inner_rules.direction(method.rule, net, phi, g, memory, k + 1)
    return query_loss(net, task, phi)


def maml_plus_plus(net, method, task, meta):
    """MAML++: meta = [theta, alpha (K, L)], a step size for each step k and array l.

    M = sum_k v_k g(phi_k) over k = 1 .. K.
    """
    P, K, L = net.num_params, method.inner_steps, len(net.shapes)
    alphas = meta[:, P:].reshape(len(meta), K, L)
    rates = []
    for k in range(K):
        A = np.zeros((len(meta), P), meta.dtype)
        for l, part in enumerate(net.blocks):
            A[:, part] = alphas[:, k, l, None]
        rates.append(A * adapt_mask(net, method))
    phis = inner_loop(net, meta[:, :P], rates, *support_set(task, len(meta)), method)
    weights = method.loss_weights or [1 / K] * K
    pairs = zip(weights, phis[1:], strict=True)
    return sum(v * query_loss(net, task, phi) for v, phi in pairs if v != 0)


def cavia(net, method, task, W):
    """CAVIA: theta does not adapt; the context starts from 0 and does."""
    start = W * (1 - adapt_mask(net, method))
    phis = inner_loop(net, start, fixed_rates(net, method), *support_set(task, len(W)), method)
    return query_loss(net, task, phis[-1])


def imaml(net, method, task, W, most=20000):
    """iMAML: phi <- phi - a (grad f(phi) + lambda (phi - theta)) solved to rounding.

    The solution does not depend on the method's update rule.
    The iteration ends when neither the real nor the imaginary part of phi changes any
    more. Raises ArithmeticError if they still do after `most` steps.
    """
    mask, a = adapt_mask(net, method), method.inner_lr
    x, y = support_set(task, len(W))
    phi = W
    for _ in range(most):
        new = phi - a * mask * (net.gradient(phi, x, y) + method.regularization * (phi - W))
        change = max(relative_change(new.real, phi.real), relative_change(new.imag, phi.imag))
        phi = new
        if change < 4 * np.finfo(float).eps:
            return query_loss(net, task, phi)
    raise ArithmeticError(
        f"the inner solve still changes by {change:.1e} after {most} steps of size {a}"
    )


def relative_change(new, old):
    """max|new - old| / max|new|; 0 where both are 0."""
    size = np.abs(new).max()
    return np.abs(new - old).max() / size if size > 0 else 0.0


def solved_head(net, method, task, meta):
    """R2-D2, LR-D2, MetaOptNet: meta = [theta, log lambda, alpha, beta]."""
    sets = support_set(task, len(meta))
    return query_loss(net, task, solved_heads.adapted(net, method, *sets, meta))


def alpaca(net, method, task, meta):
    """ALPaCA: meta = [theta, L, log v]; the predictive likelihood by LAPACK."""
    return solved_heads.predictive_loss(net, task, meta)


def llama(net, method, task, W):
    """LLAMA: g(phi_K) + eta log det(H + tau I), H written out at phi_K."""
    sets = support_set(task, len(W))
    phi = inner_loop(net, W, fixed_rates(net, method), *sets, method)[-1]
    term = laplace.term(net, method, phi, *sets, adapt_mask(net, method))
    return query_loss(net, task, phi) + method.weight * term


def cnp(net, method, task, meta):
    """CNP: meta = [theta, eta]; each row encodes the support set by itself."""
    return query_loss(net, task, neural_process.adapted(net, method, task, meta))


FORMULAS = {
    table.MAML: maml,
    table.ANIL: maml,
    table.FirstOrderMAML: first_order,
    table.FirstOrderANIL: first_order,
    table.ERM: erm,
    table.MetaSGD: meta_sgd,
    table.MetaCurvature: meta_curvature,
    table.MAMLPlusPlus: maml_plus_plus,
    table.CAVIA: cavia,
    table.IMAML: imaml,
    table.R2D2: solved_head,
    table.LRD2: solved_head,
    table.MetaOptNet: solved_head,
    table.ALPaCA: alpaca,
    table.LLAMA: llama,
    table.CNP: cnp,
}


# ---- Reptile, whose direction is no derivative ---------------------------------------


def reptile(net, method, meta, batch):
    """Reptile's direction by its definition: the mean over tasks of theta - phi_K.

    One task after another, one step after another. With moment="carried", meta is
    (theta, v, n); v counts as the average of the squares of k gradients,
    n = 1 - beta2^k.
    """
    ends = [reptile_end(net, method, meta, batch[t : t + 1]) for t in range(len(batch))]
    return sum(meta - end for end in ends) / len(batch)


def reptile_end(net, method, meta, task):
    """What the inner loop makes of meta on one task: phi_K, or (phi_K, v_K, n_K)."""
    P, carried = net.num_params, method.moment == "carried"
    phi, v = meta[:P].copy(), meta[P : 2 * P].copy() if carried else np.zeros(P)
    steps_before = np.log1p(-meta[-1]) / np.log(method.beta2) if carried else 0.0
    if method.optimizer == "sgd":
        sets = task.x_support, task.y_support
        return inner_loop(net, phi[None], fixed_rates(net, method), *sets, method)[-1][0]
    for k, chosen in enumerate(method.mini_batches(task.x_support.shape[1])):
        g = net.gradient(phi[None], task.x_support[:, chosen], task.y_support[:, chosen])[0]
        # Kingma & Ba 2015, Algorithm 1, with beta1 = 0
        v = method.beta2 * v + (1 - method.beta2) * g**2
        n = 1 - method.beta2 ** (steps_before + k + 1)
        phi = phi - fixed_rates(net, method)[k] * g / (np.sqrt(v / n) + method.eps)
    n = 1 - method.beta2 ** (steps_before + method.inner_steps)
    return np.array([*phi, *v, n]) if carried else phi
