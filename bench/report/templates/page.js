"use strict";
const order = (rows, value, up) => {
  const empty = rows.filter((row) => value(row) === undefined);
  const full = rows.filter((row) => value(row) !== undefined);
  full.sort((a, b) => {
    const [first, second] = [value(a), value(b)];
    return typeof first === "number" ? first - second : first.localeCompare(second);
  });
  return [...(up ? full : full.reverse()), ...empty];
};
const mark = (scope, head) => {
  const up = head.getAttribute("aria-sort") === "descending" || (head.dataset.first === "up" && !head.hasAttribute("aria-sort"));
  for (const other of scope.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  return up;
};
for (const form of document.querySelectorAll("form.tools[data-table]")) {
  const tables = document.getElementById(form.dataset.table);
  const apply = () => {
    const given = new FormData(form);
    const text = given.get("filter").trim().toLowerCase();
    const shots = given.get("shots") ?? "all";
    tables.dataset.show = given.get("show") ?? "both";
    let left = 0;
    for (const row of tables.querySelectorAll("tbody tr")) {
      const named = row.cells[0].textContent.toLowerCase().includes(text);
      row.hidden = !named || (given.has("ran") && "empty" in row.dataset);
    }
    for (const part of tables.querySelectorAll("[data-shots]")) {
      const empty = !part.querySelector("tbody tr:not([hidden])");
      part.hidden = empty || (shots !== "all" && shots !== part.dataset.shots);
      left += !part.hidden;
    }
    tables.querySelector(".no-row").hidden = left > 0;
  };
  form.addEventListener("input", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  for (const table of tables.querySelectorAll("table")) {
    table.querySelectorAll("tbody tr").forEach((row, i) => { row.dataset.row = i; });
  }
  apply();
  for (const button of tables.querySelectorAll("button[data-sort]")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = button.closest("table");
      if (button.dataset.sort === "0") head.dataset.first = "up";
      const up = mark(tables, head);
      const column = button.dataset.sort === "0" ? 0 : 1 + [...head.parentNode.cells].indexOf(head);
      const show = tables.dataset.show;
      const value = (row) => {
        const cell = row.cells[column];
        if (!column) return cell.textContent;
        const text = show === "both" ? (cell.dataset.ours ?? cell.dataset.published) : cell.dataset[show];
        return text === undefined ? undefined : Number(text);
      };
      [...table.tBodies].forEach((body, i) => {
        const rows = [...body.rows].filter((row) => !row.classList.contains("mean"));
        const ranks = order(rows, value, up).map((row) => row.dataset.row);
        for (const other of tables.querySelectorAll("table")) {  // side by side, rows stay in line
          const by = new Map([...other.tBodies[i].rows].map((row) => [row.dataset.row, row]));
          other.tBodies[i].prepend(...ranks.map((rank) => by.get(rank)));
        }
      });
    });
  }
}
const fit = () => {
  for (const part of document.querySelectorAll(".scroll")) {
    part.classList.remove("fits");
    part.classList.toggle("fits", part.scrollWidth <= part.clientWidth);
  }
};
window.addEventListener("resize", fit);
fit();
const dialog = document.getElementById("cell");
document.addEventListener("click", (event) => {
  const copy = event.target.closest("button.copy");
  if (copy) {
    getSelection().selectAllChildren(copy.previousElementSibling);  // where no clipboard is open to us
    navigator.clipboard?.writeText(copy.previousElementSibling.textContent).then(() => { copy.textContent = "copied"; }, () => {});
    return;
  }
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
    aim.closest("#cells")?.setAttribute("open", "");
    aim.scrollIntoView();
  }
};
window.addEventListener("hashchange", open);
window.addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("#audit details, figure details")) details.open = true;
});
open();
const lines = document.getElementById("run-lines");
if (lines) {
  const STEP = 200;
  const [texts, ...rows] = lines.textContent.split("\n").map((line) => line.split("\t"));
  const numeric = [false, false, false, true, true, true, false, false, false];
  const runs = rows.map((row) => row.map((value, i) => [0, 1, 2, 7].includes(i) ? texts[value] : value));
  const table = document.getElementById("run-table");
  const filter = document.getElementById("run-filter");
  const more = document.getElementById("run-more");
  let shown = runs, drawn = 0;
  const draw = () => {
    for (const run of shown.slice(drawn, drawn + STEP)) {
      const row = table.tBodies[0].insertRow();
      for (const value of run) row.insertCell().textContent = value;
    }
    drawn = Math.min(drawn + STEP, shown.length);
    more.hidden = drawn === shown.length;
    filter.querySelector("output").textContent = shown.length ? `${shown.length} of ${runs.length} runs` : "No run matches.";
  };
  const again = () => { table.tBodies[0].replaceChildren(); drawn = 0; draw(); };
  const apply = () => {
    const words = new FormData(filter).get("words").toLowerCase().split(/\s+/).filter(Boolean);
    shown = runs.filter((run) => { const text = run.join(" ").toLowerCase(); return words.every((word) => text.includes(word)); });
    again();
  };
  [...table.tHead.rows[0].cells].forEach((head, i) => {
    if (i !== 5 && i !== 6) head.dataset.first = "up";  // AUROC and date: the highest first
    head.addEventListener("click", () => {
      const up = mark(table, head);
      runs.splice(0, runs.length, ...order([...runs], (run) => numeric[i] ? parseFloat(run[i]) : run[i], up));
      apply();
    });
  });
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", draw);
  filter.hidden = table.hidden = false;
  draw();
  fit();
}
