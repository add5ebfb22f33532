"use strict";
// The contents mark where the reader is, and those that lie over the page fold up when they have led somewhere.
(() => {
const links = [...document.querySelectorAll(".contents a")];
for (const fold of document.querySelectorAll("details.contents"))
  fold.addEventListener("click", (event) => { if (event.target.closest("a")) fold.open = false; });
const seen = new Map();
const observer = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) seen.set(target.id, isIntersecting);
  const here = [...seen].find(([, there]) => there)?.[0];
  for (const link of links)
    if (link.hash === "#" + here) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
}, { rootMargin: "-10% 0px -70%" });
for (const section of document.querySelectorAll("section[id]")) {
  seen.set(section.id, false);
  observer.observe(section);
}
})();
