// Drop-down of the node figure: puts the chosen node's series into the drawn traces.
(function () {
  const choice = document.getElementById("node-choice");
  if (!choice) return;
  const series = Object.values(JSON.parse(document.getElementById("node-data").textContent));
  const show = () => Plotly.restyle("node-figure", { y: series.map((rows) => rows[+choice.value]) });
  choice.addEventListener("change", show);
})();
