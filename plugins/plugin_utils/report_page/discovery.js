// What is not audited and looks as if it should be, with policies to paste; and the checks that users defined.

function discovery({ discovery: found = [], proposals = [] }) {
  return section(
    "discovery",
    "Discovery",
    found.length > 0 && discovered(found),
    proposals.length > 0 && proposed(proposals),
  );
}

function discovered(found) {
  const columnsOf = ({ columns = {} }) => Object.entries(columns);
  const { node } = dataTable({
    label: "Tables that are not audited",
    what: "table",
    rows: found,
    sorted: [0, "descending"],
    page: 15,
    text: (row) => [row.host, row.database, row.table, ...(row.categories || []), ...columnsOf(row).flat()].join("\n"),
    columns: [
      numberColumn("Score", ({ score }) => score, scoreBar),
      { label: "Table", value: ({ table }) => table, kind: "key" },
      { label: "Host, database", value: ({ host, database }) => `${host} ${database || ""}`, wide: true },
      {
        label: "Looks like",
        value: ({ categories }) => (categories || []).join(", "),
        show: ({ categories }) => chips(categories),
      },
      {
        label: "Columns",
        value: (row) => columnsOf(row).length,
        descending: true,
        wide: true,
        kind: "words",
        show: (row) =>
          columnsOf(row).map(([name, meaning], index) => [
            index > 0 && ", ",
            el("code", {}, name),
            " ",
            el("span", { class: "note" }, meaning),
          ]),
      },
      ...(found.some(({ rows }) => isNumber(rows))
        ? [numberColumn("Rows", ({ rows }) => rows, number, { wide: true })]
        : []),
    ],
  });
  return part(
    "Tables that are not audited, the most sensitive first",
    el("p", { class: "told" }, "Ranked by the names and types of their columns; no value was read."),
    node,
  );
}

function scoreBar(score) {
  return el(
    "span",
    { class: "score" },
    stackedBar([{ value: score, kind: "quantity", label: `Score ${score}` }], 100, `Score ${score} of 100`),
    number(score),
  );
}

function proposed(proposals) {
  const { node } = dataTable({
    label: "Proposed policies",
    what: "proposal",
    rows: proposals,
    page: 10,
    named: ({ host, database }) => `${host} ${database}`,
    text: proposals.length > 10 ? ({ host, database, yaml }) => `${host} ${database} ${yaml}` : null,
    open: ({ yaml, host, database }) => code(yaml, `the proposed policies of ${host} ${database}`),
    columns: [
      { label: "Host", value: ({ host }) => host, kind: "name" },
      { label: "Database", value: ({ database }) => database, kind: "key" },
      numberColumn(
        "Policy, as YAML",
        ({ yaml }) => yaml.trim().split("\n").length,
        (count) => counted(count, "line"),
      ),
    ],
  });
  return part("Proposed policies, to copy into the inventory", node);
}

const RESULTS = new Map([
  [false, { order: 0, kind: "red", word: "Above" }],
  [null, { order: 1, kind: "unknown", word: "Not known" }],
  [true, { order: 2, kind: "green", word: "Within" }],
]);

function resultBadge(ok) {
  const { kind, word } = RESULTS.get(ok ?? null);
  return badge(kind, word);
}

function checks({ checks: found = [] }) {
  if (!found.length) return null;
  const failed = found.filter(({ ok }) => ok === false).length;
  const { node } = dataTable({
    label: "Checks",
    what: "check",
    rows: found,
    sorted: [0, "ascending"],
    page: 15,
    text: found.length > 15 ? ({ name, host, database }) => `${name} ${host} ${database}` : null,
    columns: [
      { label: "Result", value: ({ ok }) => RESULTS.get(ok ?? null).order, show: ({ ok }) => resultBadge(ok) },
      { label: "Check", value: ({ name }) => name, kind: "key" },
      { label: "Host", value: ({ host }) => host, kind: "key" },
      { label: "Database", value: ({ database }) => database, wide: true },
      numberColumn(
        "Value",
        ({ value }) => value,
        (value) => (isNumber(value) ? number(value) : value),
      ),
      numberColumn("Threshold", ({ threshold }) => threshold),
    ],
  });
  return section(
    "checks",
    "Checks of your own",
    el(
      "p",
      { class: "lead" },
      failed ? `${counted(failed, "value")} above the threshold.` : "Every value is within its threshold.",
    ),
    node,
  );
}
