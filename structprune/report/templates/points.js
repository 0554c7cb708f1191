  // Each run as a point with its name and its intervals; those that no other run beats in both are connected.
  function points(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const order = data.names.map((_, index) => index).sort((one, other) => data.x[one] - data.x[other]);
    const read = (position) => {
      if (position == null || position < 0) return;
      const index = order[position];
      const bounds = (interval) => interval?.[0] == null ? "" : ` (95 %: ${number(interval[0])} to ${number(interval[1])})`;
      readout.textContent = `${data.names[index]}: ${number(data.x[index])} ${data.unit}${bounds(data.xInterval[index])}, ` +
        `${data.title} ${number(data.y[index])}${bounds(data.yInterval[index])}${data.front.includes(index) ? "; no other run beats it in both" : ""}`;
    };
    const overlay = (u) => {
      u.ctx.save();
      const at = (x, y) => [u.valToPos(x, "x", true), u.valToPos(y, "y", true)];
      const front = order.filter((index) => data.front.includes(index));
      connect(u, front.map((index) => { const [x, y] = at(data.x[index], data.y[index]); return { x, y }; }), colour("soft"), [6, 4]);
      const taken = [];
      for (const index of order) {
        const shade = colour(data.shades[index]);
        const [x, y] = at(data.x[index], data.y[index]);
        const [low, high] = data.yInterval[index] ?? [];
        if (low != null) whisker(u, [x, u.valToPos(low, "y", true)], [x, u.valToPos(high, "y", true)], shade);
        const [left, right] = data.xInterval[index] ?? [];
        if (left != null) whisker(u, [u.valToPos(left, "x", true), y], [u.valToPos(right, "x", true), y], shade);
        disc(u, x, y, 5, shade);
        if (data.names.length <= 12 || data.front.includes(index)) name(u, shorten(data.names[index], 22), x, y, taken);
      }
      u.ctx.restore();
    };
    const padded = (values, intervals) => {
      const bounds = [...values, ...intervals.flat()].filter((value) => value != null);
      const low = Math.min(...bounds), high = Math.max(...bounds), room = 0.15 * (high - low || Math.abs(high) || 1);
      return [low >= 0 ? Math.max(0, low - room) : low - room, high + room];
    };
    let plot;
    const draw = () => {
      plot?.destroy();
      const x = padded(data.x, data.xInterval), y = padded(data.y, data.yInterval);
      plot = new uPlot({
        width: box.clientWidth, height: 300, legend: { show: false }, padding: [14, 12, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: () => x }, y: { range: () => y } },
        series: [{}, { paths: () => null, points: { show: false } }],
        axes: [axis({ label: `${data.unit} (${data.better} is better)`, labelFont: FONT, labelSize: 18 }), axis({ label: data.title, labelFont: FONT, labelSize: 18, size: 56 })],
        hooks: { setCursor: [(u) => read(u.cursor.idx)], draw: [overlay] },
      }, [order.map((index) => data.x[index]), order.map((index) => data.y[index])], box);
    };
    walk(box, () => plot, read);
    keep(draw, () => plot);
  }

  // A point's name beside it, where no other name stands.
  function name(u, text, x, y, taken) {
    const scale = devicePixelRatio, height = 15 * scale, right = u.bbox.left + u.bbox.width;
    u.ctx.font = `${12 * scale}px system-ui, sans-serif`;
    u.ctx.fillStyle = colour("text");
    u.ctx.textBaseline = "middle";
    u.ctx.textAlign = "left";
    const width = u.ctx.measureText(text).width;
    const left = x + 10 * scale + width < right ? x + 10 * scale : Math.max(x - 10 * scale - width, u.bbox.left + 2 * scale);
    const isFree = (top) => taken.every((other) => Math.abs(other.top - top) >= height || left + width < other.left || other.right < left);
    const steps = [-1, 1, -2, 2, -3, 3].map((step) => y + step * height);
    const top = steps.find((place) => place > u.bbox.top + height / 2 && place < u.bbox.top + u.bbox.height - height / 2 && isFree(place)) ?? y;
    taken.push({ left, right: left + width, top });
    u.ctx.fillText(text, left, top);
  }
