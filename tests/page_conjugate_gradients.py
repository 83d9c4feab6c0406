"""What the page docs/pages/conjugate_gradients.html must compute, by refmaml."""

import numpy as np

import refmaml as rm
from refmaml.oracles.tolerance import tolerance

NAME = "conjugate_gradients"
SETTINGS = [
    {},
    {"lambda": 6, "largest": 10, "smallest": 3, "steps": 4},
    {"lambda": 2, "smallest": -4},
    {"largest": 5, "smallest": 5, "steps": 1},
]
FIRST = 10  # steps compared: later, rounding decides which direction comes next


def solved(A, b, steps):
    """The Solution of A x = b after so many steps."""
    return rm.conjugate_gradients(lambda v: v @ A, np.array([b]), maxiter=steps)


def compare(numbers):
    """(quantity, the page's value, refmaml's, allowed difference)."""
    diagonal, A = np.array(numbers["diagonal"]), np.array(numbers["A"])
    kappa = max(abs(diagonal)) / min(abs(diagonal))
    systems = {"inPlane": (A, numbers["b"]), "many": (np.diag(diagonal), np.ones(len(diagonal)))}
    for name, (matrix, b) in systems.items():
        page = numbers[name]
        last = min(len(page["xs"]) - 1, FIRST)
        # Sums of n terms in each of k steps; r carries the errors of A's products, and
        # they count kappa times in x (Greenbaum 1989: the first steps lose no more).
        allowed = kappa * tolerance(float, len(b) * (last + 1))
        for k in range(last + 1):
            x = solved(matrix, b, k).x[0]
            size = max(np.abs(x).max(), np.abs(b).max() / np.abs(matrix).max())
            yield f"{name}: x_{k}", page["xs"][k], x, allowed * size
        found = solved(matrix, b, len(page["xs"]) - 1 if last < FIRST else FIRST)
        residuals = found.residuals[: last + 1, 0]
        page_residuals = page["residuals"][: last + 1]
        yield f"{name}: residuals", page_residuals, residuals, allowed * residuals[0]
        status = solved(matrix, b, 2 if name == "inPlane" else 24).status[0]
        yield f"{name}: status is not {status}", page["status"] != status, 0, 0
    yield from figures(numbers, diagonal, A, kappa)


def figures(numbers, diagonal, A, kappa):
    """kappa, the first step, the errors in the energy norm, and their bound."""
    shown, b, close = numbers["shown"], np.array(numbers["b"]), tolerance(float, 8)
    curvature, size = b @ A @ b, np.linalg.norm(A) * (b @ b)
    yield "b", b, A @ numbers["u"], close * np.abs(b).max()
    yield "b'Ab", shown["pAp"], curvature, close * size
    yield "a_0", shown["a"], b @ b / curvature, close * abs(b @ b / curvature**2) * size
    H = numbers["lambda"] * (A - np.eye(2))
    values = np.linalg.eigvalsh(H)
    expected = sorted([numbers["smallest"], numbers["largest"]])
    yield "curvatures", values, expected, close * max(np.abs(expected)) * numbers["lambda"]
    yield "definite", numbers["definite"], bool(diagonal.min() > 0), 0
    if not numbers["definite"]:
        return
    by_numpy = np.linalg.cond(np.diag(diagonal))
    yield "kappa", shown["kappa"], by_numpy, close * kappa**2
    exact, steps = 1 / diagonal, min(numbers["steps"], len(numbers["errors"]) - 1)
    error = np.array(numbers["many"]["xs"][steps]) - exact
    energy = np.sqrt(error @ (diagonal * error) / (exact @ (diagonal * exact)))
    yield "error", shown["error"], energy, 100 * close * energy + 1e-15
    ratio = (np.sqrt(by_numpy) - 1) / (np.sqrt(by_numpy) + 1)
    bound = 2 * ratio ** numbers["steps"]
    # The derivative of the bound in kappa is below k / sqrt(kappa) times itself.
    yield "bound", shown["bound"], bound, close * (1 + numbers["steps"] * kappa) * max(bound, 1e-9)
    broken = [e > 2 * ratio**k + 1e-12 for k, e in enumerate(numbers["errors"])]
    yield "errors above the bound", sum(broken), 0, 0
    yield from descent(numbers, A, b)


def descent(numbers, A, b):
    """Steepest descent, written once more."""
    x = np.zeros(2)
    for k in range(4):
        yield f"descent: x_{k}", numbers["descents"][k], x, 1e-13 * np.abs(b).max()  # 4 products
        r = b - A @ x
        if r @ A @ r < 1e-20:
            return
        x = x + (r @ r) / (r @ A @ r) * r


PLANTED = {
    "directions not conjugate": ("p = combine(r, next / rr, p)", "p = r"),
    "a step of twice the length": ("const a = rr / curvature;", "const a = 2 * rr / curvature;"),
    "negative curvature not noticed": ("if (curvature <= 0) {", "if (curvature === 0) {"),
    "lambda not inverted": (
        "[1 + values.largest / values.lambda",
        "[1 + values.largest * values.lambda",
    ),
}
DRAGS = {"handle-u": (-40, 30, "u"), "handle-k": (50, 0, "steps")}
KEYS = {
    ("handle-u", "ARROW_DOWN"): ("u", [0, -0.05]),
    ("handle-k", "ARROW_RIGHT"): ("steps", 1),
    ("range-lambda", "ARROW_RIGHT"): ("lambda", 0.2),
}
