// The table is complete without this: sorting, filters and the download are what it adds.
"use strict";
const CHOSEN_COLUMNS = { kind: 1, definition: 2 };
const table = new DataTable("#summary", {
  paging: false,
  info: false,
  autoWidth: false,
  order: [],
  layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
});

const filters = document.getElementById("filters");
const count = document.getElementById("count");
const tell = () => {
  count.textContent = `${table.rows({ search: "applied" }).count()} of ${table.rows().count()} rows`;
};
const only = (column) => (event) => table.column(column).search(event.target.value, { exact: event.target.value !== "" }).draw();

table.on("draw", tell);
document.getElementById("filter-text").addEventListener("input", (event) => table.search(event.target.value).draw());
for (const [name, column] of Object.entries(CHOSEN_COLUMNS)) {
  document.getElementById(`filter-${name}`).addEventListener("change", only(column));
}
filters.addEventListener("submit", (event) => event.preventDefault());
filters.hidden = false;

// Begin with the definition that the answer speaks of.
const definition = document.getElementById("filter-definition");
definition.value = filters.dataset.definition;
definition.dispatchEvent(new Event("change"));
tell();

document.getElementById("download").addEventListener("click", async () => {
  const csv = JSON.parse(document.getElementById("csv").textContent);
  const packed = await (await fetch(`data:application/gzip;base64,${csv.packed}`)).blob();
  const text = await new Response(packed.stream().pipeThrough(new DecompressionStream("gzip"))).blob();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = csv.name;
  link.click();
  URL.revokeObjectURL(link.href);
});

// Inside the report the page has no place of its own, from which a link could lead to a file.
if (!["file:", "http:", "https:"].includes(location.protocol)) {
  document.documentElement.classList.add("inside-report");
  for (const link of document.querySelectorAll("a.result")) link.removeAttribute("href");
}
