  // The network's groups along the network: a disc for each, as large as it is wide, the part that stays in colour; arcs
  // lead from a group to those that its readers make. One is chosen, and described below with its scores.
  function groups(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    let plot, chosen = data.first, hovered = null, hidden = new Set();
    const panel = groupPanel(data, (index) => choose(index));
    const entries = data.names.map((name, index) => ({ name, stage: data.stages[index] }));
    const widest = Math.max(...data.channels);
    const longest = Math.max(1, ...data.edges.map(([from, to]) => Math.abs(to - from)));
    legend(box, [["channels that go", "dense"], ["channels that stay", "slim"]]);

    function draw() {
      plot?.destroy();
      const width = box.clientWidth;
      const { size, axis: along } = layerAxis(labelsOf(entries, width - 16));
      plot = new uPlot({
        width, height: 190 + size, legend: { show: false }, padding: [8, 8, 0, 24],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.7, entries.length - 0.3] }, y: { range: [0, 1] } },
        series: [{}, { paths: () => null, points: { show: false } }],
        axes: [along, { show: false }],
        hooks: { drawClear: [(u) => bands(u, entries)], draw: [network], setCursor: [(u) => hover(u.cursor.idx)] },
      }, [entries.map((_, index) => index), entries.map(() => 0)], box);
      plot.over.addEventListener("click", () => choose(plot.cursor.idx));
    }

    function network(u) {
      const scale = devicePixelRatio, room = u.valToPos(1, "x", true) - u.valToPos(0, "x", true);
      const largest = Math.min(Math.max(room * 0.48, 1.5 * scale), 16 * scale);
      const base = u.bbox.top + u.bbox.height - largest - 4 * scale, top = u.bbox.top + 4 * scale;
      const arc = ([from, to], shade, thick) => {
        const [start, end] = [from, to].map((index) => u.valToPos(index, "x", true));
        const height = (base - top) * Math.sqrt(Math.abs(to - from) / longest);
        u.ctx.strokeStyle = shade;
        u.ctx.lineWidth = thick * scale;
        u.ctx.beginPath();
        u.ctx.ellipse((start + end) / 2, base, Math.abs(end - start) / 2, height, 0, Math.PI, 2 * Math.PI);
        u.ctx.stroke();
      };
      u.ctx.save();
      u.ctx.setLineDash([]);
      const isNear = ([from, to]) => from === chosen || to === chosen || from === hovered || to === hovered;
      for (const edge of data.edges) if (!isNear(edge)) arc(edge, colour("line"), 1);
      for (const edge of data.edges) if (isNear(edge)) arc(edge, colour(edge.includes(hovered) && hovered !== chosen ? "soft" : "slim"), 2);
      entries.forEach((_, index) => {
        const x = u.valToPos(index, "x", true), radius = Math.max(largest * Math.sqrt(data.channels[index] / widest), 1.5 * scale);
        u.ctx.globalAlpha = hidden.has(index) ? 0.2 : 1;
        disc(u, x, base, radius / scale, colour("dense"));
        disc(u, x, base, radius * Math.sqrt(data.kept[index] / data.channels[index]) / scale, colour("slim"));
        u.ctx.globalAlpha = 1;
        if (index !== chosen && index !== hovered) return;
        u.ctx.strokeStyle = colour("text");
        u.ctx.lineWidth = (index === chosen ? 2 : 1) * scale;
        u.ctx.beginPath();
        u.ctx.arc(x, base, radius + 2 * scale, 0, 2 * Math.PI);
        u.ctx.stroke();
      });
      u.ctx.restore();
    }

    function hover(index) {
      if (index == null || index < 0 || index === hovered) return;
      hovered = index;
      readout.textContent = `${data.names[index]}: ${panel.inShort(index)}`;
      plot?.redraw(false, false);
    }

    function choose(index) {
      if (index == null || index < 0) return;
      chosen = index;
      panel.show(index);
      plot?.redraw(false, false);
    }

    panel.filtered = (indices) => {
      hidden = indices;
      plot?.redraw(false, false);
    };
    walk(box, () => plot, hover, choose);
    keep(draw, () => plot);
    choose(data.first);
  }

  // What is said of the chosen group: its members, whom it feeds, its barriers, and its scores in a picture.
  function groupPanel(data, choose) {
    const find = (id) => document.getElementById(id);
    const select = find("group-choice"), facts = find("group-facts"), filter = find("group-filter");
    const fedBy = data.names.map(() => []), feeds = data.names.map(() => []);
    for (const [from, to] of data.edges) {
      feeds[from].push(to);
      fedBy[to].push(from);
    }
    const channels = (index) => `${data.channels[index]} channels, ${data.kept[index]} stay (${(100 * data.kept[index] / data.channels[index]).toFixed(0)} %)`;
    const listed = ([layers, more], most = layers.length) => {
      const others = more + Math.max(layers.length - most, 0);
      return layers.slice(0, most).map((index) => data.layers[index]).join(", ") + (others ? ` and ${others} more` : "");
    };
    const drawScores = scorePicture(data);
    const panel = { index: data.first, filtered: () => {} };

    function options(text) {
      const indices = data.names.map((_, index) => index).filter((index) => data.names[index].toLowerCase().includes(text));
      select.replaceChildren(...indices.map((index) => new Option(data.names[index], index, false, index === panel.index)));
      find("group-hits").textContent = text ? `${indices.length} of ${data.names.length}` : "";
      const shown = new Set(indices);
      panel.filtered(new Set(data.names.map((_, index) => index).filter((index) => !shown.has(index))));
      if (indices.length && !shown.has(panel.index)) choose(indices[0]);
    }

    const element = (tag, properties) => Object.assign(document.createElement(tag), properties);
    const code = (text) => element("code", { textContent: text });

    function row(name, content) {
      if (!content.length) return;
      const entry = document.createElement("dd");
      entry.append(...content);
      facts.append(element("dt", { textContent: name }), entry);
    }

    const neighbours = (indices) => indices.slice(0, 16).map((index) =>
      element("button", { type: "button", className: "link", textContent: data.names[index], onclick: () => choose(index) }))
      .concat(indices.length > 16 ? [` and ${indices.length - 16} more`] : []);

    panel.inShort = (index) => [
      channels(index), `made by ${listed(data.madeBy[index], 2)}`, data.readBy[index][0].length ? `read by ${listed(data.readBy[index], 2)}` : "",
      scoresInShort(data.scores[index], data.unscored[index]),
    ].filter(Boolean).join("; ");

    panel.show = (index) => {
      panel.index = index;
      if (![...select.options].some((option) => Number(option.value) === index)) {
        filter.value = "";
        options("");
      }
      select.value = index;
      facts.replaceChildren();
      row("Channels", [channels(index)]);
      for (const [name, column] of [["Made by", data.madeBy], ["Pass through", data.passes], ["Read by", data.readBy]]) {
        row(name, column[index][0].length ? [code(listed(column[index]))] : []);
      }
      row("Fed by", neighbours(fedBy[index]));
      row("Feeds", neighbours(feeds[index]));
      row("Barriers", data.barriers[index].flatMap((number, place) => [
        place ? ", " : "", element("a", { href: `#barrier-${number}`, textContent: data.barrierNames[number] }),
      ]));
      row("Scores", data.scores[index] ? [] : [scoresInShort(null, data.unscored[index])]);
      drawScores(index);
    };
    select.addEventListener("change", () => choose(Number(select.value)));
    filter.addEventListener("input", () => options(filter.value.trim().toLowerCase()));
    options("");
    return panel;
  }

  function scoresInShort(scores, reason) {
    if (!scores) return reason ? `none: ${reason}` : "none are kept";
    const { values, units, kept } = scores, places = values.map((_, place) => scores.ranks?.[place] ?? place);
    const last = places.findLastIndex((rank) => rank < kept), span = `from ${number(values[0])} to ${number(values.at(-1))}`;
    if (kept === units) return `${units} units ${span}, all of which stay`;
    return `${units} units ${span}; ${kept} stay, down to ${number(values[last])}, and the next has ${number(values[last + 1])}`;
  }

  // The scores of a group, the highest first, with a line where it was cut. Returns what draws those of a group.
  function scorePicture(data) {
    const box = document.getElementById("group-scores");
    const figure = box.parentElement, readout = figure.querySelector(".readout"), caption = figure.querySelector("figcaption");
    legend(box, [["stays", "slim"], ["goes", "dense"], ["the cut", "text"]]);
    let plot, index, rankOf, isKept;

    const read = (place) => {
      const scores = data.scores[index];
      if (!scores || place == null || place < 0) return;
      readout.textContent = `${rankOf(place) + 1}. of ${scores.units}: ${number(scores.values[place])}, ${isKept(place) ? "stays" : "goes"}`;
    };

    function draw() {
      plot?.destroy();
      plot = undefined;
      const scores = data.scores[index];
      figure.hidden = !scores;
      if (!scores) return;
      const { values, kept, units, ranks } = scores;
      const others = new Set(scores.exceptions ?? []);
      rankOf = (place) => ranks?.[place] ?? place;
      isKept = (place) => (rankOf(place) < kept) !== others.has(place);
      const places = values.map((_, place) => place);
      const side = (stays, shade) => ({ paths: uPlot.paths.bars({ size: [places.length > 100 ? 1 : 0.8, 40] }), width: 0,
        fill: () => colour(shade), stroke: () => colour(shade), points: { show: false } });
      const cut = (u) => {
        const x = u.valToPos(places.filter((place) => rankOf(place) < kept).length - 0.5, "x", true);
        u.ctx.save();
        connect(u, [{ x, y: u.bbox.top }, { x, y: u.bbox.top + u.bbox.height }], colour("text"));
        u.ctx.restore();
      };
      const lowest = Math.min(0, ...values), highest = Math.max(0, ...values);
      plot = new uPlot({
        width: box.clientWidth, height: 200, legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.7, places.length - 0.3] }, y: { range: () => [lowest * 1.05, highest * 1.05 || 1] } },
        series: [{}, side(true, "slim"), side(false, "dense")],
        axes: [axis({ grid: { show: false }, label: "units, the highest score first", labelFont: FONT, labelSize: 18, size: 32,
          values: (u, splits) => splits.map((place) => Number.isInteger(place) && places.includes(place) ? rankOf(place) + 1 : "") }),
          axis({ label: data.criterion, labelFont: FONT, labelSize: 18, size: 60 })],
        hooks: { setCursor: [(u) => read(u.cursor.idx)], draw: [cut] },
      }, [places, values.map((value, place) => isKept(place) ? value : null), values.map((value, place) => isKept(place) ? null : value)], box);
      const sample = ranks ? ` Shown are ${values.length} of ${units}, evenly by rank.` : "";
      const exchanged = others.size ? ` ${others.size} of those shown are on the other side of the cut than their rank, so that no layer, or part of one, is left empty.` : "";
      caption.textContent = `Scores of ${data.names[index]} by ${data.criterion}: ${scoresInShort(scores)}.${sample}${exchanged}`;
      box.setAttribute("aria-label", caption.textContent);
      readout.textContent = "";
    }
    walk(box, () => plot, read);
    drawn.push({ draw: () => index !== undefined && draw(), current: () => plot });
    return (chosen) => {
      index = chosen;
      draw();
    };
  }
