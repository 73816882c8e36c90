// Drop-down of the price stack: puts the chosen node's series into the drawn areas and lines.
(function () {
  const choice = document.getElementById("stack-choice");
  if (!choice) return;
  const series = JSON.parse(document.getElementById("stack-data").textContent);
  const show = () => Plotly.restyle("price-stack-figure", { y: series.map((nodes) => nodes[+choice.value]) });
  choice.addEventListener("change", show);
})();
