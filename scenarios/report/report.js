// Draws every figure of the page and makes the event list searchable.
(function () {
  const config = { displaylogo: false, responsive: true, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };
  for (const store of document.querySelectorAll(".figure-data")) {
    const figure = JSON.parse(store.textContent);
    const extra = store.dataset.for.startsWith("map-") ? { scrollZoom: true } : {};
    Plotly.newPlot(store.dataset.for, figure.data, figure.layout, { ...config, ...extra });
  }

  // Paper has a fixed width, whatever the window had.
  const WIDE = 1220, HALF = 600;
  const figures = [...document.querySelectorAll(".figure")];
  addEventListener("beforeprint", () => {
    for (const div of figures) Plotly.relayout(div, { width: div.id.startsWith("map-") ? HALF : WIDE });
  });
  addEventListener("afterprint", () => {
    for (const div of figures) Plotly.relayout(div, { width: null, autosize: true });
  });

  const search = document.getElementById("event-search");
  if (!search) return;
  const rows = [...document.querySelectorAll("#event-table tbody tr")];
  const count = document.getElementById("event-count");
  const whole = count.textContent;
  search.addEventListener("input", () => {
    const wanted = search.value.trim().toLowerCase();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      shown += row.hidden ? 0 : 1;
    }
    count.textContent = wanted ? `${shown} match` : whole;
  });
})();
