// The chat: asks what the reader asks, and says what went wrong.

import { visible } from "./markdown.js";
import { askKey, hideNotice, tell, tellAndWait } from "./notice.js";
import { copy, saveJson, saveMarkdown } from "./saving.js";
import { bindSettings, bindTheme, sampling, session, settings } from "./settings.js";
import { Failure, answer, model } from "./stream.js";
import { add, button, follow, isShown, lastQuestion, paint, remove, restore, sent, settle, turns } from "./turns.js";

const at = (id) => document.getElementById(id);
const [question, status] = [at("question"), at("status")];

let served = { name: "", context: 0 };
let running = null; // what stops the answer that is being written
let draft = null; // what stood in the field before the last question was edited; null when it is not
let key = session.read("key") ?? "";

// On a phone the keyboard would come up and hide the answer.
const focus = () => matchMedia("(pointer: fine)").matches && question.focus();

function refresh(written) {
  settle(written, { copy, edit, regenerate });
  at("welcome").hidden = turns.length > 0;
  at("send").hidden = Boolean(written);
  at("stop").hidden = !written;
}

// Questions that were never answered are not sent: models are trained on turns that alternate.
function messages() {
  const answered = sent().filter((turn, n, all) => turn.role !== "user" || all[n + 1]?.role !== "user");
  const system = settings.system.trim() ? [{ role: "system", content: settings.system }] : [];
  return [...system, ...answered.map(({ role, content }) => ({ role, content }))];
}

// A rate is told only of times (in ms) that are long enough to measure.
function facts({ started, first, last, tokens, reason }) {
  if (!first) return reason;
  const rate = last - first > 100 && ((tokens - 1) * 1000) / (last - first);
  const [wait, all] = [first, last].map((time) => `${((time - started) / 1000).toFixed(2)} s`);
  const speed = rate && `${rate.toFixed(rate < 100 ? 1 : 0)} tokens/s`;
  return [`${tokens} tokens in ${all}`, speed, `first after ${wait}`, reason].filter(Boolean).join(" · ");
}

// Asks for an answer to the turns as they are; gives what went wrong, or null.
async function ask() {
  hideNotice();
  const body = { ...(served.name && { model: served.name }), messages: messages(), ...sampling() };
  const stopper = (running = new AbortController());
  const turn = add({ role: "assistant", content: "" });
  const seen = { started: performance.now(), tokens: 0, reason: "" };
  let [timer, pause, failed] = [0, 16, null];
  const soon = () => {
    timer = 0;
    const began = performance.now();
    if (isShown(turn)) paint(turn);
    pause = Math.max(16, 4 * (performance.now() - began)); // buttons answer however long the text is
  };
  status.textContent = "The model is answering.";
  refresh(turn);
  follow(true);
  focus();
  try {
    for await (const { text, reason, usage } of answer(body, key, stopper.signal)) {
      if (text) {
        seen.last = performance.now();
        seen.first ??= seen.last;
        seen.tokens += 1;
        turn.content += text;
        timer ||= setTimeout(soon, pause);
      }
      if (reason === "length") seen.reason = "ended at the longest length";
      seen.tokens = usage?.completion_tokens ?? seen.tokens;
      if (usage?.total_tokens) showContext(usage.total_tokens);
    }
  } catch (error) {
    if (stopper.signal.aborted) seen.reason = "stopped";
    else if (error instanceof Failure) failed = error;
    else throw error;
  } finally {
    clearTimeout(timer);
    if (running === stopper) running = null;
  }
  if (!isShown(turn)) return null; // a new chat was begun in the meantime
  turn.facts = facts(seen);
  if (turn.content) paint(turn);
  else remove(turn);
  const stopped = seen.reason === "stopped";
  const nothing = stopped ? "Stopped before the answer began." : "The model had nothing to say.";
  if (failed) explain(failed, regenerate);
  else if (!turn.content) explain({ message: nothing }, regenerate);
  status.textContent = turn.content && `${stopped ? "Stopped. " : ""}The answer: ${visible(turn.content).slice(0, 5000)}`;
  refresh();
  if (!served.name && !failed) findModel();
  return failed;
}

function send() {
  const text = question.value;
  if (running || !text.trim()) return;
  if (draft !== null) turns.slice(turns.indexOf(lastQuestion())).forEach(remove);
  question.value = draft ?? "";
  endEdit();
  add({ role: "user", content: text });
  ask();
}

// Asks the last question again, whether it has an answer or a half one or none.
function regenerate() {
  if (turns.at(-1)?.role === "assistant") remove(turns.at(-1));
  ask();
}

function edit() {
  if (running) return;
  draft ??= question.value;
  question.value = lastQuestion().content;
  at("editing").hidden = false;
  grow();
  question.focus();
}

function endEdit() {
  draft = null;
  at("editing").hidden = true;
  grow();
}

function cancelEdit() {
  question.value = draft;
  endEdit();
  question.focus();
}

function grow() {
  question.style.height = "auto";
  question.style.height = `${question.scrollHeight}px`;
}

function newChat() {
  const old = [...turns];
  running?.abort();
  running = null;
  hideNotice();
  if (draft !== null) cancelEdit();
  old.forEach(remove);
  showContext();
  refresh();
  focus();
  if (!old.length) return;
  const bring = () => {
    turns.slice().forEach(remove);
    old.filter((turn) => turn.content).forEach(add);
    hideNotice();
    refresh();
  };
  tell("A new chat.", button("Undo", bring));
}

// Leaves out the oldest exchanges, a quarter of them; false where only the question is left.
function dropOldest() {
  const all = sent();
  let count = Math.max(1, Math.ceil((all.length - 1) / 4));
  while (count < all.length && all[count].role !== "user") count += 1;
  if (count >= all.length) return false;
  all.slice(0, count).forEach((turn) => (turn.dropped = true));
  return true;
}

async function askWithLess() {
  while (dropOldest() && (await ask())?.kind === "context");
}

function explain({ kind, message, wait }, retry) {
  const again = button("Try again", retry);
  if (kind === "key") askKey(key ? "This server does not accept the key." : message);
  else if (kind === "busy") tellAndWait(message, wait, retry);
  else if (kind !== "context") tell(message, again);
  else if (sent().filter((turn) => turn.role === "user").length > 1) {
    tell(message, button("Leave out the oldest turns and try again", askWithLess));
  } else tell("This question alone is longer than the model's context. Shorten it.", again);
}

async function findModel() {
  const found = await model(key).catch((error) => (error instanceof Failure ? error : Promise.reject(error)));
  if (!running && turns.at(-1)?.role !== "user") found instanceof Failure ? explain(found, findModel) : hideNotice();
  if (found instanceof Failure) return;
  served = found;
  at("model").textContent = visible(served.name);
  document.title = `${served.name} · chat`;
  showContext();
}

function showContext(tokens) {
  const [size, used] = [served.context, tokens].map((count) => count?.toLocaleString("en"));
  at("context").textContent = !served.context ? "" : tokens ? `${used} of ${size} tokens used` : `context of ${size} tokens`;
}

function setKey(value) {
  key = value;
  session.write("key", key);
  at("forget-key").hidden = !key;
}

const dialog = at("settings");
const form = bindSettings(dialog.querySelector("form"));
bindTheme(at("theme"));
setKey(key);

at("ask").onsubmit = (event) => {
  event.preventDefault();
  send();
};
at("key-form").onsubmit = (event) => {
  event.preventDefault();
  setKey(at("key").value.trim());
  at("key").value = "";
  hideNotice();
  if (!served.name) findModel();
  if (turns.at(-1)?.role === "user") ask();
  question.focus();
};
question.oninput = grow;
question.onkeydown = (event) => {
  // While Chinese or Japanese is composed, Enter takes the word; Safari tells it by 229 only.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
    event.preventDefault();
    send();
  } else if (event.key === "ArrowUp" && !question.value && lastQuestion()) edit();
};
document.onkeydown = (event) => {
  if (event.key !== "Escape" || event.isComposing || dialog.open) return;
  if (running) running.abort();
  else if (draft !== null) cancelEdit();
  else hideNotice();
};
at("log").onclick = ({ target }) => {
  if (target.className === "copy") copy(target.closest(".code").querySelector("pre").textContent, target);
};
at("examples").onclick = ({ target }) => {
  if (target.tagName !== "BUTTON") return;
  question.value = target.textContent;
  send();
};
dialog.onclose = form.restore;
dialog.onclick = ({ target }) => {
  if (target === dialog) dialog.close();
};
for (const [id, act] of Object.entries({
  stop: () => (running?.abort(), focus()),
  new: newChat,
  "open-settings": () => dialog.showModal(),
  "save-json": () => saveJson(served.name),
  "save-markdown": () => saveMarkdown(served.name),
  "forget-key": () => (setKey(""), dialog.close()),
  "cancel-edit": cancelEdit,
})) {
  at(id).onclick = act;
}

restore();
refresh();
findModel();
focus();
