"use strict";
// The mathematics of all pages: vectors, iMAML's anchor, meta-gradients, conjugate
// gradients, priors. The tests compare its numbers with refmaml's own.

// ---- vectors and matrices: arrays of numbers, arrays of rows -------------------------
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const norm = a => Math.sqrt(dot(a, a));
const combine = (a, s, b) => a.map((x, i) => x + s * b[i]); // a + s b
const scaled = (s, a) => a.map(x => s * x);
const minus = (a, b) => combine(a, -1, b);
const times = (A, v) => A.map(row => dot(row, v));
const mean = vectors => scaled(1 / vectors.length, vectors.reduce((a, b) => combine(a, 1, b)));
const sum = a => a.reduce((s, x) => s + x, 0);
const average = a => sum(a) / a.length;
const product = (a, b) => a.map((x, i) => x * b[i]); // elementwise

// A = Q diag(values) Q' of a symmetric 2 x 2 matrix; the columns of Q are the vectors.
function symmetricEigen([[a, b], [, d]]) {
  const t = b === 0 ? 0 : Math.atan2(2 * b, a - d) / 2, [c, s] = [Math.cos(t), Math.sin(t)];
  const first = a * c * c + 2 * b * c * s + d * s * s;
  return {values: [first, a + d - first], vectors: [[c, -s], [s, c]]};
}

// Q diag(values) Q' with Q the rotation by an angle in degrees.
function symmetric(values, angle) {
  const t = (angle * Math.PI) / 180, [c, s] = [Math.cos(t), Math.sin(t)], [p, q] = values;
  const off = (p - q) * c * s;
  return [[p * c * c + q * s * s, off], [off, p * s * s + q * c * c]];
}

// ---- iMAML in one dimension ----------------------------------------------------------
// A function of one number: f, its derivatives df and ddf, and the largest |ddf|.
const WAVY = {
  f: w => Math.sin(3 * w) + 0.5 * Math.cos(7 * w) + 0.1 * w * w,
  df: w => 3 * Math.cos(3 * w) - 3.5 * Math.sin(7 * w) + 0.2 * w,
  ddf: w => -9 * Math.sin(3 * w) - 24.5 * Math.cos(7 * w) + 0.2,
  curvature: 9 + 24.5 + 0.2,
};
const wells = w => [[1.2, 0.25], [-1.2, 0.8]].map(([centre, width]) => {
  const z = (w - centre) / width;
  return {z, width, value: -1.2 * Math.exp((-z * z) / 2)};
});
const WELLS = {
  f: w => 0.05 * w * w + wells(w).reduce((sum, v) => sum + v.value, 0),
  df: w => 0.1 * w - wells(w).reduce((sum, v) => sum + (v.z / v.width) * v.value, 0),
  ddf: w => 0.1 + wells(w).reduce((sum, v) => sum + ((v.z * v.z - 1) / v.width ** 2) * v.value, 0),
  curvature: 0.1 + 1.2 / 0.25 ** 2 + 1.2 / 0.8 ** 2,
};

// theta*: where gradient descent on f(w) + (lambda/2) (w - anchor)^2 ends that starts at
// the anchor. Its steps pass no minimum; Newton's method finds the last digits.
function anchored({df, ddf, curvature}, anchor, lambda) {
  let w = anchor;
  const slope = w => df(w) + lambda * (w - anchor), step = 1 / (curvature + lambda);
  for (let k = 0; k < 4000; k++) {
    const move = step * slope(w);
    w -= move;
    if (Math.abs(move) <= 1e-9) break;
  }
  for (let k = 0; k < 3; k++) w -= slope(w) / (ddf(w) + lambda);
  return w;
}

// d theta* / d anchor, by the implicit function theorem.
const anchoredSlope = ({ddf}, w, lambda) => 1 / (1 + ddf(w) / lambda);

// ---- meta-gradients of one task, given as {loss, grad, hvp} --------------------------
// f(w) = (w - c)' A (w - c) / 2.
const quadratic = (A, c) => ({
  loss: w => dot(minus(w, c), times(A, minus(w, c))) / 2,
  grad: w => times(A, minus(w, c)),
  hvp: (w, v) => times(A, v),
});

// phi_0 = theta, phi_{k+1} = phi_k - alpha grad f(phi_k).
function innerLoop(task, theta, alpha, K) {
  const path = [theta];
  for (let k = 0; k < K; k++) path.push(combine(path[k], -alpha, task.grad(path[k])));
  return path;
}

// lam_K = grad g(phi_K), lam_k = lam_{k+1} - alpha H(phi_k) lam_{k+1}; here g = f.
function adjoints(task, path, alpha) {
  const K = path.length - 1, lam = [];
  lam[K] = task.grad(path[K]);
  for (let k = K - 1; k >= 0; k--) lam[k] =
      combine(lam[k + 1], -alpha, task.hvp(path[k], lam[k + 1]));
  return lam;
}

// Solves A x = b, A given by its products; xs are the iterates from 0.
function conjugateGradients(product, b, steps, tol = 1e-10) {
  let x = b.map(() => 0), r = b, p = b, rr = dot(r, r);
  const found = {xs: [x], residuals: [Math.sqrt(rr)], directions: [], status: "maxiter"};
  const goal = tol * Math.sqrt(rr);
  if (found.residuals[0] <= goal) found.status = "converged";
  while (found.status === "maxiter" && found.xs.length <= steps) {
    const Ap = product(p), curvature = dot(p, Ap);
    if (curvature <= 0) {
      found.status = curvature < 0 ? "negative_curvature" : "breakdown";
      found.directions.push(p);
      break;
    }
    const a = rr / curvature;
    found.directions.push(p);
    x = combine(x, a, p);
    r = combine(r, -a, Ap);
    const next = dot(r, r);
    p = combine(r, next / rr, p);
    rr = next;
    found.xs.push(x);
    found.residuals.push(Math.sqrt(rr));
    if (Math.sqrt(rr) <= goal) found.status = "converged";
  }
  return found;
}

const solve = (product, b) => conjugateGradients(product, b, 4 * b.length, 1e-15).xs.at(-1);

// The solution of a quadratic task with the penalty (lambda/2) |phi - theta|^2, and
// u = (I + H/lambda)^-1 grad f(phi*), iMAML's gradient.
function implicit(task, theta, lambda) {
  const start = task.grad(theta);
  const phi = combine(theta, -1,
      solve(v => combine(scaled(lambda, v), 1, task.hvp(theta, v)), start));
  const u = solve(v => combine(v, 1 / lambda, task.hvp(phi, v)), task.grad(phi));
  return {phi, u};
}

// The directions of the methods, means over tasks.
const METHODS = {
  maml: (tasks, theta, alpha, K) =>
      mean(tasks.map(t => adjoints(t, innerLoop(t, theta, alpha, K), alpha)[0])),
  fomaml: (tasks, theta, alpha, K) =>
      mean(tasks.map(t => t.grad(innerLoop(t, theta, alpha, K)[K]))),
  reptile: (tasks, theta, alpha, K) =>
      mean(tasks.map(t => minus(theta, innerLoop(t, theta, alpha, K)[K]))),
  imaml: (tasks, theta, alpha, K) => mean(tasks.map(t => implicit(t, theta, 1 / (alpha * K)).u)),
};

// M: the mean loss after K inner steps.
const metaLoss = (tasks, theta, alpha, K) =>
  tasks.reduce((sum, t) => sum + t.loss(innerLoop(t, theta, alpha, K)[K]), 0) / tasks.length;

// ---- descent on u' A u / 2 - b' u with exact steps, to compare CG with ----------------
function steepestDescent(product, b, steps) {
  const xs = [b.map(() => 0)];
  for (let k = 0; k < steps; k++) {
    const r = minus(b, product(xs[k])), curvature = dot(r, product(r));
    if (curvature <= 0) break;
    xs.push(combine(xs[k], dot(r, r) / curvature, r));
  }
  return xs;
}

// |u_k - u|_A / |u|_A <= 2 ((sqrt(kappa) - 1) / (sqrt(kappa) + 1))^k
const cgBound = (kappa, k) => 2 * ((Math.sqrt(kappa) - 1) / (Math.sqrt(kappa) + 1)) ** k;

// ---- early stopping as a Gaussian prior ------------------------------------------------
// The prior's precision along an eigenvector of curvature s, for which K steps of
// gradient descent of size alpha end at the most probable parameters.
function priorPrecision(s, alpha, K) {
  const left = (1 - alpha * s) ** K;
  return (s * left) / (1 - left);
}

// A matrix with A's eigenvectors and the eigenvalues f(s).
function ofEigenvalues(A, f) {
  const {values: s, vectors: Q} = symmetricEigen(A), g = s.map(f);
  return [0, 1].map(i => [0, 1].map(j => Q[i][0] * g[0] * Q[j][0] + Q[i][1] * g[1] * Q[j][1]));
}

function solve2([[a, b], [c, d]], [x, y]) {
  const determinant = a * d - b * c;
  return [(d * x - b * y) / determinant, (a * y - c * x) / determinant];
}

// The maximum of -(w - c)' A (w - c) / 2 - (w - theta)' P (w - theta) / 2.
function mostProbable(A, c, P, theta) {
  const sum = A.map((row, i) => combine(row, 1, P[i]));
  return solve2(sum, combine(times(A, c), 1, times(P, theta)));
}

// min over phi of f(phi) + (lambda/2) |phi - theta|^2, and its gradient in theta.
function envelope(A, c, theta, lambda) {
  const {phi} = implicit(quadratic(A, c), theta, lambda), way = minus(theta, phi);
  return {phi, value: quadratic(A, c).loss(phi) + (lambda / 2) * dot(way, way),
      gradient: scaled(lambda, way)};
}
