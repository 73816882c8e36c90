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
  const PHASES = ["a", "b", "c"];
  const LAYERS = [2, 3, 4], NODES = 5; // places of the traces: wires of each phase, nodes

  const reduce = {
    mean: (v) => v.reduce((sum, x) => sum + x, 0) / v.length,
    min: (v) => Math.min(...v),
    max: (v) => Math.max(...v),
  };

  // Value of a bus: that of a phase, or reduced over the phases it has.
  function chosen(by, frame, bus, choice) {
    if (choice in by) return by[choice][frame][bus];
    const present = PHASES.map((p) => by[p][frame][bus]).filter((x) => x !== null);
    return present.length ? reduce[choice](present) : null;
  }

  const price = (frame, i, choice) => (data.dlmp_by ? chosen(data.dlmp_by, frame, i, choice) : data.dlmp[frame][i]);

  function priceText(frame, i) {
    const write = (value) => (value === null ? "–" : (value / 1e5).toFixed(4));
    if (!data.dlmp_by) return `dLMP ${write(data.dlmp[frame][i])} $/kWh`;
    const known = PHASES.filter((p) => data.dlmp_by[p][frame][i] !== null);
    return `dLMP ${known.map((p) => `${p} ${write(data.dlmp_by[p][frame][i])}`).join(" · ")} $/kWh`;
  }

  // A phase by itself: its wires in colour.
  function layers() {
    const visible = PHASES.map((p) => p === phase.value);
    Plotly.restyle("map-voltage", { visible }, LAYERS);
    if (data.smo.length) Plotly.restyle("map-dlmp", { visible: data.dlmp_by ? visible : false }, LAYERS);
  }

  function hover(frame, bus) {
    const phases = PHASES.filter((p) => data.v[p][frame][bus] !== null);
    const volts = phases.map((p) => `${p} ${(data.v[p][frame][bus] / 1e4).toFixed(4)}`).join(" · ");
    return `<b>bus ${data.bus[bus]}</b><br>${volts} p.u.<br>net injection ${(data.p[frame][bus] / 10).toFixed(1)} kW`;
  }

  function show() {
    const frame = +time.value;
    output.textContent = data.clock[frame];
    const volts = data.bus.map((_, bus) => chosen(data.v, frame, bus, phase.value));
    Plotly.restyle("map-voltage", {
      "marker.color": [volts.map((v) => (v === null ? null : v / 1e4))],
      "marker.opacity": [volts.map((v) => (v === null ? 0.12 : 1))], // the bus lacks this phase
      text: [data.bus.map((_, bus) => hover(frame, bus))],
    }, [NODES]);
    if (!data.smo.length) return;
    const prices = data.smo.map((_, i) => price(frame, i, phase.value)).map((x) => (x === null ? null : x / 1e5));
    const known = prices.filter((x) => x !== null);
    const mean = known.reduce((sum, x) => sum + x, 0) / known.length;
    const base = level.value === "spread" ? mean : 0;
    const scale = data.scales[level.value];
    Plotly.restyle("map-dlmp", {
      "marker.color": [prices.map((x) => (x === null ? null : x - base))],
      "marker.opacity": [prices.map((x) => (x === null ? 0.12 : 1))],
      "marker.cmin": scale.cmin,
      "marker.cmax": scale.cmax,
      "marker.colorscale": [scale.colorscale],
      text: [data.smo.map((bus, i) => `${hover(frame, bus)}<br>${priceText(frame, i)}`)],
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
  phase.addEventListener("change", () => {
    layers();
    show();
  });
  show();
})();
