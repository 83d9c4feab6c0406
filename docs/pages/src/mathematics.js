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
