"use strict";
const points = {theta: [-2.2, 1.3], first: [-0.6, -1.2], second: [1.8, 0.6]};
const STYLES = {maml: "green", fomaml: "red dashed", reptile: "gold dotted", imaml: "blue"};
const OUTER_STEP = 0.2, OUTER_STEPS = 60, FAR = 1e12; // a path ends where it is lost
const FLAT = 0.5, SECOND_ANGLE = 20; // curvature of the flat axes; angle of the second task

const plane = new Panel("plane", {x: [-5, 5], equal: true, height: w => (w < 500 ? 330 : 400)});
const descent = new Panel("descent", {x: [0, OUTER_STEPS], y: [0.01, 100], log: true, height: 132});
for (const [name, label, style, form] of [
  ["first", "centre of the first task", "violet", "circle"],
  ["second", "centre of the second task", "violet", "square"],
  ["theta", "start theta", "ink", "diamond"],
]) plane.handle({name, label, style, form, at: () => points[name],
    move: (x, y) => { points[name] = [x, y]; }});

const hessians = () => [symmetric([1, FLAT], 70), symmetric([values.steep, FLAT], SECOND_ANGLE)];
const tasks = () => hessians().map((A, i) => quadratic(A, [points.first, points.second][i]));

// Degrees between two directions.
const between = (a, b) => (Math.acos(Math.min(1, Math.max(-1, dot(a, b) / (norm(a) * norm(b)))))
    * 180) / Math.PI;

function outerPath(method) {
  const path = [points.theta], {alpha, steps} = values, both = tasks();
  const rate = method === "reptile" ? OUTER_STEP / (alpha * steps) : OUTER_STEP;
  for (let i = 0; i < OUTER_STEPS && norm(path[i]) < FAR; i++)
    path.push(combine(path[i], -rate, METHODS[method](both, path[i], alpha, steps)));
  return path;
}

function compute() {
  const {alpha, steps, steep} = values, both = tasks();
  const paths = both.map(task => innerLoop(task, points.theta, alpha, steps));
  const directions = {}, descents = {}, losses = {};
  for (const method of Object.keys(METHODS)) {
    directions[method] = METHODS[method](both, points.theta, alpha, steps);
    descents[method] = outerPath(method);
    losses[method] = descents[method].map(theta => metaLoss(both, theta, alpha, steps));
  }
  return {
    paths, directions, descents, losses, factor: (1 - alpha * steep) ** steps,
    lam: both.map((task, i) => adjoints(task, paths[i], alpha)),
  };
}

function draw() {
  const now = compute(), {alpha, steps, steep} = values;
  plane.axes();
  hessians().forEach((A, i) => {
    for (const level of [0.3, 1.2, 2.7, 4.8]) plane.ellipse([points.first, points.second][i], A,
        level, "thin quiet faint");
    plane.line(now.paths[i], "thin ink");
    const longest = Math.max(...now.lam[i].map(norm));
    now.paths[i].forEach((phi, k) => {
      if (k) plane.dot(phi, "ink", 4);
      plane.arrow(phi, combine(phi, -0.6 / longest, now.lam[i][k]), "violet thin");
    });
  });
  const length = d => norm(d), shownAs =
      {...now.directions, reptile: scaled(1 / (alpha * steps), now.directions.reptile)};
  const factor = 1.7 / Math.max(...Object.values(shownAs).map(length));
  for (const [method, style] of Object.entries(STYLES)) {
    plane.line(now.descents[method], `thin ${style}`);
    plane.arrow(points.theta, combine(points.theta, -factor, shownAs[method]), style);
  }
  plane.text(points.theta, "θ", "ink", -20, -10);
  descent.axes("outer step", "M");
  for (const [method, style] of Object.entries(STYLES))
    descent.line(now.losses[method].map((m, i) => [i, m]), `line ${style}`);
  const row = method => ({
    [`${method}_x`]: now.directions[method][0], [`${method}_y`]: now.directions[method][1],
    [`${method}_angle`]: between(now.directions[method], now.directions.maml),
  });
  live({alpha, steps, steep, factor: now.factor,
      ...Object.assign({}, ...Object.keys(METHODS).map(row))});
  const last = now.losses.fomaml.at(-1), first = now.losses.fomaml[0];
  const verdict = shown.fomaml_angle > 90
      ? "First-order MAML points uphill here: its direction is more than 90° off the "
        + "exact gradient."
    : last > 10 * first
      ? "First-order MAML still points downhill at θ, but its outer steps run away."
    : now.factor < 0
      ? "The factor is negative: along the steep axis of task ■ first-order MAML has the "
        + "wrong sign."
    : "All factors are positive: first-order MAML has the right signs, and other lengths.";
  document.getElementById("verdict").textContent = verdict;
}

controls({
  alpha: {label: "step size α", min: 0.05, max: 1, step: 0.05, value: 0.5},
  steps: {label: "inner steps K", min: 1, max: 6, step: 1, value: 1},
  steep: {label: "curvature s", min: 0.5, max: 4, step: 0.1, value: 3},
}, {"small α": () => setControl("alpha", 0.1),
    "α s > 1": () => { setControl("alpha", 0.5); setControl("steep", 3); setControl("steps", 1);
    }});

start(draw, () => ({...values, ...points, hessians: hessians(),
    centres: [points.first, points.second], outer: OUTER_STEP, ...compute()}));
