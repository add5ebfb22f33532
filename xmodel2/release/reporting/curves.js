"use strict";
// Curves of training on canvases that share the x axis, its zoom and the crosshair; curves_controls.js, which has these names
// too, lets a reader change what is seen. Texts are set as text, never as markup.
const root = document.getElementById("charts");
const { runs, charts } = JSON.parse(document.getElementById("curves-data").textContent);
const KEY = "xmodel2 curves " + location.pathname;
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3]], BORDERS = ["solid", "dashed", "dotted", "double"], COLORS = 8;
const NEAR = 5; // pixels
const view = { x: "tokens", from: null, to: null, smooth: 20, log: [], off: [] };
try { Object.assign(view, JSON.parse(sessionStorage.getItem(KEY))); } catch { /* a page without storage starts afresh */ }
let colors, unit, cross = null, active = null, queued = false;

const { min, max, round, abs, floor, log10 } = Math;
const between = (value, low, high) => max(low, min(value, high));
const count = (value) => value.toLocaleString("en");

// An element; what is a string among its children becomes text.
function make(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function short(value) {
  const size = abs(value);
  if (size && size < 1e-4) return (+value.toPrecision(4)).toExponential();
  for (const [letter, least, of] of [["T", 1e12, 1e12], ["B", 1e9, 1e9], ["M", 1e6, 1e6], ["k", 1e4, 1e3]])
    if (size >= least) return +(value / of).toPrecision(4) + letter;
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
  const i = between(locate(xs, x), 1, xs.length - 1);
  return ys[i - 1] + ((x - xs[i - 1]) / (xs[i] - xs[i - 1] || 1)) * (ys[i] - ys[i - 1]);
}

const perStep = (run) => (view.x === "tokens" ? run.batch : 1);
const toX = (run, step) => (view.x === "time" ? interpolate(...run.clock, step) / unit[1] : step * perStep(run));
const toStep = (run, x) => (view.x === "time" ? interpolate(run.clock[1], run.clock[0], x * unit[1]) : x / perStep(run));
const hides = (chart, line) => [chart.id + " " + line.name, "run " + line.run].some((entry) => view.off.includes(entry));
const lines = (chart) => chart.lines.filter((line) => !hides(chart, line));

// Means over a window about each point, which does not reach from one stage into the other.
function smooth([steps, values], stable) {
  const sums = [0], half = round((values.length * (view.smooth / 100) ** 2) / 10), border = locate(steps, stable + 1);
  for (const value of values) sums.push(sums.at(-1) + value);
  return values.map((_, i) => {
    const from = max(i - half, i < border ? 0 : border), to = min(i + half + 1, i < border ? border : values.length);
    return (sums[to] - sums[from]) / (to - from);
  });
}

// Of each line x and y as drawn, and the values behind them faintly where it is smoothed.
function prepare() {
  const longest = max(...runs.map((run) => run.clock[1].at(-1) ?? 0));
  unit = longest < 7200 ? ["minutes", 60] : longest < 259200 ? ["hours", 3600] : ["days", 86400];
  for (const chart of charts)
    for (const line of chart.lines) {
      const run = runs[line.run], at = (steps) => steps.map((step) => toX(run, step)), means = line.m ?? [line.s, line.v];
      const smoothed = chart.smooth && view.smooth > 0;
      line.raw = at(line.s);
      line.x = smoothed ? at(means[0]) : line.raw;
      line.y = smoothed ? smooth(means, run.stable) : line.v;
    }
}

function extent() {
  const ends = charts.flatMap((chart) => lines(chart).flatMap((line) => [line.raw[0], line.raw.at(-1)]));
  const low = min(...ends), high = max(...ends);
  return high > low ? [low, high] : [0, 1];
}

const domain = () => (view.from === null ? extent() : [view.from, view.to]);

function zoom(from, to) {
  const [low, high] = extent(), wide = max(to - from, (high - low) / 5000), start = between(from, low, high - wide);
  [view.from, view.to] = wide < high - low ? [start, start + wide] : [null, null];
  redraw();
}

function scaleBy(factor, about) {
  const [from, to] = domain();
  zoom(about - (about - from) * factor, about + (to - about) * factor);
}

const showAll = () => zoom(-Infinity, Infinity);

function ticks(low, high, parts, log) {
  const found = [], power = 10 ** floor(log10((high - low) / parts));
  if (log && high / low > 8)
    for (let of = 10 ** floor(log10(low)); of <= high; of *= 10) found.push(...(high / low > 1e3 ? [of] : [of, 2 * of, 5 * of]));
  else {
    const step = power * [1, 2, 5, 10].find((digit) => digit * power * parts >= (high - low) * 0.999);
    for (let i = Math.ceil(low / step); i * step <= high + step / 1e6; i++) found.push(+(i * step).toPrecision(12));
  }
  return found.filter((tick) => tick >= low && tick <= high * (1 + 1e-9));
}

// What is seen of a line, and one more point on each side.
const part = (xs, [from, to]) => [max(0, locate(xs, from) - 1), min(xs.length, locate(xs, to) + 1)];

function range(chart, drawn, seen) {
  let low = Infinity, high = -Infinity;
  for (const line of drawn)
    for (const [xs, ys] of [[line.raw, line.v], [line.x, line.y]])
      for (let [i, end] = part(xs, seen); i < end; i++)
        if (xs[i] >= seen[0] && xs[i] <= seen[1]) [low, high] = [min(low, ys[i]), max(high, ys[i])];
  if (low > high) return [0, 1, false];
  if (view.log.includes(chart.id) && low > 0) return [low / 1.08, high * 1.08, true];
  const room = (high - low || abs(high) || 1) / 20;
  return [low >= 0 && low < room * 4 ? 0 : low - room, high + room, false];
}

function plot(chart) {
  const { canvas, base } = chart, ratio = devicePixelRatio, wide = canvas.clientWidth, high = canvas.clientHeight;
  for (const one of [canvas, base]) [one.width, one.height] = [wide * ratio, high * ratio];
  if (!base.width || !base.height) return;
  const pen = base.getContext("2d"), seen = domain(), drawn = lines(chart), [low, top, log] = range(chart, drawn, seen);
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.font = "12px system-ui, sans-serif";
  const marks = ticks(low, top, high / 48, log), left = 10 + max(24, ...marks.map((tick) => pen.measureText(short(tick)).width));
  const box = (chart.box = { left, right: wide - 10, top: 16, bottom: high - 24 });
  const scale = log ? Math.log : (value) => value, size = (box.right - left) / (seen[1] - seen[0]);
  chart.px = (x) => left + (x - seen[0]) * size;
  chart.at = (px) => seen[0] + (px - left) / size;
  chart.py = (y) => box.bottom - ((scale(y) - scale(low)) / (scale(top) - scale(low))) * (box.bottom - box.top);
  const write = (text, x, y, align, baseline) => {
    [pen.textAlign, pen.textBaseline, pen.fillStyle] = [align, baseline, colors.soft];
    pen.fillText(text, x, y);
  };
  shade(pen, chart, drawn, write);
  for (const tick of marks) {
    const y = round(chart.py(tick)) + 0.5;
    stroke(pen, colors.line, [[left, y], [box.right, y]]);
    write(short(tick), left - 6, y, "right", "middle");
  }
  for (const tick of ticks(...seen, (box.right - left) / 65)) {
    const x = chart.px(tick), half = pen.measureText(short(tick)).width / 2;
    stroke(pen, colors.line, [[x, box.bottom], [x, box.bottom + 4]]);
    write(short(tick), between(x, half, wide - half), box.bottom + 7, "center", "top");
  }
  pen.save();
  pen.beginPath();
  pen.rect(left, box.top - 4, box.right - left, box.bottom - box.top + 8);
  pen.clip();
  for (const line of drawn) {
    const curve = (xs, ys, ...style) => {
      const [from, to] = part(xs, seen);
      stroke(pen, colors[line.ink], xs.slice(from, to).map((x, i) => [chart.px(x), chart.py(ys[from + i])]), ...style);
    };
    if (line.x !== line.raw) curve(line.raw, line.v, [], 1, 0.28);
    curve(line.x, line.y, DASHES[line.dash], 1.8);
    if (line.dots || line.x.length === 1) line.x.forEach((_, i) => dot(pen, chart, line, i, 2.6));
  }
  pen.restore();
  paint(chart);
}

// The stages if one run is shown, the end of stable of each, and where a run went astray.
function shade(pen, chart, drawn, write) {
  const { left, right, top, bottom } = chart.box, inside = (x) => between(chart.px(x), left, right);
  const numbers = new Set(drawn.map((line) => line.run));
  for (const number of numbers) {
    const run = runs[number], x = toX(run, run.stable), from = inside(x);
    const to = inside(max(x, ...drawn.filter((line) => line.run === number).map((line) => line.raw.at(-1))));
    if (numbers.size === 1) {
      pen.fillStyle = colors.decay;
      pen.fillRect(from, top, to - from, bottom - top);
      if (from - left > 46) write("stable", left + 3, top - 1, "left", "bottom");
      if (to - from > 46) write("decay", from + 3, top - 1, "left", "bottom");
    }
    const ink = runs.length > 1 ? colors[number % COLORS] : colors.soft;
    if (from > left && to > from) stroke(pen, ink, [[from, top], [from, bottom]], [2, 3]);
    pen.fillStyle = colors.alarm;
    for (const [step] of chart.smooth ? run.marks : []) {
      const at = chart.px(toX(run, step));
      pen.beginPath();
      for (const [dx, dy] of [[0, -8], [-4, 0], [4, 0]]) pen.lineTo(at + dx, bottom + dy);
      if (at >= left && at <= right) pen.fill();
    }
  }
}

function stroke(pen, ink, points, dash = [], width = 1, alpha = 1) {
  Object.assign(pen, { strokeStyle: ink, lineWidth: width, globalAlpha: alpha, lineJoin: "round" });
  pen.setLineDash(dash);
  pen.beginPath();
  for (const point of points) pen.lineTo(...point);
  pen.stroke();
  pen.globalAlpha = 1;
}

function dot(pen, chart, line, i, radius) {
  pen.fillStyle = colors[line.ink];
  pen.beginPath();
  pen.arc(chart.px(line.x[i]), chart.py(line.y[i]), radius, 0, 7);
  pen.fill();
}

// The nearest point of each line that is shown; none of a line that ends before.
function values(chart) {
  return lines(chart).flatMap((line) => {
    let i = min(locate(line.x, cross), line.x.length - 1);
    if (i > 0 && cross - line.x[i - 1] < line.x[i] - cross) i--;
    const outside = cross < line.x[0] || cross > line.x.at(-1);
    return outside && abs(chart.px(line.x[i]) - chart.px(cross)) > NEAR ? [] : [[line, i]];
  });
}

function paint(chart) {
  if (!chart.box) return;
  const pen = chart.canvas.getContext("2d"), { left, right, top, bottom } = chart.box;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, chart.canvas.width, chart.canvas.height);
  pen.drawImage(chart.base, 0, 0);
  pen.scale(devicePixelRatio, devicePixelRatio);
  chart.tip.hidden = true;
  if (chart.drag) {
    const [a, b] = chart.drag.map((px) => between(px, left, right));
    pen.fillStyle = colors.select;
    pen.fillRect(a, top, b - a, bottom - top);
  }
  const at = cross === null ? NaN : chart.px(cross);
  if (!(at >= left - 1 && at <= right + 1)) return;
  stroke(pen, colors.soft, [[round(at) + 0.5, top], [round(at) + 0.5, bottom]]);
  const found = values(chart);
  for (const [line, i] of found) dot(pen, chart, line, i, 3.5);
  if (chart === active && !chart.drag) tell(chart, found, at);
}

const nameOf = (line) => [runs.length > 1 || !line.name ? runs[line.run].name : "", line.name].filter(Boolean).join(" · ");

function tell(chart, found, at) {
  const first = runs[found[0]?.[0].run ?? 0], step = round(toStep(first, cross));
  const time = `${short(interpolate(...first.clock, step) / unit[1])} ${unit[0]}`;
  const rows = found.map(([line, i]) => make("div", {}, swatch(line), make("span", {}, nameOf(line)), make("b", {}, short(line.y[i]))));
  for (const line of chart.smooth ? lines(chart) : [])
    for (const [marked, text] of runs[line.run].marks)
      if (rows.length < 30 && abs(chart.px(toX(runs[line.run], marked)) - at) < NEAR)
        rows.push(make("p", {}, `step ${count(marked)} ${text}`));
  chart.tip.replaceChildren(make("b", {}, `step ${count(step)} · ${short(step * first.batch)} tokens · ${time}`), ...rows);
  chart.tip.hidden = false;
  const wide = chart.tip.offsetWidth, room = chart.canvas.clientWidth - wide;
  chart.tip.style.left = between(at + 14 <= room ? at + 14 : at - wide - 14, 0, room) + "px";
}

function swatch(line) {
  const made = make("i", { className: "swatch" });
  made.style.borderTop = `3px ${BORDERS[line.dash]} var(--c${line.ink})`;
  return made;
}

function redraw() {
  if (!queued) requestAnimationFrame(() => {
    queued = false;
    reset.disabled = view.from === null;
    charts.forEach(plot);
  });
  queued = true;
}

function point(chart, at) {
  [cross, active] = [at, chart];
  charts.forEach(paint);
}
