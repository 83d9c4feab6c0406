"use strict";
// Two nets by hand: one with batch-norm and four passes, one that adapts to sine waves.

// ---- batch-norm of one channel: arrays of M values, <a> is their mean ----------------
const centred = a => { const m = average(a); return a.map(x => x - m); };

function normForward(x, eps) {
  const c = centred(centred(x)), s = 1 / Math.sqrt(average(product(c, c)) + eps);
  return {xh: scaled(s, c), s};
}

// dx = s (dxh - <dxh> - xh <dxh xh>)
const normInner = (dxh, xh) => combine(centred(dxh), -average(product(dxh, xh)), xh);
const normBackward = (dxh, {xh, s}) => scaled(s, normInner(dxh, xh));

// rxh = s (rx - <rx> - xh <xh rx>), rs = -s^2 <xh rx>
const normTangent = (rx, {xh, s}) =>
    ({rxh: scaled(s, normInner(rx, xh)), rs: -s * s * average(product(xh, rx))});

// The product rule on normBackward.
function normTangentBackward(dxh, rdxh, {xh, s}, {rxh, rs}) {
  const slope = average(product(dxh, xh)),
      rslope = average(combine(product(rdxh, xh), 1, product(dxh, rxh)));
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
  const ra = firstLayer(V.W), tangents = each(c => normTangent(ra[c], norms[c])),
      rxh = tangents.map(z => z.rxh);
  const rn = each(c => combine(combine(scaled(V.gamma[c], xh[c]), gamma[c], rxh[c]), V.beta[c],
      xh[c].map(() => 1)));
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
  const rdn = each(c => combine(product(rdh[c], slope[c]), -2,
      product(dh[c], product(h[c], rh[c]))));
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
const times_c = (a, b) => complex(combine(product(a.re, b.re), -1, product(a.im, b.im)),
    combine(product(a.re, b.im), 1, product(a.im, b.re)));
const minus_c = (a, b) => complex(minus(a.re, b.re), minus(a.im, b.im));
const mean_c = a => complex(a.re.map(() => average(a.re)), a.im.map(() => average(a.im)));
function inverse_root(a) {
  const size = a.re.map((x, i) => Math.hypot(x, a.im[i]) ** -0.5),
      half = a.re.map((x, i) => -Math.atan2(a.im[i], x) / 2);
  return complex(size.map((r, i) => r * Math.cos(half[i])),
      size.map((r, i) => r * Math.sin(half[i])));
}
function complexNorm(x) {
  const c = minus_c(x, mean_c(x)), variance = mean_c(times_c(c, c));
  const s = inverse_root(complex(variance.re.map(z => z + EPS), variance.im));
  return {xh: times_c(s, c), s};
}
// dx of the loss <dxh, xh>, entry by entry, from the forward pass alone.
const stepBackward = (x, dxh) =>
    x.map((_, j) => dot(dxh, complexNorm(complex(x,
    x.map((_, i) => (i === j ? STEP : 0)))).xh.im) / STEP);
// rdx: the backward pass, written once more in complex numbers, along (rx, rdxh).
function stepTangentBackward(x, rx, dxh, rdxh) {
  const {xh, s} = complexNorm(complex(x, scaled(STEP, rx))), d = complex(dxh, scaled(STEP, rdxh));
  const inner = minus_c(minus_c(d, mean_c(d)), times_c(xh, mean_c(times_c(d, xh))));
  return scaled(1 / STEP, times_c(s, inner).im);
}

// ---- a net x -> 40 -> 40 -> y with ReLU, and the mean squared error --------------------
// w: all weights in one array, layer by layer: the matrix (outputs, inputs), then biases.
const SIZES = [1, 40, 40, 1];

function perceptron(w, input, sizes) {
  const layers = [input];
  let place = 0;
  for (let l = 0; l + 1 < sizes.length; l++) {
    const [I, O] = [sizes[l], sizes[l + 1]], input = layers[l], output = new Float64Array(O),
        bias = place + I * O;
    for (let o = 0; o < O; o++) {
      let s = 0;
      for (let i = 0; i < I; i++) s += w[place + o * I + i] * input[i];
      s += w[bias + o];
      output[o] = l + 2 < sizes.length ? Math.max(s, 0) : s;
    }
    layers.push(output);
    place = bias + O;
  }
  return layers;
}
const netForward = (w, x) => perceptron(w, [x], SIZES);
const netOutput = (w, x) => netForward(w, x).at(-1)[0];

// The gradient of the mean of (net(x) - y)^2.
function netGradient(w, points) {
  const grad = new Float64Array(w.length);
  for (const [x, y] of points) {
    const layers = netForward(w, x);
    let d = [(2 * (layers.at(-1)[0] - y)) / points.length], end = w.length;
    for (let l = SIZES.length - 2; l >= 0; l--) {
      const [I, O] = [SIZES[l], SIZES[l + 1]], bias = end - O, place = bias - I * O,
          back = new Float64Array(I);
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

// ---- a conditional neural process: r = mean of h([x, y]), then [x, r] -> (mean, sigma) ---
function encode({eta, encoder}, points) {
  const codes = points.map(point => perceptron(eta, point, encoder).at(-1));
  return codes[0].map((_, s) => sum(codes.map(code => code[s])) / points.length);
}
function decode({theta, decoder}, r, x) {
  const [mean, s] = perceptron(theta, [x, ...r], decoder).at(-1);
  return {mean, sigma: 0.1 + 0.9 * (Math.max(s, 0) + Math.log1p(Math.exp(-Math.abs(s))))};
}
