"""A Gaussian bandit: exact meta-gradients, and what each estimator has as its mean.

    a ~ N(theta, s^2)    R(a) = -q/2 (a - g)^2    J(theta) = -q/2 (m^2 + s^2)
    g_hat = (1/N) sum_i (R_i - b) u_i             phi_hat = theta + alpha g_hat
    m = theta - g        u = (a - theta)/s^2

Two objectives have one step of adaptation. The infinite batch has J_II = J(theta +
alpha J'(theta)), and N samples have J_I = E[J(phi_hat)]:

    J_II' = -q (1 - alpha q)^2 m
    J_I'  = J_II' - (alpha^2 q^3 / 2N) (m^3/s^2 + 7 m)                   for b = 0

The second line is the derivative of J(theta + alpha J') - (q/2) (alpha^2/N) Var[R u],
see `variance`.

An estimator is (1 + alpha h_hat) J'(phi_hat), and J_I's also has the score term
sum_i u_i J(phi_hat). h_hat is the mean of A_i h_i, with A = R - b:

    naive        h = d^2 log pi = -1/s^2
    LVC, DiCE    h = u^2 - 1/s^2          the two are one where the horizon is 1
    first order  h = 0

J and J' are polynomials in phi_hat, so means need only moments of one sample, for any
N (`moments`). `direct` computes the same means as integrals over all N samples, by
another quadrature.
"""

from typing import NamedTuple

import numpy as np

ESTIMATORS = ("naive", "DiCE", "first order")


class Bandit(NamedTuple):
    """q, goal g, standard deviation s, step size alpha; theta is the policy's mean."""

    q: float = 1.0
    goal: float = 1.0
    sigma: float = 0.5
    alpha: float = 0.3
    theta: float = -0.4

    def value(self, theta):
        """J(theta)."""
        return -self.q / 2 * ((theta - self.goal) ** 2 + self.sigma**2)

    def slope(self, theta):
        """J'(theta)."""
        return -self.q * (theta - self.goal)

    def reward(self, a):
        """R(a)."""
        return -self.q / 2 * (a - self.goal) ** 2


def gradient_of_infinite(bandit):
    """J_II'(theta)."""
    return -bandit.q * (1 - bandit.alpha * bandit.q) ** 2 * (bandit.theta - bandit.goal)


def gradient_of_samples(bandit, N):
    """J_I'(theta) for N samples and no baseline."""
    m, q = bandit.theta - bandit.goal, bandit.q
    more = bandit.alpha**2 * q**3 / (2 * N) * (m**3 / bandit.sigma**2 + 7 * m)
    return gradient_of_infinite(bandit) - more


def objective_of_samples(bandit, N):
    """J_I(theta): J is quadratic, so only the variance of phi_hat counts."""
    mean = bandit.theta + bandit.alpha * bandit.slope(bandit.theta)
    spread = bandit.alpha**2 / N * variance(bandit)
    return bandit.value(mean) - bandit.q / 2 * spread


def variance(bandit):
    """Var[R u] of one sample: with e = s u normal, R = -q/2 (m + s e)^2, and E[e^2],
    E[e^4], E[e^6] are 1, 3, 15.

    E[(R u)^2] = q^2/4 (m^4 + 18 m^2 s^2 + 15 s^4)/s^2, E[R u] = -q m
    """
    m, s, q = bandit.theta - bandit.goal, bandit.sigma, bandit.q
    return q**2 / 4 * (m**4 + 18 * m**2 * s**2 + 15 * s**4) / s**2 - (q * m) ** 2


def hermite(nodes=14):
    """(nodes, weights) of the standard normal, exact for polynomials of degree 27."""
    x, w = np.polynomial.hermite_e.hermegauss(nodes)
    return x, w / w.sum()


def trapezoid(step=0.5, end=11.0):
    """(nodes, weights) of the standard normal by the trapezoidal rule.

    For a normal density times a polynomial its error is about e^{-2 (pi/step)^2}, and
    the ends leave e^{-end^2/2} out: both are below 1e-17 (Trefethen & Weideman 2014).
    """
    x = np.arange(-end, end + step / 2, step)
    w = np.exp(-(x**2) / 2)
    return x, w / w.sum()


def grid(x, N):
    """All N-tuples of the numbers x (n,), (n^N, N)."""
    return np.stack(np.meshgrid(*[x] * N, indexing="ij"), axis=-1).reshape(-1, N)


def sample_terms(bandit, e, baseline):
    """(u, A u, {estimator: A h}) of samples a = theta + s e, each like e."""
    u = e / bandit.sigma
    A = bandit.reward(bandit.theta + bandit.sigma * e) - baseline
    curvature = -1 / bandit.sigma**2
    return u, A * u, {"naive": A * curvature, "DiCE": A * (u * u + curvature), "first order": 0 * A}


def moments(bandit, N, baseline=0.0, rule=None):
    """{estimator: its mean} for N samples; N may be infinite.

    The keys "NAME + score" have the score term too. All means are of products of one or
    two of N independent samples' terms, such as Cov(h_hat, g_hat) = Cov(A h, A u)/N.
    rule  (nodes, weights) of one standard normal number; hermite() unless given
    """
    e, w = hermite() if rule is None else rule
    u, g, h = sample_terms(bandit, e, baseline)
    q, alpha, m = bandit.q, bandit.alpha, bandit.theta - bandit.goal
    mean_g = w @ g
    out = {}
    for name in ESTIMATORS:
        mean_h = w @ h[name]
        both = mean_h * mean_g + (w @ (h[name] * g) - mean_h * mean_g) / N
        out[name] = -q * (m + alpha * mean_g + alpha * mean_h * m + alpha**2 * both)
    # sum_i u_i (m + alpha g_hat)^2: E[sum u g_hat] = E[u g], and E[sum u g_hat^2] is
    square = (w @ (u * g * g) - 2 * (w @ (u * g)) * mean_g) / N + 2 * (w @ (u * g)) * mean_g
    score = -q / 2 * (2 * alpha * m * (w @ (u * g)) + alpha**2 * square)
    return out | {f"{name} + score": value + score for name, value in out.items()}


def direct(bandit, N, baseline=0.0, rule=None):
    """`moments` as an integral over all N samples, on a grid of nodes^N points.

    rule  trapezoid() unless given
    """
    x, w = trapezoid() if rule is None else rule
    e, weight = grid(x, N), grid(w, N).prod(axis=1)
    u, g, h = sample_terms(bandit, e, baseline)
    phi = bandit.theta + bandit.alpha * g.mean(axis=1)
    score = weight @ (u.sum(axis=1) * bandit.value(phi))
    out = {
        name: weight @ ((1 + bandit.alpha * h[name].mean(axis=1)) * bandit.slope(phi))
        for name in ESTIMATORS
    }
    return out | {f"{name} + score": value + score for name, value in out.items()}
