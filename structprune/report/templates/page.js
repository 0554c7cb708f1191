"use strict";
// Draws the pictures of a page from the data in #plots, in the colours of the page's style, light, dark or on paper.
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const number = (value) => value == null ? "not measured" : Number.isInteger(value) ? value.toLocaleString("en")
    : value.toPrecision(4);
  const FONT = "12px system-ui, sans-serif";
  const THIN = 2; // pixels of a bar, under which stages are folded at first
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
      const entry = document.createElement("span"), mark = document.createElement("span");
      mark.className = "mark";
      mark.style.background = `var(--${shade})`;
      entry.append(mark, label);
      line.append(entry);
    }
    box.before(line);
  }

  const shorten = (name, most) => name.length > most ? `…${name.slice(1 - most)}` : name;

  // The arrow keys go from bar to bar or point to point, for those who have no mouse.
  function walk(box, current, read, choose = () => {}) {
    let index = -1;
    box.addEventListener("keydown", (event) => {
      const plot = current();
      if (!plot) return;
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

  // A line from one end of an interval to the other, with a bar at each end.
  function whisker(u, [fromX, fromY], [toX, toY], shade) {
    const half = 4 * devicePixelRatio, isUpright = fromX === toX;
    const [acrossX, acrossY] = isUpright ? [half, 0] : [0, half];
    u.ctx.strokeStyle = shade;
    u.ctx.lineWidth = 1.5 * devicePixelRatio;
    u.ctx.setLineDash([]);
    u.ctx.beginPath();
    u.ctx.moveTo(fromX, fromY);
    u.ctx.lineTo(toX, toY);
    for (const [x, y] of [[fromX, fromY], [toX, toY]]) {
      u.ctx.moveTo(x - acrossX, y - acrossY);
      u.ctx.lineTo(x + acrossX, y + acrossY);
    }
    u.ctx.stroke();
  }

  function connect(u, points, shade, dash = []) {
    u.ctx.strokeStyle = shade;
    u.ctx.lineWidth = 1.5 * devicePixelRatio;
    u.ctx.setLineDash(dash.map((length) => length * devicePixelRatio));
    u.ctx.beginPath();
    points.forEach(({ x, y }, index) => index ? u.ctx.lineTo(x, y) : u.ctx.moveTo(x, y));
    u.ctx.stroke();
  }

  function disc(u, x, y, radius, shade) {
    u.ctx.fillStyle = shade;
    u.ctx.beginPath();
    u.ctx.arc(x, y, radius * devicePixelRatio, 0, 2 * Math.PI);
    u.ctx.fill();
  }

  // Draws now, and anew where the page gets another width; in other colours the same plot is painted again.
  function keep(draw, current) {
    draw();
    drawn.push({ draw, current });
  }

{% include "bars.js" %}

{% include "lines.js" %}

{% include "stages.js" %}

{% include "points.js" %}

{% include "groups.js" %}

  const KINDS = { bars, lines, stages, points, groups };
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

  // A table that is wider than its box says so.
  const hint = () => document.querySelectorAll(".scroll").forEach((box) => {
    box.classList.toggle("scrolls", box.scrollWidth > box.clientWidth + 1);
  });
  hint();
  document.querySelectorAll("details").forEach((entry) => entry.addEventListener("toggle", hint));

  const repaint = () => drawn.forEach(({ current }) => current()?.redraw());
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", repaint);
  let width = document.body.clientWidth;
  const fit = () => {
    if (document.body.clientWidth === width) return;
    width = document.body.clientWidth;
    drawn.forEach(({ draw }) => draw());
    hint();
  };
  addEventListener("resize", fit);
  matchMedia("print").addEventListener("change", () => { fit(); repaint(); });
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((entry) => { entry.open = true; }));
})();
