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
