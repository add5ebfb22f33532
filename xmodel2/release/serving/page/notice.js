// What the reader is told, below the turns, with what can be done about it.

import { visible } from "./markdown.js";
import { button, follow } from "./turns.js";

const notice = document.getElementById("notice");
const keyForm = document.getElementById("key-form");
let countdown = 0;

export function hideNotice() {
  clearInterval(countdown);
  notice.hidden = keyForm.hidden = true;
}

export function tell(text, ...buttons) {
  hideNotice();
  notice.hidden = false;
  notice.querySelector("p").textContent = visible(text);
  notice.querySelector(".actions").replaceChildren(...buttons);
  follow();
}

// Acts after some seconds, unless the reader does not want it.
export function tellAndWait(text, seconds, act) {
  const now = button("", act);
  tell(text, now, button("Don't", hideNotice));
  let left = seconds;
  const count = () => {
    now.textContent = `Trying again in ${left} s`;
    if (left-- <= 0) act();
  };
  count();
  countdown = setInterval(count, 1000);
}

export function askKey(text) {
  tell(text);
  keyForm.hidden = false;
  follow();
  keyForm.elements.key.focus();
}
