// Browse the items of an evaluation: what the model was asked, what it answered, what it got for it.
//
// Everything a model wrote reaches the page through textContent only. Each task is a gzipped, base64 block, unpacked when it is
// first looked at. The address after # holds what is shown, so that a view can be linked to.
"use strict";

const PER_PAGE = 20;
const form = document.getElementById("filters");
const list = document.getElementById("list");
const count = document.getElementById("count");
const unpacked = {};
let shown = 0; // counts calls of show(): one that was overtaken while it unpacked must not draw

function element(tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  if (className) made.className = className;
  return made;
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
  item.searchable ??= [item.prompt, ...options, item.target, item.output, item.answer].join("\n").toLowerCase();
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

function select(items, wanted) {
  const words = wanted.q.toLowerCase();
  const found = items.filter(
    (item) =>
      (!wanted.part || item.part === wanted.part) &&
      (!wanted.show || verdict(item) === wanted.show) &&
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

function card(item, prefixes) {
  const article = element("article", "", "sample");
  const heading = element("h2", `${item.part ? item.part + " " : ""}${item.id} `);
  if (item.correct !== null) heading.append(element("span", verdict(item), "verdict " + verdict(item)));
  article.append(heading);
  if (item.prefix !== undefined) {
    const prefix = prefixes[item.prefix];
    const details = element("details");
    details.append(element("summary", `begins with ${prefix.length.toLocaleString("en")} characters that others share`));
    details.append(element("pre", prefix));
    article.append(details);
  }
  article.append(text("prompt", item.prompt, "prompt"));
  if (Array.isArray(item.options) && Array.isArray(item.output)) {
    article.append(optionTable(item));
  } else {
    article.append(text("output", String(item.output), "output"), text("answer", String(item.answer)));
    article.append(text("target", String(item.target)));
  }
  const scores = Object.entries(item.scores).map(([name, value]) => `${name} ${value}`);
  article.append(element("p", scores.join(" · "), "scores"));
  return article;
}

function fill(choice, values, first) {
  const before = choice.value;
  choice.replaceChildren(...[["", first], ...values].map(([value, name]) => new Option(name, value)));
  choice.value = values.some(([value]) => value === before) ? before : "";
}

async function show(page = 0) {
  const call = ++shown;
  const task = form.elements.task.value;
  count.textContent = "unpacking ...";
  const { prefixes, parts, items } = await unpack(task);
  if (call !== shown) return;
  const wantedPart = form.elements.part.dataset.wanted ?? form.elements.part.value;
  delete form.elements.part.dataset.wanted;
  fill(form.elements.part, parts.map((part) => [part, part]), "all parts");
  form.elements.part.value = parts.includes(wantedPart) ? wantedPart : "";
  form.elements.part.disabled = !parts.length;
  const wanted = Object.fromEntries(new FormData(form));
  wanted.part ??= "";
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
  form.elements.part.dataset.wanted = wanted.get("part") || "";
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
