"use strict";
const WAYS = 5, TESTS = 3, SIZE = 28, MOST = 10, LETTERS = [..."ABCDE"];
const STARTS = {maml: "green", fomaml: "gold dashed", untrained: "blue dotted"};
const NAMES = {maml: "MAML", fomaml: "first-order MAML", untrained: "untrained"};
const ALPHA = DATA.alpha;

// ---- the committed weights and pictures -------------------------------------------------
const bytes = text => Uint8Array.from(atob(text), c => c.charCodeAt(0));
const weights = Object.fromEntries(Object.entries(DATA.weights).map(([name, text]) =>
    [name, Float64Array.from(new Float32Array(bytes(text).buffer))]));
// Two pixels in a byte, 16 levels: five pictures of each character.
const pictures = DATA.glyphs.map(({pictures: text}) => {
  const pixels = [...bytes(text)].flatMap(b => [b >> 4, b & 15]).map(level => level / 15);
  return Array.from({length: TESTS + 2}, (_, i) =>
      Float64Array.from(pixels.slice(i * SIZE * SIZE, (i + 1) * SIZE * SIZE)));
});
const net = conv4(WAYS, DATA.channels, SIZE);

// ---- the task: one training picture for each class, three to test, and one of your own --
const support = [], tests = [];
let mine = null, mineDrawn = false, version = 0;
const chosen = LETTERS.map(() => null); // the character of each class; "drawn": yours
const OWN = 2; // your picture starts as one of class C

// The picture turned about its centre by an angle, enlarged, and shifted; between pixels
// by bilinear weights.
function warped(picture, [angle, size, right, down]) {
  const middle = (SIZE - 1) / 2, c = Math.cos(angle) / size, s = Math.sin(angle) / size;
  const at = (i, j) => (i >= 0 && j >= 0 && i < SIZE && j < SIZE ? picture[i * SIZE + j] : 0);
  return picture.map((_, place) => {
    const y = Math.floor(place / SIZE) - middle - down, x = (place % SIZE) - middle - right;
    const u = c * x + s * y + middle, v = c * y - s * x + middle;
    const j = Math.floor(u), i = Math.floor(v), a = u - j, b = v - i;
    return (1 - b) * ((1 - a) * at(i, j) + a * at(i, j + 1))
        + b * ((1 - a) * at(i + 1, j) + a * at(i + 1, j + 1));
  });
}
const WARPS = [[0.17, 1, 1, 0], [-0.14, 0.9, -1, 1], [0.05, 1.08, 0, -1]];

function followChoices() {
  LETTERS.forEach((_, c) => {
    const character = values[`class${c}`];
    if (character === chosen[c]) return;
    chosen[c] = character;
    const [first, ...rest] = pictures[character];
    support[c] = first.slice();
    tests[c] = rest.slice(0, TESTS);
    if (c === OWN && !mineDrawn) mine = rest[TESTS].slice();
    version++;
  });
}

// ---- the drawing pad: a pen for the pointer and for keys --------------------------------
const pen = {at: [14, 14], down: false, pointer: false, dots: 0};
const target = () => (values.target === "own" ? mine : support[values.target]);

// Ink along a line: full within PEN of it, nothing one pixel further.
const PEN = 0.7;
function ink([x0, y0], [x1, y1]) {
  const picture = target(), length = (x1 - x0) ** 2 + (y1 - y0) ** 2;
  for (let place = 0; place < picture.length; place++) {
    const x = (place % SIZE) + 0.5, y = Math.floor(place / SIZE) + 0.5;
    const t = length ? ((x - x0) * (x1 - x0) + (y - y0) * (y1 - y0)) / length : 0;
    const u = Math.min(1, Math.max(0, t));
    const far = Math.hypot(x - x0 - u * (x1 - x0), y - y0 - u * (y1 - y0));
    picture[place] = Math.max(picture[place], Math.min(1, Math.max(0, PEN + 1 - far)));
  }
  pen.dots++;
}

// What else changes with a drawing: the class's test pictures are the drawing, warped.
function drawn() {
  if (values.target === "own") mineDrawn = true;
  else tests[values.target] = WARPS.map(warp => warped(support[values.target], warp));
  version++;
  changed();
}

function clearPicture() { target().fill(0); drawn(); }
function restore() {
  if (values.target === "own") { mineDrawn = false; chosen[OWN] = null; }
  else chosen[values.target] = null;
}

const pad = document.getElementById("pad");
const padPlace = event => {
  const box = pad.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top].map((z, i) =>
      (z / (i ? box.height : box.width)) * SIZE);
};
const onward = to => { ink(pen.at, to); pen.at = to; };
pad.addEventListener("pointerdown", event => {
  pad.setPointerCapture(event.pointerId);
  event.preventDefault();
  pad.focus({focusVisible: false});
  pen.pointer = true;
  pen.at = padPlace(event);
  onward(pen.at);
  paintPad();
});
pad.addEventListener("pointermove", event => {
  if (!pad.hasPointerCapture(event.pointerId)) return;
  onward(padPlace(event));
  paintPad();
});
pad.addEventListener("lostpointercapture", () => { pen.pointer = false; drawn(); });
pad.addEventListener("keydown", event => {
  const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1],
      ArrowDown: [0, 1]}[event.key];
  if (way) {
    const far = event.shiftKey ? 5 : 1;
    const to = pen.at.map((z, i) => Math.min(SIZE, Math.max(0, z + far * way[i])));
    if (pen.down) onward(to); else pen.at = to;
  } else if (event.key === " ") {
    pen.down = !pen.down;
    if (pen.down) onward(pen.at);
  } else if (event.key === "Delete" || event.key === "Backspace") target().fill(0);
  else return;
  event.preventDefault();
  if (way && !pen.down) changed(); else drawn();
});

// ---- pictures on canvases ----------------------------------------------------------------
function paint(canvas, picture) {
  const [red, green, blue] = getComputedStyle(document.body).color.match(/\d+/g).map(Number);
  const context = canvas.getContext("2d"), image = context.createImageData(SIZE, SIZE);
  picture.forEach((value, i) => image.data.set([red, green, blue, 255 * value], 4 * i));
  context.putImageData(image, 0, 0);
}
function paintPad() {
  paint(pad, target());
  const [x, y] = pen.at, cross = document.getElementById("pen");
  cross.style.left = `${(100 * x) / SIZE}%`;
  cross.style.top = `${(100 * y) / SIZE}%`;
  cross.classList.toggle("down", pen.down);
  if (values.target !== "own") paint(cells[values.target].support, target());
}
const canvas = (parent, label, kind) =>
    element("canvas", {width: SIZE, height: SIZE, class: `picture ${kind}`, role: "img",
        "aria-label": label}, parent);
const cells = LETTERS.map((letter, c) => {
  const box = element("div", {class: "class"}, document.getElementById("classes"));
  element("b", {text: letter}, box);
  const found = {box, support: canvas(box, `training picture of class ${letter}`, "support")};
  found.support.addEventListener("click", () => setControl("target", String(c)));
  found.tests = Array.from({length: TESTS}, (_, i) => {
    const test = element("div", {class: "test"}, box);
    return {test, picture: canvas(test, `test picture ${i + 1} of class ${letter}`, ""),
        mark: element("span", {}, test)};
  });
  return found;
});

// ---- what the net makes of it -------------------------------------------------------------
const labels = LETTERS.map((_, c) => c);
const testLabels = labels.flatMap(c => Array(TESTS).fill(c));
const guesses = z => Array.from({length: z.length / WAYS}, (_, n) => {
  const row = z.subarray(n * WAYS, n * WAYS + WAYS);
  return row.indexOf(Math.max(...row));
});

let adapted = {version: -1};
// For every start: the inner loop's passes, and the test pictures after each step.
function adaptAll() {
  followChoices();
  if (adapted.version === version) return adapted;
  const x = joined(...support), queries = joined(...tests.flat());
  adapted = {version, x, queries};
  for (const [name, theta] of Object.entries(weights)) {
    const path = adaptation(net, theta, x, labels, ALPHA, MOST);
    const z = path.map(({w}) => outputs(net, w, queries, testLabels.length).z);
    adapted[name] = {
      path, z, loss: z.map(a => crossEntropy(probabilities(a, WAYS), testLabels, WAYS)),
      wrong: z.map(a => guesses(a).filter((guess, n) => guess !== testLabels[n]).length),
    };
  }
  return adapted;
}

// With your own picture as the sixteenth of the pass.
function judgeMine({queries}, w) {
  const {z} = outputs(net, w, joined(queries, mine), testLabels.length + 1);
  return probabilities(z.subarray(-WAYS), WAYS);
}

function compute() {
  const all = adaptAll(), {start, steps} = values, {path, z, loss, wrong} = all[start];
  const {first, whole, hvps} = metaGradients(net, path.slice(0, steps + 1), all.queries,
      testLabels, ALPHA);
  const cosine = dot(first, whole) / (norm(first) * norm(whole));
  const angle = steps ? (Math.acos(Math.min(1, cosine)) * 180) / Math.PI : 0;
  return {all, phi: path[steps].w, first, whole, hvps, z: z[steps], angle, loss, wrong,
      before: judgeMine(all, path[0].w), after: judgeMine(all, path[steps].w),
      support0: path[0].loss, support: path[steps].loss};
}

// ---- drawing ---------------------------------------------------------------------------------
const bars = new Panel("bars", {x: [0, WAYS], y: [0, 1.15], height: 200, names: LETTERS});
const curve = new Panel("curve", {x: [0, MOST], y: [0, 1], height: 200});
curve.handle({
  name: "steps", label: "inner steps", style: "ink", form: "diamond", along: "x", step: 1,
  at: () => [values.steps, adaptAll()[values.start].wrong[values.steps] / testLabels.length],
  move: x => setControl("steps", Math.round(x)),
});

function bar(x, height, width, style) {
  const top = bars.Y(height);
  element("rect", {x: bars.X(x), y: top, width: bars.X(x + width) - bars.X(x),
      height: Math.max(0, bars.Y(0) - top), class: style}, bars.front);
}

function drawCells({z}) {
  const guess = guesses(z);
  cells.forEach((cell, c) => {
    paint(cell.support, support[c]);
    cell.support.classList.toggle("chosen", values.target === String(c));
    cell.tests.forEach(({test, picture, mark}, i) => {
      paint(picture, tests[c][i]);
      const found = guess[c * TESTS + i];
      test.classList.toggle("wrong", found !== c);
      mark.textContent = found === c ? "✓" : `→ ${LETTERS[found]}`;
    });
  });
}

function drawCharts(now) {
  bars.axes("", "probability");
  LETTERS.forEach((_, c) => {
    bar(c + 0.12, now.before[c], 0.34, "bar before");
    bar(c + 0.54, now.after[c], 0.34, "bar after");
  });
  curve.axes("k", "test error");
  curve.line([[0, 1 - 1 / WAYS], [MOST, 1 - 1 / WAYS]], "thin quiet dotted");
  for (const [name, style] of Object.entries(STARTS))
    curve.line(now.all[name].wrong.map((count, k) => [k, count / testLabels.length]),
        `line ${style}${name === values.start ? "" : " faint"}`);
}

function verdict({wrong, after}) {
  const {start, steps} = values, [before, now] = [wrong[0], wrong[steps]];
  const own = after.indexOf(Math.max(...after));
  const opinion = `Your picture is taken for ${LETTERS[own]}.`;
  if (steps === 0) return `Before any step the net does not know your classes: ${before} of `
      + `${testLabels.length} are wrong. ${opinion}`;
  const fall = now < before ? `from ${before} to ${now}` : `${before} before, ${now} now`;
  return `${NAMES[start]}, ${steps} step${steps > 1 ? "s" : ""} on five pictures: wrong of `
      + `${testLabels.length}, ${fall}. ${opinion}`;
}

function draw() {
  if (pen.pointer) return paintPad();
  const now = compute(), {steps} = values, best = Math.max(...now.after);
  paintPad();
  drawCells(now);
  drawCharts(now);
  live({
    alpha: ALPHA, steps, support0: now.support0, support: now.support, test0: now.loss[0],
    test: now.loss[steps], wrong0: now.wrong[0], wrong: now.wrong[steps],
    own: LETTERS[now.after.indexOf(best)], own_after: best,
    own_before: now.before[now.after.indexOf(best)], size: norm(now.whole), angle: now.angle,
    pen_x: pen.at[0], pen_y: pen.at[1],
  });
  document.getElementById("verdict").textContent = verdict(now);
}

const characters = Object.fromEntries(DATA.glyphs.map(({name}, i) => [String(i), name]));
controls({
  start: {label: "start θ", options: NAMES, value: "maml"},
  steps: {label: "steps k", min: 0, max: MOST, step: 1, value: 1},
  target: {label: "the pad draws", value: "own", options: {own: "your test picture",
      ...Object.fromEntries(LETTERS.map((letter, c) => [c, `training picture ${letter}`]))}},
  ...Object.fromEntries(LETTERS.map((letter, c) => [`class${c}`,
      {label: letter, options: characters, value: String(DATA.chosen[c])}])),
}, {"clear the picture": clearPicture, "undo all drawing on it": restore});
cells.forEach(({box, support: first}, c) =>
    first.after(document.getElementById(`choice-class${c}`).parentElement));
new MutationObserver(changed).observe(document.documentElement, {attributes: true}); // dark, light
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);

start(draw, () => {
  const {all, ...now} = compute();
  const curves = Object.fromEntries(Object.keys(STARTS).map(name =>
      [name, {loss: all[name].loss, wrong: all[name].wrong}]));
  return {
    ...values, alpha: ALPHA, weights: DATA.weights, support: support.map(a => [...a]),
    tests: tests.flat().map(a => [...a]), mine: [...mine], pen: pen.at, dots: pen.dots, curves,
    phi: [...now.phi], first: [...now.first], whole: [...now.whole],
    hvps: now.hvps.map(a => [...a]), z: [...now.z], before: [...now.before],
    after: [...now.after],
  };
});
