// Time slider and phase choice of the two feeder maps.
(function () {
  const store = document.getElementById("map-data");
  if (!store) return;
  const data = JSON.parse(store.textContent);
  const time = document.getElementById("map-time");
  const phase = document.getElementById("map-phase");
  const level = document.getElementById("map-price");
  const output = document.getElementById("map-clock");
  const play = document.getElementById("map-play");
  const NODES = 2; // third trace of each map

  const reduce = {
    mean: (v) => v.reduce((sum, x) => sum + x, 0) / v.length,
    min: (v) => Math.min(...v),
    max: (v) => Math.max(...v),
  };

  function voltage(frame, bus, choice) {
    if (choice in data.v) return data.v[choice][frame][bus];
    const present = ["a", "b", "c"].map((p) => data.v[p][frame][bus]).filter((x) => x !== null);
    return present.length ? reduce[choice](present) : null;
  }

  function hover(frame, bus) {
    const phases = ["a", "b", "c"].filter((p) => data.v[p][frame][bus] !== null);
    const volts = phases.map((p) => `${p} ${(data.v[p][frame][bus] / 1e4).toFixed(4)}`).join(" · ");
    return `<b>bus ${data.bus[bus]}</b><br>${volts} p.u.<br>net injection ${(data.p[frame][bus] / 10).toFixed(1)} kW`;
  }

  function show() {
    const frame = +time.value;
    output.textContent = data.clock[frame];
    const volts = data.bus.map((_, bus) => voltage(frame, bus, phase.value));
    Plotly.restyle("map-voltage", {
      "marker.color": [volts.map((v) => (v === null ? null : v / 1e4))],
      "marker.opacity": [volts.map((v) => (v === null ? 0.12 : 1))], // the bus lacks this phase
      text: [data.bus.map((_, bus) => hover(frame, bus))],
    }, [NODES]);
    if (!data.smo.length) return;
    const prices = data.dlmp[frame].map((price) => (price === null ? null : price / 1e5));
    const known = prices.filter((price) => price !== null);
    const mean = known.reduce((sum, price) => sum + price, 0) / known.length;
    const base = level.value === "spread" ? mean : 0;
    const scale = data.scales[level.value];
    Plotly.restyle("map-dlmp", {
      "marker.color": [prices.map((price) => (price === null ? null : price - base))],
      "marker.cmin": scale.cmin,
      "marker.cmax": scale.cmax,
      "marker.colorscale": [scale.colorscale],
      text: [data.smo.map((bus, i) => `${hover(frame, bus)}<br>dLMP ${prices[i] === null ? "–" : prices[i].toFixed(4)} $/kWh`)],
    }, [NODES]);
  }

  let timer = null;
  play.addEventListener("click", () => {
    if (timer) {
      clearInterval(timer);
      timer = null;
    } else {
      timer = setInterval(() => {
        time.value = (+time.value + 1) % data.clock.length;
        show();
      }, 150);
    }
    play.textContent = timer ? "Pause" : "Play";
  });
  time.addEventListener("input", show);
  level.addEventListener("change", show);
  phase.addEventListener("change", show);
  show();
})();
