"use strict";
// One parameter: the derivative of the inner loop, and objectives with noise around an
// anchor. A function of one number is {f, df, ddf}, as in mathematics.js.

const QUARTIC = {f: w => w ** 4 / 4 - w * w / 2, df: w => w ** 3 - w, ddf: w => 3 * w * w - 1};
const BOWL = {f: w => w * w / 2, df: w => w, ddf: () => 1};

// ---- K steps of gradient descent on f(w) + (lambda/2) (w - theta)^2, and derivatives ----
// D_k = d phi_k / d theta is read from the start, lam_k from the end:
//   D_0 = 1              D_{k+1} = (1 - alpha (f''(phi_k) + lambda)) D_k + alpha lambda
//   lam_K = f'(phi_K)    lam_k   = (1 - alpha (f''(phi_k) + lambda)) lam_{k+1}
// Both give dM/dtheta: f'(phi_K) D_K, and lam_0 + alpha lambda (lam_1 + ... + lam_K).
function scalarLoop({f, df, ddf}, theta, alpha, K, lambda) {
  const phi = [theta], factors = [], D = [1], lam = [];
  for (let k = 0; k < K; k++) {
    phi.push(phi[k] - alpha * (df(phi[k]) + lambda * (phi[k] - theta)));
    factors.push(1 - alpha * (ddf(phi[k]) + lambda));
    D.push(factors[k] * D[k] + alpha * lambda);
  }
  lam[K] = df(phi[K]);
  for (let k = K - 1; k >= 0; k--) lam[k] = factors[k] * lam[k + 1];
  return {phi, factors, D, lam, value: f(phi[K]), forward: df(phi[K]) * D[K],
      backward: lam[0] + alpha * lambda * sum(lam.slice(1))};
}

// ---- noise in the start of iMAML's inner solver -----------------------------------------
// The density and the distribution of N(0, 1); the series of Marsaglia 2004.
const density = z => Math.exp((-z * z) / 2) / Math.sqrt(2 * Math.PI);
function distribution(z) {
  if (Math.abs(z) > 8.5) return z > 0 ? 1 : 0;
  let total = z, term = z;
  for (let i = 3; total + term !== total; i += 2) {
    term *= (z * z) / i;
    total += term;
  }
  return 0.5 + total * density(z);
}

// All w with F'(w) = 0, F = f + (lambda/2) (w - anchor)^2: minima and maxima in turn.
// Outside of the interval the penalty is steeper than f: |f'| < 7.2 near all anchors.
const CELLS = 800;
function stationaryPoints({df, ddf}, anchor, lambda) {
  const slope = w => df(w) + lambda * (w - anchor), reach = 1 + 7.2 / lambda;
  const found = [], at = i => anchor - reach + (2 * reach * i) / CELLS;
  for (let i = 0; i < CELLS; i++) {
    let [a, b] = [at(i), at(i + 1)];
    const rising = slope(b) > 0;
    if (slope(a) > 0 === rising) continue;
    for (let k = 0; k < 30; k++) {
      const middle = (a + b) / 2;
      if (slope(middle) > 0 === rising) b = middle; else a = middle;
    }
    const w = (a + b) / 2;
    found.push({w: w - slope(w) / (ddf(w) + lambda), minimum: rising});
  }
  return found;
}

// Descent starts at anchor + sigma N(0, 1) and ends in the minimum of its basin; basins
// meet at the maxima. S = sum p_i f(w_i), and the two parts of dS/d anchor: the solutions
// move (iMAML's gradient), and their probabilities change.
function stochasticObjective(problem, anchor, lambda, sigma) {
  const points = stationaryPoints(problem, anchor, lambda);
  const edge = point => { // its place in the noise, and the derivative of the distribution
    const z = (point.w - anchor) / sigma;
    const moves = (anchoredSlope(problem, point.w, lambda) - 1) / sigma;
    return {below: distribution(z), change: density(z) * moves};
  };
  const edges = [{below: 0, change: 0}, ...points.filter(p => !p.minimum).map(edge),
      {below: 1, change: 0}];
  const found = {value: 0, moving: 0, choosing: 0, solutions: []};
  points.filter(p => p.minimum).forEach(({w}, i) => {
    const p = edges[i + 1].below - edges[i].below, value = problem.f(w);
    found.value += p * value;
    found.moving += p * problem.df(w) * anchoredSlope(problem, w, lambda);
    found.choosing += (edges[i + 1].change - edges[i].change) * value;
    found.solutions.push({w, p});
  });
  return {...found, gradient: found.moving + found.choosing};
}

// ---- a normal distribution in place of a solution ------------------------------------------
// The means of f, f' and f'' under N(m, s^2), in closed form.
const MEANS = {
  wavy: (m, s) => {
    const a = Math.exp(-4.5 * s * s), b = Math.exp(-24.5 * s * s);
    return {
      f: a * Math.sin(3 * m) + 0.5 * b * Math.cos(7 * m) + 0.1 * (m * m + s * s),
      df: 3 * a * Math.cos(3 * m) - 3.5 * b * Math.sin(7 * m) + 0.2 * m,
      ddf: -9 * a * Math.sin(3 * m) - 24.5 * b * Math.cos(7 * m) + 0.2,
    };
  },
  wells: (m, s) => {
    const found = {f: 0.05 * (m * m + s * s), df: 0.1 * m, ddf: 0.1};
    for (const [centre, width] of [[1.2, 0.25], [-1.2, 0.8]]) {
      const wide = Math.hypot(width, s), z = (m - centre) / wide;
      const u = ((-1.2 * width) / wide) * Math.exp((-z * z) / 2);
      found.f += u;
      found.df -= (z / wide) * u;
      found.ddf += ((z * z - 1) / wide ** 2) * u;
    }
    return found;
  },
};

// V = min over m, s of KL(N(m, s^2) | N(anchor, 1/lambda)) + the mean of f. Its gradient is
// lambda (anchor - m). Steps along the natural gradient from the prior itself.
const RATE = 0.2, STEPS = 400;
function variationalObjective(means, anchor, lambda) {
  let m = anchor, precision = lambda;
  for (let k = 0; k < STEPS; k++) {
    const {df, ddf} = means(m, 1 / Math.sqrt(precision));
    precision = Math.max(precision + RATE * (lambda + ddf - precision), precision / 2);
    m -= (RATE * (df + lambda * (m - anchor))) / precision;
  }
  const s = 1 / Math.sqrt(precision), ratio = lambda * s * s;
  const divergence = (ratio + lambda * (m - anchor) ** 2 - 1 - Math.log(ratio)) / 2;
  return {m, s, value: divergence + means(m, s).f, gradient: lambda * (anchor - m)};
}
