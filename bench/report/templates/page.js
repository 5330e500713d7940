"use strict";
for (const form of document.querySelectorAll("form.tools")) {
  const table = document.getElementById(form.dataset.table);
  const apply = () => {
    const given = new FormData(form);
    const text = given.get("filter").trim().toLowerCase();
    const shots = given.get("shots") ?? "all";
    table.dataset.show = given.get("show") ?? "both";
    for (const row of table.querySelectorAll("tbody tr")) {
      const named = row.cells[0].textContent.toLowerCase().includes(text);
      row.hidden = !named || (given.has("ran") && "empty" in row.dataset);
    }
    for (const cell of table.querySelectorAll("[data-shots]")) {
      cell.hidden = shots !== "all" && shots !== cell.dataset.shots;
    }
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  apply();
}
const sortValue = (row, column, show) => {
  const cell = row.cells[column];
  const found = show === "both" ? (cell.dataset.ours ?? cell.dataset.published) : cell.dataset[show];
  return found === undefined ? undefined : Number(found);
};
for (const button of document.querySelectorAll("button[data-sort]")) {
  button.addEventListener("click", () => {
    const head = button.closest("th");
    const table = button.closest("table");
    const column = Number(button.dataset.sort);
    const up = head.getAttribute("aria-sort") !== "ascending";
    for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    for (const body of table.tBodies) {
      const rows = [...body.rows].filter((row) => !row.classList.contains("mean"));
      const value = (row) => sortValue(row, column, table.dataset.show);
      const empty = column ? rows.filter((row) => value(row) === undefined) : [];
      const full = rows.filter((row) => !empty.includes(row));
      full.sort((a, b) => column ? value(a) - value(b) : a.cells[0].textContent.localeCompare(b.cells[0].textContent));
      if (!up) full.reverse();
      body.prepend(...full, ...empty);
    }
  });
}
const dialog = document.getElementById("cell");
document.addEventListener("click", (event) => {
  const link = event.target.closest("a.ours");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const details = document.getElementById(link.hash.slice(1));
  event.preventDefault();
  dialog.querySelector("h2").replaceChildren(...details.querySelector("summary").cloneNode(true).childNodes);
  dialog.querySelector(":scope > div").replaceChildren(details.querySelector(":scope > div").cloneNode(true));
  dialog.showModal();
});
dialog.addEventListener("click", (event) => {
  if (event.target === dialog) dialog.close();
});
const open = () => {
  const aim = document.getElementById(location.hash.slice(1));
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
