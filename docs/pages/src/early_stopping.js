"use strict";
const points = {theta: [-2.3, 1.6], centre: [1.3, -0.6]};
const ANGLE = 25, SMALL = 1e-5;

const plane = new Panel("plane", {x: [-4, 4], equal: true, height: 420});
const precision = new Panel("precision", {x: [0, 5], y: [-2.5, 5], height: 420});
plane.handle({name: "centre", label: "optimum c", style: "gold", at: () => points.centre,
    move: (x, y) => { points.centre = [x, y]; }});
plane.handle({name: "theta", label: "start theta", style: "ink", form: "diamond",
    at: () => points.theta, move: (x, y) => { points.theta = [x, y]; }});

function compute() {
  const {alpha, steps, s1, s2, lambda} = values, {theta, centre} = points,
      A = symmetric([s1, s2], ANGLE);
  const path = innerLoop(quadratic(A, centre), theta, alpha, steps), phi = path[steps];
  const prior = ofEigenvalues(A, s => priorPrecision(s, alpha, steps)),
      map = mostProbable(A, centre, prior, theta);
  const {phi: anchored, value, gradient} = envelope(A, centre, theta, lambda);
  const differences = [0, 1].map(i => {
    const step = [0, 1].map(j => (i === j ? SMALL : 0)),
        at = sign => envelope(A, centre, combine(theta, sign, step), lambda).value;
    return (at(1) - at(-1)) / (2 * SMALL);
  });
  return {
    A, path, phi, prior, map, q1: priorPrecision(s1, alpha, steps),
        q2: priorPrecision(s2, alpha, steps),
    difference: norm(minus(phi, map)), anchored, value, gradient, differences,
  };
}

function draw() {
  const now = compute(), {alpha, steps, s1, s2} = values;
  plane.axes();
  for (const level of [0.4, 1.6, 3.6, 6.4]) plane.ellipse(points.centre, now.A, level,
      "thin quiet faint");
  const proper = now.q1 > 0 && now.q2 > 0;
  if (proper) for (const level of [1, 4]) plane.ellipse(points.theta, now.prior, level,
      "line violet dashed");
  plane.line(now.path, "thin ink");
  now.path.slice(1).forEach(phi => plane.dot(phi, "ink", 3.5));
  const length = Math.max(1, norm(now.gradient));
  plane.arrow(points.theta, combine(points.theta, -1.2 / length, now.gradient), "red");
  plane.text(combine(points.theta, -1.2 / length, now.gradient), "−λ(θ − φ*)", "red", -20, 22);
  if (Number.isFinite(now.map[0])) {
    const ring = plane.dot(now.map, "blue", 14);
    ring.setAttribute("style", "fill: none; stroke: var(--blue); stroke-width: 3");
  }
  plane.star(now.phi, "green", 10);
  plane.text(points.theta, "θ", "ink", -20, -10);
  plane.text(points.centre, "c", "gold", 12, 18);
  precision.axes("s", "q");
  precision.curve(s => (s > 0.01 ? priorPrecision(s, alpha, steps) : NaN), "line violet", 500);
  precision.line([[0, 0], [5, 0]], "thin ink");
  precision.line([[1 / alpha, -3], [1 / alpha, 13]], "thin ink dotted");
  precision.text([1 / alpha, 4.5], "s = 1/α", "ink", 6, 0);
  precision.dot([s1, now.q1], "red", 7);
  precision.dot([s2, now.q2], "red", 7);
  live({
    s1, s2, q1: now.q1, q2: now.q2, phi_x: now.phi[0], phi_y: now.phi[1], map_x: now.map[0],
        map_y: now.map[1],
    difference: now.difference, gradient_x: now.gradient[0], gradient_y: now.gradient[1],
    differences_x: now.differences[0], differences_y: now.differences[1],
  });
  const verdict = !proper
    ? "α s ≥ 1 on an axis: no Gaussian prior has its most probable parameters where "
      + "gradient descent ends."
    : Math.max(now.q1, now.q2) < 0.05 ? "The prior is almost flat: φ has forgotten its start θ."
    : "A Gaussian prior around θ: gradient descent ends at its most probable parameters.";
  document.getElementById("verdict").textContent = verdict;
}

controls({
  steps: {label: "steps K", min: 1, max: 40, step: 1, value: 4},
  alpha: {label: "step size α", min: 0.02, max: 0.9, step: 0.02, value: 0.16},
  s1: {label: "curvature s₁", min: 0.1, max: 5, step: 0.1, value: 2.5},
  s2: {label: "curvature s₂", min: 0.1, max: 5, step: 0.1, value: 0.5},
  lambda: {label: "strength λ", min: 0.2, max: 10, step: 0.2, value: 1},
});

start(draw, () => ({...values, ...points, ...compute()}));
