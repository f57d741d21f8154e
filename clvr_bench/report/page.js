// Sorting, choosing, and opening what a link leads to. All content is in the page without it.
"use strict";

const SCALES = { "": 1, k: 1e3, M: 1e6, B: 1e9 };

function numberIn(text) {
  const found = /^(-?\d[\d.]*)([kMB]?)(?=$|\s)/.exec(text);
  return found ? Number(found[1]) * SCALES[found[2]] : NaN;
}

// A cell's own text, which the letters of its notes follow.
function textOf(cell) {
  let node = cell;
  while (node.firstChild) node = node.firstChild;
  return node.textContent.trim();
}

function sortBy(table, column, descending) {
  const keyed = [...table.tBodies[0].rows].map((row) => {
    const text = textOf(row.cells[column]);
    return { row, text, number: numberIn(text), empty: text === "-" };
  });
  const numeric = keyed.every((key) => key.empty || !Number.isNaN(key.number));
  const sign = descending ? -1 : 1;
  keyed.sort((a, b) => a.empty - b.empty || sign * (numeric ? a.number - b.number : a.text.localeCompare(b.text)) || 0);
  table.tBodies[0].append(...keyed.map((key) => key.row));
  table.classList.add("sorted");
}

function makeSortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const before = heading.getAttribute("aria-sort");
      const descending = before ? before === "ascending" : heading.classList.contains("high-first");
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sortBy(table, column, descending);
    });
  });
}

function choose(form) {
  const wanted = [...form.elements].filter((field) => field.value);
  for (const item of document.querySelectorAll("[data-suite]")) {
    const differs = (field) => field.name in item.dataset && item.dataset[field.name] !== field.value;
    item.toggleAttribute("hidden", wanted.some(differs));
  }
  for (const section of document.querySelectorAll("section")) {
    const items = [...section.querySelectorAll("[data-suite]")];
    section.classList.toggle("nothing", items.length > 0 && items.every((item) => item.closest("[hidden]")));
  }
}

function openTarget() {
  const target = location.hash && document.getElementById(location.hash.slice(1));
  if (target instanceof HTMLDetailsElement) {
    target.open = true;
    target.scrollIntoView();
  }
}

document.querySelectorAll("table.sortable").forEach(makeSortable);
const form = document.querySelector("form");
form.hidden = false;
form.reset();
form.addEventListener("change", () => choose(form));
window.addEventListener("hashchange", openTarget);
openTarget();
