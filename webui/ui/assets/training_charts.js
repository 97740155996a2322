/* Small line charts over steps: SVG of our own, as wide as there is room, with values read out under the pointer and by arrow
   keys, and the same numbers as a table. A chart shows what it is given: it rounds only what it writes. */
"use strict";
const atelierCharts = (() => {
  const { make } = atelier;
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 180, TOP = 8, BOTTOM = 22, RIGHT = 10, DIGIT = 6.7, NUM_TICKS = 5, PAGE = 10, DOTS_UP_TO = 40;
  const OUTLIERS = 0.01; // of a faint series, at either end: they would flatten all others

  const draw = (tag, attributes, ...children) => {
    const node = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    node.append(...children);
    return node;
  };

  /* ---- numbers --------------------------------------------------------------------------------------------------- */
  const integer = (value) => Math.round(value).toLocaleString("en");
  const percent = (value) => `${Math.round(100 * value)}%`;
  const figure = (value) => (value === 0 ? "0" : Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5 ? value.toExponential(2) : String(+value.toPrecision(4)));
  /* Round values in [low, high], `count` or a few more, and how they are written. */
  function ticksOf(low, high, count, whole) {
    const raw = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(raw));
    let step = power * [1, 2, 5, 10].find((factor) => power * factor >= raw * 0.999);
    if (whole) step = Math.max(1, Math.round(step));
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    const values = Array.from({ length: Math.max(0, last - first) + 1 }, (_, at) => (first + at) * step).filter((value) => value <= high + step * 1e-6);
    const decimals = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
    const write = decimals > 4 ? (value) => (value === 0 ? "0" : value.toExponential(Math.abs(value) / step >= 9.5 ? 1 : 0)) : (value) => value.toFixed(decimals);
    return { values, write };
  }
  /* The mean of the last `span` values at each point; of fewer where there are not as many yet. */
  function smooth(points, span = Math.max(5, Math.round(points.length / 20))) {
    let sum = 0;
    return points.map(([x, y], at) => {
      sum += y - (at >= span ? points[at - span][1] : 0);
      return [x, sum / Math.min(at + 1, span)];
    });
  }
  const finite = (points) => points.filter(([x, y]) => Number.isFinite(x) && Number.isFinite(y));
  const quantile = (sorted, share) => sorted[Math.min(sorted.length - 1, Math.max(0, Math.round(share * (sorted.length - 1))))];

  /* From the lowest to the highest value that is to be seen, with some air. */
  function rangeOf(series, marks, floor) {
    const values = [...marks.map((mark) => mark.y)];
    for (const { points, line } of series) {
      const own = points.map((point) => point[1]).sort((one, other) => one - other);
      const share = line === "faint" && own.length > 50 ? OUTLIERS : 0;
      if (own.length) values.push(quantile(own, share), quantile(own, 1 - share));
    }
    if (floor !== undefined) values.push(floor);
    let low = Math.min(...values), high = Math.max(...values);
    if (low === high) { const pad = Math.abs(low) * 0.1 || 0.5; low -= pad; high += pad; }
    const air = (high - low) * 0.06;
    return [low === floor ? low : low - air, high + air];
  }

  /* ---- one chart ------------------------------------------------------------------------------------------------- */
  let number = 0;
  /* `title` is its heading, `about` what it means. `write` gives a value as the reader sees it, `tick` the same on the axis where
     that is shorter; `floor` is a value that is always shown. */
  function chart({ title, about = "", write = figure, tick = null, floor = undefined, empty = "Nothing yet.", tools = null }) {
    const clip = `at-chart-${(number += 1)}`;
    const now = make("span", { class: "at-chart-now" });
    const legend = make("ul", { class: "at-chart-legend", hidden: true });
    const box = make("div", { class: "at-chart-box" });
    const told = make("div", { class: "at-chart-told", hidden: true });
    const nothing = make("p", { class: "at-chart-empty" }, empty);
    const plot = make("div", { class: "at-chart-plot" }, box, told, nothing);
    const note = make("p", { class: "at-chart-note", hidden: true });
    const rows = make("div", { class: "at-chart-rows" });
    const table = make("details", { class: "at-chart-table", hidden: true }, make("summary", { "aria-label": `${title} as a table` }, "Table"), rows);
    const node = make("figure", { class: "at-chart" },
      make("figcaption", { title: about || null }, make("strong", {}, title), now, tools), legend, plot, note, table);
    const view = { data: null, key: "", series: [], xs: [], at: null, geometry: null, byKey: false };

    /* `series`: [{name, points: [[step, value]], tone: 1..6, line: "solid" | "faint" | "dashed", dots}], `marks`: [{x, y, kind, name}],
       `now`: the latest value in words, `last`: the step that the axis goes to. */
    function show(data) {
      const key = JSON.stringify(data);
      if (key === view.key) return;
      view.key = key;
      view.data = data;
      view.series = data.series.map((one) => ({ ...one, points: finite(one.points) })).filter((one) => one.points.length);
      view.xs = [...new Set(view.series.flatMap((one) => one.points.map((point) => point[0])))].sort((one, other) => one - other);
      if (view.at != null && !view.xs.includes(view.at)) view.at = null;
      now.textContent = data.now || "";
      paint();
      fillTable();
    }
    function paint() {
      const width = plot.clientWidth, { series, xs, data } = view;
      const some = xs.length > 0;
      nothing.hidden = some;
      box.hidden = table.hidden = !some;
      if (!some) { told.hidden = legend.hidden = note.hidden = true; plot.removeAttribute("tabindex"); plot.removeAttribute("role"); return; }
      if (!width) return;
      const marks = (data.marks || []).filter((mark) => Number.isFinite(mark.x) && Number.isFinite(mark.y));
      const [low, high] = rangeOf(series, marks, floor);
      const x0 = Math.min(xs[0], data.last ? 0 : xs[0]), x1 = Math.max(xs.at(-1), data.last || 0, x0 + 1);
      const yTicks = ticksOf(low, high, NUM_TICKS, false), writeTick = tick || yTicks.write;
      const left = Math.ceil(Math.max(...yTicks.values.map((value) => writeTick(value).length)) * DIGIT) + 10;
      const toX = (x) => left + ((x - x0) / (x1 - x0)) * (width - left - RIGHT), toY = (y) => TOP + ((high - y) / (high - low)) * (HEIGHT - TOP - BOTTOM);
      view.geometry = { toX, toY, left, width, x0, x1 };
      const svg = draw("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, "aria-hidden": "true" });
      svg.append(draw("clipPath", { id: clip }, draw("rect", { x: left, y: TOP - 4, width: Math.max(0, width - left - RIGHT + 4), height: HEIGHT - TOP - BOTTOM + 8 })));
      svg.append(...axesOf(yTicks, writeTick));
      const lines = draw("g", { "clip-path": `url(#${clip})` });
      for (const one of series) lines.append(...lineOf(one));
      svg.append(lines, ...marks.map(markOf), draw("g", { class: "at-chart-cross" }));
      box.replaceChildren(svg);
      drawLegend(marks);
      drawNote(low, high);
      plot.tabIndex = 0;
      plot.setAttribute("role", "slider");
      plot.setAttribute("aria-label", `${title} by step`);
      plot.setAttribute("aria-valuemin", xs[0]);
      plot.setAttribute("aria-valuemax", xs.at(-1));
      point(view.at, view.byKey);
    }
    function axesOf(yTicks, writeTick) {
      const { toX, toY, left, width, x0, x1 } = view.geometry, bottom = HEIGHT - BOTTOM;
      const nodes = [];
      for (const value of yTicks.values) {
        const y = Math.round(toY(value)) + 0.5;
        nodes.push(draw("line", { class: "at-chart-grid", x1: left, x2: width - RIGHT, y1: y, y2: y }), draw("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, writeTick(value)));
      }
      const fits = Math.max(2, Math.floor((width - left) / 52)), xTicks = ticksOf(x0, x1, Math.min(fits, 8), true).values;
      nodes.push(draw("line", { class: "at-chart-axis", x1: left, x2: width - RIGHT, y1: bottom + 0.5, y2: bottom + 0.5 }));
      for (const value of xTicks) {
        const x = toX(value), text = integer(value), half = (text.length * DIGIT) / 2;
        nodes.push(draw("text", { x: Math.min(x, width - half), y: bottom + 16, "text-anchor": "middle" }, text));
      }
      return nodes;
    }
    function lineOf({ points, tone, line = "solid", dots }) {
      const { toX, toY } = view.geometry;
      const path = points.map(([x, y], at) => `${at ? "L" : "M"}${toX(x).toFixed(1)} ${toY(y).toFixed(1)}`).join("");
      const nodes = [draw("path", { class: `at-chart-line at-chart-${line}`, "data-tone": tone, d: path })];
      if (points.length === 1 || (dots && points.length <= DOTS_UP_TO)) nodes.push(...points.map(([x, y]) => draw("circle", { class: "at-chart-dot", "data-tone": tone, cx: toX(x).toFixed(1), cy: toY(y).toFixed(1), r: 3 })));
      return nodes;
    }
    function markOf({ x, y, kind }) {
      const { toX, toY } = view.geometry;
      return draw("circle", { class: `at-chart-mark at-chart-${kind}`, cx: toX(x).toFixed(1), cy: toY(y).toFixed(1), r: kind === "chosen" ? 7 : 5.5 });
    }
    function drawLegend(marks) {
      const swatch = ({ tone, line = "solid", kind }) => make("i", { class: kind ? `at-chart-key-${kind}` : `at-chart-key at-chart-key-${line}`, "data-tone": tone });
      const kinds = [...new Map(marks.map((mark) => [mark.kind, mark])).values()];
      const items = [...view.series, ...kinds];
      legend.hidden = items.length < 2;
      legend.replaceChildren(...items.map((one) => make("li", {}, swatch(one), one.name)));
    }
    function drawNote(low, high) {
      const outside = view.series.filter((one) => one.line === "faint").flatMap((one) => one.points).filter(([, y]) => y < low || y > high).length;
      note.textContent = outside ? `${outside} ${outside === 1 ? "value lies" : "values lie"} outside the picture.` : "";
      note.hidden = !outside;
    }

    /* ---- reading values ------------------------------------------------------------------------------------------ */
    const shownAt = ({ points }, x) => {
      if (x < points[0][0] || x > points.at(-1)[0]) return null;
      let first = 0, end = points.length - 1; // the last point at or before x
      while (first < end) {
        const middle = (first + end + 1) >> 1;
        if (points[middle][0] <= x) first = middle; else end = middle - 1;
      }
      return points[first];
    };
    const readAt = (x) => view.series.map((one) => ({ one, point: shownAt(one, x) })).filter(({ point }) => point);
    function point(x, byKey) {
      const cross = box.querySelector(".at-chart-cross");
      if (!cross) return;
      view.at = x;
      view.byKey = byKey;
      const spoken = x ?? view.xs.at(-1), read = readAt(spoken);
      plot.setAttribute("aria-valuenow", spoken);
      plot.setAttribute("aria-valuetext", [`Step ${integer(spoken)}`, ...read.map(({ one, point: [, y] }) => `${one.name} ${write(y)}`)].join(", "));
      told.hidden = x == null;
      if (x == null) return cross.replaceChildren();
      const { toX, toY, width } = view.geometry, at = toX(x);
      cross.replaceChildren(draw("line", { x1: at, x2: at, y1: TOP, y2: HEIGHT - BOTTOM }),
        ...read.map(({ one, point: [px, py] }) => draw("circle", { class: "at-chart-dot", "data-tone": one.tone, cx: toX(px), cy: toY(py), r: 4 })));
      told.replaceChildren(make("strong", {}, `Step ${integer(x)}`), ...read.map(({ one, point: [px, py] }) => make("span", {},
        make("i", { class: `at-chart-key at-chart-key-${one.line || "solid"}`, "data-tone": one.tone }), `${one.name} `, make("b", {}, write(py)), px === x ? "" : ` at ${integer(px)}`)));
      const right = at < width / 2;
      told.style.left = right ? `${at + 10}px` : "";
      told.style.right = right ? "" : `${width - at + 10}px`;
    }
    function nearest(event) {
      const { left, width, x0, x1 } = view.geometry, box = plot.getBoundingClientRect();
      const x = x0 + ((event.clientX - box.left - left) / (width - left - RIGHT)) * (x1 - x0);
      return view.xs.reduce((best, one) => (Math.abs(one - x) < Math.abs(best - x) ? one : best), view.xs[0]);
    }
    plot.addEventListener("pointermove", (event) => { if (view.xs.length && view.geometry) point(nearest(event), false); });
    plot.addEventListener("pointerdown", (event) => { if (view.xs.length && view.geometry) point(nearest(event), false); });
    plot.addEventListener("pointerleave", () => { if (!view.byKey) point(null, false); });
    plot.addEventListener("blur", () => point(null, false));
    plot.addEventListener("keydown", (event) => {
      const last = view.xs.length - 1, at = view.at == null ? last + (event.key === "ArrowLeft" ? 1 : 0) : view.xs.indexOf(view.at);
      const to = { ArrowRight: at + 1, ArrowUp: at + 1, ArrowLeft: at - 1, ArrowDown: at - 1, PageUp: at + PAGE, PageDown: at - PAGE, Home: 0, End: last }[event.key];
      if (event.key === "Escape" && view.at != null) { event.stopPropagation(); return point(null, false); }
      if (to === undefined || last < 0) return;
      event.preventDefault();
      point(view.xs[Math.max(0, Math.min(last, to))], true);
    });

    /* ---- the numbers --------------------------------------------------------------------------------------------- */
    function fillTable() {
      if (!table.open) return;
      const cells = (tag, texts) => texts.map((text, at) => make(at ? tag : "th", { scope: tag === "th" ? "col" : at ? null : "row" }, text));
      const lookups = view.series.map((one) => new Map(one.points));
      rows.replaceChildren(make("table", {}, make("thead", {}, make("tr", {}, ...cells("th", ["Step", ...view.series.map((one) => one.name)]))),
        make("tbody", {}, ...view.xs.map((x) => make("tr", {}, ...cells("td", [integer(x), ...lookups.map((values) => (values.has(x) ? write(values.get(x)) : ""))]))))));
    }
    table.addEventListener("toggle", fillTable);
    new ResizeObserver(() => { if (view.data && plot.clientWidth !== view.geometry?.width) paint(); }).observe(plot);
    return { node, show };
  }
  return { chart, smooth, figure, percent, integer };
})();
window.atelierCharts = atelierCharts;
