// The page: documents, their chats, and what is asked.

import { byId, call, count, element, newId } from "./api.js";
import { stepEvidence, Turn } from "./answers.js";
import { Plan } from "./plan.js";
import { Viewer } from "./viewer.js";

let alertTimer = 0;

function failed(error) {
  if (error.name === "AbortError") return;
  const alert = byId("alert");
  [alert.textContent, alert.hidden] = [error.message, false];
  clearTimeout(alertTimer);
  alertTimer = setTimeout(() => (alert.hidden = true), 15_000);
}

class Chat {
  constructor(id, opened) {
    [this.id, this.opened, this.name, this.turns, this.answers] = [id, opened, "New chat", [], []];
  }

  add(turn, question) {
    if (!this.turns.length) this.name = question;
    this.turns.push(turn);
  }

  /** Ids of the answers that a next question comes after: of three, the one with pages and tokens. */
  get before() {
    const alone = (answer) => this.answers.filter((one) => one.turn === answer.turn).length === 1;
    return this.answers.filter((answer) => answer.context === "hybrid" || alone(answer)).map((answer) => answer.id);
  }
}

class Desk {
  #documents = new Map(); // id -> {opened, chats}
  #chat = null;
  #running = null;
  #limits;
  #viewer = new Viewer(failed);
  #plan;

  constructor(state) {
    this.#limits = state;
    this.#plan = new Plan(state.budget, state.policy, failed);
    byId("model").textContent = [state.model, state.purpose].filter(Boolean).join(": ");
    byId("history").checked = state.history;
    for (const [id, value] of Object.entries(state.files)) byId(id).value = value;
    for (const opened of state.documents) this.#add(opened);
    for (const answer of state.answers) this.#restore(answer);
    const first = this.#documents.values().next().value;
    if (first) this.#choose(first.chats.at(-1));
    this.#listen();
    this.#list();
  }

  #listen() {
    byId("files").onchange = (event) => {
      this.#openAll(event.target.files);
      event.target.value = "";
    };
    addEventListener("dragover", (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
    addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
    addEventListener("drop", (event) => {
      event.preventDefault();
      document.body.classList.remove("dragging");
      this.#openAll(event.dataTransfer.files);
    });
    byId("ask").onsubmit = (event) => {
      event.preventDefault();
      if (this.#running) this.#running.abort();
      else this.#ask([byId("context").value]);
    };
    byId("compare").onclick = () => this.#ask(["pages", "hybrid", "tokens"]);
    byId("question").oninput = byId("context").onchange = () => this.#plan.refresh();
    byId("question").onkeydown = (event) => {
      if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
      event.preventDefault();
      if (!this.#running) byId("ask").requestSubmit();
    };
    addEventListener("keydown", (event) => this.#key(event));
  }

  #key(event) {
    if (event.key === "Escape") {
      if (this.#running) this.#running.abort();
      else if (this.#viewer.isOpen) this.#viewer.close();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input:not([type=checkbox]), textarea, select")) return;
    const does = {
      "/": () => byId("question").focus(),
      n: () => stepEvidence(1),
      p: () => stepEvidence(-1),
      ArrowLeft: () => this.#viewer.turn(-1),
      ArrowRight: () => this.#viewer.turn(1),
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }

  #add(opened) {
    this.#documents.set(opened.id, { opened, chats: [new Chat(newId(), opened)] });
  }

  /** An answer of before the page was loaded again. */
  #restore(answer) {
    const { opened, chats } = this.#documents.get(answer.document);
    let chat = chats.find((one) => one.id === answer.chat);
    if (!chat) chats.push((chat = new Chat(answer.chat, opened)));
    let turn = chat.turns.find((one) => one.id === answer.turn);
    if (!turn) {
      const contexts = this.#limits.answers.filter((one) => one.turn === answer.turn).map((one) => one.context);
      turn = new Turn(answer.question, contexts, opened, this.#viewer);
      turn.id = answer.turn;
      chat.add(turn, answer.question);
    }
    turn.fill(answer);
    chat.answers.push(answer);
  }

  async #openAll(files) {
    for (const file of files) await this.#open(file);
  }

  async #open(file) {
    const stop = new AbortController();
    const cancel = element("button", { type: "button", textContent: "Stop", onclick: () => stop.abort() });
    const item = element("li", {}, element("span", { textContent: `Reading ${file.name} ` }), cancel, element("progress", { "aria-label": `Reading ${file.name}` }));
    byId("opening").append(item);
    try {
      if (file.size > this.#limits.max_bytes)
        throw new Error(`${file.name} has ${count(file.size)} bytes, more than the ${count(this.#limits.max_bytes)} that this page takes.`);
      const chosen = new URLSearchParams({ name: file.name, layout: byId("layout").value });
      for (const [name, id] of [["pages", "only-pages"], ["encoding", "encoding"], ["ocr", "ocr"]])
        if (byId(id).value.trim()) chosen.set(name, byId(id).value.trim());
      const headers = { "content-type": "application/octet-stream" };
      if (byId("password").value) headers["x-password"] = btoa(String.fromCharCode(...new TextEncoder().encode(byId("password").value)));
      const response = await call(`/api/documents?${chosen}`, { method: "POST", body: file, headers, signal: stop.signal });
      const opened = await response.json();
      this.#add(opened);
      this.#choose(this.#documents.get(opened.id).chats[0]);
      byId("question").focus();
    } catch (error) {
      failed(error);
    } finally {
      item.remove();
    }
  }

  async #close(opened) {
    try {
      await call(`/api/documents/${opened.id}`, { method: "DELETE" });
    } catch (error) {
      failed(error);
    }
    this.#viewer.closeIfOf(opened.id);
    this.#documents.delete(opened.id);
    const next = this.#documents.values().next().value;
    if (this.#chat?.opened === opened) this.#choose(next ? next.chats.at(-1) : null);
    this.#list();
  }

  #choose(chat) {
    if (this.#running) this.#running.abort();
    this.#chat = chat;
    byId("desk").hidden = chat === null;
    if (chat !== null) {
      const { opened } = chat;
      byId("name").textContent = opened.name;
      const text = opened.characters ? `${count(opened.characters)} characters, ${count(opened.tokens)} tokens as text, ` : "pages without text, ";
      byId("facts").replaceChildren(`${text}${count(opened.pages)} page${opened.pages === 1 ? "" : "s"} `,
        element("button", { type: "button", textContent: "See the pages", onclick: () => this.#viewer.show(opened, 1) }));
      const copied = byId("context").querySelector("[value=passages]");
      copied.disabled = !opened.characters; // of scans there is no text
      if (copied.disabled && copied.selected) byId("context").value = "hybrid";
      byId("notes").replaceChildren(...opened.notes.map((note) => element("li", { textContent: note })));
      byId("turns").replaceChildren(...chat.turns.map((turn) => turn.item));
      byId("plan").open = !chat.turns.length;
      this.#plan.show(opened);
    }
    this.#list();
  }

  #list() {
    byId("nothing").hidden = this.#documents.size > 0;
    byId("documents").replaceChildren(...[...this.#documents.values()].map(({ opened, chats }) => {
      const name = element("button", { type: "button", "aria-current": this.#chat?.opened === opened, onclick: () => this.#choose(chats.at(-1)) },
        opened.name, element("small", { textContent: `${count(opened.pages)} page${opened.pages === 1 ? "" : "s"}` }));
      const close = element("button", { type: "button", className: "close", textContent: "✕", title: "Close", "aria-label": `Close ${opened.name}`, onclick: () => this.#close(opened) });
      const list = chats.map((chat) => element("li", {},
        element("button", { type: "button", "aria-current": this.#chat === chat, textContent: chat.name, onclick: () => this.#choose(chat) })));
      if (chats.at(-1).turns.length)
        list.push(element("li", {}, element("button", { type: "button", textContent: "+ New chat", onclick: () => {
          chats.push(new Chat(newId(), opened));
          this.#choose(chats.at(-1));
          byId("question").focus();
        } })));
      return element("li", {}, element("div", { className: "document" }, name, close), element("ul", { className: "chats" }, ...list));
    }));
  }

  async #ask(contexts) {
    const question = byId("question").value.trim();
    if (!question || this.#running) {
      if (!question) byId("question").value = ""; // of blanks alone the browser says nothing
      byId("question").reportValidity();
      return;
    }
    const chat = this.#chat;
    const turn = new Turn(question, contexts, chat.opened, this.#viewer);
    turn.id = newId();
    chat.add(turn, question);
    this.#list();
    byId("turns").append(turn.item);
    byId("plan").open = false;
    const stop = (this.#running = new AbortController());
    this.#busy(true);
    turn.item.scrollIntoView({ block: "nearest" });
    const body = {
      question, chat: chat.id, turn: turn.id, budget: this.#plan.budget, policy: this.#plan.policy,
      before: byId("history").checked ? chat.before : [],
      grounding: byId("grounding").value || null, repair: byId("repair").checked, abstain: byId("abstain").checked,
    };
    byId("question").value = "";
    for (const context of contexts) {
      const answer = await turn.ask(context, body, stop.signal);
      if (answer) chat.answers.push(answer);
      else if (contexts.length === 1 && this.#chat === chat && !byId("question").value) byId("question").value = question;
    }
    this.#running = null;
    this.#busy(false);
    if (this.#chat === chat) turn.item.scrollIntoView({ block: "nearest" });
  }

  #busy(isBusy) {
    byId("ask").querySelector("[type=submit]").textContent = isBusy ? "Stop" : "Ask";
    byId("question").required = !isBusy;
    byId("compare").disabled = isBusy;
  }
}

try {
  new Desk(await (await call("/api/desk")).json());
} catch (error) {
  failed(error);
}
