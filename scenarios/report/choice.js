// Drop-downs of figures: put the chosen row's series into the drawn traces, and its text below the drop-down.
for (const choice of document.querySelectorAll("select[data-figure]")) {
  const data = JSON.parse(document.getElementById(choice.dataset.series).textContent);
  const text = document.getElementById(choice.id.replace("-choice", "-text"));
  choice.addEventListener("change", () => {
    Plotly.restyle(choice.dataset.figure, { y: data.series.map((rows) => rows[+choice.value]) });
    if (text) text.innerHTML = data.texts[+choice.value];
  });
}
