// Charts as inline SVG. Each has the same numbers as a table: beside it, or behind a details element.

/** What charts refer to, once in the page. */
function definitions() {
  const pattern = svg(
    "pattern",
    { id: "hatched", width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)" },
    svg("path", { d: "M0 0V5" }),
  );
  return svg("svg", { class: "definitions", "aria-hidden": "true" }, svg("defs", {}, pattern));
}

/** The least steps of 1, 2 or 5 that reach a value in at most so many of them. */
function steps(most, count) {
  if (!(most > 0)) return [];
  const rough = most / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999);
  return Array.from({ length: Math.floor(most / step + 1e-9) }, (_, index) => step * (index + 1));
}

/**
 * A chart with its heading, drawn at the width that it gets.
 *
 * options: title, told: the chart in a sentence, draw(width): SVG elements, height, columns: [{label, show(entry),
 *   numeric}] and
 * entries: what the chart shows, for the table.
 */
function figure({ title, told, draw, height, columns, entries }) {
  const heading = newId("chart");
  const frame = el("div", { class: "chart" });
  const redraw = (width) =>
    frame.replaceChildren(
      svg(
        "svg",
        {
          viewBox: `0 0 ${width} ${height}`,
          width,
          height,
          role: "img",
          "aria-labelledby": heading,
          "aria-describedby": `${heading}-told`,
        },
        draw(width, height),
      ),
    );
  redraw(720);
  watchWidth(frame, redraw);
  return el(
    "figure",
    { class: "figure" },
    el(
      "figcaption",
      {},
      el("h3", { id: heading }, title),
      told && el("p", { id: `${heading}-told`, class: "told" }, told),
    ),
    frame,
    lazyDetails("The numbers", () => plainTable(title, columns, entries), { class: "numbers" }),
  );
}

const observers = new ResizeObserver((changes) =>
  changes.forEach(({ target, contentRect }) => {
    const width = Math.round(contentRect.width);
    if (width > 0 && target.drawnWidth !== width) {
      target.drawnWidth = width;
      target.redraw(width);
    }
  }),
);

function watchWidth(frame, redraw) {
  frame.redraw = redraw;
  observers.observe(frame);
}

/** A table that is read and not worked with. */
function plainTable(caption, columns, entries) {
  return el(
    "div",
    { class: "scroll", tabindex: "0", role: "group", "aria-label": caption },
    el(
      "table",
      { class: "plain" },
      el("caption", { class: "visually-hidden" }, caption),
      el(
        "thead",
        {},
        el(
          "tr",
          {},
          columns.map((column) => el("th", { scope: "col", class: cellClass(column) }, column.label)),
        ),
      ),
      el(
        "tbody",
        {},
        entries.map((entry) =>
          el(
            "tr",
            {},
            columns.map((column) => el("td", { class: cellClass(column) }, column.show(entry) ?? UNKNOWN)),
          ),
        ),
      ),
    ),
  );
}

/**
 * The SVG elements of a column chart.
 *
 * entries: [{value, base: the part of the value that is drawn pale below, label: what it says when pointed at,
 *   tick: what is written below it, kind: a class}];
 * shown(value): a value as text; unit: what round numbers are round in;
 * marked: indexes of the columns whose value is written above them.
 */
function columnChart({ entries, shown, marked, width, height, unit = 1 }) {
  const box = { left: 52, right: 2, top: 22, bottom: 24 };
  const most = Math.max(...entries.map(({ value }) => value), 0);
  const pitch = (width - box.left - box.right) / Math.max(entries.length, 1);
  // A hundred columns stay columns, and twelve do not become walls.
  const bar = Math.max(1, Math.min(pitch - Math.min(4, Math.max(1, pitch * 0.22)), 44));
  const scale = (value) => (most ? (value / most) * (height - box.top - box.bottom) : 0);
  const floor = height - box.bottom;
  const at = (index) => box.left + index * pitch + pitch / 2;
  return [
    steps(most / unit, 4)
      .map((count) => count * unit)
      .map((value) => gridLine(floor - scale(value), box.left, width, shown(value))),
    entries.map((entry, index) => column(entry, { x: at(index) - bar / 2, pitch, bar, floor, scale, top: box.top })),
    svg("line", { class: "axis", x1: box.left, x2: width, y1: floor + 0.5, y2: floor + 0.5 }),
    entries.map(
      ({ tick }, index) =>
        tick && svg("text", { class: "tick", ...anchored(at(index), tick, width), y: height - 7 }, tick),
    ),
    marked
      .filter((index) => entries[index]?.value)
      .map((index) => {
        const text = shown(entries[index].value);
        return svg(
          "text",
          { class: "direct", ...anchored(at(index), text, width), y: floor - scale(entries[index].value) - 6 },
          text,
        );
      }),
  ];
}

/** Where a text goes so that it is in the middle of x and yet not outside. */
function anchored(x, text, width) {
  const half = text.length * 3.6;
  if (x < half) return { x: 0, "text-anchor": "start" };
  return x > width - half ? { x: width, "text-anchor": "end" } : { x, "text-anchor": "middle" };
}

function gridLine(y, left, width, text) {
  return svg(
    "g",
    { class: "grid" },
    svg("line", { x1: left, x2: width, y1: Math.round(y) + 0.5, y2: Math.round(y) + 0.5 }),
    svg("text", { x: left - 8, y: Math.round(y) + 4, "text-anchor": "end" }, text.replace(/\.0+ /, " ")),
  );
}

function column(entry, { x, pitch, bar, floor, scale, top }) {
  const height = scale(entry.value);
  const base = scale(entry.base || 0);
  return svg(
    "g",
    { class: `mark ${entry.kind || ""}`, "data-value": entry.value },
    svg("title", {}, entry.label),
    // So that a low column, too, can be pointed at.
    svg("rect", { class: "hit", x: x - (pitch - bar) / 2, y: top, width: pitch, height: floor - top }),
    base > 0 && svg("rect", { class: "base", x, y: floor - base, width: bar, height: base }),
    svg("rect", {
      class: "value",
      x,
      y: floor - height,
      width: bar,
      height: Math.max(height - base, entry.value > 0 ? 1 : 0),
      rx: Math.min(2, bar / 4),
    }),
  );
}

/** Small columns without words, beside a number that says what they are. */
function sparkline(values, told) {
  const most = Math.max(...values, 0);
  const width = 200 / values.length;
  return svg(
    "svg",
    { class: "sparkline", viewBox: "0 0 200 36", preserveAspectRatio: "none", role: "img", "aria-label": told },
    values.map((value, index) => {
      const height = most ? (value / most) * 36 : 0;
      return svg("rect", { x: index * width, y: 36 - height, width: width * 0.78, height });
    }),
  );
}

/** A bar of parts: [{value, kind: a class, label}]. It takes the width that it gets. */
function stackedBar(parts, whole, told) {
  let x = 0;
  const shown = parts
    .filter(({ value }) => value > 0)
    .map((entry) => {
      const width = whole ? (entry.value / whole) * 100 : 0;
      const rect = svg(
        "rect",
        { class: `mark ${entry.kind}`, x, y: 0, width, height: 10, "data-value": entry.value },
        svg("title", {}, entry.label),
      );
      x += width;
      return rect;
    });
  return svg(
    "svg",
    { class: "stacked", viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": told },
    svg("rect", { class: "track", x: 0, y: 0, width: 100, height: 10 }),
    shown,
  );
}

/**
 * Bars as a table, which is chart and numbers in one.
 *
 * rows: [{name, note, parts: [{value, kind, label}], value: what is written behind the bar, told}];
 * whole: the length of a full bar.
 */
function barTable(caption, rows, whole) {
  return el(
    "table",
    { class: "bars" },
    el("caption", { class: "visually-hidden" }, caption),
    el(
      "tbody",
      {},
      rows.map((row) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, row.name, row.note && el("span", { class: "note" }, row.note)),
          el("td", { class: "strip" }, stackedBar(row.parts, row.whole ?? whole, row.told || row.value)),
          el("td", { class: "number" }, row.value),
        ),
      ),
    ),
  );
}

/** Bars of one quantity, the largest first as they come. */
function rankedBars(caption, rows, kind = "quantity") {
  const most = Math.max(...rows.map(({ count }) => count), 0);
  return barTable(
    caption,
    rows.map(({ name, note, count }) => ({
      name,
      note,
      value: number(count),
      parts: [{ value: count, kind, label: `${name}: ${number(count)}` }],
    })),
    most,
  );
}
