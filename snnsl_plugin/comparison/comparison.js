"use strict";
// Everything is on the page already; this sorts tables, explains points and hides hosts.
const rows = JSON.parse(document.getElementById("data").textContent).rows;
const tip = document.getElementById("tip");
const said = document.getElementById("said");
for (const button of document.querySelectorAll("button[disabled]")) button.disabled = false;

// ---- tables
function sortBy(head) {
  const table = head.closest("table");
  const place = head.cellIndex;
  const first = head.dataset.first;
  const other = first === "ascending" ? "descending" : "ascending";
  const order = head.getAttribute("aria-sort") === first ? other : first;
  for (const each of table.querySelectorAll("th[aria-sort]")) each.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const numbers = head.dataset.sort === "number";
  // A failed line has no numbers: sorted by any, it stays below.
  const value = line => line.cells[place]?.dataset.value ?? "";
  const compare = (a, b) => {
    const [left, right] = [value(a), value(b)];
    if (left === "" || right === "") return (left === "") - (right === "");
    return sign * (numbers ? Number(left) - Number(right) : left.localeCompare(right));
  };
  const body = table.tBodies[table.tBodies.length - 1];
  body.append(...[...body.rows].sort(compare));
  said.textContent = `Sorted by ${head.textContent.trim()}, ${order}.`;
}
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => sortBy(head));
}

// ---- points
let shown = null;
function light(point, on) {
  const picture = point.ownerSVGElement;
  picture.classList.toggle("dimmed", on);
  for (const each of picture.querySelectorAll("[data-pruner]")) {
    each.classList.toggle("lit", on && each.dataset.pruner === point.dataset.pruner);
  }
}
function place(point) {
  const mark = point.querySelector(".mark").getBoundingClientRect();
  const box = tip.getBoundingClientRect();
  const left = Math.min(Math.max(mark.left + mark.width / 2 - box.width / 2, 8), innerWidth - box.width - 8);
  const above = mark.top - box.height - 12;
  tip.style.left = `${Math.max(left, 4)}px`;
  tip.style.top = `${above >= 4 ? above : Math.min(mark.bottom + 12, Math.max(innerHeight - box.height - 4, 4))}px`;
}
function show(point) {
  hide();
  const row = rows[point.dataset.row];
  const title = document.createElement("strong");
  title.textContent = row.title;
  const list = document.createElement("dl");
  for (const [label, value] of row.lines) {
    const term = document.createElement("dt");
    const text = document.createElement("dd");
    term.textContent = label;
    text.textContent = value;
    list.append(term, text);
  }
  tip.replaceChildren(title, list);
  tip.hidden = false;
  place(point);
  point.setAttribute("aria-describedby", "tip");
  light(point, true);
  shown = point;
}
function hide() {
  if (!shown) return;
  tip.hidden = true;
  shown.removeAttribute("aria-describedby");
  light(shown, false);
  shown = null;
}
// One tab stop a picture: the arrow keys go on from there, in the order of the page from left to right.
const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
function points(picture) {
  const seen = [...picture.querySelectorAll(".point:not(.off)")];
  const wide = picture.classList.contains("wide");
  const at = point => { const box = point.querySelector(".mark").getBoundingClientRect(); return wide ? box.top : box.left; };
  return seen.map(point => [at(point), point]).sort((a, b) => a[0] - b[0]).map(pair => pair[1]);
}
function stop(picture, chosen) {
  for (const point of picture.querySelectorAll(".point")) point.setAttribute("tabindex", point === chosen ? "0" : "-1");
}
for (const picture of document.querySelectorAll("svg[role=group]")) {
  stop(picture, picture.querySelector(".point"));
  picture.addEventListener("pointerover", event => { const point = event.target.closest(".point"); if (point) show(point); });
  picture.addEventListener("pointerout", event => { if (event.target.closest(".point")) hide(); });
  picture.addEventListener("focusin", event => { const point = event.target.closest(".point"); if (point) { stop(picture, point); show(point); } });
  picture.addEventListener("focusout", hide);
  picture.addEventListener("keydown", event => {
    const here = event.target.closest(".point");
    const all = points(picture);
    let next = null;
    if (event.key in steps) next = all[(all.indexOf(here) + steps[event.key] + all.length) % all.length];
    else if (event.key === "Home") next = all[0];
    else if (event.key === "End") next = all[all.length - 1];
    if (next) { event.preventDefault(); next.focus(); }
  });
}
document.addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
document.addEventListener("scroll", () => { if (shown) place(shown); }, { capture: true, passive: true });

// ---- hosts
for (const button of document.querySelectorAll(".legend button")) {
  button.addEventListener("click", () => {
    const host = button.dataset.host;
    const on = button.getAttribute("aria-pressed") === "false";
    for (const each of document.querySelectorAll(".legend button")) if (each.dataset.host === host) each.setAttribute("aria-pressed", String(on));
    for (const each of document.querySelectorAll("svg [data-host]")) if (each.dataset.host === host) each.classList.toggle("off", !on);
    for (const picture of document.querySelectorAll("svg[role=group]")) {
      if (!picture.querySelector('.point[tabindex="0"]:not(.off)')) stop(picture, points(picture)[0]);
    }
    said.textContent = `${host} ${on ? "shown" : "hidden"} in all pictures.`;
  });
}
