// The turns of the conversation, and how they look.

import { element, render, visible } from "./markdown.js";
import { parsed, session } from "./settings.js";

// {role, content, facts, dropped}: a dropped turn is shown and no longer sent.
export const turns = [];
const views = new Map(); // turn -> {article, text, below}
const place = document.getElementById("turns");
const log = document.getElementById("log");
const latest = document.getElementById("latest");

export const button = (text, onclick) => element("button", { type: "button", textContent: text, onclick });
export const isShown = (turn) => views.has(turn);
export const sent = () => turns.filter((turn) => !turn.dropped);
export const lastQuestion = () => turns.findLast((turn) => turn.role === "user");

export function add(turn) {
  const text = element("div", { className: "text" });
  const below = element("div", { className: "below" });
  const article = element("article", { className: turn.role, ariaLabel: turn.role === "user" ? "You" : "Model" }, text, below);
  turns.push(turn);
  views.set(turn, { article, text, below });
  place.append(article);
  paint(turn);
  return turn;
}

export function remove(turn) {
  views.get(turn).article.remove();
  views.delete(turn);
  turns.splice(turns.indexOf(turn), 1);
}

export function paint(turn) {
  const { text } = views.get(turn);
  if (turn.role === "assistant") render(text, turn.content);
  else Object.assign(text, { dir: "auto", textContent: visible(turn.content) });
  follow();
}

// Shows what can be done with each turn; nothing is changed while one is `written`.
export function settle(written, { copy, edit, regenerate }) {
  const asked = lastQuestion();
  for (const turn of turns) {
    const { article, below } = views.get(turn);
    const parts = [];
    article.classList.toggle("dropped", Boolean(turn.dropped));
    article.classList.toggle("busy", turn === written);
    article.ariaBusy = turn === written ? "true" : null;
    if (turn === asked && !written) parts.push(button("Edit", edit));
    if (turn.role === "assistant" && turn !== written) {
      parts.push(button("Copy", ({ target }) => copy(visible(turn.content), target)));
      if (turn === turns.at(-1)) parts.push(button("Regenerate", regenerate));
    }
    if (turn.facts) parts.push(element("span", {}, turn.facts));
    if (turn.dropped) parts.push(element("span", {}, "no longer sent to the model"));
    below.replaceChildren(...parts);
  }
  session.write("turns", turns.length ? JSON.stringify(turns) : "");
  follow();
}

// Shows the turns that this tab had before it was loaded again.
export function restore() {
  const kept = parsed(session.read("turns"));
  for (const { role, content, facts, dropped } of Array.isArray(kept) ? kept : []) {
    if (["user", "assistant"].includes(role) && content?.trim?.()) add({ role, content, facts, dropped });
  }
}

// The end of the conversation is followed as long as the reader is there.
let following = true;
let top = 0;

export function follow(again = false) {
  following ||= again;
  if (following) log.scrollTop = log.scrollHeight;
  else latest.hidden = false;
}

log.onscroll = () => {
  const left = log.scrollHeight - log.clientHeight - log.scrollTop;
  following = left < 8 || (following && log.scrollTop >= top);
  top = log.scrollTop;
  latest.hidden = following || left < 200;
};
latest.onclick = () => follow(true);
