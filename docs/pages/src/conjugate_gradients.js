"use strict";
const UNKNOWNS = 24, ANGLE = 25, MOST = 24;
const solution = {u: [0.3, 1.7]}; // b = A u

const bowl = new Panel("bowl", {x: [-2.6, 2.6], equal: true, height: 400});
const errors = new Panel("errors", {x: [0, MOST], y: [1e-8, 10], log: true, height: 400});
bowl.handle({name: "u", label: "solution u", style: "blue", form: "star", step: 0.05,
  at: () => solution.u, move: (x, y) => { solution.u = [x, y]; }});
errors.handle({name: "k", label: "steps k", style: "ink", form: "diamond", along: "x", step: 1,
  at: () => [values.steps, errors.fromPixels(0, errors.tall - 34)[1]],
      move: x => setControl("steps", Math.round(x))});

// A = I + H / lambda in the plane, and the diagonal of A with many unknowns.
const small = () => symmetric([1 + values.largest / values.lambda,
    1 + values.smallest / values.lambda], ANGLE);
const spectrum = () => Array.from({length: UNKNOWNS}, (_, i) =>
  1 + (values.smallest + (values.largest - values.smallest)
      * (i / (UNKNOWNS - 1)) ** 2) / values.lambda);

// |u_k - u|_A / |u|_A of each iterate, for a diagonal A and b = (1, ..., 1).
function relativeErrors(iterates, diagonal) {
  const energy = e => Math.sqrt(Math.max(0, dot(e, product(diagonal, e)))),
      exact = diagonal.map(d => 1 / d);
  return iterates.map(u => energy(minus(u, exact)) / energy(exact));
}

function compute() {
  const A = small(), b = times(A, solution.u), diagonal = spectrum(), ones = diagonal.map(() => 1);
  const inPlane = conjugateGradients(v => times(A, v), b, 2),
      many = conjugateGradients(v => product(diagonal, v), ones, MOST);
  const kappa = (1 + values.largest / values.lambda) / (1 + values.smallest / values.lambda);
  const pAp = dot(b, times(A, b)), rr = dot(b, b);
  const descents = steepestDescent(v => times(A, v), b, MOST);
  const slow = steepestDescent(v => product(diagonal, v), ones, MOST);
  const definite = kappa > 0 && Number.isFinite(kappa);
  return {
    A, b, diagonal, inPlane, many, kappa, pAp, rr, a: rr / pAp, descents, slow, definite,
    errors: definite ? relativeErrors(many.xs, diagonal) : [],
    slowErrors: definite ? relativeErrors(slow, diagonal) : [],
  };
}

function draw() {
  const now = compute(), {steps} = values;
  bowl.axes();
  const area = Math.sqrt(Math.abs(now.A[0][0] * now.A[1][1] - now.A[0][1] ** 2));
  if (now.definite) for (const r of [0.3, 0.8, 1.4, 2.1]) bowl.ellipse(solution.u, now.A,
      r * r * area, "thin quiet faint");
  const unitB = scaled(0.8 / (norm(now.b) || 1), now.b);
  bowl.arrow([0, 0], unitB, "ink thin");
  bowl.text(unitB, "b", "ink", 6, 4);
  bowl.line(now.descents.slice(0, steps + 1), "line red dashed");
  const path = now.inPlane.xs.slice(0, steps + 1);
  bowl.line(path, "line green");
  path.forEach(u => bowl.dot(u, "green", 5));
  if (now.inPlane.status === "negative_curvature") {
    const p = now.inPlane.directions.at(-1), u = now.inPlane.xs.at(-1),
        unit = scaled(1.1 / norm(p), p);
    bowl.arrow(u, combine(u, 1, unit), "red");
    bowl.text(combine(u, 1, unit), "p'Ap < 0", "red", 6, 18);
  }
  errors.axes("k", "error");
  if (now.definite) {
    errors.line(Array.from({length: MOST + 1}, (_, k) => [k, cgBound(now.kappa, k)]),
        "line gold dotted");
    errors.line(now.slowErrors.map((e, k) => [k, e]), "line red dashed");
    errors.line(now.errors.map((e, k) => [k, e]), "line green");
    now.errors.forEach((e, k) => errors.dot([k, e], "green", k === steps ? 7 : 3));
  }
  errors.line([[steps, 1e-8], [steps, 10]], "thin ink dotted");
  const {lambda, largest, smallest} = values;
  live({
    lambda, largest, smallest, steps, kappa: now.definite ? now.kappa : NaN, rr: now.rr,
        pAp: now.pAp, a: now.a,
    error: now.definite ? now.errors[Math.min(steps, now.errors.length - 1)] : NaN,
    bound: now.definite ? cgBound(now.kappa, steps) : NaN,
  });
  const verdict = !now.definite
      ? "λ ≤ −s₂: A is not positive definite, and the inner problem has no minimum. "
        + `Status with 24 unknowns: ${now.many.status}.`
    : now.kappa > 20 ? "κ is large: one step of CG leaves most of the error."
    : now.kappa < 3
      ? "κ is near 1: a few steps are enough. But a strong penalty also adapts little."
    : "A moderate κ: the error shrinks by about the same factor in each step.";
  document.getElementById("verdict").textContent = verdict;
}

controls({
  lambda: {label: "strength λ", min: 0.2, max: 20, step: 0.2, value: 2},
  largest: {label: "curvature s₁", min: 0.5, max: 40, step: 0.5, value: 20},
  smallest: {label: "curvature s₂", min: -6, max: 20, step: 0.5, value: 0.5},
  steps: {label: "steps k", min: 0, max: MOST, step: 1, value: 5},
}, {"negative curvature": () => { setControl("smallest", -4); setControl("lambda", 2); },
    "well conditioned": () => { setControl("smallest", 0.5); setControl("lambda", 18); }});

start(draw, () => ({...values, ...solution, ...compute()}));
