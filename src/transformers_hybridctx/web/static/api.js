// Calls of the page's own server, and small helpers to build the page: text is only ever set as text.

export async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The program does not answer: it may have been stopped in its terminal.");
  }
  if (!response.ok) {
    if (response.status >= 500 && response.status !== 507)
      throw new Error("Something went wrong in the program; its terminal says what.");
    throw new Error((await response.json()).error);
  }
  return response;
}

export const post = (path, body, options = {}) =>
  call(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options });

/** The events of a stream, one after the other. */
export async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      if (error.name === "AbortError") throw error;
      return { done: true };
    });
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield JSON.parse(part.slice(6));
  }
}

/** An element with properties (those that begin with "aria-" are attributes) and children. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.startsWith("aria-") || key === "role" || key === "for") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const styles = { bold: "bold", italic: "italic", dim: "dim-text", red: "red" };

/** Pieces (text, style) as the command line styles them. */
export const pieces = (list) =>
  list.map(([text, style]) =>
    element("span", { textContent: text, className: style.split(" ").map((one) => styles[one] ?? "").join(" ").trim() }));

export const byId = (id) => document.getElementById(id);
export const count = (number) => Math.round(number).toLocaleString("en");
export const newId = () => crypto.randomUUID();

/** A rate over the last seconds of a stage, and what is left of it, in words. */
export class Pace {
  #stage = "";
  #begun = 0;
  #first = 0;

  words({ stage, done, total }) {
    const now = performance.now() / 1000;
    if (stage !== this.#stage) [this.#stage, this.#begun, this.#first] = [stage, now, done];
    if (stage === "waiting") return "waiting for its turn";
    const rate = (done - this.#first) / (now - this.#begun);
    const far = total === null ? `${stage}: ${count(done)}` : `${stage}: ${count(done)} of ${count(total)}`;
    if (!Number.isFinite(rate) || rate <= 0 || total === null || done >= total) return far;
    const left = Math.max(1, Math.round((total - done) / rate));
    return `${far}, ${rate < 10 ? rate.toFixed(1) : count(rate)} a second, about ${left < 90 ? `${left} s` : `${Math.round(left / 60)} min`} left`;
  }
}
