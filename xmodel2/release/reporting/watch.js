"use strict";
// A page that follows a run loads itself again, where the reader is, and not while they are busy with it.
(() => {
const live = document.getElementById("live");
const KEY = "xmodel2 place " + location.pathname;
const folds = () => [...document.querySelectorAll("details")];
if (!live) return;
const seconds = Number(live.dataset.every), updated = Number(live.dataset.updated), patience = Number(live.dataset.patience);
const age = document.createElement("span");
let busy = 0;
live.append(age);
for (const kind of ["pointerdown", "pointermove", "keydown", "wheel", "touchmove"])
  addEventListener(kind, () => { busy = Date.now(); }, { passive: true });
try {
  const { top, open } = JSON.parse(sessionStorage.getItem(KEY)) ?? {};
  folds().forEach((fold, i) => { if (open) fold.open = open.includes(i); });
  if (top !== undefined) requestAnimationFrame(() => requestAnimationFrame(() => scrollTo({ top, behavior: "instant" })));
} catch { /* a page without storage starts at its top */ }
addEventListener("pagehide", () => {
  const open = folds().flatMap((fold, i) => (fold.open ? [i] : []));
  try { sessionStorage.setItem(KEY, JSON.stringify({ top: scrollY, open })); } catch { /* kept nowhere */ }
});
function tick() {
  const old = Date.now() / 1000 - updated;
  age.textContent = old > patience ? ` · nothing new for ${Math.round(old / 60)} minutes` : "";
  const reading = !document.hidden && (Date.now() - busy < 3000 || String(getSelection()));
  if (old >= seconds && performance.now() > 1000 * seconds && !reading && !document.hidden) location.reload();
}
setInterval(tick, 1000);
})();
