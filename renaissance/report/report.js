"use strict";
// The theme is set before the page is drawn. A browser may forbid pages from disk to remember it.
const root = document.documentElement;
const remembered = () => { try { return localStorage.getItem("report-theme"); } catch { return null; } };
const remember = (theme) => { try { localStorage.setItem("report-theme", theme); } catch { /* this page alone */ } };
if (["light", "dark"].includes(remembered())) root.dataset.theme = remembered();

function isDark() {
  return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function offerTheme(button) {
  const say = () => { button.textContent = isDark() ? "Light page" : "Dark page"; };
  button.hidden = false;
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember(root.dataset.theme);
    say();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  say();
}

// A number that is not there comes before all others; words are compared as people sort them.
function keyOf(row, column, isNumber) {
  const cell = row.cells[column];
  if (!isNumber) return cell.textContent.trim();
  return cell.dataset.order === undefined ? -Infinity : Number(cell.dataset.order);
}

function sort(heading) {
  const table = heading.closest("table");
  const isNumber = heading.classList.contains("number");
  const first = isNumber ? "descending" : "ascending";
  const second = isNumber ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? second : first;
  for (const other of table.tHead.rows[0].cells) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
  heading.setAttribute("aria-sort", order);
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [keyOf(row, heading.cellIndex, isNumber), row]);
  keyed.sort(([a], [b]) => sign * (isNumber ? (a < b ? -1 : a > b ? 1 : 0) : a.localeCompare(b, "en", { numeric: true })));
  body.append(...keyed.map(([, row]) => row));
}

function followSections() {
  const links = new Map([...document.querySelectorAll("nav.contents a")].map((link) => [link.hash.slice(1), link]));
  const watcher = new IntersectionObserver((seen) => {
    const now = seen.filter((entry) => entry.isIntersecting).map((entry) => links.get(entry.target.id)).find(Boolean);
    if (!now) return;
    for (const link of links.values()) link.removeAttribute("aria-current");
    now.setAttribute("aria-current", "true");
  }, { rootMargin: "-10% 0px -75% 0px" });
  for (const section of document.querySelectorAll("main > section")) watcher.observe(section);
}

// On paper nothing can be opened, so all of it stands open.
function unfoldOnPaper() {
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = [...document.querySelectorAll("details:not([open])")];
    for (const part of closed) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of closed) part.open = false; });
}

document.addEventListener("DOMContentLoaded", () => {
  offerTheme(document.querySelector("button.theme"));
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => sort(button.closest("th")));
  }
  followSections();
  unfoldOnPaper();
});
