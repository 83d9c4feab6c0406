"use strict";
// The net of few-shot learning by hand: four blocks of convolution, batch-norm and ReLU,
// the mean over positions, a linear layer, cross-entropy. A layer has four passes:
//   forward(w, x, N)                   {y, and what the other passes need}
//   backward(w, at, dy, N)             {dx, dw}
//   rForward(w, rw, at, rx, N)         {ry, ...}       along the direction (rw, rx)
//   rBackward(w, rw, at, r, dy, rdy, N)  {rdx, rdw}    the product rule on backward
// Arrays are flat: x[((n * C + c) * H + i) * H + j].

const zeros = count => new Float64Array(count);
const plus = (a, b) => a.map((x, i) => x + b[i]);

// The sums over examples and positions of each channel; a has N examples of O channels.
function channelSums(a, N, O) {
  const found = zeros(O), L = a.length / (N * O);
  for (let i = 0; i < a.length; i++) found[Math.floor(i / L) % O] += a[i];
  return found;
}
// f(i, channel) for every number of such an array.
function byChannel(count, N, O, f) {
  const found = zeros(count), L = count / (N * O);
  for (let i = 0; i < count; i++) found[i] = f(i, Math.floor(i / L) % O);
  return found;
}
const withBias = (y, bias, N) =>
    byChannel(y.length, N, bias.length, (i, o) => y[i] + bias[o]);
const joined = (...parts) => {
  const found = zeros(parts.reduce((count, part) => count + part.length, 0));
  parts.reduce((place, part) => { found.set(part, place); return place + part.length; }, 0);
  return found;
};

// ---- a bilinear layer: w x + b. Each of its K = weights per output reads one input -----
// source[l * K + k]: the input that weight k reads for position l; -1 is padding.
function bilinear(inputs, outputs, L, source) {
  const K = source.length / L, weights = outputs * K;
  const product = (x, w, N) => {
    const y = zeros(N * outputs * L);
    for (let n = 0; n < N; n++) for (let o = 0; o < outputs; o++) for (let l = 0; l < L; l++) {
      let s = 0;
      for (let k = 0; k < K; k++) {
        const at = source[l * K + k];
        if (at >= 0) s += w[o * K + k] * x[n * inputs + at];
      }
      y[(n * outputs + o) * L + l] = s;
    }
    return y;
  };
  const transposes = (dy, N, visit) => {
    for (let n = 0; n < N; n++) for (let o = 0; o < outputs; o++) for (let l = 0; l < L; l++) {
      const d = dy[(n * outputs + o) * L + l];
      if (d !== 0) visit(d, n, o, l);
    }
  };
  const productDx = (dy, w, N) => {
    const dx = zeros(N * inputs);
    transposes(dy, N, (d, n, o, l) => {
      for (let k = 0; k < K; k++) {
        const at = source[l * K + k];
        if (at >= 0) dx[n * inputs + at] += d * w[o * K + k];
      }
    });
    return dx;
  };
  const productDw = (x, dy, N) => {
    const dw = zeros(weights);
    transposes(dy, N, (d, n, o, l) => {
      for (let k = 0; k < K; k++) {
        const at = source[l * K + k];
        if (at >= 0) dw[o * K + k] += d * x[n * inputs + at];
      }
    });
    return dw;
  };
  const bias = w => w.subarray(weights), sums = (a, N) => channelSums(a, N, outputs);
  return {
    size: weights + outputs,
    forward: (w, x, N) => ({x, y: withBias(product(x, w, N), bias(w), N)}),
    backward: (w, {x}, dy, N) =>
        ({dx: productDx(dy, w, N), dw: joined(productDw(x, dy, N), sums(dy, N))}),
    rForward: (w, rw, {x}, rx, N) => ({rx,
        ry: withBias(plus(product(rx, w, N), product(x, rw, N)), bias(rw), N)}),
    rBackward: (w, rw, {x}, {rx}, dy, rdy, N) => ({
      rdx: plus(productDx(rdy, w, N), productDx(dy, rw, N)),
      rdw: joined(plus(productDw(x, rdy, N), productDw(rx, dy, N)), sums(rdy, N)),
    }),
  };
}

// 3 x 3, stride 2, padding as TensorFlow's "same", on C channels of H x H.
function convolution(C, H, O) {
  const out = Math.ceil(H / 2), pad = Math.max((out - 1) * 2 + 3 - H, 0) >> 1, source = [];
  const inside = z => z >= 0 && z < H;
  for (let i = 0; i < out; i++) for (let j = 0; j < out; j++) for (let c = 0; c < C; c++)
    for (let p = 0; p < 3; p++) for (let q = 0; q < 3; q++) {
      const [r, s] = [2 * i + p - pad, 2 * j + q - pad];
      source.push(inside(r) && inside(s) ? (c * H + r) * H + s : -1);
    }
  return {out, ...bilinear(C * H * H, O, out * out, Int32Array.from(source))};
}
const linear = (inputs, outputs) =>
    bilinear(inputs, outputs, 1, Int32Array.from({length: inputs}, (_, i) => i));

// ---- batch-norm with a shift beta and no scale; <a> is the mean of a channel -----------
function batchNorm(O, eps) {
  const means = (a, N) => channelSums(a, N, O).map(s => (s * O) / a.length);
  const products = (a, b) => a.map((x, i) => x * b[i]);
  // d - <d> - xh <d xh>, with the two means.
  const inner = (d, xh, N) => {
    const m = means(d, N), slope = means(products(d, xh), N);
    return {m, slope,
        value: byChannel(d.length, N, O, (i, c) => d[i] - m[c] - xh[i] * slope[c])};
  };
  const times = (s, a, N) => byChannel(a.length, N, O, (i, c) => s[c] * a[i]);
  return {
    size: O,
    forward: (beta, x, N) => {
      const m = means(x, N), centred = byChannel(x.length, N, O, (i, c) => x[i] - m[c]);
      const s = means(products(centred, centred), N).map(v => 1 / Math.sqrt(v + eps));
      const xh = times(s, centred, N);
      return {xh, s, y: withBias(xh, beta, N)};
    },
    backward: (beta, {xh, s}, dy, N) =>
        ({dx: times(s, inner(dy, xh, N).value, N), dw: channelSums(dy, N, O)}),
    rForward: (beta, rbeta, {xh, s}, rx, N) => {
      const {slope, value} = inner(rx, xh, N), rxh = times(s, value, N);
      return {rxh, rs: s.map((z, c) => -z * z * slope[c]), ry: withBias(rxh, rbeta, N)};
    },
    rBackward: (beta, rbeta, {xh, s}, {rxh, rs}, dy, rdy, N) => {
      const {slope, value} = inner(dy, xh, N), m = means(rdy, N);
      const rslope = means(plus(products(rdy, xh), products(dy, rxh)), N);
      const rvalue = (i, c) => rdy[i] - m[c] - rxh[i] * slope[c] - xh[i] * rslope[c];
      return {rdw: channelSums(rdy, N, O),
          rdx: byChannel(dy.length, N, O, (i, c) => rs[c] * value[i] + s[c] * rvalue(i, c))};
    },
  };
}

// ---- layers without parameters: linear maps, once the signs are stored -----------------
const empty = zeros(0);
const fixed = (forward, along, back) => ({
  size: 0,
  forward,
  backward: (w, at, dy) => ({dx: back(at, dy), dw: empty}),
  rForward: (w, rw, at, rx) => ({ry: along(at, rx)}),
  rBackward: (w, rw, at, r, dy, rdy) => ({rdx: back(at, rdy), rdw: empty}),
});
const kept = ({x}, d) => d.map((z, i) => (x[i] > 0 ? z : 0));
const relu = fixed((w, x) => ({x, y: kept({x}, x)}), kept, kept);
function spatialMean(L) {
  const average = (at, x) =>
      zeros(x.length / L).map((_, i) => sum(x.subarray(i * L, i * L + L)) / L);
  const spread = (at, dy) => zeros(dy.length * L).map((_, i) => dy[Math.floor(i / L)] / L);
  return fixed((w, x) => ({y: average(null, x)}), average, spread);
}

// ---- the net ---------------------------------------------------------------------------
const NORM_EPS = 1e-3;

function conv4(ways, channels, size) {
  const layers = [];
  let [C, H] = [1, size];
  for (let block = 0; block < 4; block++) {
    const conv = convolution(C, H, channels);
    layers.push(conv, batchNorm(channels, NORM_EPS), relu);
    [C, H] = [channels, conv.out];
  }
  layers.push(spatialMean(H * H), linear(channels, ways));
  let place = 0;
  const places = layers.map(layer => [place, place += layer.size]);
  // 1 where a parameter adapts: batch-norm's do not, as in MAML's own code.
  const adapts = zeros(place).fill(1);
  layers.forEach((layer, i) => { if (i % 3 === 1 && i < 12) adapts.fill(0, ...places[i]); });
  return {layers, places, adapts, ways, params: place};
}

const part = (net, w, i) => w.subarray(...net.places[i]);

// The outputs z (N x ways) of N pictures, and what each layer saved.
function outputs(net, w, x, N) {
  const saved = [];
  let value = x;
  net.layers.forEach((layer, i) => {
    saved.push(layer.forward(part(net, w, i), value, N));
    value = saved[i].y;
  });
  return {z: value, saved};
}

// softmax(z), row by row.
function probabilities(z, ways) {
  const found = zeros(z.length);
  for (let n = 0; n < z.length; n += ways) {
    const row = z.subarray(n, n + ways), top = Math.max(...row);
    const e = row.map(v => Math.exp(v - top));
    found.set(e.map(v => v / sum(e)), n);
  }
  return found;
}

// -(ways / N) sum log p[label]
const crossEntropy = (p, labels, ways) =>
    (-ways / labels.length) * sum(labels.map((label, n) => Math.log(p[n * ways + label])));

// The loss, its gradient, and what an HVP needs.
function primal(net, w, x, labels) {
  const N = labels.length, {z, saved} = outputs(net, w, x, N), p = probabilities(z, net.ways);
  const scale = net.ways / N, grad = zeros(net.params), adjoints = [];
  const loss = crossEntropy(p, labels, net.ways);
  let d = p.map(v => scale * v);
  labels.forEach((label, n) => { d[n * net.ways + label] -= scale; });
  for (let i = net.layers.length - 1; i >= 0; i--) {
    adjoints[i] = d;
    const {dx, dw} = net.layers[i].backward(part(net, w, i), saved[i], d, N);
    grad.set(dw, net.places[i][0]);
    d = dx;
  }
  return {w, x, N, z, p, scale, saved, adjoints, loss, grad};
}

// H v at a primal: each line of the two passes, differentiated along v.
function hessianProduct(net, {w, x, N, p, scale, saved, adjoints}, v) {
  const tangents = [], found = zeros(net.params);
  let along = zeros(x.length); // the pictures do not depend on w
  net.layers.forEach((layer, i) => {
    tangents.push(layer.rForward(part(net, w, i), part(net, v, i), saved[i], along, N));
    along = tangents[i].ry;
  });
  let d = p.map((value, i) => { // p (rz - <p, rz>)
    const row = i - (i % net.ways), rz = along.subarray(row, row + net.ways);
    return scale * value * (along[i] - dot(rz, p.subarray(row, row + net.ways)));
  });
  for (let i = net.layers.length - 1; i >= 0; i--) {
    const {rdx, rdw} = net.layers[i].rBackward(part(net, w, i), part(net, v, i), saved[i],
        tangents[i], adjoints[i], d, N);
    found.set(rdw, net.places[i][0]);
    d = rdx;
  }
  return found;
}

// The primals at phi_0, ..., phi_K of the inner loop.
function adaptation(net, theta, x, labels, alpha, K) {
  const path = [primal(net, theta, x, labels)];
  for (let k = 0; k < K; k++) {
    const {w, grad} = path[k];
    path.push(primal(net, w.map((z, i) => z - alpha * net.adapts[i] * grad[i]), x, labels));
  }
  return path;
}

// MAML's gradient and first-order MAML's, after the inner loop of a path.
function metaGradients(net, path, x, labels, alpha) {
  const first = primal(net, path.at(-1).w, x, labels).grad, hvps = [];
  let lam = first;
  for (let k = path.length - 2; k >= 0; k--) {
    hvps[k] = hessianProduct(net, path[k], lam.map((z, i) => alpha * net.adapts[i] * z));
    lam = minus(lam, hvps[k]);
  }
  return {first, whole: lam, hvps};
}
