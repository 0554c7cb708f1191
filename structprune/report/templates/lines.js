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

