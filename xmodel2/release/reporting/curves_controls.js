"use strict";
// What a reader does with the curves of curves.js: pointing, zooming, what is shown and how; and their beginning.

// A mouse that is pressed selects, with shift it moves; one finger points, two fingers zoom.
function listen(chart) {
  const { canvas } = chart, fingers = new Map(), place = (event) => event.clientX - canvas.getBoundingClientRect().left;
  const on = (kinds, act) => kinds.split(" ").forEach((kind) => canvas.addEventListener(kind, act, { passive: false }));
  let pinch = null, pan = null;
  on("pointerdown", (event) => {
    const px = place(event), mouse = event.pointerType === "mouse";
    if (event.button) return;
    fingers.set(event.pointerId, px);
    canvas.setPointerCapture(event.pointerId);
    if (fingers.size === 2) pinch = [...fingers].map(([id, at]) => [id, chart.at(at)]);
    else if (mouse && event.shiftKey) pan = chart.at(px);
    else if (mouse) chart.drag = [px, px];
    else point(chart, chart.at(px));
  });
  on("pointermove", (event) => {
    const px = place(event), [from, to] = domain();
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, px);
    if (pinch) {
      const [[a, x], [b, y]] = pinch, slope = (y - x) / (fingers.get(b) - fingers.get(a));
      const start = x - (fingers.get(a) - chart.box.left) * slope;
      if (slope > 0 && isFinite(slope)) zoom(start, start + (chart.box.right - chart.box.left) * slope);
    } else if (pan !== null) zoom(from + pan - chart.at(px), to + pan - chart.at(px));
    else {
      if (chart.drag) chart.drag[1] = px;
      point(chart, between(chart.at(px), from, to));
    }
  });
  on("pointerup pointercancel", (event) => {
    const drag = chart.drag;
    fingers.delete(event.pointerId);
    chart.drag = pinch = pan = null;
    if (event.type === "pointerup" && drag && abs(drag[1] - drag[0]) > NEAR) zoom(chart.at(min(...drag)), chart.at(max(...drag)));
    else paint(chart);
  });
  on("pointerleave blur", () => fingers.size || point(null, null));
  on("dblclick", showAll);
  on("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey && document.activeElement !== canvas) return;
    event.preventDefault();
    scaleBy(Math.exp(event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), chart.at(place(event)));
  });
  on("keydown", (event) => press(chart, event));
}

function press(chart, event) {
  const { key, shiftKey, altKey, ctrlKey, metaKey } = event, [from, to] = domain(), at = cross ?? (from + to) / 2;
  const step = ((to - from) / (shiftKey ? 10 : 100)) * ({ ArrowLeft: -1, ArrowRight: 1 }[key] ?? 0);
  if (altKey || ctrlKey || metaKey) return;
  if (step && shiftKey) zoom(from + step, to + step);
  else if (step) point(chart, cross === null ? at : between(at + step, from, to));
  else if (key === "Home" || key === "End") point(chart, key === "Home" ? from : to);
  else if ("+=-".includes(key)) scaleBy(key === "-" ? 1.6 : 0.6, at);
  else if (key === "0" || key === "Escape") showAll();
  else return;
  event.preventDefault();
  if (cross !== null) status.textContent = values(chart).map(([line, i]) => `${nameOf(line)} ${short(line.y[i])}`).join(", ");
}

// A button that adds an entry to a list of the view or takes it out; pressed where it is in it, or with `off` where not.
function toggle(button, list, entry, off = false) {
  const show = () => button.setAttribute("aria-pressed", view[list].includes(entry) !== off);
  button.addEventListener("click", () => {
    view[list] = view[list].includes(entry) ? view[list].filter((other) => other !== entry) : [...view[list], entry];
    show();
    redraw();
  });
  show();
  return button;
}

function legend(entries) {
  const buttons = entries.map(([text, entry, line]) => {
    const button = make("button", { type: "button" }, swatch(line), make("span", {}, text));
    return toggle(button, "off", entry, true);
  });
  return make("div", { className: "legend" }, ...buttons);
}

function build(chart) {
  const names = [...new Set(chart.lines.map((line) => line.name).filter(Boolean))];
  for (const line of chart.lines) {
    const i = line.name ? names.indexOf(line.name) : line.run;
    Object.assign(line, { ink: i % COLORS, dash: (line.run + (line.name ? floor(i / COLORS) : 0)) % DASHES.length });
  }
  const label = `${chart.title}, ${chart.unit}: arrows move the crosshair, plus and minus zoom, 0 shows all`;
  chart.canvas = make("canvas", { tabIndex: 0, role: "application", ariaLabel: label });
  chart.base = make("canvas");
  chart.tip = make("div", { className: "tip" });
  const log = toggle(make("button", { type: "button", ariaLabel: "logarithmic axis: " + chart.title }, "log"), "log", chart.id);
  const head = make("figcaption", {}, make("span", {}, chart.title), make("small", {}, chart.unit), log);
  const figure = make("figure", { className: "chart " + chart.height }, head, make("div", { className: "plot" }, chart.canvas, chart.tip));
  const entries = names.map((name) => [name, chart.id + " " + name, chart.lines.find((line) => line.name === name)]);
  if (names.length) figure.append(legend(entries));
  listen(chart);
  return figure;
}

function tools() {
  const choices = ["tokens", "steps", "time"].map((by) => {
    const radio = make("input", { type: "radio", name: "curves-x", checked: view.x === by });
    radio.addEventListener("change", () => {
      const kept = view.from === null ? null : domain().map((x) => toStep(runs[0], x));
      view.x = by;
      prepare();
      if (kept) zoom(...kept.map((step) => toX(runs[0], step)));
      redraw();
    });
    return make("label", {}, radio, by);
  });
  const range = make("input", { type: "range", value: view.smooth });
  range.addEventListener("input", () => { view.smooth = +range.value; prepare(); redraw(); });
  const axis = make("fieldset", {}, make("legend", {}, "x axis"), ...choices);
  return make("div", { className: "tools" }, axis, make("label", {}, "smoothing", range), reset);
}

function paints() {
  const style = getComputedStyle(root), read = (key) => style.getPropertyValue("--" + key).trim();
  colors = Array.from({ length: COLORS }, (_, i) => read("c" + i));
  for (const key of ["line", "soft", "decay", "select", "alarm"]) colors[key] = read(key);
  redraw();
}

const reset = make("button", { type: "button", onclick: showAll }, "show all");
const status = make("p", { className: "unseen", role: "status" });
const hint = (text) => make("p", { className: "hint" }, text);
prepare();
root.append(tools());
if (runs.length > 1) root.append(legend(runs.map((run, i) => [run.name, "run " + i, { ink: i % COLORS, dash: i % DASHES.length }])));
root.append(make("div", { className: "charts" }, ...charts.map(build)), status);
root.append(hint("Drag to zoom, double-click to see all; two fingers, ctrl and the wheel, + and - zoom too; shift and drag moves."));
if (runs.length > 1) root.append(hint("Dotted: where a run's decay begins."));
for (const run of runs) if (run.more_marks) root.append(hint(`${run.name}: ${run.more_marks} more marks are not drawn.`));
document.documentElement.classList.add("scripted");
paints();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paints);
addEventListener("pagehide", () => { try { sessionStorage.setItem(KEY, JSON.stringify(view)); } catch { /* kept nowhere */ } });
new ResizeObserver(redraw).observe(root);
