"use strict";
// Curves of training on canvases: all share the x axis, its zoom and the crosshair. Texts are set as text, never as markup.
(() => {
const root = document.getElementById("charts");
if (!root) return;
const { runs, charts } = JSON.parse(document.getElementById("curves-data").textContent);
const KEY = "xmodel2 curves " + location.pathname;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]];
const BORDERS = ["solid", "dashed", "dotted", "double"];
const COLORS = 8;
const NEAR = 5; // pixels
const view = { x: "tokens", from: null, to: null, smooth: 20, log: [], off: [] };
try { Object.assign(view, JSON.parse(sessionStorage.getItem(KEY))); } catch { /* a page without storage starts afresh */ }
let colors, cross = null, active = null, unit, queued = false;

function make(tag, text = "", name = "", attributes = {}) {
  const made = document.createElement(tag);
  made.textContent = text;
  if (name) made.className = name;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function short(value) {
  const size = Math.abs(value);
  if (size && size < 1e-4) return (+value.toPrecision(4)).toExponential();
  for (const [letter, of] of [["T", 1e12], ["B", 1e9], ["M", 1e6], ["k", 1e4]])
    if (size >= of) return +(value / (letter === "k" ? 1e3 : of)).toPrecision(4) + letter;
  return String(+value.toPrecision(4));
}

// The first index whose value is not below.
function locate(list, value) {
  let low = 0, high = list.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (list[middle] < value) low = middle + 1; else high = middle;
  }
  return low;
}

function interpolate(xs, ys, x) {
  if (xs.length < 2) return ys[0] ?? 0;
  const i = Math.min(Math.max(locate(xs, x), 1), xs.length - 1);
  return ys[i - 1] + ((x - xs[i - 1]) / (xs[i] - xs[i - 1] || 1)) * (ys[i] - ys[i - 1]);
}

function toX(run, step) {
  if (view.x === "tokens") return step * run.batch;
  return view.x === "steps" ? step : interpolate(...run.clock, step) / unit[1];
}

function toStep(run, x) {
  if (view.x === "tokens") return x / run.batch;
  return view.x === "steps" ? x : interpolate(run.clock[1], run.clock[0], x * unit[1]);
}

const runName = (line) => "run " + runs[line.run].name;
const shown = (chart, line) => !view.off.includes(runName(line)) && !view.off.includes(chart.id + " " + line.name);
const lines = (chart) => chart.lines.filter((line) => shown(chart, line));
const smoothing = (chart) => chart.smooth && view.smooth > 0;

// Means over a window about each point, which does not reach from one stage into the other.
function smooth([steps, values], stable) {
  const sums = [0];
  for (const value of values) sums.push(sums.at(-1) + value);
  const half = Math.round((values.length * (view.smooth / 100) ** 2) / 10);
  const border = locate(steps, stable + 1);
  return values.map((_, i) => {
    const [low, high] = i < border ? [0, border] : [border, values.length];
    const from = Math.max(i - half, low), to = Math.min(i + half + 1, high);
    return (sums[to] - sums[from]) / (to - from);
  });
}

function prepare() {
  const longest = Math.max(...runs.map((run) => run.clock[1].at(-1) ?? 0));
  unit = longest < 7200 ? ["minutes", 60] : longest < 259200 ? ["hours", 3600] : ["days", 86400];
  for (const chart of charts)
    for (const line of chart.lines) {
      const run = runs[line.run];
      line.x = line.s.map((step) => toX(run, step));
      line.y = line.v;
      if (smoothing(chart)) {
        const from = line.m ?? [line.s, line.v];
        line.x = from[0].map((step) => toX(run, step));
        line.y = smooth(from, run.stable);
        line.raw = line.s.map((step) => toX(run, step));
      } else line.raw = null;
    }
}

function extent() {
  const ends = charts.flatMap((chart) => lines(chart).flatMap((line) => [(line.raw ?? line.x)[0], (line.raw ?? line.x).at(-1)]));
  if (!ends.length) return [0, 1];
  const low = Math.min(...ends), high = Math.max(...ends);
  return [low, high > low ? high : low + 1];
}

function zoom(from, to) {
  const [low, high] = extent();
  const width = Math.max(to - from, (high - low) / 5000);
  from = Math.max(low, Math.min(from, high - width));
  [view.from, view.to] = width >= high - low ? [null, null] : [from, Math.min(high, from + width)];
  redraw();
}

const domain = () => (view.from === null ? extent() : [view.from, view.to]);

function ticks(low, high, count, log) {
  const found = [];
  if (log && high / low > 8) {
    const every = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
    for (let power = Math.floor(Math.log10(low)); power <= Math.log10(high); power++)
      for (const digit of every) found.push(digit * 10 ** power);
  } else {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = power * [1, 2, 5, 10].find((digit) => digit * power >= rough * 0.999);
    for (let i = Math.ceil(low / step); i * step <= high + step * 1e-9; i++) found.push(+(i * step).toPrecision(12));
  }
  return found.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9) + 1e-15);
}

function color(chart, line) {
  return colors[(line.name === undefined ? line.run : chart.names.indexOf(line.name)) % COLORS];
}

function dash(chart, line) {
  return (line.run + (line.name === undefined ? 0 : Math.floor(chart.names.indexOf(line.name) / COLORS))) % DASHES.length;
}

// Where the points lie that are seen, and one more on each side.
function part(xs, [from, to]) {
  return [Math.max(0, locate(xs, from) - 1), Math.min(xs.length, locate(xs, to) + 1)];
}

function plot(chart) {
  const { canvas, base } = chart, ratio = devicePixelRatio || 1;
  const wide = canvas.clientWidth, high = canvas.clientHeight;
  for (const one of [canvas, base]) [one.width, one.height] = [wide * ratio, high * ratio];
  const ctx = base.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.font = "12px system-ui, sans-serif";
  const seen = domain(), drawn = lines(chart);
  let low = Infinity, top = -Infinity, log = view.log.includes(chart.id);
  for (const line of drawn)
    for (const [xs, ys] of line.raw ? [[line.raw, line.v], [line.x, line.y]] : [[line.x, line.y]])
      for (let [i, end] = part(xs, seen); i < end; i++)
        if (xs[i] >= seen[0] && xs[i] <= seen[1]) [low, top] = [Math.min(low, ys[i]), Math.max(top, ys[i])];
  if (!(low <= top)) [low, top] = [0, 1];
  log &&= low > 0;
  const room = (top - low || Math.abs(top) || 1) * 0.05;
  if (log) [low, top] = [low / 1.08, top * 1.08];
  else [low, top] = [low >= 0 && low < room * 4 ? 0 : low - room, top + room];
  const marks = ticks(low, top, high / 48, log);
  const left = Math.ceil(Math.max(...marks.map((tick) => ctx.measureText(short(tick)).width), 24)) + 10;
  const bounds = { left, right: wide - 10, top: 16, bottom: high - 24 };
  const scale = log ? Math.log : (value) => value;
  chart.px = (x) => bounds.left + ((x - seen[0]) / (seen[1] - seen[0])) * (bounds.right - bounds.left);
  chart.py = (y) => bounds.bottom - ((scale(y) - scale(low)) / (scale(top) - scale(low))) * (bounds.bottom - bounds.top);
  chart.at = (px) => seen[0] + ((px - bounds.left) / (bounds.right - bounds.left)) * (seen[1] - seen[0]);
  chart.bounds = bounds;
  shade(ctx, chart, drawn, seen);
  ctx.lineWidth = 1;
  ctx.textBaseline = "middle";
  for (const tick of marks) {
    const y = Math.round(chart.py(tick)) + 0.5;
    stroke(ctx, colors.line, [[bounds.left, y], [bounds.right, y]]);
    ctx.fillStyle = colors.soft;
    ctx.textAlign = "right";
    ctx.fillText(short(tick), bounds.left - 6, y);
  }
  ctx.textBaseline = "top";
  ctx.textAlign = "center";
  for (const tick of ticks(...seen, (bounds.right - bounds.left) / 90)) {
    const text = short(tick), half = ctx.measureText(text).width / 2, x = chart.px(tick);
    stroke(ctx, colors.line, [[x, bounds.bottom], [x, bounds.bottom + 4]]);
    ctx.fillText(text, Math.min(Math.max(x, half), wide - half), bounds.bottom + 7);
  }
  ctx.save();
  ctx.beginPath();
  ctx.rect(bounds.left, bounds.top - 4, bounds.right - bounds.left, bounds.bottom - bounds.top + 8);
  ctx.clip();
  for (const line of drawn) {
    const ink = color(chart, line), style = DASHES[dash(chart, line)];
    if (line.raw) curve(ctx, chart, line.raw, line.v, ink, [], 1, 0.28, seen);
    curve(ctx, chart, line.x, line.y, ink, style, 1.8, 1, seen);
    if (line.dots || line.x.length === 1) line.x.forEach((x, i) => dot(ctx, ink, chart.px(x), chart.py(line.y[i]), 2.6));
  }
  ctx.restore();
  paint(chart);
}

// The stages of the first run that is shown, the end of stable of all, and where a run went astray.
function shade(ctx, chart, drawn, seen) {
  const { left, right, top, bottom } = chart.bounds, done = new Set();
  const inside = (x) => Math.min(Math.max(chart.px(x), left), right);
  for (const line of drawn) {
    const run = runs[line.run];
    if (done.has(run)) continue;
    const end = Math.max(...drawn.filter((other) => other.run === line.run).map((other) => (other.raw ?? other.x).at(-1)));
    const from = inside(toX(run, run.stable)), to = inside(Math.max(end, toX(run, run.stable)));
    const x = toX(run, run.stable), there = x > seen[0] && x < seen[1] && end > x;
    if (!done.size) {
      ctx.fillStyle = colors.decay;
      ctx.fillRect(from, top, to - from, bottom - top);
      ctx.fillStyle = colors.soft;
      ctx.textBaseline = "bottom";
      ctx.textAlign = "left";
      if (from - left > 46) ctx.fillText("stable", left + 3, top - 1);
      if (to - from > 46) ctx.fillText("decay", from + 3, top - 1);
    }
    if (there) stroke(ctx, runs.length > 1 ? colors[line.run % COLORS] : colors.soft, [[from, top], [from, bottom]], [2, 3]);
    done.add(run);
    if (!chart.smooth) continue;
    ctx.fillStyle = colors.alarm;
    for (const [step] of run.marks) {
      const at = chart.px(toX(run, step));
      if (at < left || at > right) continue;
      ctx.beginPath();
      ctx.moveTo(at, bottom - 8);
      ctx.lineTo(at - 4, bottom);
      ctx.lineTo(at + 4, bottom);
      ctx.fill();
    }
  }
}

function stroke(ctx, ink, points, style = []) {
  ctx.strokeStyle = ink;
  ctx.setLineDash(style);
  ctx.beginPath();
  for (const point of points) ctx.lineTo(...point);
  ctx.stroke();
  ctx.setLineDash([]);
}

function curve(ctx, chart, xs, ys, ink, style, width, alpha, seen) {
  const points = [];
  for (let [i, end] = part(xs, seen); i < end; i++) points.push([chart.px(xs[i]), chart.py(ys[i])]);
  [ctx.lineWidth, ctx.globalAlpha, ctx.lineJoin] = [width, alpha, "round"];
  stroke(ctx, ink, points, style);
  ctx.globalAlpha = 1;
}

function dot(ctx, ink, x, y, radius) {
  ctx.fillStyle = ink;
  ctx.beginPath();
  ctx.arc(x, y, radius, 0, 7);
  ctx.fill();
}

// The nearest point of each line that is shown; none of a line that ends before.
function values(chart) {
  const found = [];
  for (const line of lines(chart)) {
    let i = Math.min(locate(line.x, cross), line.x.length - 1);
    if (i > 0 && cross - line.x[i - 1] < line.x[i] - cross) i--;
    const outside = cross < line.x[0] || cross > line.x.at(-1);
    if (i >= 0 && !(outside && Math.abs(chart.px(line.x[i]) - chart.px(cross)) > NEAR)) found.push([line, i]);
  }
  return found;
}

function paint(chart) {
  const ctx = chart.canvas.getContext("2d"), { left, right, top, bottom } = chart.bounds, ratio = devicePixelRatio || 1;
  ctx.setTransform(1, 0, 0, 1, 0, 0);
  ctx.clearRect(0, 0, chart.canvas.width, chart.canvas.height);
  if (chart.base.width && chart.base.height) ctx.drawImage(chart.base, 0, 0);
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  chart.tip.hidden = true;
  if (chart.drag) {
    const [a, b] = chart.drag.map((px) => Math.min(Math.max(px, left), right));
    ctx.fillStyle = colors.select;
    ctx.fillRect(Math.min(a, b), top, Math.abs(b - a), bottom - top);
  }
  const at = cross === null ? NaN : chart.px(cross);
  if (!(at >= left - 1 && at <= right + 1)) return;
  stroke(ctx, colors.soft, [[at, top], [at, bottom]]);
  const found = values(chart);
  for (const [line, i] of found) dot(ctx, color(chart, line), chart.px(line.x[i]), chart.py(line.y[i]), 3.5);
  if (chart === active && !chart.drag) tell(chart, found, at);
}

function name(chart, line) {
  const parts = [runs.length > 1 || line.name === undefined ? runs[line.run].name : "", line.name ?? ""];
  return parts.filter(Boolean).join(" · ");
}

function tell(chart, found, at) {
  const first = runs[found[0]?.[0].run ?? 0], step = Math.round(toStep(first, cross));
  const time = interpolate(...first.clock, step) / unit[1];
  const rows = [make("b", `step ${step.toLocaleString("en")} · ${short(step * first.batch)} tokens · ${short(time)} ${unit[0]}`)];
  for (const [line, i] of found) {
    const row = make("div");
    row.append(swatch(chart, line), make("span", name(chart, line)), make("b", short(line.y[i])));
    rows.push(row);
  }
  for (const line of chart.smooth ? lines(chart) : [])
    for (const [at_step, text] of runs[line.run].marks)
      if (rows.length < 30 && Math.abs(chart.px(toX(runs[line.run], at_step)) - at) < NEAR)
        rows.push(make("p", `step ${at_step.toLocaleString("en")} ${text}`));
  chart.tip.replaceChildren(...rows);
  chart.tip.hidden = false;
  const room = chart.canvas.clientWidth - chart.tip.offsetWidth;
  chart.tip.style.left = Math.max(0, Math.min(at + 14 <= room ? at + 14 : at - chart.tip.offsetWidth - 14, room)) + "px";
}

function swatch(chart, line) {
  const made = make("i", "", "swatch");
  made.style.borderTop = `3px ${BORDERS[dash(chart, line)]} ${color(chart, line)}`;
  return made;
}

function redraw() {
  if (queued) return;
  queued = true;
  requestAnimationFrame(() => {
    queued = false;
    reset.disabled = view.from === null;
    charts.forEach(plot);
  });
}

function point(chart, at) {
  [cross, active] = [at, at === null ? null : chart];
  charts.forEach(paint);
}

function listen(chart) {
  const { canvas } = chart, fingers = new Map();
  let pinch = null, pan = null;
  const place = (event) => event.clientX - canvas.getBoundingClientRect().left;
  canvas.addEventListener("pointerdown", (event) => {
    fingers.set(event.pointerId, place(event));
    canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 2) pinch = [...fingers].map(([id, px]) => [id, chart.at(px)]);
    else if (event.pointerType === "mouse" && event.button === 0) {
      if (event.shiftKey) pan = chart.at(place(event)); else chart.drag = [place(event), place(event)];
    } else if (event.pointerType !== "mouse") point(chart, chart.at(place(event)));
  });
  canvas.addEventListener("pointermove", (event) => {
    const px = place(event), [from, to] = domain();
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, px);
    if (pinch) {
      const [[a, x], [b, y]] = pinch, slope = (y - x) / (fingers.get(b) - fingers.get(a));
      const start = x - (fingers.get(a) - chart.bounds.left) * slope;
      if (slope > 0 && isFinite(slope)) zoom(start, start + (chart.bounds.right - chart.bounds.left) * slope);
    } else if (pan !== null) zoom(from + pan - chart.at(px), to + pan - chart.at(px));
    else {
      if (chart.drag) chart.drag[1] = px;
      point(chart, Math.min(Math.max(chart.at(px), from), to));
    }
  });
  const release = (event) => {
    fingers.delete(event.pointerId);
    const drag = chart.drag;
    [chart.drag, pinch, pan] = [null, null, null];
    if (drag && event.type === "pointerup" && Math.abs(drag[1] - drag[0]) > NEAR)
      zoom(chart.at(Math.min(...drag)), chart.at(Math.max(...drag)));
    else paint(chart);
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", () => fingers.size || point(chart, null));
  canvas.addEventListener("blur", () => point(chart, null));
  canvas.addEventListener("dblclick", () => zoom(-Infinity, Infinity));
  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
    event.preventDefault();
    scaleBy(Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), chart.at(place(event)));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => key(chart, event));
}

function scaleBy(factor, about) {
  const [from, to] = domain();
  zoom(about - (about - from) * factor, about + (to - about) * factor);
}

function key(chart, event) {
  const [from, to] = domain(), step = (to - from) / (event.shiftKey ? 10 : 100), sign = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  const at = cross ?? (from + to) / 2;
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  if (sign && event.shiftKey) zoom(from + sign * step, to + sign * step);
  else if (sign) point(chart, cross === null ? at : Math.min(Math.max(at + sign * step, from), to));
  else if (event.key === "Home" || event.key === "End") point(chart, event.key === "Home" ? from : to);
  else if (event.key === "+" || event.key === "=") scaleBy(0.6, at);
  else if (event.key === "-") scaleBy(1 / 0.6, at);
  else if (event.key === "0" || event.key === "Escape") zoom(-Infinity, Infinity);
  else return;
  event.preventDefault();
  const said = cross === null ? [] : values(chart).map(([line, i]) => `${name(chart, line)} ${short(line.y[i])}`);
  status.textContent = said.length ? `step ${Math.round(toStep(runs[0], cross))}: ${said.join(", ")}` : "";
}

function toggle(list, entry, button, on) {
  button.setAttribute("aria-pressed", String(on(view[list].includes(entry))));
  button.addEventListener("click", () => {
    view[list] = view[list].includes(entry) ? view[list].filter((other) => other !== entry) : [...view[list], entry];
    button.setAttribute("aria-pressed", String(on(view[list].includes(entry))));
    redraw();
  });
  return button;
}

function legend(entries) {
  const list = make("div", "", "legend");
  for (const [text, entry, chart, line] of entries) {
    const button = make("button", "", "", { type: "button" });
    button.append(swatch(chart, line), make("span", text));
    list.append(toggle("off", entry, button, (off) => !off));
  }
  return list;
}

function build(chart) {
  chart.names = [...new Set(chart.lines.map((line) => line.name))].filter((found) => found !== undefined);
  const figure = make("figure", "", "chart " + chart.height), head = make("figcaption"), plotted = make("div", "", "plot");
  chart.canvas = make("canvas", "", "", { tabindex: 0, role: "application", "aria-roledescription": "chart", "aria-label":
    `${chart.title}${chart.unit ? ", " + chart.unit : ""}: arrow keys move the crosshair, plus and minus zoom, 0 shows all` });
  chart.base = document.createElement("canvas");
  chart.tip = make("div", "", "tip");
  chart.tip.hidden = true;
  const log = make("button", "log", "", { type: "button", "aria-label": `logarithmic axis: ${chart.title}` });
  head.append(make("span", chart.title), make("small", chart.unit), toggle("log", chart.id, log, (on) => on));
  plotted.append(chart.canvas, chart.tip);
  figure.append(head, plotted);
  if (chart.names.length > 1 || (chart.names.length && runs.length > 1))
    figure.append(legend(chart.names.map((text) => [text, chart.id + " " + text, chart, chart.lines.find((line) => line.name === text)])));
  listen(chart);
  return figure;
}

function tools() {
  const bar = make("div", "", "tools"), axis = make("fieldset");
  axis.append(make("legend", "x axis"));
  for (const by of ["tokens", "steps", "time"]) {
    const label = make("label", by), radio = make("input", "", "", { type: "radio", name: "curves-x", value: by });
    radio.checked = view.x === by;
    radio.addEventListener("change", () => {
      const kept = view.from === null ? null : domain().map((x) => toStep(runs[0], x));
      view.x = by;
      prepare();
      if (kept) zoom(...kept.map((step) => toX(runs[0], step)));
      redraw();
    });
    label.prepend(radio);
    axis.append(label);
  }
  const smoother = make("label", "smoothing"), range = make("input", "", "", { type: "range", min: 0, max: 100, value: view.smooth });
  range.addEventListener("input", () => { view.smooth = +range.value; prepare(); redraw(); });
  smoother.append(range);
  bar.append(axis, smoother, reset);
  return bar;
}

function paints() {
  const style = getComputedStyle(root), read = (key) => style.getPropertyValue("--" + key).trim();
  colors = Array.from({ length: COLORS }, (_, i) => read("c" + i));
  for (const key of ["line", "soft", "decay", "select", "alarm"]) colors[key] = read(key);
}

const reset = make("button", "show all", "", { type: "button" });
reset.addEventListener("click", () => zoom(-Infinity, Infinity));
const status = make("p", "", "unseen", { role: "status" });
const grid = make("div", "", "charts");
document.documentElement.classList.add("scripted");
paints();
prepare();
grid.append(...charts.map(build));
const hint = "Drag over a chart to zoom, double-click to see all; two fingers, ctrl and the wheel, or + and - zoom too. Shift and drag moves.";
root.append(tools());
if (runs.length > 1) root.append(legend(runs.map((run, i) => [run.name, "run " + run.name, charts[0], { run: i }])));
root.append(grid, make("p", hint, "hint"), status);
for (const run of runs) if (run.more_marks) root.append(make("p", `${run.name}: ${run.more_marks} more marks are not drawn.`, "hint"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { paints(); redraw(); });
addEventListener("pagehide", () => { try { sessionStorage.setItem(KEY, JSON.stringify(view)); } catch { /* kept nowhere */ } });
new ResizeObserver(redraw).observe(root);
redraw();
})();
