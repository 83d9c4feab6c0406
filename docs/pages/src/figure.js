"use strict";
// What all pages share: numbers in the text, controls, and how a page starts.

// ---- numbers in formulas and in the text ---------------------------------------------
function format(x, digits = 3) {
  if (typeof x === "string") return x;
  if (Number.isNaN(x)) return "none";
  if (!Number.isFinite(x)) return x > 0 ? "∞" : "−∞";
  const far = x !== 0 && (Math.abs(x) < 10 ** -digits || Math.abs(x) >= 1e5);
  const text = Number.isInteger(x) && !far ? String(x) : far ? x.toExponential(1)
      : x.toFixed(digits);
  return text.replace(/-/g, "−");
}

const shown = {};

function live(values) {
  Object.assign(shown, values);
  for (const [name, value] of Object.entries(values))
    for (const place of document.querySelectorAll(`[data-live="${name}"]`))
      place.textContent = format(value);
}

// ---- controls: sliders with a number beside them, lists, switches, buttons -----------
const values = {};
const inputs = {};
let redraw = () => {};
let waiting = false;

function changed() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => { waiting = false; redraw(); });
}

function element(name, attributes = {}, parent = null) {
  const svg = ["svg", "g", "path", "line", "circle", "text", "rect", "polygon",
      "clipPath"].includes(name);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name)
      : document.createElement(name);
  for (const [key, value] of Object.entries(attributes))
    if (key === "text") made.textContent = value; else made.setAttribute(key, value);
  if (parent) parent.append(made);
  return made;
}

function setControl(name, value) {
  const spec = inputs[name].spec;
  if (spec.options) values[name] = value;
  else if ("checked" in spec) values[name] = Boolean(value);
  else values[name] = Math.min(spec.max, Math.max(spec.min, value));
  for (const field of inputs[name].fields)
    if ("checked" in spec) field.checked = values[name];
    else if (document.activeElement !== field || Number(field.value) !== values[name])
      field.value = spec.options ? values[name] : Number(values[name].toFixed(6));
  changed();
}

function slider(name, spec, box) {
  element("label", {for: `range-${name}`, text: spec.label}, box);
  const shared = {min: spec.min, max: spec.max, step: spec.step};
  const range = element("input", {type: "range", id: `range-${name}`, ...shared}, box);
  const typed = element("input",
      {type: "number", id: `number-${name}`, "aria-label": spec.label, ...shared, step: "any"},
      box);
  range.addEventListener("input", () => setControl(name, Number(range.value)));
  typed.addEventListener("change", () => setControl(name, Number(typed.value)));
  return [range, typed];
}

function choice(name, spec, box) {
  element("label", {for: `choice-${name}`, text: spec.label}, box);
  const list = element("select", {id: `choice-${name}`}, box);
  for (const [value, text] of Object.entries(spec.options)) element("option", {value, text}, list);
  list.addEventListener("change", () => setControl(name, list.value));
  return [list];
}

function toggle(name, spec, box) {
  const field = element("input", {type: "checkbox", id: `switch-${name}`}, box);
  element("label", {for: `switch-${name}`, text: spec.label}, box);
  field.addEventListener("change", () => setControl(name, field.checked));
  return [field];
}

// specs: {name: {label, min, max, step, value} or {label, options, value} or
// {label, checked}}; buttons: {text: function}
function controls(specs, buttons = {}) {
  const place = document.getElementById("controls");
  for (const [name, spec] of Object.entries(specs)) {
    const kind = spec.options ? choice : "checked" in spec ? toggle : slider;
    const box = element("div", {class: kind === slider ? "control" : "control row"}, place);
    inputs[name] = {spec, fields: []};
    inputs[name].fields = kind(name, spec, box);
    setControl(name, "checked" in spec ? spec.checked : spec.value);
  }
  const row = element("div", {class: "control row"}, Object.keys(buttons).length ? place : null);
  for (const [text, press] of Object.entries(buttons))
    element("button", {type: "button", text}, row).addEventListener("click",
        () => { press(); changed(); });
}

// ---- the page ------------------------------------------------------------------------
// draw() draws everything from `values`; numbers() returns what the tests compare with
// refmaml. NAME.html?numbers writes these numbers into the page as JSON.
function start(draw, numbers) {
  redraw = () => {
    for (const panel of Panel.all) panel.clear();
    draw();
    for (const panel of Panel.all) panel.place();
  };
  redraw();
  window.pageNumbers = () => { redraw(); return JSON.stringify({...numbers(), shown}); };
  if (location.search === "?numbers") element("pre", {id: "numbers", text: window.pageNumbers()},
      document.body);
  const here = document.querySelector("nav [aria-current]");
  here.parentElement.scrollLeft = here.offsetLeft - 40; // on a phone not all pages fit
  new ResizeObserver(changed).observe(document.querySelector("main"));
}

document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.body).backgroundColor !== "rgb(255, 255, 255)";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});

// In an installed package the sources lie two folders up; `refmaml learn` says so.
if (location.hash === "#installed")
  for (const link of document.querySelectorAll("a.source"))
    link.setAttribute("href", link.getAttribute("href").replace("../../refmaml/", "../../"));
