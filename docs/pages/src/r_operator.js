"use strict";
const DATA = {x: [[1, 0.5], [-0.6, 1.2], [0.2, -1.1], [-1.3, -0.4]], y: [0.8, -0.5, 0.3, -0.9]};
const PARAMS = {W: [[0.9, -0.4], [0.3, 1.1]], gamma: [1.1, 0.8], beta: [0.2, -0.3], w: [0.7, -1.2]};
const ALONG = {W: [[0.5, 0.8], [-0.7, 0.4]], gamma: [0.3, -0.2], beta: [-0.4, 0.5], w: [0.6, 0.9]};
const PASSES = ["forward", "r_forward", "backward", "r_backward"];
const ROWS = {a: "a = W x", xh: "x̂, batch-norm", h: "h = tanh", p: "p = w h"};
const PREFIX = {forward: "", r_forward: "R ", backward: "d", r_backward: "R d"};
const SMALL = 1e-5; // the step of the differences

const passesAt = (r, count) => netPasses(DATA, moved(PARAMS, r, ALONG), ALONG, count);
const directional = r => dot(flat(passesAt(r).grad), flat(ALONG));

function compute() {
  const counts = {};
  const now = passesAt(values.r, (layer, pass, many = 1) => { counts[`${layer} ${pass}`] = many; });
  const done = PASSES.slice(0, values.passes);
  const total = (layer, passes) =>
      passes.reduce((all, pass) => all + counts[`${layer} ${pass}`], 0);
  return {
    now, counts, products: total("first", done) + total("last", done),
    gradient: total("last", ["forward", "backward"]),
        tangent: total("last", ["r_forward", "r_backward"]),
    directional: dot(flat(now.grad), flat(ALONG)), curvature: dot(flat(now.hvp), flat(ALONG)),
    differences: (directional(values.r + SMALL) - directional(values.r - SMALL)) / (2 * SMALL),
  };
}

// ---- typed formulas: + - * / and mean over numbers and arrays of numbers --------------
function evaluate(text, names) {
  const tokens = text.match(/[A-Za-z]\w*|\d+(\.\d+)?|[-+*/()]|\S/g) || [];
  let place = 0;
  const at = token => tokens[place] === token && ++place;
  const zip = (f, a, b) => (a.map ? a.map((x, i) => f(x, b.map ? b[i] : b)) : b.map
      ? b.map(y => f(a, y)) : f(a, b));
  function atom() {
    const token = tokens[place++];
    if (token === "-") return zip((a, b) => a * b, -1, atom());
    if (token === "(") {
      const inside = total();
      if (!at(")")) throw new Error("a ) is missing");
      return inside;
    }
    if (token === "mean") {
      if (!at("(")) throw new Error("mean needs (...)");
      place--;
      const inside = atom();
      return inside.map ? average(inside) : inside;
    }
    if (/^\d/.test(token || "")) return Number(token);
    if (token in names) return names[token];
    throw new Error(token === undefined ? "the formula ends too early" : `unknown: ${token}`);
  }
  function factor() {
    let left = atom();
    for (;;)
      if (at("*")) left = zip((a, b) => a * b, left, atom());
      else if (at("/")) left = zip((a, b) => a / b, left, atom());
      else return left;
  }
  function total() {
    let left = factor();
    for (;;)
      if (at("+")) left = zip((a, b) => a + b, left, factor());
      else if (at("-")) left = zip((a, b) => a - b, left, factor());
      else return left;
  }
  const value = total();
  if (place < tokens.length) throw new Error(`not expected: ${tokens[place]}`);
  return value.map ? value : names.xh.map(() => value);
}

// What typical wrong answers are called. Those of rdx are its two halves, each whole or
// without a term.
const FIRST_HALF = "rs*(dxh - mean(dxh) - xh*mean(dxh*xh))";
const secondHalf = (slope, last) => `s*(rdxh - mean(rdxh)${slope} - xh*mean(${last}))`;
const SLOPE = " - rxh*mean(dxh*xh)", LAST = "rdxh*xh + dxh*rxh";
const MISTAKES = {
  dx: [
    ["dxh*s", "the mean and the variance are treated as constants"],
    ["s*(dxh - mean(dxh))", "the term of the variance, xh*mean(dxh*xh), is missing"],
    ["s*(dxh - xh*mean(dxh*xh))", "the term of the mean, mean(dxh), is missing"],
    ["dxh - mean(dxh) - xh*mean(dxh*xh)", "the factor s is missing"],
  ],
  rdx: [
    [secondHalf("", "rdxh*xh"), "s and xh are treated as constants; both depend on w"],
    [secondHalf(SLOPE, LAST), "the rs term is missing"],
    [`${FIRST_HALF} + ${secondHalf("", LAST)}`, "the term rxh*mean(dxh*xh) is missing"],
    [`${FIRST_HALF} + ${secondHalf(SLOPE, "rdxh*xh")}`,
      "the term dxh*rxh in the last mean is missing"],
  ],
};
const largest = a => Math.max(...a.map(Math.abs));
const CLOSE = 1e-13; // relative: some 100 roundings; a missing term is 1e-3 or more

// An answer for channel 0, judged by the complex step.
function judge(which, text) {
  const {now} = compute(), [{xh, s}, {rxh, rs}] = [now.norms[0], now.tangents[0]];
  const dxh = now.backward.xh[0], rdxh = now.r_backward.xh[0], x = now.forward.a[0],
      rx = now.r_forward.a[0];
  const names = which === "dx" ? {xh, s, dxh} : {xh, s, dxh, rxh, rs, rdxh};
  const exact = which === "dx" ? stepBackward(x, dxh) : stepTangentBackward(x, rx, dxh, rdxh);
  const off = answer => largest(minus(answer, exact)) / largest(exact);
  let answer;
  try { answer = evaluate(text, names);
      } catch (error) { return {text, exact, verdict: error.message}; }
  const error = off(answer);
  if (error <= CLOSE) return {text, exact, answer,
      verdict: `Right: ${format(error)} from the complex step.`};
  const known = MISTAKES[which].find(([wrong]) =>
      largest(minus(evaluate(wrong, names), answer)) <= CLOSE * largest(exact));
  const name = known ? `: ${known[1]}.` : ".";
  return {text, exact, answer, verdict: `${(100 * error).toFixed(1)} % off${name}`};
}
const judged = which => judge(which, document.getElementById(`typed-${which}`).value);

// ---- drawing -------------------------------------------------------------------------
const passes = new Panel("passes",
    {x: [0, 4], y: [0, 1], height: 326, left: 0, right: 0, top: 0, bottom: 0});
const along = Array.from({length: 41}, (_, i) => directional(i / 20 - 1));
const slope = new Panel("slope",
    {x: [-1, 1], y: [Math.min(...along) - 0.3, Math.max(...along) + 0.5], height: 215});
slope.handle({
  name: "r", label: "r, the way along v", style: "ink", form: "diamond", along: "x", step: 0.02,
  at: () => [values.r, directional(values.r)],
      move: x => setControl("r", Math.round(x * 1000) / 1000),
});

function cells(now, pass, column) {
  const wide = passes.width / 4, left = column * wide + 3;
  const down = pass.endsWith("forward");
  element("text", {class: wide < 110 ? "small" : "", x: left + 2, y: 15,
      text: `${down ? "↓" : "↑"} ${pass}`}, passes.front);
  let y = 22;
  for (const [row, label] of Object.entries(ROWS)) {
    const channels = now[pass][row], scale = Math.max(...channels.map(largest)) || 1;
    const name = label.split(/[ ,]/)[0];
    element("text", {class: "quiet", x: left + 2, y: y + 11,
        text: column ? PREFIX[pass] + name : label}, passes.front);
    y += 14;
    const width = (wide - 8) / channels.length;
    channels.forEach((channel, c) =>
        channel.forEach((z, n) => cell(z, left + c * width, y + 14 * n, width - 2, scale)));
    y += 14 * DATA.y.length + 6;
  }
}

function cell(z, x, y, width, scale) {
  const fill = z < 0 ? "var(--red)" : "var(--blue)",
      opacity = (0.08 + 0.5 * Math.abs(z) / scale).toFixed(2);
  element("rect", {x, y, width, height: 13, fill, "fill-opacity": opacity}, passes.front);
  const text = z.toFixed(2).replace(/^-0\.00$/, "0.00").replace("-", "−");
  element("text", {class: "small", x: x + width / 2, y: y + 10.5, "text-anchor": "middle", text},
      passes.front);
}

function draw() {
  const found = compute(), {now} = found;
  PASSES.slice(0, values.passes).forEach((pass, i) => cells(now, pass, i));
  slope.axes("r", "slope of L along v");
  slope.curve(directional, "line blue", 120);
  slope.line([-0.5, 0.5].map(d => [values.r + d, found.directional + d * found.curvature]),
      "line red dashed");
  live({
    directional: found.directional, curvature: found.curvature, differences: found.differences,
    s: now.norms[0].s, rs: now.tangents[0].rs, products: found.products,
    gradient: found.gradient, tangent: found.tangent, ratio: found.tangent / found.gradient,
  });
  for (const which of ["dx", "rdx"])
    document.getElementById(`judged-${which}`).textContent = judged(which).verdict;
}

for (const which of ["dx", "rdx"])
  document.getElementById(`typed-${which}`).addEventListener("input", changed);
controls({
  r: {label: "way along v, r", min: -1, max: 1, step: 0.02, value: 0},
  passes: {label: "passes", min: 1, max: 4, step: 1, value: 4},
});

start(draw, () => {
  const found = compute();
  return {
    ...values, ...found, data: DATA, params: flat(PARAMS), along: flat(ALONG),
    grad: flat(found.now.grad), hvp: flat(found.now.hvp),
        judged: {dx: judged("dx"), rdx: judged("rdx")},
  };
});
