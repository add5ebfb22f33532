// What is remembered: sampling and the system prompt in this browser, the key and the conversation in this tab only.

const PLACE = "xmodel2-chat:";

// A place to keep texts; where the browser forbids it, they last as long as the page.
function storage(name) {
  const kept = new Map();
  try {
    const place = window[name];
    place.getItem(PLACE);
    return {
      read: (key) => kept.get(key) ?? place.getItem(PLACE + key),
      write(key, text) {
        try {
          kept.delete(key);
          text ? place.setItem(PLACE + key, text) : place.removeItem(PLACE + key);
        } catch {
          kept.set(key, text);
        }
      },
    };
  } catch {
    return { read: (key) => kept.get(key) ?? null, write: (key, text) => kept.set(key, text) };
  }
}

export const local = storage("localStorage");
export const session = storage("sessionStorage");

export function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

const DEFAULTS = { system: "", temperature: "0.7", top_p: "0.95", top_k: "", max_tokens: "", seed: "" };
export const settings = { ...DEFAULTS };

// The settings that a request gives; what the user left empty is the server's choice.
export function sampling() {
  const { system, ...numbers } = settings;
  const given = Object.entries(numbers).filter(([, value]) => value !== "");
  return Object.fromEntries(given.map(([name, value]) => [name, Number(value)]));
}

// Fills the form from what is remembered, and remembers what is changed in it. A value that is not allowed is not taken.
export function bindSettings(form) {
  const fields = Object.keys(DEFAULTS).map((name) => form.elements[name]);
  const fill = (values) => {
    for (const field of fields) {
      const value = values?.[field.name];
      field.value = typeof value === "string" ? value : DEFAULTS[field.name];
      if (!field.validity.valid || field.validity.badInput) field.value = DEFAULTS[field.name];
      settings[field.name] = field.value;
    }
  };
  fill(parsed(local.read("settings")));
  form.addEventListener("input", ({ target }) => {
    if (!(target.name in settings) || !target.validity.valid) return;
    settings[target.name] = target.value;
    local.write("settings", JSON.stringify(settings));
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    fill(DEFAULTS);
    local.write("settings", "");
  });
  return { restore: () => fill(settings) };
}

// Dark or light: as the system has it, unless the other is chosen here.
export function bindTheme(button) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;
  const show = () => {
    const chosen = local.read("theme");
    root.dataset.theme = chosen === "dark" || chosen === "light" ? chosen : dark.matches ? "dark" : "light";
    const other = root.dataset.theme === "dark" ? "light" : "dark";
    button.ariaLabel = button.title = `Switch to the ${other} theme`;
  };
  button.addEventListener("click", () => {
    const other = root.dataset.theme === "dark" ? "light" : "dark";
    local.write("theme", other === (dark.matches ? "dark" : "light") ? "" : other);
    show();
  });
  dark.addEventListener("change", show);
  show();
}
