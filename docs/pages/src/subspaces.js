"use strict";
// Random numbers, subspaces, and the two-layer linear model.

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
    for (let twice = 0; twice < 2; twice++) for (const q of found) column =
        combine(column, -dot(q, column), q);
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
  const outside = orthonormal(B).map(column =>
      Q.reduce((rest, q) => combine(rest, -dot(q, column), q), column));
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
  return {B: head.map(h => scaled(h, back)),
      w: head.map((_, c) => e.reduce((s, ei, i) => s + ei * z[i][c], 0))};
}

// One step of training by FO-ANIL (alpha > 0) or ERM (alpha = 0); also the means of
// w w' and of w_* w' over the tasks' heads.
function subspaceStep({B, w}, tasks, alpha, beta) {
  let next = {B, w};
  const k = w.length, zero = () => w.map(() => w.map(() => 0)), spread = zero(), signal = zero();
  for (const task of tasks) {
    const head = alpha > 0 ? adaptHead(B, w, task, alpha) : w,
        gradient = headGradient(B, head, task);
    const rate = -beta / tasks.length;
    next = {B: next.B.map((column, c) => combine(column, rate, gradient.B[c])),
        w: combine(next.w, rate, gradient.w)};
    for (let i = 0; i < k; i++) for (let j = 0; j < k; j++) {
      spread[j][i] += (head[i] * head[j]) / tasks.length;
      signal[j][i] += (task.head[i] * head[j]) / tasks.length;
    }
  }
  return {...next, spread, signal};
}
