// Answers: how far they are, what is being said, and then what is to be known of them before they are believed.

import { byId, count, element, events, Pace, pieces, post } from "./api.js";

const CONTEXTS = { pages: "Pages only", hybrid: "Pages and copied tokens", passages: "Copied text only", tokens: "Tokens only, at the same cost" };

/** A question with a place for each of its answers. */
export class Turn {
  constructor(question, contexts, opened, viewer) {
    [this.opened, this.viewer, this.cards] = [opened, viewer, new Map()];
    const answers = element("div", { className: "answers" });
    for (const context of contexts) {
      const card = element("article", { className: "answer unchecked", "aria-label": CONTEXTS[context] });
      if (contexts.length > 1) card.append(element("h3", { textContent: CONTEXTS[context] }));
      this.cards.set(context, card);
      answers.append(card);
    }
    this.item = element("li", {}, element("p", { className: "asked", textContent: question }), answers);
  }

  /** Ask for one answer and show it grow. True where it came, false where it was stopped or could not be had. */
  async ask(context, body, signal) {
    const card = this.cards.get(context);
    const standing = element("div", { className: "standing", textContent: "Not checked against the document yet" });
    const bar = element("progress", { "aria-label": "Progress" });
    const far = element("span", { className: "how-far", role: "status" });
    const words = element("p", { className: "words" });
    card.append(standing, words, bar, far);
    const pace = new Pace();
    try {
      const response = await post(`/api/documents/${this.opened.id}/ask`, { ...body, context }, { signal });
      for await (const event of events(response)) {
        if (event.event === "progress") {
          far.textContent = pace.words(event);
          if (event.total) [bar.max, bar.value] = [event.total, event.done];
          else bar.removeAttribute("value");
        } else if (event.event === "said") {
          bar.hidden = true;
          far.textContent = "";
          if (event.kind === "answer") words.textContent += event.text;
          else far.textContent = "thinking";
        } else if (event.event === "error") throw new Error(event.message);
        else if (event.event === "answer") {
          this.fill(event.answer);
          return event.answer;
        }
      }
      throw new Error("The answer broke off: the program may have been stopped.");
    } catch (error) {
      const isStopped = error.name === "AbortError";
      card.className = `answer ${isStopped ? "" : "failed"}`;
      standing.textContent = isStopped ? "Stopped: nothing of this is kept" : error.message;
      bar.remove();
      far.remove();
      if (!words.textContent) words.remove();
      return null;
    }
  }

  fill(answer) {
    const card = this.cards.get(answer.context);
    const title = card.querySelector("h3");
    const looks = answer.is_doubtful && !["absent", "cut off"].includes(answer.status) ? "doubtful" : (answer.status ?? "unknown");
    card.className = `answer ${looks.replace(" ", "-")}`;
    card.replaceChildren(...[title, standingOf(answer), ...saidOf(answer), this.#evidence(answer), ...more(answer)].filter(Boolean));
  }

  #evidence(answer) {
    const list = element("div", { className: "evidence" });
    answer.evidence.forEach((item, index) => {
      const button = element("button", { type: "button", "aria-pressed": "false" },
        element("small", { textContent: item.place }), ...pieces(item.around));
      button.onclick = () => {
        for (const one of document.querySelectorAll(".evidence button")) one.setAttribute("aria-pressed", one === button);
        this.viewer.show(this.opened, item.page, answer, index);
      };
      list.append(button);
    });
    if (!answer.evidence.length) {
      list.append(element("p", { className: "dim", textContent: `Evidence: ${answer.no_evidence}.` }));
      const button = element("button", { type: "button", textContent: "Look at the pages" });
      button.onclick = () => this.viewer.show(this.opened, 1, answer);
      list.append(button);
    }
    return list;
  }
}

function standingOf(answer) {
  const rows = answer.standing.map(([, list]) => element("p", {}, ...pieces(list)));
  const sure = answer.confidence === null ? "" : `confidence ${answer.confidence.toFixed(2)}, `;
  rows.push(element("p", { className: "how-far", textContent: `${sure}score ${answer.score.toFixed(3)}` }));
  return element("div", { className: "standing" }, ...rows);
}

function saidOf(answer) {
  return answer.said.map(([label, list]) => {
    if (label === "reasoning")
      return element("details", {}, element("summary", { textContent: "What it said before" }), element("p", {}, ...pieces(list)));
    const name = label === "answer" ? null : element("span", { className: "said-label", textContent: label });
    return element("p", { className: "words" }, name, ...pieces(list));
  });
}

function more(answer) {
  const passages = answer.passages.map((passage) =>
    element("div", { className: "passage" },
      element("span", { className: "dim", textContent: `page ${passage.page}, ${count(passage.tokens)} tokens${passage.shared_words.length ? `, has ${passage.shared_words.join(", ")}` : ""}\n` }),
      passage.text.trim()));
  const rows = [...answer.plan, ["seconds", Object.entries(answer.seconds).map(([name, value]) => `${name} ${value.toFixed(2)}`).join(", ")]];
  const table = element("table", {}, ...rows.map(([label, value]) =>
    element("tr", {}, element("th", { textContent: label, scope: "row" }), element("td", { textContent: value }))));
  const copied = `What was copied as tokens (${count(passages.length)})`;
  return [
    passages.length ? element("details", {}, element("summary", { textContent: copied }), ...passages) : null,
    element("details", {}, element("summary", { textContent: "What it cost" }), table),
  ];
}

/** The next or previous place of evidence on the page, as a click. */
export function stepEvidence(step) {
  const buttons = [...byId("turns").querySelectorAll(".evidence button[aria-pressed]")];
  if (!buttons.length) return;
  const at = buttons.findIndex((button) => button.getAttribute("aria-pressed") === "true");
  const next = at < 0 ? (step > 0 ? 0 : buttons.length - 1) : Math.min(buttons.length - 1, Math.max(0, at + step));
  buttons[next].click();
  buttons[next].scrollIntoView({ block: "nearest" });
}
