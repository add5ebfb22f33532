// Shows a model's text: a little of Markdown, built element by element. Whatever the text holds, it stays text.

const FENCE = /^\s*(`{3,}|~{3,})[ \t]*([^\s`][^`]*)?$/;
const HEADING = /^(#{1,6})[ \t]+(\S.*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])[ \t]+(\S.*)$/;
// A paragraph ends where one of these begins; a number ends it only where a list begins.
const STARTS = /^(?:\s*(?:`{3}|~{3})|#{1,6}[ \t]|\s*[-*+][ \t]+\S|\s*1[.)][ \t]+\S)/;
// Lengths are bounded so that no text makes the search slow. A link that is not http(s) is not a link.
const INLINE = new RegExp(
  [
    /`([^`\n]{1,1000})`/,
    /\*\*([^*\s](?:[^*\n]{0,1000}[^*\s])?)\*\*/,
    /\*([^*\s](?:[^*\n]{0,1000}[^*\s])?)\*/,
    /(?<!\w)_([^_\s](?:[^_\n]{0,1000}[^_\s])?)_(?!\w)/,
    /\[([^[\]\n]{1,300})\]\((https?:\/\/[^\s()<>]{1,2000})\)/,
    /(https?:\/\/[^\s<>"'`\]]{0,2000}[^\s<>"'`)\].,;:!?])/,
  ].map((part) => part.source).join("|"),
  "gi",
);
const DEEPEST = 6;

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  made.append(...children);
  return Object.assign(made, properties); // last, as dir="auto" looks at all the text anew for each child
}

// What would move a terminal's cursor, or be seen nowhere, is shown by its sign: what is copied is what is seen.
export function visible(text) {
  return text
    .replace(/\r\n?/g, "\n")
    .replace(/[\0-\x08\x0b-\x1f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt()))
    .replace(/[\x7f-\x9f]/g, "\u2421");
}

function inline(text) {
  const parts = [];
  let end = 0;
  for (;;) {
    INLINE.lastIndex = end; // set anew each time, as bold text is searched in between
    const found = INLINE.exec(text);
    if (!found) return [...parts, text.slice(end)];
    const [whole, code, bold, star, line, words, to, bare] = found;
    parts.push(text.slice(end, found.index));
    end = found.index + whole.length;
    if (code !== undefined) parts.push(element("code", { textContent: code }));
    else if (bold !== undefined) parts.push(element("strong", {}, ...inline(bold)));
    else if (star ?? line) parts.push(element("em", {}, ...inline(star ?? line)));
    else {
      const href = to ?? bare;
      parts.push(element("a", { href, title: href, target: "_blank", rel: "noopener noreferrer" }, words ?? bare));
    }
  }
}

const prose = (tag, text) => element(tag, { dir: "auto" }, ...inline(text));

function code(language, text) {
  const button = element("button", { type: "button", className: "copy", textContent: "Copy" });
  const name = language ? `Code in ${language}` : "Code";
  const area = element("pre", { tabIndex: 0, dir: "ltr", role: "group", ariaLabel: name }, element("code", {}, text));
  return element("div", { className: "code" }, element("div", {}, element("span", {}, language || "code"), button), area);
}

// Items are [indent, sign, text]; one that is further in than the last begins a list inside it.
function list(items) {
  const open = [];
  for (const [indent, sign, text] of items) {
    while (open.length > 1 && indent < open.at(-1).indent) open.pop();
    if (!open.length || (indent > open.at(-1).indent + 1 && open.length < DEEPEST)) {
      const number = parseInt(sign, 10);
      const made = Number.isNaN(number) ? element("ul") : element("ol", { start: number });
      open.at(-1)?.list.lastChild.append(made);
      open.push({ indent, list: made });
    }
    open.at(-1).list.append(prose("li", text));
  }
  return open[0].list;
}

const kind = (item) => item && (/\d/.test(item[2]) ? "ol" : "ul");

// Reads a list that begins at a line; returns its items and the line after it.
function readList(lines, at) {
  const items = [];
  const first = ITEM.exec(lines[at]);
  for (; at < lines.length && !FENCE.test(lines[at]); at++) {
    const item = ITEM.exec(lines[at]);
    const top = item && item[1].length <= first[1].length;
    if (item && !(top && kind(item) !== kind(first))) items.push([item[1].length, item[2], item[3]]);
    else if (!item && /^\s{2,}\S/.test(lines[at])) items.at(-1)[2] += `\n${lines[at].trim()}`;
    else if (item || lines[at].trim() || kind(ITEM.exec(lines[at + 1] ?? "")) !== kind(first)) break;
  }
  return [items, at];
}

// The blocks of a text, in order: {source, build}. The same source always builds the same element.
function blocks(text) {
  const lines = visible(text).split("\n");
  const found = [];
  for (let at = 0; at < lines.length; ) {
    const begin = at;
    const line = lines[at++];
    const fence = FENCE.exec(line);
    const heading = HEADING.exec(line);
    let build;
    if (!line.trim()) continue;
    if (fence) {
      const [, mark, language = ""] = fence;
      const indent = new RegExp(`^\\s{0,${line.search(/\S/)}}`);
      const closes = (other) => other.trim().startsWith(mark) && !other.trim().replaceAll(mark[0], "");
      while (at < lines.length && !closes(lines[at])) at++;
      const inside = lines.slice(begin + 1, at++).map((other) => other.replace(indent, ""));
      build = () => code(language.trim().slice(0, 40), inside.join("\n"));
    } else if (heading) {
      build = () => prose(`h${Math.min(heading[1].length + 2, 6)}`, heading[2]);
    } else if (ITEM.test(line)) {
      const [items, end] = readList(lines, begin);
      at = end;
      build = () => list(items);
    } else {
      while (lines[at]?.trim() && !STARTS.test(lines[at])) at++;
      build = () => prose("p", lines.slice(begin, at).join("\n"));
    }
    found.push({ source: lines.slice(begin, at).join("\n"), build });
  }
  return found;
}

const shown = new WeakMap();

// Shows a text that may have grown: blocks that are as they were stay, and with them what a reader selected there.
export function render(target, text) {
  const wanted = blocks(text);
  const old = shown.get(target) ?? [];
  let same = 0;
  while (same < wanted.length && wanted[same].source === old[same]) same++;
  while (target.childNodes.length > same) target.lastChild.remove();
  target.append(...wanted.slice(same).map((block) => block.build()));
  shown.set(target, wanted.map((block) => block.source));
}
