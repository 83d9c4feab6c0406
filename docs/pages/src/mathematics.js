"use strict";
// The mathematics of all pages. The tests compare its numbers with refmaml's own.

// ---- vectors and matrices: arrays of numbers, arrays of rows -------------------------
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
const norm = a => Math.sqrt(dot(a, a));
const combine = (a, s, b) => a.map((x, i) => x + s * b[i]); // a + s b
const scaled = (s, a) => a.map(x => s * x);
const minus = (a, b) => combine(a, -1, b);
const times = (A, v) => A.map(row => dot(row, v));
const mean = vectors => scaled(1 / vectors.length, vectors.reduce((a, b) => combine(a, 1, b)));

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
  for (let k = K - 1; k >= 0; k--) lam[k] = combine(lam[k + 1], -alpha, task.hvp(path[k], lam[k + 1]));
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
  const phi = combine(theta, -1, solve(v => combine(scaled(lambda, v), 1, task.hvp(theta, v)), start));
  const u = solve(v => combine(v, 1 / lambda, task.hvp(phi, v)), task.grad(phi));
  return {phi, u};
}

// The directions of the methods, means over tasks.
const METHODS = {
  maml: (tasks, theta, alpha, K) => mean(tasks.map(t => adjoints(t, innerLoop(t, theta, alpha, K), alpha)[0])),
  fomaml: (tasks, theta, alpha, K) => mean(tasks.map(t => t.grad(innerLoop(t, theta, alpha, K)[K]))),
  reptile: (tasks, theta, alpha, K) => mean(tasks.map(t => minus(theta, innerLoop(t, theta, alpha, K)[K]))),
  imaml: (tasks, theta, alpha, K) => mean(tasks.map(t => implicit(t, theta, 1 / (alpha * K)).u)),
};

// M: the mean loss after K inner steps.
const metaLoss = (tasks, theta, alpha, K) =>
  tasks.reduce((sum, t) => sum + t.loss(innerLoop(t, theta, alpha, K)[K]), 0) / tasks.length;

// ---- batch-norm of one channel: arrays of M values, <a> is their mean ----------------
const sum = a => a.reduce((s, x) => s + x, 0);
const average = a => sum(a) / a.length;
const product = (a, b) => a.map((x, i) => x * b[i]); // elementwise
const centred = a => { const m = average(a); return a.map(x => x - m); };

function normForward(x, eps) {
  const c = centred(centred(x)), s = 1 / Math.sqrt(average(product(c, c)) + eps);
  return {xh: scaled(s, c), s};
}

// dx = s (dxh - <dxh> - xh <dxh xh>)
const normInner = (dxh, xh) => combine(centred(dxh), -average(product(dxh, xh)), xh);
const normBackward = (dxh, {xh, s}) => scaled(s, normInner(dxh, xh));

// rxh = s (rx - <rx> - xh <xh rx>), rs = -s^2 <xh rx>
const normTangent = (rx, {xh, s}) => ({rxh: scaled(s, normInner(rx, xh)), rs: -s * s * average(product(xh, rx))});

// The product rule on normBackward.
function normTangentBackward(dxh, rdxh, {xh, s}, {rxh, rs}) {
  const slope = average(product(dxh, xh)), rslope = average(combine(product(rdxh, xh), 1, product(dxh, rxh)));
  const rinner = combine(combine(centred(rdxh), -slope, rxh), -rslope, xh);
  return combine(scaled(rs, normInner(dxh, xh)), s, rinner);
}

// ---- a net of four layers, a = W x, batch-norm, tanh, p = w h, and half the mean square
// of p - y; four passes. params and along: {W, gamma, beta, w}. Columns of a, xh, n, h
// are channels: lists of one array for each channel. count(layer, pass) counts products.
const EPS = 1e-5;

function netPasses({x, y}, params, along, count = () => {}) {
  const {W, gamma, beta, w} = params, V = along, N = y.length, channels = [...gamma.keys()];
  const each = f => channels.map(f), examples = f => y.map((_, n) => f(n));
  const firstLayer = U => each(c => x.map(row => dot(U[c], row)));
  const lastLayer = (u, g) => examples(n => each(c => u[c] * g[c][n]).reduce((s, z) => s + z, 0));
  count("first", "forward");
  const a = firstLayer(W), norms = each(c => normForward(a[c], EPS)), xh = norms.map(z => z.xh);
  const n = each(c => xh[c].map(z => gamma[c] * z + beta[c])), h = n.map(row => row.map(Math.tanh));
  count("last", "forward");
  const p = lastLayer(w, h), e = minus(p, y), loss = dot(e, e) / (2 * N);

  count("first", "r_forward");
  const ra = firstLayer(V.W), tangents = each(c => normTangent(ra[c], norms[c])), rxh = tangents.map(z => z.rxh);
  const rn = each(c => combine(combine(scaled(V.gamma[c], xh[c]), gamma[c], rxh[c]), V.beta[c], xh[c].map(() => 1)));
  const slope = h.map(row => row.map(z => 1 - z * z)), rh = each(c => product(slope[c], rn[c]));
  count("last", "r_forward", 2);
  const rp = combine(lastLayer(w, rh), 1, lastLayer(V.w, h));

  const dp = scaled(1 / N, e);
  count("last", "backward", 2);
  const dw = each(c => dot(h[c], dp)), dh = each(c => scaled(w[c], dp));
  const dn = each(c => product(dh[c], slope[c])), dxh = each(c => scaled(gamma[c], dn[c]));
  const da = each(c => normBackward(dxh[c], norms[c]));
  count("first", "backward");
  const dW = each(c => x[0].map((_, j) => sum(examples(i => da[c][i] * x[i][j]))));
  const grad = {W: dW, gamma: each(c => dot(dn[c], xh[c])), beta: dn.map(sum), w: dw};

  const rdp = scaled(1 / N, rp);
  count("last", "r_backward", 4);
  const rdw = each(c => dot(rh[c], dp) + dot(h[c], rdp));
  const rdh = each(c => combine(scaled(w[c], rdp), V.w[c], dp));
  const rdn = each(c => combine(product(rdh[c], slope[c]), -2, product(dh[c], product(h[c], rh[c]))));
  const rdxh = each(c => combine(scaled(V.gamma[c], dn[c]), gamma[c], rdn[c]));
  const rda = each(c => normTangentBackward(dxh[c], rdxh[c], norms[c], tangents[c]));
  count("first", "r_backward");
  const hvp = {
    W: each(c => x[0].map((_, j) => sum(examples(i => rda[c][i] * x[i][j])))),
    gamma: each(c => dot(rdn[c], xh[c]) + dot(dn[c], rxh[c])), beta: rdn.map(sum), w: rdw,
  };
  return {
    loss, grad, hvp, norms, tangents,
    forward: {a, xh, h, p: [p]}, r_forward: {a: ra, xh: rxh, h: rh, p: [rp]},
    backward: {a: da, xh: dxh, h: dh, p: [dp]}, r_backward: {a: rda, xh: rdxh, h: rdh, p: [rdp]},
  };
}

const flat = ({W, gamma, beta, w}) => [...W.flat(), ...gamma, ...beta, ...w];
const moved = (p, r, v) => ({
  W: p.W.map((row, i) => combine(row, r, v.W[i])), gamma: combine(p.gamma, r, v.gamma),
  beta: combine(p.beta, r, v.beta), w: combine(p.w, r, v.w),
});

// ---- the complex step on batch-norm: derivatives that share no line with the above ----
// Complex vectors are {re, im}. Im f(x + i h v) / h is the derivative of f along v.
const STEP = 1e-30;
const complex = (re, im) => ({re, im});
const times_c = (a, b) => complex(combine(product(a.re, b.re), -1, product(a.im, b.im)), combine(product(a.re, b.im), 1, product(a.im, b.re)));
const minus_c = (a, b) => complex(minus(a.re, b.re), minus(a.im, b.im));
const mean_c = a => complex(a.re.map(() => average(a.re)), a.im.map(() => average(a.im)));
function inverse_root(a) {
  const size = a.re.map((x, i) => Math.hypot(x, a.im[i]) ** -0.5), half = a.re.map((x, i) => -Math.atan2(a.im[i], x) / 2);
  return complex(size.map((r, i) => r * Math.cos(half[i])), size.map((r, i) => r * Math.sin(half[i])));
}
function complexNorm(x) {
  const c = minus_c(x, mean_c(x)), variance = mean_c(times_c(c, c));
  const s = inverse_root(complex(variance.re.map(z => z + EPS), variance.im));
  return {xh: times_c(s, c), s};
}
// dx of the loss <dxh, xh>, entry by entry, from the forward pass alone.
const stepBackward = (x, dxh) => x.map((_, j) => dot(dxh, complexNorm(complex(x, x.map((_, i) => (i === j ? STEP : 0)))).xh.im) / STEP);
// rdx: the backward pass, written once more in complex numbers, along (rx, rdxh).
function stepTangentBackward(x, rx, dxh, rdxh) {
  const {xh, s} = complexNorm(complex(x, scaled(STEP, rx))), d = complex(dxh, scaled(STEP, rdxh));
  const inner = minus_c(minus_c(d, mean_c(d)), times_c(xh, mean_c(times_c(d, xh))));
  return scaled(1 / STEP, times_c(s, inner).im);
}

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

// ---- random numbers: the same seed gives the same page --------------------------------
// Uniform in (0, 1): mulberry32 (T. Ettinger). Normal: Box and Muller.
function generator(seed) {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  let spare = null;
  return function normal() {
    if (spare !== null) { const kept = spare; spare = null; return kept; }
    const r = Math.sqrt(-2 * Math.log(uniform())), t = 2 * Math.PI * uniform();
    spare = r * Math.sin(t);
    return r * Math.cos(t);
  };
}

// ---- subspaces: a matrix is a list of its columns --------------------------------------
// Orthonormal columns with the same span, by Gram and Schmidt, twice.
function orthonormal(columns) {
  const found = [];
  for (let column of columns) {
    for (let twice = 0; twice < 2; twice++) for (const q of found) column = combine(column, -dot(q, column), q);
    found.push(scaled(1 / norm(column), column));
  }
  return found;
}

// The singular values, largest first, by one-sided Jacobi rotations (Hestenes 1958).
function singularValues(columns) {
  const a = columns.map(column => [...column]);
  for (let sweep = 0; sweep < 30; sweep++) {
    let off = 0;
    for (let i = 0; i < a.length; i++) for (let j = i + 1; j < a.length; j++) {
      const p = dot(a[i], a[i]), q = dot(a[j], a[j]), r = dot(a[i], a[j]);
      if (r === 0 || Math.abs(r) <= 1e-17 * Math.sqrt(p * q)) continue;
      off = Math.max(off, Math.abs(r) / Math.sqrt(p * q));
      const z = (q - p) / (2 * r), t = (z < 0 ? -1 : 1) / (Math.abs(z) + Math.sqrt(1 + z * z));
      const c = 1 / Math.sqrt(1 + t * t), s = c * t;
      [a[i], a[j]] = [combine(scaled(c, a[i]), -s, a[j]), combine(scaled(s, a[i]), c, a[j])];
    }
    if (off < 1e-15) break;
  }
  return a.map(norm).sort((x, y) => y - x);
}

// The largest angle between col(B) and the span of orthonormal columns, in degrees:
// its sine is the largest singular value of (I - Q Q') B for orthonormal B.
function principalAngle(B, Q) {
  const outside = orthonormal(B).map(column => Q.reduce((rest, q) => combine(rest, -dot(q, column), q), column));
  return (Math.asin(Math.min(1, singularValues(outside)[0])) * 180) / Math.PI;
}

// ---- the two-layer linear model: y = <w, B' x>, half the mean squared error -----------
// task: {x: rows, y, x2, y2}, support and query. Returns the head after one step, w1.
function adaptHead(B, w, {x, y}, alpha) {
  const z = x.map(row => B.map(column => dot(column, row)));
  const e = z.map((zi, i) => dot(zi, w) - y[i]);
  return w.map((wc, c) => wc - (alpha / y.length) * e.reduce((s, ei, i) => s + ei * z[i][c], 0));
}

// The query loss's gradient at (B, head), as {B: columns, w}.
function headGradient(B, head, {x2, y2}) {
  const z = x2.map(row => B.map(column => dot(column, row)));
  const e = z.map((zi, i) => (dot(zi, head) - y2[i]) / y2.length);
  const back = x2[0].map((_, j) => e.reduce((s, ei, i) => s + ei * x2[i][j], 0)); // X' e
  return {B: head.map(h => scaled(h, back)), w: head.map((_, c) => e.reduce((s, ei, i) => s + ei * z[i][c], 0))};
}

// One step of training by FO-ANIL (alpha > 0) or ERM (alpha = 0); also the means of
// w w' and of w_* w' over the tasks' heads.
function subspaceStep({B, w}, tasks, alpha, beta) {
  let next = {B, w};
  const k = w.length, zero = () => w.map(() => w.map(() => 0)), spread = zero(), signal = zero();
  for (const task of tasks) {
    const head = alpha > 0 ? adaptHead(B, w, task, alpha) : w, gradient = headGradient(B, head, task);
    const rate = -beta / tasks.length;
    next = {B: next.B.map((column, c) => combine(column, rate, gradient.B[c])), w: combine(next.w, rate, gradient.w)};
    for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) {
      spread[j][i] += (head[i] * head[j]) / tasks.length;
      signal[j][i] += (task.head[i] * head[j]) / tasks.length;
    }
  }
  return {...next, spread, signal};
}

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
  return {phi, value: quadratic(A, c).loss(phi) + (lambda / 2) * dot(way, way), gradient: scaled(lambda, way)};
}

// ---- a net x -> 40 -> 40 -> y with ReLU, and the mean squared error --------------------
// w: all weights in one array, layer by layer: the matrix (outputs, inputs), then biases.
const SIZES = [1, 40, 40, 1];

function netForward(w, x) {
  const layers = [[x]];
  let place = 0;
  for (let l = 0; l + 1 < SIZES.length; l++) {
    const [I, O] = [SIZES[l], SIZES[l + 1]], input = layers[l], output = new Float64Array(O), bias = place + I * O;
    for (let o = 0; o < O; o++) {
      let s = 0;
      for (let i = 0; i < I; i++) s += w[place + o * I + i] * input[i];
      s += w[bias + o];
      output[o] = l + 2 < SIZES.length ? Math.max(s, 0) : s;
    }
    layers.push(output);
    place = bias + O;
  }
  return layers;
}
const netOutput = (w, x) => netForward(w, x).at(-1)[0];

// The gradient of the mean of (net(x) - y)^2.
function netGradient(w, points) {
  const grad = new Float64Array(w.length);
  for (const [x, y] of points) {
    const layers = netForward(w, x);
    let d = [(2 * (layers.at(-1)[0] - y)) / points.length], end = w.length;
    for (let l = SIZES.length - 2; l >= 0; l--) {
      const [I, O] = [SIZES[l], SIZES[l + 1]], bias = end - O, place = bias - I * O, back = new Float64Array(I);
      for (let o = 0; o < O; o++) {
        grad[bias + o] += d[o];
        for (let i = 0; i < I; i++) {
          grad[place + o * I + i] += d[o] * layers[l][i];
          back[i] += d[o] * w[place + o * I + i];
        }
      }
      d = Array.from(back, (b, i) => (layers[l][i] > 0 ? b : 0));
      end = place;
    }
  }
  return grad;
}

// The weights after 0, 1, ... K steps of gradient descent on the points.
function netAdapt(w, points, alpha, K) {
  const path = [w];
  for (let k = 0; k < K; k++) {
    const grad = netGradient(path[k], points);
    path.push(path[k].map((z, i) => z - alpha * grad[i]));
  }
  return path;
}
