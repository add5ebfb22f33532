"use strict";
// Tables that sort by a click or a key on a column's head: up, down, as it was.
(() => {
const ORDERS = ["none", "ascending", "descending"];

// The number that a cell begins with, as it stands there; its text without the small print if it is none.
function content(cell) {
  const text = [...cell.childNodes].filter((node) => node.nodeName !== "SMALL").map((node) => node.textContent).join("").trim();
  const number = text.match(/^[+\-−±]?[\d,]*\.?\d+(e[+-]?\d+)?/i);
  return number ? parseFloat(number[0].replace(/[,±]/g, "").replace("−", "-")) : text.toLowerCase();
}

function sort(table, column, order) {
  const body = table.tBodies[0];
  table.rowsAsWritten ??= [...body.rows];
  const rows = table.rowsAsWritten.map((row) => [row, row.cells[column] ? content(row.cells[column]) : ""]);
  const numeric = rows.some(([, value]) => typeof value === "number");
  const empty = (value) => (numeric ? typeof value !== "number" : value === "");
  const sign = order === "descending" ? -1 : 1;
  if (order !== "none")
    rows.sort(([, a], [, b]) => empty(a) - empty(b) || sign * (numeric ? a - b : String(a).localeCompare(String(b))) || 0);
  body.append(...rows.map(([row]) => row));
}

for (const table of document.querySelectorAll("table")) {
  const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
  // A table whose first column has no head is one of things, not of cases: its rows don't compare.
  const compares = heads.length > 1 && heads[0].textContent.trim() && !table.querySelector("[colspan], [rowspan]");
  if (!compares || !table.tBodies[0] || table.tBodies[0].rows.length < 3) continue;
  table.classList.add("sortable");
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    const link = head.querySelector("a");
    if (link) {
      button.ariaLabel = `sort by ${link.textContent}`;
      link.after(button);
    } else {
      button.append(...[...head.childNodes].filter((node) => node.nodeName !== "SMALL"));
      head.prepend(button);
    }
    head.setAttribute("aria-sort", "none");
    button.addEventListener("click", () => {
      const order = ORDERS[(ORDERS.indexOf(head.getAttribute("aria-sort")) + 1) % ORDERS.length];
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", order);
      sort(table, column, order);
    });
  });
}
})();
