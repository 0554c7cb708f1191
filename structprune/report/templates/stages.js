  // The quality of each stage of a run: bars with their intervals, or of several runs points that lines connect.
  function stages(box, data) {
    const readout = box.parentElement.querySelector(".readout");
    const places = data.names.map((_, index) => index);
    const isOne = data.series.length === 1;
    if (!isOne) legend(box, data.series.map((line) => [line.label, line.shade]));
    const offset = (which) => isOne ? 0 : (which - (data.series.length - 1) / 2) * Math.min(0.1, 0.6 / data.series.length);
    const read = (index) => {
      if (index == null || index < 0) return;
      const values = data.series.filter((line) => line.values[index] != null).map((line) => {
        const interval = line.low[index] == null ? "" : ` (95 %: ${number(line.low[index])} to ${number(line.high[index])})`;
        return `${isOne ? data.unit : line.label} ${number(line.values[index])}${interval}`;
      });
      readout.textContent = `${data.names[index]}: ${values.join(", ")}`;
    };
    const overlay = (u) => data.series.forEach((line, which) => {
      const points = places.filter((place) => line.values[place] != null).map((place) =>
        ({ place, x: u.valToPos(place + offset(which), "x", true), y: u.valToPos(line.values[place], "y", true) }));
      u.ctx.save();
      if (!isOne) connect(u, points, colour(line.shade));
      for (const { place, x, y } of points) {
        if (line.low[place] != null) {
          const [low, high] = [line.low[place], line.high[place]].map((value) => u.valToPos(value, "y", true));
          whisker(u, [x, low], [x, high], colour(isOne ? "text" : line.shade));
        }
        if (!isOne) disc(u, x, y, 4, colour(line.shade));
      }
      u.ctx.restore();
    });
    const bounds = data.series.flatMap((line) => [...line.values, ...line.low, ...line.high]).filter((value) => value != null);
    const lowest = Math.min(0, ...bounds), highest = Math.max(...bounds);
    let plot;
    const draw = () => {
      plot?.destroy();
      const shade = () => colour("slim");
      plot = new uPlot({
        width: Math.min(box.clientWidth, (isOne ? 140 : 220) * places.length + 80), height: isOne ? 220 : 280, legend: { show: false }, padding: [8, 8, 0, 0],
        cursor: { y: false, points: { show: false }, drag: { x: false, y: false } },
        scales: { x: { time: false, range: [-0.6, places.length - 0.4] }, y: { range: () => [lowest, data.top ?? (highest * 1.05 || 1)] } },
        series: [{}, ...data.series.map(() => isOne
          ? { paths: uPlot.paths.bars({ size: [0.6, 70] }), fill: shade, stroke: shade, width: 0, points: { show: false } }
          : { paths: () => null, points: { show: false } })],
        axes: [axis({ grid: { show: false }, size: 32, splits: () => places, values: (u, values) => values.map((place) => shorten(data.names[place], 24)) }),
          axis({ label: data.unit, labelFont: FONT, labelSize: 18, size: 50 })],
        hooks: { setCursor: [(u) => read(u.cursor.idx)], draw: [overlay] },
      }, [places, ...data.series.map((line) => line.values)], box);
    };
    walk(box, () => plot, read);
    keep(draw, () => plot);
  }
