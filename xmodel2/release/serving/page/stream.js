// Asks the server, and gives its answer piece by piece; whatever goes wrong becomes a Failure in plain words.

export class Failure extends Error {
  // kind: "key", "context", "busy" (try again after `wait` seconds) or "other".
  constructor(message, kind = "other", wait = 0) {
    super(message);
    this.kind = kind;
    this.wait = wait;
  }
}

const LOST = "The server can't be reached. Is it still running, and is this computer connected?";
const CUT = "The connection ended before the answer was complete.";
const BROKEN = "The server sent something that is not an answer.";

// Retry-After in seconds; an hour is the longest that is waited.
const seconds = (headers) => Math.min(Number(headers.get("Retry-After")) || 5, 3600);

function failure(status, error, headers) {
  const said = typeof error?.message === "string" ? error.message : "";
  if (error?.code === "context_length_exceeded") {
    return new Failure("This conversation is longer than the model's context.", "context");
  }
  if (status === 401) return new Failure("This server wants an API key.", "key");
  if (status === 413) return new Failure("This is more text than the server takes.");
  const busy = { 429: "The server has too many requests at the moment.", 503: "The model is being started." }[status];
  if (busy) return new Failure(busy, "busy", seconds(headers));
  const what = status >= 500 ? "The server failed" : "The server refused this";
  return new Failure(said ? `${what}: ${said}` : `${what} (${status}).`);
}

async function request(address, key, options = {}) {
  const headers = { ...(options.body && { "Content-Type": "application/json" }) };
  if (key) headers.Authorization = `Bearer ${key}`;
  const response = await orLost(fetch(address, { ...options, headers, cache: "no-store" }), LOST);
  if (response.ok) return response;
  const body = await response.json().catch(() => null);
  throw failure(response.status, body?.error, response.headers);
}

// The same promise; that it failed on the way is said in words, and that somebody stopped it stays what it is.
async function orLost(promise, words) {
  try {
    return await promise;
  } catch (error) {
    throw error.name === "AbortError" ? error : new Failure(words);
  }
}

// The model's name and its context in tokens, 0 where the server does not tell.
export async function model(key) {
  const response = await request("v1/models", key);
  const first = (await response.json().catch(() => null))?.data?.[0];
  if (typeof first?.id !== "string") throw new Failure(BROKEN);
  return { name: first.id, context: Number(first.max_model_len ?? first.meta?.n_ctx_train) || 0 };
}

// The data of server-sent events. A chunk may end inside a character, inside a line, or between \r and \n.
export async function* events(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let rest = "";
  let data = [];
  try {
    for (;;) {
      const { value, done } = await orLost(reader.read(), CUT);
      if (done) return;
      rest += decoder.decode(value, { stream: true });
      const lines = rest.split(/\r\n|\n|\r(?!$)/);
      rest = lines.pop();
      for (const line of lines) {
        if (line.startsWith("data:")) data.push(line.slice(line[5] === " " ? 6 : 5));
        if (line !== "" || !data.length) continue;
        yield data.join("\n");
        data = [];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

// The pieces of an answer: {text, reason, usage}, each of them where the server gives it.
export async function* answer(body, key, signal) {
  const wanted = { ...body, stream: true, stream_options: { include_usage: true } };
  const response = await request("v1/chat/completions", key, { method: "POST", body: JSON.stringify(wanted), signal });
  let ended = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    let part;
    try {
      part = JSON.parse(data);
    } catch {
      throw new Failure(BROKEN);
    }
    if (part?.error) throw failure(part.error.code === 503 ? 503 : 500, part.error, response.headers);
    const choice = part?.choices?.[0];
    const text = choice?.delta?.content;
    ended ||= Boolean(choice?.finish_reason);
    yield { text: typeof text === "string" ? text : "", reason: choice?.finish_reason, usage: part?.usage };
  }
  if (!ended) throw new Failure(CUT);
}
