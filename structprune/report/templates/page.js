"use strict";
// Draws the pictures of a page from the data in #plots, in the colours of the page's style, light, dark or on paper.
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const number = (value) => value == null ? "not measured" : Number.isInteger(value) ? value.toLocaleString("en")
    : value.toPrecision(4);
  const FONT = "12px system-ui, sans-serif";
  const drawn = [];

  const axis = (more) => ({
    stroke: () => colour("text"), grid: { stroke: () => colour("line"), width: 1 },
    ticks: { stroke: () => colour("line"), width: 1, size: 4 }, font: FONT, ...more,
  });

  // Legends and readouts are text of the page: uPlot's own legend is a table without headers.
  function legend(box, entries) {
    const line = document.createElement("div");
    line.className = "legend";
    for (const [label, shade] of entries) {
      const mark = document.createElement("span");
      mark.className = "mark";
      mark.style.background = `var(--${shade})`;
      line.append(mark, label);
    }
    box.before(line);
  }

  const shorten = (name, most) => name.length > most ? `…${name.slice(1 - most)}` : name;

  // What each bar stands for: a layer, or a stage that is folded into one.
  function entriesOf(data, folded) {
    const entries = [];
    const places = new Map();
    data.names.forEach((name, index) => {
      const stage = data.stages[index];
      if (!folded.has(stage)) {
        entries.push({ name, stage, count: 1, dense: data.dense[index], slim: data.slim[index] });
      } else if (places.has(stage)) {
        const entry = places.get(stage);
        entry.count += 1;
        entry.dense += data.dense[index];
        entry.slim += data.slim[index];
      } else {
        const entry = { name: stage, stage, count: 1, isStage: true, dense: data.dense[index], slim: data.slim[index] };
        places.set(stage, entry);
        entries.push(entry);
      }
    });
    for (const entry of entries) {
      if (data.fold === "mean") {
        entry.dense /= entry.count;
        entry.slim /= entry.count;
      }
    }
    return entries;
  }

  function saying(entry, data) {
    const share = entry.dense ? `, ${(100 * entry.slim / entry.dense).toFixed(0)} %` : "";
    const of = entry.isStage ? ` (${entry.count} layers, ${data.fold})` : "";
    return `${entry.name}${of}: ${data.labels[0]} ${number(entry.dense)}, ${data.labels[1]} ${number(entry.slim)} ${data.unit}${share}`;
  }

  // Names under the bars where they fit, else the stages'. Returns the text at each place that has one.
  function labelsOf(entries, width) {
    const room = width / entries.length;
    if (room >= 15) return new Map(entries.map((entry, index) => [index, shorten(entry.name, 20)]));
    const labels = new Map();
    let last = -Infinity;
    entries.forEach((entry, index) => {
      const isFirst = index === 0 || entry.stage !== entries[index - 1].stage;
      const isDue = entry.stage === undefined ? (index - last) * room >= 60 : isFirst && (index - last) * room >= 15;
      if (isDue) {
        labels.set(index, shorten(entry.stage ?? entry.name, 20));
        last = index;
      }
    });
    return labels;
  }

  function bars(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const folded = new Set();
    legend(box, [[data.labels[0], "dense"], [data.labels[1], "slim"]]);
    let plot, entries;

    function draw() {
      plot?.destroy();
      entries = entriesOf(data, folded);
      const width = box.clientWidth;
      const labels = labelsOf(entries, width - 60);
      const longest = Math.max(...[...labels.values()].map((label) => label.length));
      const column = uPlot.paths.bars({ size: [entries.length > 120 ? 1 : 0.8, 60] });
      const one = (label, shade) => ({ label, paths: column, fill: () => colour(shade), stroke: () => colour(shade), width: 0, points: { show: false } });
      plot = new uPlot({
        width, height: 250 + Math.ceil(longest * 5.2), legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.7, entries.length - 0.3] }, y: { range: (u, low, high) => [0, high * 1.05 || 1] } },
        series: [{}, one(data.labels[0], "dense"), one(data.labels[1], "slim")],
        axes: [
          axis({ grid: { show: false }, rotate: 60, size: Math.ceil(longest * 5.6) + 16,
            splits: () => [...labels.keys()], values: (u, places) => places.map((place) => labels.get(place)) }),
          axis({ label: data.unit, labelFont: FONT, labelSize: 18, size: 50 }),
        ],
        hooks: { drawClear: [bands], setCursor: [(u) => read(u.cursor.idx)] },
      }, [entries.map((_, index) => index), entries.map((entry) => entry.dense), entries.map((entry) => entry.slim)], box);
      plot.over.addEventListener("click", () => toggle(plot.cursor.idx));
    }

    function bands(u) {
      u.ctx.fillStyle = colour("band");
      let isOdd = false;
      entries.forEach((entry, index) => {
        if (index && entry.stage !== entries[index - 1].stage) isOdd = !isOdd;
        if (!isOdd || entry.stage === undefined) return;
        const left = u.valToPos(index - 0.5, "x", true);
        u.ctx.fillRect(left, u.bbox.top, u.valToPos(index + 0.5, "x", true) - left, u.bbox.height);
      });
    }

    function read(index) {
      if (index != null && index >= 0) readout.textContent = saying(entries[index], data);
    }

    function toggle(index) {
      const stage = index == null ? undefined : entries[index]?.stage;
      if (stage === undefined) return;
      if (!folded.delete(stage)) folded.add(stage);
      draw();
    }

    if (data.stages.length) {
      const line = document.createElement("div");
      line.className = "controls";
      for (const [text, stages] of [["Every layer", []], ["Stages only", data.stages]]) {
        const button = document.createElement("button");
        button.type = "button";
        button.textContent = text;
        button.addEventListener("click", () => {
          folded.clear();
          stages.forEach((stage) => folded.add(stage));
          draw();
        });
        line.append(button);
      }
      const hint = document.createElement("span");
      hint.className = "sub";
      hint.textContent = "A click on a bar, or Enter, folds its stage into one bar or opens it.";
      line.append(hint);
      box.before(line);
    }
    walk(box, () => plot, (index) => read(index), (index) => toggle(index));
    keep(draw, () => plot);
  }

  // The arrow keys go from bar to bar or point to point, for those who have no mouse.
  function walk(box, current, read, choose = () => {}) {
    let index = -1;
    box.addEventListener("keydown", (event) => {
      const plot = current();
      const last = plot.data[0].length - 1;
      const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Enter") choose(index);
      if (step === undefined) return;
      event.preventDefault();
      index = Math.max(0, Math.min(last, index + step));
      plot.setCursor({ left: plot.valToPos(plot.data[0][index], "x"), top: 10 });
      read(index);
    });
  }

  function lines(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const shades = data.lines.length > 2 ? null : ["dense", "slim"];
    const shade = (index) => data.lines[index].shade ?? (data.lines.length === 1 ? "slim" : shades[index]);
    legend(box, data.lines.map((line, index) => [line.label, shade(index)]));
    const places = [...new Set(data.lines.flatMap((line) => line.x))].sort((one, other) => one - other);
    const columns = data.lines.map((line) => places.map((place) => line.y[line.x.indexOf(place)] ?? null));
    const read = (index) => {
      if (index == null || index < 0) return;
      const values = columns.map((column, which) => column[index] == null ? "" : `${data.lines[which].label} ${number(column[index])}`);
      readout.textContent = `${data.unit} ${number(places[index])}: ${values.filter(Boolean).join(", ")}`;
    };
    let plot;
    const draw = () => {
      plot?.destroy();
      plot = new uPlot({
        width: box.clientWidth, height: data.height ?? 240, legend: { show: false }, padding: [8, 12, 0, 0],
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: false } },
        series: [{}, ...data.lines.map((line, index) => ({ label: line.label, stroke: () => colour(shade(index)), width: 2,
          dash: index ? [] : data.lines.length > 1 ? [6, 4] : [], spanGaps: true,
          points: { show: places.length < 13, size: 6, fill: () => colour(shade(index)) } }))],
        axes: [axis({ label: data.unit, labelFont: FONT, labelSize: 18, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000] }),
          axis({ label: data.title, labelFont: FONT, labelSize: 18, size: 56 })],
        hooks: { setCursor: [(u) => read(u.cursor.idx)] },
      }, [places, ...columns], box);
    };
    walk(box, () => plot, read);
    keep(draw, () => plot);
  }

  // One bar for each stage of a run, with its interval as a line.
  function stages(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const places = data.names.map((_, index) => index);
    const read = (index) => {
      if (index == null || index < 0) return;
      const interval = data.low[index] == null ? "" : ` (95 %: ${number(data.low[index])} to ${number(data.high[index])})`;
      readout.textContent = `${data.names[index]}: ${data.unit} ${number(data.values[index])}${interval}`;
    };
    const whiskers = (u) => {
      u.ctx.save();
      u.ctx.strokeStyle = colour("text");
      u.ctx.lineWidth = 2 * devicePixelRatio;
      places.forEach((place) => {
        if (data.low[place] == null) return;
        const x = u.valToPos(place, "x", true), low = u.valToPos(data.low[place], "y", true), high = u.valToPos(data.high[place], "y", true);
        u.ctx.beginPath();
        for (const [fromX, fromY, toX, toY] of [[x, low, x, high], [x - 6, low, x + 6, low], [x - 6, high, x + 6, high]]) {
          u.ctx.moveTo(fromX, fromY);
          u.ctx.lineTo(toX, toY);
        }
        u.ctx.stroke();
      });
      u.ctx.restore();
    };
    let plot;
    const draw = () => {
      plot?.destroy();
      const shade = () => colour("slim");
      plot = new uPlot({
        width: Math.min(box.clientWidth, 140 * places.length + 80), height: 220, legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.6, places.length - 0.4] }, y: { range: (u, low, high) => [Math.min(0, low), data.top ?? high * 1.05] } },
        series: [{}, { paths: uPlot.paths.bars({ size: [0.6, 70] }), fill: shade, stroke: shade, width: 0, points: { show: false } }],
        axes: [axis({ grid: { show: false }, splits: () => places, values: (u, values) => values.map((place) => shorten(data.names[place], 24)) }),
          axis({ label: data.unit, labelFont: FONT, labelSize: 18, size: 50 })],
        hooks: { setCursor: [(u) => read(u.cursor.idx)], draw: [whiskers] },
      }, [places, data.values], box);
    };
    walk(box, () => plot, read);
    keep(draw, () => plot);
  }

  // Draws now, and anew where the page gets another width; in other colours the same plot is painted again.
  function keep(draw, current) {
    draw();
    drawn.push({ draw, current });
  }

  const KINDS = { bars, lines, stages };
  for (const box of document.querySelectorAll("[data-plot]")) KINDS[plots[box.dataset.plot].kind](box, plots[box.dataset.plot]);

  // Rows whose name holds what was typed; a stage opens where it has one, and is gone where it has none.
  const filter = document.getElementById("filter");
  filter?.addEventListener("input", () => {
    const text = filter.value.trim().toLowerCase();
    const rows = [...document.querySelectorAll("tr[data-name]")];
    rows.forEach((row) => { row.hidden = !row.dataset.name.toLowerCase().includes(text); });
    document.querySelectorAll("details.stage").forEach((stage) => {
      const hits = stage.querySelectorAll("tr[data-name]:not([hidden])").length;
      stage.hidden = !hits;
      if (text && hits) stage.open = true;
    });
    const hits = rows.filter((row) => !row.hidden).length;
    document.getElementById("hits").textContent = text ? `${hits} of ${rows.length}` : "";
  });

  const repaint = () => drawn.forEach(({ current }) => current().redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  let width = document.body.clientWidth;
  const fit = () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawn.forEach(({ draw }) => draw());
  };
  addEventListener("resize", fit);
  matchMedia("print").addEventListener("change", () => { fit(); repaint(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((entry) => { entry.open = true; }));
})();
