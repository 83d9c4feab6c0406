"""What the page docs/pages/glyphs.html must compute, by refmaml."""

import base64

import numpy as np

import refmaml as rm

NAME = "glyphs"
SETTINGS = [
    {},
    {"start": "fomaml", "steps": 3, "class1": "2", "target": "3"},
    {"start": "untrained", "steps": 10, "class4": "11"},
    {"steps": 0},
]
WAYS, TESTS, CHANNELS, ALPHA, MOST = 5, 3, 8, 0.4, 10
# Relative to the largest entry. With sums of up to 2940 terms, some twenty layers and
# up to ten steps, rounding leaves 1e-15 to 3e-14; a wrong term leaves 1e-3 or more.
CLOSE = 1e-12


def same_net():
    return rm.conv4(WAYS, CHANNELS, loss=rm.CrossEntropy("sum/K"), kernels=rm.kernels.reference())


def pictures(rows):
    """Pictures (1, N, 1, 28, 28) of N rows."""
    return np.array(rows).reshape(1, -1, 1, 28, 28)


def softmax(z):
    e = np.exp(z - z.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def outputs(net, w, x):
    *_, (_, _, z) = net.layer_outputs(w[None], x)
    return z[0]


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    net, shown = same_net(), numbers["shown"]
    weights = {
        name: np.frombuffer(base64.b64decode(text), "<f4")
        for name, text in numbers["weights"].items()
    }
    yield "the start of training", weights["untrained"], net.init(seed=0).astype("<f4"), 0
    yield "alpha", numbers["alpha"], ALPHA, 0
    support, tests = pictures(numbers["support"]), pictures(numbers["tests"])
    labels = np.arange(WAYS)[None], np.repeat(np.arange(WAYS), TESTS)[None]
    for name, theta in weights.items():
        yield from one_start(net, name, theta.astype(float), support, tests, labels, numbers)
    K = numbers["steps"]
    page = numbers["curves"][numbers["start"]]
    for key, value in (("wrong0", page["wrong"][0]), ("wrong", page["wrong"][K])):
        yield f"shown: {key}", shown[key], value, 0
    for key, value in (("test0", page["loss"][0]), ("test", page["loss"][K])):
        yield f"shown: {key}", shown[key], value, 0


def one_start(net, name, theta, support, tests, labels, numbers):
    """The inner loop from one start; all that the page shows of it."""
    chosen, K, page = numbers["start"] == name, numbers["steps"], numbers["curves"][name]
    phi = theta
    for k in range(MOST + 1):
        if k:
            method = rm.MAML(ALPHA, k, frozen=("BatchNorm2d",))
            phi = method.adapt(net, theta, support, labels[0])[0]
        z = outputs(net, phi, tests)
        loss = float(net.loss(phi[None], tests, labels[1])[0])
        in_z = CLOSE * max(1, np.abs(z).max())
        yield f"{name}: loss after {k}", page["loss"][k], loss, WAYS * in_z
        gap = np.diff(np.sort(z, axis=-1)[:, -2:]).min()
        if gap > 2 * in_z:  # no draw between two classes
            wrong = (z.argmax(axis=-1) != labels[1][0]).sum()
            yield f"{name}: wrong after {k}", page["wrong"][k], wrong, 0
        if chosen and k == K:
            yield f"phi_{k}", numbers["phi"], phi, CLOSE * np.abs(phi).max()
            yield "outputs", numbers["z"], z.ravel(), in_z
            yield from gradients(net, theta, support, tests, labels, numbers)
        if chosen and k in (0, K):
            yield from own_picture(net, phi, tests, k, numbers, in_z)
            loss = float(net.loss(phi[None], support, labels[0])[0])
            key = "support" if k == K else "support0"
            yield f"loss of the training pictures after {k}", numbers["shown"][key], loss, in_z


def own_picture(net, phi, tests, k, numbers, close):
    """The probabilities of the student's picture, the sixteenth of its pass."""
    with_mine = np.concatenate([tests, pictures([numbers["mine"]])], axis=1)
    p = softmax(outputs(net, phi, with_mine))[-1]
    keys = ["before"] * (k == 0) + ["after"] * (k == numbers["steps"])
    for key in keys:
        yield f"your picture {key}", numbers[key], p, close
        own = np.argmax(numbers["after"])
        yield f"shown: {key}", numbers["shown"][f"own_{key}"], numbers[key][own], 0


def gradients(net, theta, support, tests, labels, numbers):
    """The meta-gradient, first-order MAML's, and every Hessian-vector product."""
    K = numbers["steps"]
    batch = rm.Batch(support, labels[0], tests, labels[1])
    frozen = {"frozen": ("BatchNorm2d",)}
    if K == 0:
        whole = first = rm.ERM().meta_gradient(net, theta, batch).grad
        hvps = np.zeros((0, net.num_params))
    else:
        first = rm.FirstOrderMAML(ALPHA, K, **frozen).meta_gradient(net, theta, batch).grad
        out = rm.MAML(ALPHA, K, **frozen).meta_gradient(net, theta, batch, trace=True)
        whole, hvps = out.grad, np.array([hvp[0] for hvp in out.trace["hvp"]])
    scale = max(np.abs(whole).max(), np.abs(first).max(), np.abs(hvps).max(initial=0))
    close = CLOSE * scale
    yield "first-order gradient", numbers["first"], first, close
    yield "meta-gradient", numbers["whole"], whole, close
    page = np.reshape(numbers["hvps"], (-1, net.num_params))
    yield "Hessian-vector products", page, hvps, close
    length = np.linalg.norm(whole)
    yield "length", numbers["shown"]["size"], length, close * np.sqrt(net.num_params)
    cosine = first @ whole / np.linalg.norm(first) / np.linalg.norm(whole)
    angle = np.degrees(np.arccos(min(1, cosine))) if K else 0
    # An error of a cosine counts 1 / sin in the angle.
    sine = max(np.sin(np.radians(angle)), 1e-6)
    yield "angle", numbers["shown"]["angle"], angle, np.degrees(100 * CLOSE) / sine


PLANTED = {
    "the rs term dropped": ("rs[c] * value[i] + s[c] * rvalue(i, c)", "s[c] * rvalue(i, c)"),
    "one factor of the recursion only": (
        "lam = minus(lam, hvps[k]);",
        "if (k === path.length - 2) lam = minus(lam, hvps[k]);",
    ),
    "the Hessian doubled": ("net.adapts[i] * z));\n", "2 * net.adapts[i] * z));\n"),
    "a product of two factors without its second term": (
        "plus(productDw(x, rdy, N), productDw(rx, dy, N))",
        "productDw(x, rdy, N)",
    ),
    "batch-norm's statistics as constants": ("d[i] - m[c] - xh[i] * slope[c])};", "d[i] - m[c])};"),
    "batch-norm adapts": ("i % 3 === 1 && i < 12", "i % 3 === 1 && i < 0"),
    "the mean in place of the sum": ("const scale = net.ways / N", "const scale = 1 / N"),
    "padding on the other side": ("2 * j + q - pad]", "2 * j + q - pad - 1]"),
}
DRAGS = {"pad": (60, 40, "mine"), "handle-steps": (120, 0, "steps")}
KEYS = {
    ("pad", "ARROW_RIGHT"): ("pen", [1, 0]),
    ("pad", "SPACE"): ("dots", 1),
    ("range-steps", "ARROW_RIGHT"): ("steps", 1),
    ("handle-steps", "ARROW_RIGHT"): ("steps", 1),
}
