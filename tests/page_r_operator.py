"""What the page docs/pages/r_operator.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.kernels.batch_norm import reference as batch_norm
from refmaml.oracles.tolerance import tolerance

NAME = "r_operator"
SETTINGS = [{}, {"r": 0.44, "passes": 2}, {"r": -0.8}]
# The terms of one entry of the product: two layers of 2, means over 4 examples in
# batch-norm and its tangent, and the three sums of normalisation.
ALLOWED = tolerance(float, 100)
SMALL = 1e-5  # the page's step of differences


def same_net():
    """The page's net; a 1 x 1 convolution is its first product. Eps is torch's 1e-5."""
    layers = [
        rm.Conv2d(2, 2, 1, bias=False),
        rm.BatchNorm2d(2),
        rm.Tanh(),
        rm.Flatten(),
        rm.Linear(2, 1, bias=False),
    ]
    return rm.Sequential(layers, rm.MSE(factor=0.5), (2, 1, 1), rm.kernels.reference())


def one(quantity, value, expected, allowed=ALLOWED):
    return quantity, value, expected, allowed * np.abs(expected).max()


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    net, v = same_net(), np.array(numbers["along"])
    x = np.array(numbers["data"]["x"]).reshape(1, 4, 2, 1, 1)
    y = np.array(numbers["data"]["y"]).reshape(1, 4, 1)

    def gradient(r):
        return net.gradient((np.array(numbers["params"]) + r * v)[None], x, y)[0]

    primal = net.primal((np.array(numbers["params"]) + numbers["r"] * v)[None], x, y)
    grad, hvp = primal.grad[0], net.hvp(primal, v[None])[0]
    yield one("loss", numbers["now"]["loss"], primal.loss[0])
    yield one("gradient", numbers["grad"], grad)
    yield one("H v", numbers["hvp"], hvp)
    # A scalar product may cancel: what counts is the length of its factors.
    lengths = ALLOWED * np.linalg.norm(v) * np.array([np.linalg.norm(g) for g in (grad, hvp)])
    yield "<grad, v>", numbers["shown"]["directional"], grad @ v, lengths[0]
    yield "<v, H v>", numbers["shown"]["curvature"], v @ hvp, lengths[1]
    ends = [gradient(numbers["r"] + h) @ v for h in (SMALL, -SMALL)]
    by_differences = (ends[0] - ends[1]) / (2 * SMALL)
    yield "differences", numbers["shown"]["differences"], by_differences, lengths[0] / SMALL
    yield from batch_norms(numbers["now"])
    yield from counts(numbers)
    yield from answers(numbers)


def batch_norms(now):
    """The four passes of the norm alone, on the page's own inputs, by the kernel."""

    def array(pass_, row):  # (channels, examples) -> (T, N, C, L)
        return np.array(now[pass_][row]).T[None, :, :, None]

    x, rx, dxh, rdxh = array("forward", "a"), array("r_forward", "a"), None, None
    dxh, rdxh = array("backward", "xh"), array("r_backward", "xh")
    unit, none = np.ones((1, 2)), np.zeros((1, 2))
    y, xh, dx, rxh, rdx, ry = (np.empty_like(x) for _ in range(6))
    s, rs, spare, other = (np.empty((1, 2)) for _ in range(4))
    batch_norm.batch_norm_forward(y, xh, s, x, unit, none, 1e-5)
    batch_norm.batch_norm_backward(dx, spare, other, dxh, xh, s, unit)
    batch_norm.batch_norm_r_forward(ry, rxh, rs, rx, xh, s, unit, none, none)
    batch_norm.batch_norm_r_backward(rdx, spare, other, dxh, rdxh, xh, s, rxh, rs, unit, none)
    yield one("xh", array("forward", "xh"), xh)
    yield one("rxh", array("r_forward", "xh"), rxh)
    yield one("dx", array("backward", "a"), dx)
    yield one("rdx", array("r_backward", "a"), rdx)
    yield one("s", [norm["s"] for norm in now["norms"]], s[0])
    yield one("rs", [norm["rs"] for norm in now["tangents"]], rs[0])


def counts(numbers):
    """A bilinear layer has 3 products for the gradient and 6 for its tangent; the first
    has no use for what goes to its data: 2 and 2.
    """
    per_pass = {"forward": (1, 1), "r_forward": (1, 2), "backward": (1, 2), "r_backward": (1, 4)}
    done = list(per_pass.values())[: int(numbers["passes"])]
    shown = numbers["shown"]
    yield "products", shown["products"], sum(map(sum, done)), 0
    yield "gradient", shown["gradient"], 3, 0
    yield "tangent", shown["tangent"], 6, 0
    yield "ratio", shown["ratio"], 2, 0


def answers(numbers):
    """The complex step that judges answers is right, and so is the first answer."""
    now, judged = numbers["now"], numbers["judged"]
    yield one("dx by steps", judged["dx"]["exact"], np.array(now["backward"]["a"][0]))
    yield one("rdx by steps", judged["rdx"]["exact"], np.array(now["r_backward"]["a"][0]))
    yield one("typed dx", judged["dx"]["answer"], np.array(now["backward"]["a"][0]))


PLANTED = {
    "rs dropped": ("combine(scaled(rs, normInner(dxh, xh)), s, rinner)", "scaled(s, rinner)"),
    "a term of the last mean dropped": (
        "average(combine(product(rdxh, xh), 1, product(dxh, rxh)))",
        "average(product(rdxh, xh))",
    ),
    "one factor of tanh's second derivative": (
        "product(dh[c], product(h[c], rh[c]))",
        "product(dh[c], rh[c])",
    ),
    "a product of the tangent dropped": ("dot(rh[c], dp) + dot(h[c], rdp)", "dot(h[c], rdp)"),
    "the complex step of another function": ("variance.re.map(z => z + EPS)", "variance.re"),
}
DRAGS = {"handle-r": (60, 0, "r")}
KEYS = {
    ("handle-r", "ARROW_LEFT"): ("r", -0.02),
    ("range-r", "ARROW_RIGHT"): ("r", 0.02),
    ("range-passes", "ARROW_LEFT"): ("passes", -1),
}
