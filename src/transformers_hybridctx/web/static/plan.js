// What each way of copying text would cost, as the budget's slider moves: before anything is paid for.

import { byId, call, count, element, post } from "./api.js";

const LEAST = 256; // tokens
const STEPS = 1000; // of the slider, on a scale where each step is the same factor

export class Plan {
  #document = null;
  #bound;
  #policy;
  #own;
  #waiting = 0;
  #asked = 0;
  #failed;
  #isChosen = false; // the budget, by the reader: else it is the checkpoint's own, or what the pages need
  #top = 0; // the largest budget that this document had a use for

  /** bound: the checkpoint's own, or null; policy: its own choice. */
  constructor(bound, policy, failed) {
    [this.#bound, this.#policy, this.#own, this.#failed] = [bound, policy, policy, failed];
    byId("budget").oninput = () => this.#changed();
  }

  /** The longest prompt; null leaves it to the program. */
  get budget() {
    return this.#isChosen ? this.#shown : null;
  }

  get #shown() {
    const most = this.#most();
    const share = Number(byId("budget").value) / STEPS;
    return Math.round(LEAST * (most / LEAST) ** share);
  }

  get policy() {
    return this.#policy;
  }

  show(opened) {
    [this.#document, this.#isChosen, this.#top] = [opened, false, 0];
    byId("budget").value = STEPS;
    byId("plan-headline").textContent = "What it costs: being worked out";
    byId("costs").tBodies[0].replaceChildren();
    this.refresh();
  }

  /** Plan anew, in a moment: the last of several wishes counts. */
  refresh() {
    clearTimeout(this.#waiting);
    this.#waiting = setTimeout(() => this.#ask(), 120);
  }

  #most() {
    return Math.max(this.#bound ?? Math.max(4096, 2 * (this.#document?.tokens ?? 0)), this.#top);
  }

  #set(budget) {
    this.#move(budget);
    this.#changed();
  }

  #move(budget) {
    const share = Math.log(budget / LEAST) / Math.log(this.#most() / LEAST);
    byId("budget").value = Math.ceil(Math.min(1, Math.max(0, share)) * STEPS);
  }

  #changed() {
    this.#isChosen = true;
    this.#tell(this.#shown);
    this.refresh();
  }

  #tell(budget) {
    byId("budget-shown").textContent = `${count(budget)} tokens`;
    byId("budget").setAttribute("aria-valuetext", `${count(budget)} tokens`);
    const isMore = this.#bound !== null && budget > this.#bound;
    byId("budget-note").hidden = !isMore;
    if (isMore)
      byId("budget-note").textContent = `This is more than the ${count(this.#bound)} tokens that are the checkpoint's own bound: ` +
        (this.#isChosen ? "answers take longer." : "its pages need it. “Copied text only” needs less.");
  }

  async #ask() {
    if (this.#document === null) return;
    byId("plan").setAttribute("aria-busy", "true");
    const number = ++this.#asked;
    const body = { question: byId("question").value, budget: this.budget, context: byId("context").value };
    try {
      const { budget, costs } = await (await post(`/api/documents/${this.#document.id}/plan`, body)).json();
      if (number !== this.#asked) return;
      byId("plan").setAttribute("aria-busy", "false");
      const [shown, top] = [this.#isChosen ? this.#shown : budget, this.#top];
      this.#top = Math.max(this.#top, budget ?? 0, ...costs.map((cost) => cost.smallest ?? 0));
      if (!this.#isChosen || this.#top !== top) this.#move(shown ?? this.#most());
      this.#tell(shown ?? this.#most());
      this.#draw(costs);
    } catch (error) {
      if (number === this.#asked) this.#failed(error);
    }
  }

  #draw(costs) {
    const text = this.#document.tokens;
    const widest = Math.max(text, ...costs.map((cost) => cost.prompt ?? 0));
    byId("costs").tBodies[0].replaceChildren(...costs.map((cost) => this.#row(cost, widest)));
    const chosen = costs.find((cost) => cost.policy === this.#policy);
    byId("plan-headline").textContent = headline(chosen, text);
  }

  #row(cost, widest) {
    const radio = element("input", { type: "radio", name: "policy", value: cost.policy, checked: cost.policy === this.#policy });
    radio.onchange = () => {
      this.#policy = cost.policy;
      this.refresh();
    };
    const name = cost.policy === this.#own ? `${cost.policy} (its own choice)` : cost.policy;
    const first = element("td", {}, element("label", {}, radio, ` ${name}`));
    if (cost.error) {
      const said = element("td", { className: "said", colSpan: 6 }, cost.error);
      if (cost.smallest)
        said.append(" ", element("button", { type: "button", textContent: "Set it", onclick: () => this.#set(cost.smallest) }));
      return element("tr", { className: "cannot" }, first, said);
    }
    const bar = element("div", { className: "bar", role: "img", "aria-label": "pages and copied text" });
    for (const part of [cost.visual, cost.copied]) {
      const piece = element("i");
      piece.style.width = `${(100 * part) / widest}%`;
      bar.append(piece);
    }
    const cells = cost.is_open
      ? [`from ${count(cost.prompt)}`, count(cost.visual), "as asked"]
      : [count(cost.prompt), count(cost.visual), count(cost.copied)];
    cells.push(...(cost.compression === null ? ["unknown", "unknown"] : [cost.compression.toFixed(2), cost.characters.toFixed(1)]));
    return element("tr", {}, first, ...cells.map((cell) => element("td", {}, cell)), element("td", { className: "wide" }, bar));
  }
}

function headline(cost, text) {
  if (!cost) return "What it costs";
  if (cost.error) return `What it costs: ${cost.policy} cannot be met with this budget`;
  const whole = text ? `, in place of ${count(text)} for the text` : "";
  const out = cost.omitted ? `; ${count(cost.omitted)} characters are left out` : "";
  const more = cost.is_open ? " and what is copied for the question" : "";
  return `What it costs: ${count(cost.prompt)} tokens${more}${whole}${out}`;
}
