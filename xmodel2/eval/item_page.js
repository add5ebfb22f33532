// Browse the items of an evaluation: what the model was asked, what it answered or did, what it got for it.
//
// Everything a model wrote reaches the page as text only, characters that cannot be seen written out. Each task is a gzipped,
// base64 block, unpacked when it is first looked at. The address after # holds what is shown, so that a view can be linked to.
"use strict";

const PER_PAGE = 20;
const STEPS_SEEN = 15; // of an episode, and
const LETTERS_SEEN = 600; // of a text in it, and
const LINES_SEEN = 10; // what is more is folded, unless it is
const LITTLE = 120;
// Control and format characters, lone surrogates and odd line ends; the joiners of scripts and emoji are left alone.
const UNSEEN = /(?![\n\t\u200c\u200d])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/gu;
const form = document.getElementById("filters");
const list = document.getElementById("list");
const count = document.getElementById("count");
const unpacked = {};
let shown = 0; // counts calls of show(): one that was overtaken while it unpacked must not draw

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = visible(text);
  if (className) made.className = className;
  return made;
}

function visible(text) {
  return text.replace(UNSEEN, (character) => {
    const code = character.codePointAt(0);
    const [letter, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
    return "\\" + letter + code.toString(16).padStart(digits, "0");
  });
}

async function unpack(task) {
  if (!unpacked[task]) {
    const block = [...document.querySelectorAll("script[data-task]")].find((found) => found.dataset.task === task);
    const bytes = Uint8Array.from(atob(block.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked[task] = JSON.parse(await new Response(stream).text());
  }
  return unpacked[task];
}

function searchable(item) {
  const options = item.options || [];
  const steps = (item.steps || []).flatMap((step) => [step.thought, step.action, step.observation]);
  item.searchable ??= [item.prompt, ...options, ...steps, item.target, item.output, item.answer, item.doc_id]
    .join("\n")
    .toLowerCase();
  return item.searchable;
}

// Softmax over the log-likelihoods of the options.
function shares(output) {
  const highest = Math.max(...output);
  const weights = output.map((nats) => Math.exp(nats - highest));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.map((weight) => weight / total);
}

function sureness(item) {
  return Array.isArray(item.output) ? shares(item.output)[item.answer] ?? 0 : 0;
}

function verdict(item) {
  return { 1: "correct", 0: "wrong" }[item.correct] ?? "neither";
}

function hasSureness(items) {
  return items.some((item) => Array.isArray(item.output));
}

// Each outcome with how many items have it, most first.
function outcomes(items) {
  const counts = new Map();
  for (const { outcome } of items) if (outcome) counts.set(outcome, (counts.get(outcome) ?? 0) + 1);
  const sorted = [...counts].sort((a, b) => b[1] - a[1]);
  return sorted.map(([name, number]) => [name, `${name} (${number.toLocaleString("en")})`]);
}

function select(items, wanted) {
  const words = wanted.q.toLowerCase();
  const found = items.filter(
    (item) =>
      (!wanted.part || item.part === wanted.part) &&
      (!wanted.show || verdict(item) === wanted.show) &&
      (!wanted.outcome || item.outcome === wanted.outcome) &&
      (!wanted.id || String(item.id) === wanted.id) &&
      (!words || searchable(item).includes(words)),
  );
  const sign = { surest: -1, "least sure": 1 }[wanted.order];
  return sign ? found.sort((a, b) => sign * (sureness(a) - sureness(b))) : found;
}

function text(label, value, className = "") {
  const pre = element("pre", value, className);
  pre.tabIndex = 0; // a long text scrolls, with the keyboard too
  pre.setAttribute("aria-label", label);
  const part = element("section");
  part.append(element("h3", label), pre);
  return part;
}

function optionTable(item) {
  const table = element("table");
  const head = element("tr");
  for (const name of ["mark", "option", "nats", "share"]) head.append(element("th", name, name));
  table.append(head);
  const share = shares(item.output);
  item.options.forEach((option, index) => {
    const marks = [index === item.target && "right", index === item.answer && "chosen"].filter(Boolean);
    const row = element("tr", "", marks.join(" "));
    row.append(element("th", marks.join(", ")), element("td", option, "option"));
    row.append(element("td", item.output[index].toFixed(3)), element("td", (100 * share[index]).toFixed(1) + "%"));
    table.append(row);
  });
  const scroll = element("div", "", "scroll");
  scroll.append(table);
  return scroll;
}

// A text whose end is folded away if it is long.
function folded(value, className) {
  const start = value.split("\n", LINES_SEEN).join("\n").slice(0, LETTERS_SEEN);
  const seen = value.length - start.length < LITTLE ? value : start;
  const found = element("div", "", className);
  found.append(element("pre", seen));
  if (seen.length < value.length) {
    const rest = element("details");
    rest.append(element("summary", `${(value.length - seen.length).toLocaleString("en")} more characters`));
    rest.append(element("pre", value.slice(seen.length)));
    rest.lastChild.tabIndex = 0; // scrolls, with the keyboard too
    found.append(rest);
  }
  return found;
}

function stepRow(step) {
  const row = element("li", "", step.valid ? "step" : "step invalid");
  const head = element("h3", `step ${step.step}`);
  if (!step.valid) head.append(element("span", "invalid", "verdict wrong"));
  if (typeof step.reward === "number") head.append(element("span", `reward ${Number(step.reward.toFixed(4))}`));
  if (step.done) head.append(element("span", "end"));
  row.append(head);
  const said = ["thought", "action", "observation"].filter((name) => step[name] || (name === "action" && !step.thought));
  for (const name of said) row.append(element("span", name, "label"), folded(step[name] || "(nothing)", name));
  return row;
}

function transcript(steps) {
  const found = element("section");
  found.append(element("h3", steps.length === 1 ? "1 step" : `${steps.length} steps`));
  const list = (some) => {
    const rows = element("ol", "", "steps");
    rows.append(...some.map(stepRow));
    return rows;
  };
  found.append(list(steps.slice(0, STEPS_SEEN)));
  if (steps.length > STEPS_SEEN) {
    const rest = element("details");
    rest.append(element("summary", `${steps.length - STEPS_SEEN} more steps`), list(steps.slice(STEPS_SEEN)));
    found.append(rest);
  }
  return found;
}

function card(item, prefixes) {
  const article = element("article", "", "sample");
  const heading = element("h2", `${item.part ? item.part + " " : ""}${item.id} `);
  if (item.correct !== null) heading.append(element("span", verdict(item), "verdict " + verdict(item)));
  if (item.outcome && !["solved", "wrong"].includes(item.outcome)) heading.append(" ", element("span", item.outcome, "verdict"));
  if (item.steps) heading.append(" ", element("small", String(item.doc_id)));
  article.append(heading);
  if (item.prefix !== undefined) {
    const prefix = prefixes[item.prefix];
    const details = element("details");
    details.append(element("summary", `begins with ${prefix.length.toLocaleString("en")} characters that others share`));
    details.append(element("pre", prefix));
    article.append(details);
  }
  article.append(text(item.steps ? "task" : "prompt", item.prompt, "prompt"));
  if (item.steps) article.append(transcript(item.steps));
  if (item.error) article.append(text("error of the environment", item.error));
  if (Array.isArray(item.options) && Array.isArray(item.output)) {
    article.append(optionTable(item));
  } else {
    article.append(text(item.steps ? "last output" : "output", String(item.output), "output"));
    article.append(text("answer", item.steps ? item.answer || "(nothing)" : String(item.answer)));
    article.append(text("target", String(item.target)));
  }
  const scores = Object.entries(item.scores).map(([name, value]) => `${name} ${value}`);
  article.append(element("p", scores.join(" · "), "scores"));
  return article;
}

function fill(choice, values, first) {
  const before = choice.dataset.wanted ?? choice.value;
  delete choice.dataset.wanted;
  choice.replaceChildren(...[["", first], ...values].map(([value, name]) => new Option(visible(name), value)));
  choice.value = values.some(([value]) => value === before) ? before : "";
  choice.disabled = !values.length;
}

async function show(page = 0) {
  const call = ++shown;
  const task = form.elements.task.value;
  count.textContent = "unpacking ...";
  const { prefixes, parts, items } = await unpack(task);
  if (call !== shown) return;
  const { part, outcome, order } = form.elements;
  fill(part, parts.map((name) => [name, name]), "all parts");
  fill(outcome, outcomes(items), "all outcomes");
  order.disabled = !hasSureness(items);
  for (const choice of [outcome, order]) choice.labels[0].hidden = choice.disabled;
  const wanted = { part: "", outcome: "", order: "", ...Object.fromEntries(new FormData(form)) };
  const found = select(items, wanted);
  const pages = Math.max(1, Math.ceil(found.length / PER_PAGE));
  page = Math.min(Math.max(page, 0), pages - 1);
  list.replaceChildren(...found.slice(page * PER_PAGE, (page + 1) * PER_PAGE).map((item) => card(item, prefixes)));
  for (const prompt of list.querySelectorAll(".prompt")) prompt.scrollTop = prompt.scrollHeight; // the question is last
  const right = found.filter((item) => item.correct === 1).length;
  const scored = found.filter((item) => item.correct !== null).length;
  const share = scored ? `, ${right.toLocaleString("en")} correct (${((100 * right) / scored).toFixed(1)}%)` : "";
  count.textContent = `${found.length.toLocaleString("en")} of ${items.length.toLocaleString("en")} items${share}`;
  for (const bar of document.querySelectorAll(".pages")) {
    bar.querySelector("span").textContent = `page ${page + 1} of ${pages}`;
    const [back, next] = bar.querySelectorAll("button");
    back.disabled = page === 0;
    next.disabled = page === pages - 1;
    back.onclick = () => turn(page - 1);
    next.onclick = () => turn(page + 1);
  }
  const kept = Object.entries({ ...wanted, page: page ? String(page + 1) : "" }).filter(([, value]) => value);
  history.replaceState(null, "", "#" + new URLSearchParams(kept));
}

function turn(page) {
  list.scrollIntoView();
  return show(page);
}

function restore() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  for (const name of ["task", "show", "order"]) {
    const choice = form.elements[name];
    if ([...choice.options].some((option) => option.value === wanted.get(name))) choice.value = wanted.get(name);
  }
  for (const name of ["part", "outcome"]) form.elements[name].dataset.wanted = wanted.get(name) || "";
  form.elements.q.value = wanted.get("q") || "";
  form.elements.id.value = wanted.get("id") || "";
  return show(Number(wanted.get("page") || 1) - 1);
}

let typing;
form.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(show, 150);
});
form.addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("hashchange", restore);
restore();
