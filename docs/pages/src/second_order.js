"use strict";
const FUNCTIONS = {quartic: QUARTIC, wells: WELLS, bowl: BOWL};
const THETAS = Array.from({length: 161}, (_, i) => -2 + i / 40);
const SMALL = 1e-5; // the step of the differences

const loopAt = theta => scalarLoop(FUNCTIONS[values.problem], theta, values.alpha, values.steps,
    values.lambda);

function compute() {
  const now = loopAt(values.theta), {problem, lambda, steps} = values;
  const differences = (loopAt(values.theta + SMALL).value - loopAt(values.theta - SMALL).value)
      / (2 * SMALL);
  const limit = lambda === 0 ? 0
      : anchoredSlope(FUNCTIONS[problem], now.phi[steps], lambda);
  const power = powerOfTen(10 ** values.size), times = values.size ? ` · ${power}` : "";
  return {...now, differences, limit, matrix: powerOfTen(100 ** values.size), vector: power,
      forward_products: `${steps}${times}`};
}

const path = new Panel("path", {x: [-2, 2], y: [-1.3, 2.1], height: 250});
const slopes = new Panel("slopes", {x: [0, 30], y: [-1.2, 2.5], height: 250});
const meta = new Panel("meta", {x: [-2, 2], y: [-1.3, 0.9], height: 190});
const round = x => Math.round(x * 1000) / 1000;
path.handle({
  name: "theta", label: "start theta", style: "ink", form: "diamond", along: "x", step: 0.02,
  at: () => [values.theta, FUNCTIONS[values.problem].f(values.theta)],
  move: x => setControl("theta", round(x)),
});
meta.handle({
  name: "cursor", label: "start theta, on the meta-objective", style: "ink", form: "diamond",
  along: "x", step: 0.02, at: () => [values.theta, loopAt(values.theta).value],
  move: x => setControl("theta", round(x)),
});

function draw() {
  const now = compute(), {f} = FUNCTIONS[values.problem], {theta, steps, lambda} = values;
  path.axes("w");
  path.curve(f, "line blue");
  if (lambda) path.curve(w => f(w) + (lambda / 2) * (w - theta) ** 2, "thin green dashed");
  path.line(now.phi.map(w => [w, f(w)]), "thin ink");
  now.phi.slice(1).forEach(w => path.dot([w, f(w)], "ink", 3.5));
  path.star([now.phi[steps], f(now.phi[steps])], "red", 10);
  path.text([now.phi[steps], f(now.phi[steps])], "φ_K", "red", 10, 20);
  slopes.axes("k", "dφₖ/dθ");
  slopes.line([[0, 0], [30, 0]], "thin ink");
  if (lambda) slopes.line([[0, now.limit], [30, now.limit]], "line violet dashed");
  slopes.line(now.D.map((d, k) => [k, d]), "line green");
  now.D.forEach((d, k) => slopes.dot([k, d], "green", 4));
  meta.axes("θ", "M");
  meta.line(THETAS.map(t => [t, loopAt(t).value]), "line blue");
  meta.line([-0.5, 0.5].map(d => [theta + d, now.value + d * now.backward]), "line red dashed");
  live({
    steps, lambda, alpha: values.alpha, last: now.D[steps], query: now.lam[steps],
    forward: now.forward, backward: now.backward, differences: now.differences,
    limit: now.limit, curvature: FUNCTIONS[values.problem].ddf(now.phi[steps]),
    parameters: now.vector, matrix: now.matrix, vector: now.vector,
    forward_products: now.forward_products, backward_products: steps,
  });
  const settled = Math.abs(now.D[steps] - now.limit) < 0.01;
  document.getElementById("verdict").textContent = lambda === 0
    ? settled ? "The product of the factors is almost 0: φ has forgotten its start."
      : `MAML: ${steps} factor${steps > 1 ? "s" : ""}, each with one second derivative.`
    : settled ? "The recursion stands at its fixed point: this is iMAML's gradient."
      : "Not yet at the fixed point: more steps, or a larger step size.";
}

controls({
  problem: {label: "f", value: "quartic",
      options: {quartic: "w⁴/4 − w²/2", wells: "a wide and a sharp minimum", bowl: "w²/2"}},
  theta: {label: "start θ", min: -2, max: 2, step: 0.02, value: -0.3},
  steps: {label: "steps K", min: 1, max: 30, step: 1, value: 6},
  alpha: {label: "step size α", min: 0.01, max: 0.25, step: 0.01, value: 0.2},
  lambda: {label: "penalty λ", min: 0, max: 4, step: 0.1, value: 0},
  size: {label: "log₁₀ P", min: 0, max: 7, step: 1, value: 5},
}, {
  "iMAML: a penalty": () => { setControl("lambda", 1); setControl("steps", 25); },
  "MAML: none": () => { setControl("lambda", 0); setControl("steps", 6); },
});

start(draw, () => ({...values, ...compute()}));
