"use strict";
const DIM = 20, RANK = 3, STEPS = 600, BETA = 0.05, NOISE = 0.1, PER_FRAME = 12;
const LEARNERS = {anil: {style: "green", title: "FO-ANIL"},
    erm: {style: "red dashed", title: "ERM"}};

const race = new Panel("race", {x: [0, STEPS], y: [0.5, 100], log: true, height: 280, left: 46});
const BARS = {x: [0, 8], y: [0, 1], height: 180, left: 8, bottom: 24};
const bars = {spread: new Panel("spread", {...BARS}), signal: new Panel("signal", {...BARS})};
race.handle({name: "step", label: "step to look at", style: "ink", form: "diamond", along: "x",
    step: 10,
  at: () => [Math.min(values.step, STEPS), race.fromPixels(0, 24)[1]],
      move: x => setControl("step", Math.round(x))});

const run = {};
const still = window.matchMedia("(prefers-reduced-motion: reduce)");

function restart() {
  const normal = generator(1), column = () => Array.from({length: DIM}, normal);
  run.basis = orthonormal(Array.from({length: RANK}, column));
  const near = run.basis.map(q => combine(q, 0.15, column()));
  const B = orthonormal(near).map(q => scaled(1 / Math.sqrt(values.alpha), q)),
      w = Array(RANK).fill(0);
  run.normal = normal;
  run.batches = [];
  for (const name of Object.keys(LEARNERS)) run[name] = [{B, w}];
  run.key = settings();
}

const settings = () => [values.alpha, values.tasks, values.samples, values.diversity].join();

function sample() {
  const {normal, basis} = run, data = head => {
    const x = Array.from({length: values.samples}, () => Array.from({length: DIM}, normal));
    const weight = basis[0].map((_, j) => basis.reduce((s, q, c) => s + head[c] * q[j], 0));
    return {x, y: x.map(row => dot(row, weight) + NOISE * normal())};
  };
  return Array.from({length: values.tasks}, () => {
    const head = Array.from({length: RANK},
        (_, c) => normal() * (c === RANK - 1 ? values.diversity : 1));
    const support = data(head), query = data(head);
    return {head, ...support, x2: query.x, y2: query.y};
  });
}

// Steps of both learners on the same tasks. Each entry keeps B, w, the angle, and what
// the step from there used.
function advance(steps) {
  for (let i = 0; i < steps && run.anil.length <= STEPS; i++) {
    const tasks = sample();
    if (KEPT.includes(run.batches.length)) run.batches.push(tasks); else run.batches.push(null);
    for (const name of Object.keys(LEARNERS)) {
      const now = run[name].at(-1), alpha = name === "anil" ? values.alpha * INNER : 0;
      const {B, w, spread, signal} = subspaceStep(now, tasks, alpha, BETA);
      Object.assign(now, {spread, signal});
      run[name].push({B, w});
    }
  }
}
const INNER = 0.2; // the inner step over alpha: heads of few samples need small steps
const KEPT = [0, 1, 250, 599]; // steps whose tasks the tests look at

function angleAt(entry) {
  if (entry.angle === undefined) entry.angle = principalAngle(entry.B, run.basis);
  return entry.angle;
}

// Singular values that only rounding made are 0.
const withoutRounding = s => s.map(z => (z > 1e-14 * s[0] ? z : 0));

function at(name, step) {
  const entry = run[name][step],
      [spread, signal] = [entry.spread, entry.signal].map(M => withoutRounding(singularValues(M)));
  return {
    angle: angleAt(entry), spread, signal: scaled(BETA, signal), prior: 1 - BETA * spread[RANK - 1],
    condition: spread[0] / spread[RANK - 1],
  };
}

function drawBars(panel, rows) {
  panel.y = panel.yRange = [0, 1.15 * Math.max(...rows.flat(), 1e-6)];
  element("line", {class: "axis", x1: panel.left, x2: panel.width - panel.right, y1: panel.Y(0),
      y2: panel.Y(0)}, panel.back);
  rows.forEach((row, r) => {
    row.forEach((s, i) => {
      const x = 0.6 + 4 * r + i, top = panel.Y(s), style = r ? "red" : "green";
      element("rect", {class: `mark ${style}`, x: panel.X(x), y: top,
          width: panel.X(x + 0.8) - panel.X(x), height: panel.Y(0) - top}, panel.front);
      element("text", {class: "small", "text-anchor": "middle", x: panel.X(x + 0.4), y: top - 4,
          text: s ? format(s, s < 0.1 ? 4 : 2) : "0"}, panel.front);
    });
    element("text", {"text-anchor": "middle", x: panel.X(2 + 4 * r), y: panel.tall - 6,
        text: r ? "ERM" : "FO-ANIL"}, panel.back);
  });
}

function draw() {
  if (run.key !== settings()) restart();
  advance(still.matches ? STEPS : PER_FRAME); // at once where motion is not wanted
  const last = run.anil.length - 2, step = Math.min(values.step, last);
  race.axes("step", "degrees");
  for (const [name, {style}] of Object.entries(LEARNERS))
    race.line(run[name].slice(0, -1).map((entry, i) =>
        (i % 5 && i !== last ? null : [i, angleAt(entry)])).filter(Boolean), `line ${style}`);
  race.line([[step, 0.1], [step, 200]], "thin ink dotted");
  const now = {anil: at("anil", step), erm: at("erm", step)};
  for (const [name, {style}] of Object.entries(LEARNERS)) race.dot([step, now[name].angle],
      style.split(" ")[0], 6);
  for (const [what, panel] of Object.entries(bars)) drawBars(panel,
      [now.anil[what], now.erm[what]]);
  const numbers = {step};
  for (const name of Object.keys(LEARNERS)) Object.assign(numbers, {
    [`${name}_angle`]: now[name].angle, [`${name}_prior`]: now[name].prior,
    [`${name}_signal`]: now[name].signal[RANK - 1], [`${name}_condition`]: now[name].condition,
  });
  live(numbers);
  const done = run.anil.length > STEPS;
  const final = name => format(angleAt(run[name][STEPS - 1]), 1);
  document.getElementById("verdict").textContent = !done ? `The race is on: step ${last}.`
    : `After ${STEPS - 1} steps: FO-ANIL is ${final("anil")}° off, ERM ${final("erm")}°.`;
  if (!done) changed();
}

controls({
  tasks: {label: "tasks n", min: 1, max: 60, step: 1, value: 30},
  samples: {label: "samples m", min: 2, max: 40, step: 1, value: 10},
  diversity: {label: "diversity", min: 0, max: 1, step: 0.05, value: 1},
  alpha: {label: "α", min: 0.1, max: 1, step: 0.05, value: 0.5},
  step: {label: "step", min: 0, max: STEPS - 1, step: 1, value: STEPS - 1},
});

start(draw, () => {
  if (run.key !== settings()) restart();
  advance(STEPS);
  redraw();
  const pick = name => KEPT.map(s =>
      ({now: run[name][s], after: run[name][s + 1], ...at(name, s)}));
  return {
    ...values, beta: BETA, inner: INNER, basis: run.basis, kept: KEPT,
        batches: KEPT.map(s => run.batches[s]),
    anil: pick("anil"), erm: pick("erm"),
        angles: {anil: run.anil.slice(0, -1).map(angleAt), erm: run.erm.slice(0, -1).map(angleAt)},
    at: {anil: at("anil", Math.min(values.step, STEPS - 1)),
        erm: at("erm", Math.min(values.step, STEPS - 1))},
  };
});
