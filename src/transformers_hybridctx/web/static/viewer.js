// A page of a document at reading size, the evidence boxed on it, and where the model looked.

import { byId, call, count, element } from "./api.js";

export class Viewer {
  #document = null;
  #page = 1;
  #evidence = [];
  #chosen = null;
  #answer = null;
  #heat = new Map(); // answer id -> its pages
  #failed;
  #opener = null;

  constructor(failed) {
    this.#failed = failed;
    byId("previous").onclick = () => this.turn(-1);
    byId("next").onclick = () => this.turn(1);
    byId("close").onclick = () => this.close();
    byId("heat").onchange = () => this.#showHeat();
    byId("zoom").onclick = () => this.#zoom(byId("zoom").getAttribute("aria-pressed") !== "true");
    byId("picture").onload = () => this.#centre();
    byId("picture").onerror = () => this.#failed(new Error("This page could not be drawn; the terminal says why."));
  }

  get isOpen() {
    return !byId("viewer").hidden;
  }

  /** Show a page; with an answer, its evidence there, and one place of it in the middle. */
  show(opened, page, answer = null, chosen = null) {
    const isOther = this.#document?.id !== opened.id || this.#page !== page;
    const isNew = !this.isOpen;
    if (isNew) this.#opener = document.activeElement;
    [this.#document, this.#page, this.#answer, this.#chosen] = [opened, page, answer, chosen];
    this.#evidence = answer?.evidence ?? [];
    byId("viewer").hidden = false;
    byId("columns").classList.add("with-viewer");
    if (isNew && getComputedStyle(byId("viewer")).position === "fixed") byId("close").focus(); // it lies over the rest
    byId("page-shown").textContent = `page ${count(page)} of ${count(opened.pages)}`;
    byId("previous").disabled = page <= 1;
    byId("next").disabled = page >= opened.pages;
    const picture = byId("picture");
    picture.alt = `Page ${page} of ${opened.name}`;
    const address = `/api/documents/${opened.id}/pages/${page}`;
    if (isOther || !picture.src.endsWith(address)) picture.src = address;
    this.#drawBoxes();
    byId("heat-label").hidden = !answer?.has_pages;
    this.#showHeat();
    if (picture.complete) this.#centre();
  }

  turn(step) {
    const page = this.#page + step;
    if (this.isOpen && page >= 1 && page <= this.#document.pages) this.show(this.#document, page, this.#answer);
  }

  close() {
    byId("viewer").hidden = true;
    byId("columns").classList.remove("with-viewer");
    this.#opener?.focus();
  }

  closeIfOf(documentId) {
    if (this.#document?.id === documentId && this.isOpen) this.close();
  }

  #zoom(isLarger) {
    byId("zoom").setAttribute("aria-pressed", isLarger);
    byId("page").classList.toggle("fit", !isLarger);
    this.#centre();
  }

  #drawBoxes() {
    const boxes = this.#evidence
      .map((item, index) => ({ ...item, index }))
      .filter((item) => item.page === this.#page)
      .flatMap((item) => item.boxes.map((box) => [box, this.#chosen !== null && item.index !== this.#chosen]))
      .map(([[left, top, right, bottom], isOther]) => {
        const made = element("div", { className: isOther ? "other" : "chosen" });
        Object.assign(made.style, {
          left: `${100 * left}%`, top: `${100 * top}%`, width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
        });
        return made;
      });
    byId("boxes").replaceChildren(...boxes);
  }

  /** The evidence in the middle; else the top of the page. */
  #centre() {
    const scroll = byId("page-scroll");
    const box = byId("boxes").querySelector(".chosen");
    if (box === null) {
      scroll.scrollTo(0, 0);
      return;
    }
    const [around, inside] = [scroll.getBoundingClientRect(), box.getBoundingClientRect()];
    scroll.scrollBy(
      inside.left + inside.width / 2 - around.left - around.width / 2,
      inside.top + inside.height / 2 - around.top - around.height / 2,
    );
  }

  async #showHeat() {
    const [answer, page] = [this.#answer, this.#page];
    const isOn = byId("heat").checked && answer?.has_pages;
    byId("glow").hidden = byId("heat-pages").hidden = !isOn;
    if (!isOn) return;
    try {
      if (!this.#heat.has(answer.id)) {
        const found = await (await call(`/api/answers/${answer.id}/heat`)).json();
        this.#heat.set(answer.id, found.pages);
      }
    } catch (error) {
      byId("heat").checked = false;
      byId("glow").hidden = byId("heat-pages").hidden = true;
      this.#failed(error);
      return;
    }
    if (this.#answer !== answer || this.#page !== page) return; // turned meanwhile
    const pages = this.#heat.get(answer.id);
    this.#glow(pages[page - 1]);
    const most = pages
      .map(({ values }, index) => ({ page: index + 1, heat: values.reduce((sum, value) => sum + value, 0) }))
      .sort((one, other) => other.heat - one.heat)
      .slice(0, 3);
    byId("heat-pages").replaceChildren("looked most at page ", ...most.map(({ page: number }) =>
      element("button", { type: "button", textContent: number, onclick: () => this.show(this.#document, number, answer) })));
  }

  #glow({ rows, columns, values }) {
    const canvas = byId("glow");
    [canvas.width, canvas.height] = [columns, rows];
    const painter = canvas.getContext("2d");
    const image = painter.createImageData(columns, rows);
    values.forEach((value, index) => image.data.set([255, 120, 0, Math.round(0.8 * value)], 4 * index));
    painter.putImageData(image, 0, 0);
  }
}
