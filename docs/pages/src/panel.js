"use strict";
// ---- panels: one drawing with axes and points that can be dragged --------------------
// options: x and y ranges; height in pixels, or a function of the width; equal: the same
// scale in both directions (y is then the range's centre); log: y in powers of ten;
// names: of the intervals [0, 1], [1, 2], ... of x, in place of numbers
class Panel {
  constructor(id, options) {
    Object.assign(this, {left: 42, right: 14, top: 8, bottom: 22, handles: [], ...options});
    this.svg = document.getElementById(id);
    const clip = element("clipPath", {id: `clip-${id}`}, this.svg);
    this.window = element("rect", {}, clip);
    this.back = element("g", {}, this.svg);
    this.front = element("g", {"clip-path": `url(#clip-${id})`}, this.svg);
    this.over = element("g", {}, this.svg);
    Panel.all.push(this);
  }

  clear() {
    this.width = Math.max(this.svg.clientWidth, 200);
    this.tall = typeof this.height === "function" ? this.height(this.width) : this.height;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.tall}`);
    this.svg.style.height = `${this.tall}px`;
    const [w, h] = [this.width - this.left - this.right, this.tall - this.top - this.bottom];
    if (this.equal) {
      const half = ((this.x[1] - this.x[0]) / w) * h / 2;
      this.yRange = [this.equal - half, this.equal + half];
      if (this.equal === true) this.yRange = [-half, half];
    } else this.yRange = this.y;
    for (const [key, value] of Object.entries({x: this.left, y: this.top, width: w, height: h}))
      this.window.setAttribute(key, value);
    this.back.replaceChildren();
    this.front.replaceChildren();
  }

  X(x) { return this.left + ((x - this.x[0]) / (this.x[1] - this.x[0]))
      * (this.width - this.left - this.right); }
  Y(y) {
    const [lowest, highest] = this.yRange;
    const part = this.log ? Math.log10(Math.max(y, 1e-300) / lowest) / Math.log10(highest / lowest)
      : (y - lowest) / (highest - lowest);
    return this.tall - this.bottom - Math.min(Math.max(part, -50), 50)
        * (this.tall - this.top - this.bottom);
  }
  fromPixels(px, py) {
    const x = this.x[0] + ((px - this.left) / (this.width - this.left - this.right))
        * (this.x[1] - this.x[0]);
    const part = (this.tall - this.bottom - py) / (this.tall - this.top - this.bottom);
    return [x, this.yRange[0] + part * (this.yRange[1] - this.yRange[0])];
  }

  ticks([from, to], most) {
    const rough = (to - from) / most, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map(m => m * power).find(s => s >= rough);
    const found = [];
    for (let i = Math.ceil(from / step - 1e-9); i * step <= to + 1e-9 * step;
        i++) found.push(i * step);
    return found;
  }

  axes(xLabel = "", yLabel = "") {
    const bottom = this.tall - this.bottom, right = this.width - this.right;
    (this.names ?? []).forEach((text, i) => element("text", {x: this.X(i + 0.5), y: bottom + 16,
        "text-anchor": "middle", text}, this.back));
    for (const x of this.names ? [] : this.ticks(this.x, this.width / 60)) {
      element("line", {class: "grid", x1: this.X(x), x2: this.X(x), y1: this.top, y2: bottom},
          this.back);
      element("text", {class: "quiet", x: this.X(x), y: bottom + 15, "text-anchor": "middle",
          text: format(+x.toFixed(9), 1)}, this.back);
    }
    const powers = () => this.ticks(this.yRange.map(y => Math.log10(y)),
        this.tall / 40).filter(Number.isInteger).map(p => 10 ** p);
    for (const y of this.log ? powers() : this.ticks(this.yRange, this.tall / 45)) {
      element("line", {class: "grid", y1: this.Y(y), y2: this.Y(y), x1: this.left, x2: right},
          this.back);
      const text = this.log ? powerOfTen(y) : format(+y.toFixed(9), 1);
      element("text", {class: "quiet", x: this.left - 5, y: this.Y(y) + 4, "text-anchor": "end",
          text}, this.back);
    }
    element("text", {x: right, y: bottom - 6, "text-anchor": "end", text: xLabel}, this.back);
    element("text", {x: this.left + 6, y: this.top + 14, text: yLabel}, this.back);
  }

  // A line through points [x, y]; null lifts the pen.
  line(points, style) {
    let pen = "M", d = "";
    for (const point of points) {
      if (!point || !Number.isFinite(point[1])) { pen = "M"; continue; }
      d += `${pen}${this.X(point[0]).toFixed(2)} ${this.Y(point[1]).toFixed(2)}`;
      pen = "L";
    }
    return element("path", {d, class: style}, this.front);
  }

  curve(f, style, count = 400) {
    const [a, b] = this.x;
    return this.line(Array.from({length: count + 1},
        (_, i) => a + ((b - a) * i) / count).map(x => [x, f(x)]), style);
  }

  dot([x, y], style, radius = 5) {
    return element("circle", {class: `mark ${style}`, cx: this.X(x), cy: this.Y(y), r: radius},
        this.front);
  }

  star([x, y], style, radius = 9) {
    return element("path", {class: `mark ${style}`,
        d: shape("star", this.X(x), this.Y(y), radius)}, this.front);
  }

  arrow([x0, y0], [x1, y1], style) {
    let [a, b, c, d] = [this.X(x0), this.Y(y0), this.X(x1), this.Y(y1)];
    const length = Math.hypot(c - a, d - b);
    if (length < 2) return;
    const [u, v] = [(c - a) / length, (d - b) / length], head = Math.min(12, length);
    const [e, f] = [c - head * u, d - head * v];
    element("line", {class: `line ${style}`, x1: a, y1: b, x2: e, y2: f}, this.front);
    const points = [[c, d], [e - 5 * v, f + 5 * u],
        [e + 5 * v, f - 5 * u]].map(p => p.map(z => z.toFixed(2)).join(",")).join(" ");
    element("polygon", {class: `head ${style.split(" ")[0]}`, points}, this.front);
  }

  text([x, y], text, style = "ink", dx = 8, dy = -8, anchor = "start") {
    return element("text", {x: this.X(x) + dx, y: this.Y(y) + dy, class: style,
        "text-anchor": anchor, text}, this.front);
  }

  // The level set (w - c)' A (w - c) = level of a positive definite A.
  ellipse(c, A, level, style) {
    const {values: s, vectors: Q} = symmetricEigen(A);
    const points = Array.from({length: 97}, (_, i) => {
      const t = (2 * Math.PI * i) / 96, a = Math.cos(t) * Math.sqrt(level / s[0]),
          b = Math.sin(t) * Math.sqrt(level / s[1]);
      return [c[0] + Q[0][0] * a + Q[0][1] * b, c[1] + Q[1][0] * a + Q[1][1] * b];
    });
    return this.line(points, style);
  }

  // A point that can be dragged and moved by the arrow keys (with Shift: ten times as far).
  // at() gives its place, move(x, y) sets it; step is the way of one key press.
  handle({name, label, style, form = "circle", at, move, step = 0.05, along = "xy"}) {
    const group = element("g", {class: "handle", id: `handle-${name}`, tabindex: 0,
        role: "slider", "aria-label": label}, this.over);
    element("circle", {class: "touch", r: 22}, group);
    element("circle", {class: "ring", r: 16}, group);
    element("path", {class: `mark ${style}`, d: shape(form, 0, 0, 10)}, group);
    const go = (x, y) => {
      const inside = (z, [a, b]) => Math.min(b, Math.max(a, z));
      move(inside(x, this.x), inside(y, this.yRange));
      changed();
    };
    group.addEventListener("pointerdown",
        event => { group.setPointerCapture(event.pointerId); event.preventDefault();
        group.focus({focusVisible: false}); });
    group.addEventListener("pointermove", event => {
      if (!group.hasPointerCapture(event.pointerId)) return;
      const box = this.svg.getBoundingClientRect();
      go(...this.fromPixels(event.clientX - box.left, event.clientY - box.top));
    });
    group.addEventListener("keydown", event => {
      const way = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1],
          ArrowDown: [0, -1]}[event.key];
      if (!way) return;
      event.preventDefault();
      const far = step * (event.shiftKey ? 10 : 1), [x, y] = at();
      if (along === "x") go(x + (way[0] || way[1]) * far, y);
      else go(x + way[0] * far, y + way[1] * far);
    });
    this.handles.push({group, at, label});
  }

  place() {
    for (const {group, at} of this.handles) {
      const [x, y] = at();
      group.setAttribute("transform", `translate(${this.X(x).toFixed(2)} ${this.Y(y).toFixed(2)})`);
      group.setAttribute("aria-valuenow", x.toFixed(3));
      group.setAttribute("aria-valuetext", `${x.toFixed(2)}, ${y.toFixed(2)}`);
    }
  }
}
Panel.all = [];

// "10⁻²" for 0.01; 0.1 to 100 as they are.
function powerOfTen(y) {
  const power = Math.round(Math.log10(y));
  if (power >= -1 && power <= 2) return String(10 ** power);
  return `10${String(power).replace("-", "⁻").replace(/\d/g, d => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d])}`;
}

function shape(form, x, y, r) {
  if (form === "circle") {
    const half = way => `a${r} ${r} 0 1 0 ${way * r} 0`;
    return `M${x - r} ${y}${half(2)}${half(-2)}Z`;
  }
  const spikes = {star: 10, diamond: 4, triangle: 3, square: 4}[form];
  const turn = form === "square" ? Math.PI / 4 : -Math.PI / 2;
  const points = Array.from({length: spikes}, (_, i) => {
    const radius = form === "star" && i % 2 ? r * 0.42 : r * 1.1,
        t = turn + (2 * Math.PI * i) / spikes;
    return `${(x + radius * Math.cos(t)).toFixed(2)} ${(y + radius * Math.sin(t)).toFixed(2)}`;
  });
  return `M${points.join("L")}Z`;
}
