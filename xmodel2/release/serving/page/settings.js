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
      field.value = values?.[field.name] ?? DEFAULTS[field.name];
      if (!field.validity.valid) field.value = DEFAULTS[field.name];
      settings[field.name] = field.value;
    }
  };
  fill(parsed(local.read("settings")));
  form.oninput = ({ target }) => {
    if (!(target.name in settings) || !target.validity.valid) return;
    settings[target.name] = target.value;
    local.write("settings", JSON.stringify(settings));
  };
  form.onreset = (event) => {
    event.preventDefault();
    fill(DEFAULTS);
    local.write("settings", "");
  };
  return { restore: () => fill(settings) };
}

// Dark or light: as the system has it, unless the other is chosen here.
export function bindTheme(button) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const { dataset } = document.documentElement;
  const other = { dark: "light", light: "dark" };
  const system = () => (dark.matches ? "dark" : "light");
  const show = () => {
    const chosen = local.read("theme");
    dataset.theme = chosen in other ? chosen : system();
    button.title = `Switch to the ${other[dataset.theme]} theme`;
  };
  button.onclick = () => {
    const wanted = other[dataset.theme];
    local.write("theme", wanted === system() ? "" : wanted);
    show();
  };
  dark.onchange = show;
  show();
}
