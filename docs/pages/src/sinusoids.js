"use strict";
const STARTS = {maml: "green", erm: "red dashed", random: "blue dotted"};
const ALPHA = 0.01, MOST = 10, EDGE = 5;
const POSITIONS = [-4.6, -3.7, -2.9, -1.8, -1.1, 0.2, 1.3, 2.2, 3.4, 4.5];
const GRID = Array.from({length: 81}, (_, i) => -8 + i / 5);
const support = POSITIONS.map(x => [x, 0]);
const weights = Object.fromEntries(Object.keys(STARTS).map(name =>
    [name, Float64Array.from(DATA[name])]));
const wave = x => values.amplitude * Math.sin(x - values.phase);

const fits = new Panel("fits", {x: [-8, 8], y: [-8.5, 8.5], height: w => (w < 500 ? 300 : 370)});
const curve = new Panel("curve", {x: [0, MOST], y: [0.01, 100], log: true, height: 175});
support.forEach((point, i) => fits.handle({
  name: `point${i}`, label: `point ${i + 1}`, style: "ink", step: 0.1, at: () => point,
  move: (x, y) => { [point[0], point[1]] = [x, y]; },
}));

// The points return to the wave when it changes.
let lastWave = "";
function followWave() {
  const key = [values.amplitude, values.phase].join();
  if (key === lastWave) return;
  lastWave = key;
  support.forEach((point, i) => { [point[0], point[1]] = [POSITIONS[i], wave(POSITIONS[i])]; });
}

const error = (fit, inside) => {
  const xs = GRID.filter(x => (Math.abs(x) <= EDGE) === inside);
  return xs.reduce((s, x) => s + (fit(x) - wave(x)) ** 2, 0) / xs.length;
};

function compute() {
  followWave();
  const found = {};
  for (const name of Object.keys(STARTS)) {
    const path = netAdapt(weights[name], support, ALPHA, MOST);
    found[name] = {
      path, fit: GRID.map(x => netOutput(path[values.steps], x)),
      inside: path.map(w => error(x => netOutput(w, x), true)),
      outside: path.map(w => error(x => netOutput(w, x), false)),
    };
  }
  const r = encode(DATA.cnp, support), at = GRID.map(x => decode(DATA.cnp, r, x));
  const fit = x => decode(DATA.cnp, r, x).mean;
  found.cnp = {fit: at.map(z => z.mean), sigma: at.map(z => z.sigma),
      inside: error(fit, true), outside: error(fit, false)};
  return found;
}

function draw() {
  const now = compute(), {steps} = values;
  fits.axes("x", "y");
  for (const x of [-EDGE, EDGE]) fits.line([[x, -9], [x, 9]], "thin ink dotted");
  fits.curve(wave, "line quiet dotted");
  curve.axes("k", "error");
  for (const [name, style] of Object.entries(STARTS)) {
    fits.line(now[name].fit.map((z, i) => [GRID[i], z]), `line ${style}`);
    curve.line(now[name].inside.map((e, k) => [k, e]), `line ${style}`);
    curve.line(now[name].outside.map((e, k) => [k, e]), `thin ${style}`);
  }
  const {fit, sigma, inside, outside} = now.cnp;
  for (const [sign, style] of [[0, "line violet"], [-2, "thin violet dotted"],
      [2, "thin violet dotted"]]) {
    fits.line(fit.map((z, i) => [GRID[i], z + sign * sigma[i]]), style);
  }
  curve.line([[0, inside], [MOST, inside]], "line violet");
  curve.line([[0, outside], [MOST, outside]], "thin violet");
  curve.line([[steps, 0.001], [steps, 1000]], "thin ink dotted");
  const row = name => ({[`${name}_inside`]: now[name].inside[steps],
      [`${name}_outside`]: now[name].outside[steps]});
  live({steps, ...Object.assign({}, ...Object.keys(STARTS).map(row)), cnp_inside: inside,
      cnp_outside: outside});
  const [maml, erm] = [now.maml.inside[steps], now.erm.inside[steps]];
  document.getElementById("verdict").textContent = steps === 0
      ? "Before any step all starts know nothing of this wave."
    : maml < 0.5 * erm
      ? `MAML's error is ${format(erm / maml, 1)} times smaller than ERM's: k = ${steps}.`
    : "Here MAML's start is hardly better than ERM's.";
}

controls({
  steps: {label: "steps k", min: 0, max: MOST, step: 1, value: 1},
  amplitude: {label: "amplitude A", min: 0.1, max: 8, step: 0.1, value: 3.5},
  phase: {label: "phase φ", min: 0, max: 5.5, step: 0.02, value: 0.6},
});

start(draw, () => {
  const found = compute();
  const round = Object.fromEntries(Object.entries(found).map(([name, {path, ...rest}]) =>
      [name, path ? {...rest, phi: Array.from(path[values.steps])} : rest]));
  return {...values, alpha: ALPHA, support, grid: GRID, edge: EDGE, weights: DATA, ...round};
});
