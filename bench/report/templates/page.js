"use strict";
for (const form of document.querySelectorAll("form.tools")) {
  const table = document.getElementById(form.dataset.table);
  const apply = () => {
    const given = new FormData(form);
    const text = given.get("filter").trim().toLowerCase();
    table.dataset.show = given.get("show");
    for (const row of table.querySelectorAll("tbody tr, tfoot tr")) {
      const shots = given.get("shots");
      const named = row.parentNode.tagName === "TFOOT" || row.cells[0].textContent.toLowerCase().includes(text);
      const ran = !given.has("ran") || row.dataset.ran !== "0";
      row.hidden = !(named && ran && (shots === "all" || shots === row.dataset.shots));
    }
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  apply();
}
for (const button of document.querySelectorAll("button[data-sort]")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const body = button.closest("table").tBodies[0];
    const column = Number(button.dataset.sort);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = (row) => {
      const cell = row.cells[column];
      const found = cell.dataset.value ?? (column === 1 ? cell.textContent : undefined);
      return found === undefined ? undefined : Number(found);
    };
    const compare = (a, b) => {
      if (column === 0) return a.cells[0].textContent.localeCompare(b.cells[0].textContent);
      const [x, y] = [value(a), value(b)];
      if (x === undefined || y === undefined) return 0;
      return x - y;
    };
    const rows = [...body.rows];
    const empty = column > 1 ? rows.filter((row) => value(row) === undefined) : [];
    const full = rows.filter((row) => !empty.includes(row)).sort(compare);
    if (!up) full.reverse();
    body.append(...full, ...empty);
  });
}
const open = () => {
  const aim = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (aim instanceof HTMLDetailsElement) {
    aim.open = true;
    aim.scrollIntoView();
  }
};
window.addEventListener("hashchange", open);
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("#audit details")) details.open = true;
});
open();
