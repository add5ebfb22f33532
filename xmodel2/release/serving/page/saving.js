// Takes text out of the page: to the clipboard or into a file.

import { element, visible } from "./markdown.js";
import { sampling, settings } from "./settings.js";
import { turns } from "./turns.js";

export async function copy(text, pressed) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Without https, browsers give no clipboard; a selection can still be copied.
    const area = element("textarea", { value: text, className: "unseen" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    pressed.focus();
  }
  pressed.textContent = "Copied";
  setTimeout(() => (pressed.textContent = "Copy"), 1500);
}

function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  element("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

export function saveJson(model) {
  const system = settings.system ? [{ role: "system", content: settings.system }] : [];
  const said = turns.map(({ role, content, facts }) => ({ role, content, facts }));
  const all = { model, saved: new Date().toISOString(), sampling: sampling(), messages: [...system, ...said] };
  save("conversation.json", "application/json", `${JSON.stringify(all, null, 2)}\n`);
}

export function saveMarkdown(model) {
  const system = settings.system ? [`**System:** ${visible(settings.system)}`] : [];
  const said = turns.map(({ role, content }) => `**${role === "user" ? "You" : "Model"}:**\n\n${visible(content)}`);
  const parts = [`# Conversation with ${visible(model || "a model")}`, ...system, ...said];
  save("conversation.md", "text/markdown", `${parts.join("\n\n")}\n`);
}
