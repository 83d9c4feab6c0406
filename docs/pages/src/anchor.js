"use strict";
const PROBLEMS = {wavy: WAVY, wells: WELLS};
const ANCHORS = Array.from({length: 241}, (_, i) => -3 + i / 40);
const SMALL = 1e-5; // the step of the differences
// The shift of function i of the mean: 0 for the first, then spread over -1 to 1.
const shift = i => (i === 0 ? 0 : 2 * ((i * 0.6180339887498949) % 1) - 1);
const shifted = ({f, df, ddf, curvature}, s) =>
    ({f: w => f(w - s), df: w => df(w - s), ddf: w => ddf(w - s), curvature});

// Everything that the page shows at one anchor.
function atAnchor(problem, anchor, lambda) {
  const phi = anchored(problem, anchor, lambda), slope = anchoredSlope(problem, phi, lambda);
  const differences = (anchored(problem, anchor + SMALL, lambda) - anchored(problem,
      anchor - SMALL, lambda)) / (2 * SMALL);
  const gradient = problem.df(phi);
  return {phi, slope, differences, curvature: problem.ddf(phi), gradient, meta: gradient * slope};
}

// The mean over n functions of f(theta*(anchor)), and its gradient by the formula.
function metaObjective(problem, anchor, lambda, n) {
  let value = 0, gradient = 0;
  for (let i = 0; i < n; i++) {
    const one = shifted(problem, shift(i)), phi = anchored(one, anchor, lambda);
    value += one.f(phi) / n;
    gradient += (one.df(phi) * anchoredSlope(one, phi, lambda)) / n;
  }
  return {value, gradient};
}

const objective = new Panel("objective", {x: [-3, 3], y: [-1.9, 3.2], height: 262});
const stairs = new Panel("stairs", {x: [-3, 3], y: [-3, 3], height: 262});
const slopes = new Panel("slopes", {x: [-3, 3], y: [-0.1, 1.6], height: 190});
const meta = new Panel("meta", {x: [-3, 3], y: [-1.6, 1], height: 190});
objective.handle({
  name: "anchor", label: "anchor theta 0", style: "ink", form: "diamond", along: "x", step: 0.025,
  at: () => [values.anchor, objective.yRange[0] + 0.25],
      move: x => setControl("anchor", Math.round(x * 1000) / 1000),
});
stairs.handle({
  name: "cursor", label: "anchor theta 0, on the staircase", style: "ink", form: "diamond",
      along: "x", step: 0.025,
  at: () => [values.anchor, anchored(PROBLEMS[values.problem], values.anchor, values.lambda)],
  move: x => setControl("anchor", Math.round(x * 1000) / 1000),
});

const kept = {};
function curves(problem) {
  const key = [values.problem, values.lambda, values.functions].join();
  if (kept.key !== key) {
    kept.key = key;
    kept.at = ANCHORS.map(a => atAnchor(problem, a, values.lambda));
    kept.meta = ANCHORS.map(a => metaObjective(problem, a, values.lambda, values.functions).value);
  }
  return kept;
}

// A staircase as points, with the pen lifted at each jump.
function withoutJumps(ys, largest) {
  return ANCHORS.flatMap((a, i) =>
      (i && Math.abs(ys[i] - ys[i - 1]) > largest ? [null, [a, ys[i]]] : [[a, ys[i]]]));
}

function draw() {
  const problem = PROBLEMS[values.problem], {anchor, lambda} = values,
      now = atAnchor(problem, anchor, lambda);
  const penalty = w => (lambda / 2) * (w - anchor) ** 2, total = w => problem.f(w) + penalty(w);
  objective.axes("w");
  objective.curve(problem.f, "line blue");
  objective.curve(penalty, "line red dashed");
  objective.curve(total, "line green");
  objective.line([[anchor, -3], [anchor, 4]], "thin ink dotted");
  objective.dot([now.phi, problem.f(now.phi)], "blue");
  objective.star([now.phi, total(now.phi)], "green", 11);
  objective.text([now.phi, total(now.phi)], "θ*", "green", 10, -8);
  const found = curves(problem);
  stairs.axes("θ₀", "θ*");
  stairs.line([[-3, -3], [3, 3]], "thin ink dotted");
  stairs.line(withoutJumps(found.at.map(p => p.phi), 0.25), "line green");
  stairs.line([-0.7, 0.7].map(d => [anchor + d, now.phi + d * now.slope]), "line red dashed");
  slopes.axes("θ₀", "dθ*/dθ₀");
  slopes.line(withoutJumps(found.at.map(p => p.slope), 0.4), "line violet");
  found.at.forEach((p, i) => { if (i % 4 === 0
      && Math.abs(p.differences) < 3) slopes.dot([ANCHORS[i], p.differences], "ink", 2.6); });
  slopes.dot([anchor, now.slope], "red", 6);
  const many = metaObjective(problem, anchor, lambda, values.functions);
  meta.axes("θ₀", "M");
  meta.line(values.functions < 8 ? withoutJumps(found.meta, 0.12)
      : ANCHORS.map((a, i) => [a, found.meta[i]]), "line blue");
  meta.line([-0.4, 0.4].map(d => [anchor + d, many.value + d * many.gradient]), "line red dashed");
  meta.dot([anchor, many.value], "red", 6);
  live({...now, lambda, functions: values.functions});
  const jump = Math.abs(now.differences) > 10;
  document.getElementById("verdict").textContent = jump
    ? "A jump lies between θ₀ − 0.00001 and θ₀ + 0.00001: the formula does not see it."
    : now.slope < 0.35 ? "A sharp minimum: θ* hardly follows the anchor, the stair is flat."
    : now.slope > 0.8 ? "Little curvature, or even negative: θ* follows the anchor almost freely."
    : "θ* follows the anchor by part of its way.";
}

controls({
  problem: {label: "f", options: {wavy: "many minima", wells: "a wide and a sharp minimum"},
      value: "wavy"},
  anchor: {label: "anchor θ₀", min: -3, max: 3, step: 0.025, value: -0.9},
  lambda: {label: "strength λ", min: 1, max: 40, step: 0.5, value: 8},
  functions: {label: "functions", min: 1, max: 40, step: 1, value: 1},
}, {
  "a sharp minimum": () => { setControl("problem", "wells"); setControl("anchor", 1.4);
      setControl("lambda", 8); },
  "a wide minimum": () => { setControl("problem", "wells"); setControl("anchor", -1.4);
      setControl("lambda", 8); },
});

start(draw, () => ({
  ...values,
  anchors: ANCHORS,
  at: ANCHORS.map(a => atAnchor(PROBLEMS[values.problem], a, values.lambda)),
  now: atAnchor(PROBLEMS[values.problem], values.anchor, values.lambda),
  objective: metaObjective(PROBLEMS[values.problem], values.anchor, values.lambda,
      values.functions),
  shifts: Array.from({length: values.functions}, (_, i) => shift(i)),
}));
