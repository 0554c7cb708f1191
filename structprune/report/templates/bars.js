  // What each bar stands for: a layer, or a stage that is folded into one. `values` has a number for each column.
  function entriesOf(data, folded) {
    const entries = [];
    const places = new Map();
    data.names.forEach((name, index) => {
      const stage = data.stages[index];
      const values = data.columns.map((column) => column[index]);
      if (!folded.has(stage)) {
        entries.push({ name, stage, count: 1, values });
      } else if (places.has(stage)) {
        const entry = places.get(stage);
        entry.count += 1;
        entry.values = entry.values.map((value, which) => value + values[which]);
      } else {
        const entry = { name: stage, stage, count: 1, isStage: true, values };
        places.set(stage, entry);
        entries.push(entry);
      }
    });
    if (data.fold === "mean") for (const entry of entries) entry.values = entry.values.map((value) => value / entry.count);
    return entries;
  }

  function saying(entry, data) {
    const [dense, ...others] = entry.values;
    const of = entry.isStage ? ` (${entry.count} layers, ${data.fold})` : "";
    const parts = others.map((value, which) => {
      const share = dense && value != null ? ` (${(100 * value / dense).toFixed(0)} %)` : "";
      return `${data.labels[which + 1]} ${number(value)}${share}`;
    });
    return `${entry.name}${of}: ${data.labels[0]} ${number(dense)} ${data.unit}, ${parts.join(", ")}`;
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

  // The axis along the network, with its labels aslant.
  function layerAxis(labels) {
    const longest = Math.max(...[...labels.values()].map((label) => label.length));
    const size = Math.ceil(longest * 6.2) + 14;
    const values = (u, places) => places.map((place) => labels.get(place));
    return { size, axis: axis({ grid: { show: false }, rotate: 60, size, splits: () => [...labels.keys()], values }) };
  }

  // Every other stage has a background of its own.
  function bands(u, entries) {
    u.ctx.fillStyle = colour("band");
    let isOdd = false;
    entries.forEach((entry, index) => {
      if (index && entry.stage !== entries[index - 1].stage) isOdd = !isOdd;
      if (!isOdd || entry.stage === undefined) return;
      const left = u.valToPos(index - 0.5, "x", true);
      u.ctx.fillRect(left, u.bbox.top, u.valToPos(index + 0.5, "x", true) - left, u.bbox.height);
    });
  }

  // The first column as wide bars, the others side by side in front of them.
  function bars(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const others = data.shades.slice(1);
    const folded = new Set(data.names.length * others.length * THIN > box.clientWidth - 60 ? data.stages : []);
    legend(box, data.labels.map((label, which) => [label, data.shades[which]]));
    let plot, entries;

    function draw() {
      plot?.destroy();
      entries = entriesOf(data, folded);
      const width = box.clientWidth;
      const { size, axis: along } = layerAxis(labelsOf(entries, width - 60));
      const columns = data.columns.map((_, which) => entries.map((entry) => entry.values[which]));
      const wide = uPlot.paths.bars({ size: [entries.length > 120 ? 1 : 0.8, 60] });
      const shade = () => colour(data.shades[0]);
      plot = new uPlot({
        width, height: 234 + size, legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.7, entries.length - 0.3] }, y: { range: (u, low, high) => [0, high * 1.05 || 1] } },
        series: [{}, ...columns.map((_, which) => which
          ? { label: data.labels[which], paths: () => null, points: { show: false } }
          : { label: data.labels[0], paths: wide, fill: shade, stroke: shade, width: 0, points: { show: false } })],
        axes: [along, axis({ label: data.unit, labelFont: FONT, labelSize: 18, size: 50 })],
        hooks: { drawClear: [(u) => bands(u, entries)], draw: [inFront], setCursor: [(u) => read(u.cursor.idx)] },
      }, [entries.map((_, index) => index), ...columns], box);
      plot.over.addEventListener("click", () => toggle(plot.cursor.idx));
    }

    function inFront(u) {
      const room = Math.min((entries.length > 120 ? 1 : 0.8) * (u.valToPos(1, "x", true) - u.valToPos(0, "x", true)), 60 * devicePixelRatio);
      const gap = others.length > 1 && room / others.length > 6 ? devicePixelRatio : 0;
      const bottom = u.valToPos(0, "y", true);
      others.forEach((shade, which) => {
        u.ctx.fillStyle = colour(shade);
        entries.forEach((entry, index) => {
          const value = entry.values[which + 1];
          if (value == null) return;
          const left = u.valToPos(index, "x", true) - room / 2 + which * room / others.length;
          const top = u.valToPos(value, "y", true);
          u.ctx.fillRect(left + gap, top, Math.max(room / others.length - 2 * gap, 1), bottom - top);
        });
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
