"use strict";
const PROBLEMS = {wavy: WAVY, wells: WELLS};
const ANCHORS = Array.from({length: 121}, (_, i) => -3 + i / 20);
const SMALL = 1e-5; // the step of the differences

const stochastic = anchor =>
    stochasticObjective(PROBLEMS[values.problem], anchor, values.lambda, values.sigma);
const variational = anchor =>
    variationalObjective(MEANS[values.problem], anchor, values.lambda);
const differences = (f, at) => (f(at + SMALL).value - f(at - SMALL).value) / (2 * SMALL);

function compute() {
  const problem = PROBLEMS[values.problem], {anchor, lambda} = values;
  const phi = anchored(problem, anchor, lambda), S = stochastic(anchor), V = variational(anchor);
  return {
    S, V, phi, M: problem.f(phi), slope: problem.df(phi) * anchoredSlope(problem, phi, lambda),
    S_differences: differences(stochastic, anchor), V_differences: differences(variational, anchor),
    amortised: problem.f(phi) + (lambda / 2) * (phi - anchor) ** 2,
  };
}

// The curves of the panels; they change with the problem, lambda and sigma.
const kept = {};
function curves() {
  const problem = PROBLEMS[values.problem];
  const key = [values.problem, values.lambda, values.sigma].join();
  if (kept.key === key) return kept;
  return Object.assign(kept, {
    key, S: ANCHORS.map(stochastic), V: ANCHORS.map(variational),
    M: ANCHORS.map(a => problem.f(anchored(problem, a, values.lambda))),
  });
}
const withoutJumps = (ys, largest) => ANCHORS.flatMap((a, i) =>
    (i && Math.abs(ys[i] - ys[i - 1]) > largest ? [null, [a, ys[i]]] : [[a, ys[i]]]));

const inner = new Panel("inner", {x: [-3, 3], y: [-1.9, 3.2], height: 262});
const objectives = new Panel("objectives", {x: [-3, 3], y: [-1.7, 2.2], height: 262});
const slopes = new Panel("slopes", {x: [-3, 3], y: [-1.5, 3], height: 200});
const toAnchor = x => setControl("anchor", Math.round(x * 1000) / 1000);
inner.handle({
  name: "anchor", label: "anchor theta 0", style: "ink", form: "diamond", along: "x", step: 0.025,
  at: () => [values.anchor, inner.yRange[0] + 0.25], move: toAnchor,
});
objectives.handle({
  name: "cursor", label: "anchor theta 0, on the stochastic objective", style: "ink",
  form: "diamond", along: "x", step: 0.025, move: toAnchor,
  at: () => [values.anchor, stochastic(values.anchor).value],
});

function drawInner({S, V}) {
  const {f} = PROBLEMS[values.problem], {anchor, lambda, sigma} = values;
  const total = w => f(w) + (lambda / 2) * (w - anchor) ** 2, low = inner.yRange[0];
  inner.axes("w");
  inner.curve(f, "thin blue");
  inner.curve(total, "line ink");
  inner.curve(w => low + density((w - anchor) / sigma) * 1.5, "line green dotted");
  inner.curve(w => low + density((w - V.m) / V.s) * 1.5, "line violet dashed");
  for (const {w, p} of S.solutions)
    if (p > 0.001) {
      inner.dot([w, total(w)], "green", 3 + 9 * Math.sqrt(p));
      inner.text([w, total(w)], `${(100 * p).toFixed(0)} %`, "green", 0, -14, "middle");
    }
}

function draw() {
  const now = compute(), {anchor} = values, found = curves();
  drawInner(now);
  objectives.axes("θ₀", "M, S, V");
  objectives.line(withoutJumps(found.M, 0.12), "line blue dotted");
  objectives.line(withoutJumps(found.S.map(s => s.value), 0.3), "line green");
  objectives.line(ANCHORS.map((a, i) => [a, found.V[i].value]), "line violet dashed");
  const {S, V} = now;
  const tangent = (value, slope) => [-0.5, 0.5].map(d => [anchor + d, value + d * slope]);
  objectives.line(tangent(S.value, S.moving), "line red");
  objectives.dot([anchor, V.value], "violet", 6);
  slopes.axes("θ₀", "dS/dθ₀");
  slopes.line([[-3, 0], [3, 0]], "thin ink");
  slopes.line(ANCHORS.map((a, i) => [a, found.S[i].gradient]), "line green");
  slopes.line(ANCHORS.map((a, i) => [a, found.S[i].moving]), "line red dashed");
  slopes.dot([anchor, S.gradient], "green", 6);
  slopes.dot([anchor, S.moving], "red", 6);
  live({
    stochastic: S.value, moving: S.moving, choosing: S.choosing, whole: S.gradient,
    S_differences: now.S_differences, mean: V.m, deviation: V.s, lambda: values.lambda,
    anchor, V_gradient: V.gradient, V_differences: now.V_differences, amortised: now.amortised,
    variational: V.value,
  });
  const opposite = S.moving * S.gradient < 0;
  document.getElementById("verdict").textContent = opposite
    ? "iMAML's part points the wrong way: what counts here is which solution is found."
    : Math.abs(S.choosing) > Math.abs(S.moving)
      ? "Most of the slope comes from the probabilities, which iMAML does not see."
      : "Most of the slope comes from the solutions that move: iMAML sees it.";
}

controls({
  problem: {label: "f", options: {wavy: "many minima", wells: "a wide and a sharp minimum"},
      value: "wells"},
  anchor: {label: "anchor θ₀", min: -3, max: 3, step: 0.025, value: 0.6},
  lambda: {label: "strength λ", min: 1, max: 40, step: 0.5, value: 1},
  sigma: {label: "noise σ", min: 0.02, max: 1.5, step: 0.02, value: 0.4},
});

start(draw, () => ({...values, ...compute()}));
