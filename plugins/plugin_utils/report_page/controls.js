// The controls of the frameworks: met, not met or not provable, with what shows it.

const STATES = new Map([
  [true, { kind: "green", word: "Met" }],
  [false, { kind: "red", word: "Not met" }],
  [null, { kind: "unknown", word: "Not provable" }],
]);

function isState({ met }, state) {
  return (met ?? null) === state;
}

/** How many of the controls are met, not met and not provable. */
function countStates(entries) {
  return [...STATES.keys()].map((state) => entries.filter((control) => isState(control, state)).length);
}

function toldStates(met, missed, open) {
  return `${met} met, ${missed} not met, ${open} not provable`;
}

function controlParts(met, missed, open) {
  return [
    { value: met, kind: "green", label: `${number(met)} met` },
    { value: missed, kind: "red", label: `${number(missed)} not met` },
    { value: open, kind: "unknown", label: `${number(open)} not provable` },
  ];
}

/** [[framework, controls]] in the order in which the frameworks come. */
function byFramework(controls) {
  const found = new Map();
  controls.forEach((control) => found.set(control.framework, [...(found.get(control.framework) || []), control]));
  return [...found];
}

function frameworkId(framework) {
  return `controls-${`${framework}`.replaceAll(/[^a-z0-9]+/gi, "-")}`;
}

function controls(model) {
  return section(
    "controls",
    "Controls",
    (model.controls || []).length > 0 &&
      el(
        "p",
        { class: "lead" },
        "What the auditing of databases shows for each control. It is met when every check that shows it passed on " +
          "every host, not met when one of them failed, and not provable as long as something is open.",
      ),
    byFramework(model.controls || []).map(([framework, entries]) => frameworkPart(framework, entries)),
  );
}

function frameworkPart(framework, entries) {
  const [met] = countStates(entries);
  const { node } = dataTable({
    label: `Controls of ${frameworkName(framework)}`,
    what: "control",
    rows: entries,
    named: ({ control }) => control,
    open: (control) => controlDetails(control),
    columns: [
      { label: "Control", value: ({ control }) => control, kind: "key" },
      { label: "Title", value: ({ title }) => title, kind: "words" },
      { label: "State", value: ({ met: state }) => (state === false ? 0 : state ? 2 : 1), show: stateBadge },
      { label: "Shown by", value: ({ checks }) => (checks || []).map(checkName).join(", "), kind: "words", wide: true },
    ],
  });
  return el(
    "div",
    { class: "part", id: frameworkId(framework) },
    el(
      "h3",
      {},
      frameworkName(framework),
      el("span", { class: "note" }, `${number(met)} of ${number(entries.length)} met`),
    ),
    node,
  );
}

function stateBadge({ met }) {
  const { kind, word } = STATES.get(met ?? null);
  return badge(kind, word);
}

function controlDetails({ says, covers, leaves, evidence, source }) {
  return el(
    "div",
    { class: "details" },
    (says || covers || leaves) &&
      el(
        "dl",
        { class: "scope" },
        [
          ["It says", says],
          ["The report shows", covers],
          ["It leaves open", leaves],
        ]
          .filter(([, text]) => text)
          .map(([label, text]) => [el("dt", {}, label), el("dd", {}, text)]),
      ),
    (evidence || []).length ? evidenceTable(evidence) : el("p", { class: "note" }, "No evidence was collected."),
    source && el("p", { class: "note" }, "Source: ", link(source, source)),
  );
}

function evidenceTable(evidence) {
  return dataTable({
    label: "Evidence",
    what: "statement",
    rows: evidence,
    page: 10,
    text: evidence.length > 10 ? ({ host, text }) => `${host} ${text}` : null,
    columns: [
      { label: "Host", value: ({ host }) => host, kind: "key" },
      { label: "Evidence", value: ({ text }) => text, kind: "words" },
    ],
  }).node;
}
