// The top of the page: how the fleet is, in a sentence, in numbers and by what has been found.

const MEANINGS = { green: "in order", amber: "to be looked at", red: "to be mended", unknown: "could not be asked" };

function overview(model) {
  const heading = newId("heading");
  return el(
    "section",
    { id: "overview", "aria-labelledby": heading },
    el("div", { class: "verdict" }, el("h2", { id: heading }, verdict(model.summary)), postureBar(model.summary)),
    tiles(model),
    alerts(model.alerts || []),
    el("div", { class: "pair" }, findingsByCheck(model.hosts), controlsByFramework(model.controls || [])),
  );
}

/** The fleet in a sentence: the worst first, and what is counted named once. */
function verdict({ hosts = 0, red = 0, amber = 0, unknown = 0, green = 0 }) {
  if (!hosts) return "No hosts were asked";
  if (green === hosts) return hosts === 1 ? "The host is in order" : `All ${number(hosts)} hosts are in order`;
  const [first, ...others] = [
    [red, red === 1 ? "needs action" : "need action"],
    [amber, "to be looked at"],
    [unknown, "could not be asked"],
  ].filter(([count]) => count);
  return [
    `${counted(first[0], "host")} ${first[1]}`,
    ...others.map(([count, words]) => `${number(count)} ${words}`),
    green && `${number(green)} of ${number(hosts)} in order`,
  ]
    .filter(Boolean)
    .join(", ");
}

function postureBar(summary) {
  const parts = POSTURES.map((posture) => ({
    value: summary[posture] || 0,
    kind: posture,
    label: `${capitalized(posture)}: ${counted(summary[posture] || 0, "host")}`,
  }));
  const told = parts.map(({ label }) => label).join(", ");
  return el(
    "div",
    { class: "posture" },
    stackedBar(parts, summary.hosts, told),
    el(
      "ul",
      { class: "legend" },
      POSTURES.map((posture) =>
        el(
          "li",
          {},
          el(
            "button",
            { type: "button", class: "plainly", click: () => goToHosts({ posture }) },
            badge(posture),
            el("strong", {}, number(summary[posture] || 0)),
            el("span", { class: "note" }, MEANINGS[posture]),
          ),
        ),
      ),
    ),
  );
}

function tiles(model) {
  const databases = model.hosts.flatMap((host) => host.databases || []);
  const { failures, unsealed_rows: unsealed } = model.summary;
  const sealed = least(databases, (database) => database.last_sealed_at);
  return el(
    "div",
    { class: "tiles" },
    coverageTile(model.summary),
    changesTile(model.summary, model.activity?.by_day || []),
    controlsTile(model.controls || []),
    sizeTile(databases, model.growth || []),
    tile("Audit failures", number(failures), "changes whose audit failed", null, failures > 0),
    tile("Rows not sealed yet", short(unsealed), sealed && `oldest last seal ${age(sealed, model.generated_at)} ago`),
  );
}

function coverageTile({ coverage, audited, auditable }) {
  const parts = [{ value: audited, kind: "quantity", label: `${number(audited)} audited` }];
  const bar = stackedBar(parts, auditable, "Share of the tables that are audited");
  return tile("Tables audited", percent(coverage), `${number(audited)} of ${number(auditable)}`, bar);
}

function changesTile({ changes }, days) {
  if (days.length < 2) return tile("Changes recorded", short(changes));
  const counts = days.map((entry) => entry.changes || 0);
  const picture = sparkline(counts, "Changes by day, in numbers below under Activity");
  return tile("Changes recorded", short(changes), `in ${counted(days.length, "day")}`, picture);
}

function controlsTile(controls) {
  if (!controls.length) return null;
  const [met, missed, open] = countStates(controls);
  const bar = stackedBar(controlParts(met, missed, open), controls.length, toldStates(met, missed, open));
  const rest = [missed && `${number(missed)} not met`, open && `${number(open)} not provable`].filter(Boolean);
  return tile("Controls met", `${number(met)} of ${number(controls.length)}`, rest.join(", ") || "all of them", bar);
}

function sizeTile(databases, months) {
  const size = total(countedOnce(databases), (database) => database.log_bytes);
  const projected = total(countedOnce(databases), (database) => database.projected_bytes);
  const grown = months.map((month) => month.bytes || 0);
  const picture = grown.length > 1 && sparkline(grown, "Growth by month, in numbers below under Log");
  return tile("Log size", bytes(size), projected > size && `${bytes(projected)} in a year if all is kept`, picture);
}

function tile(label, value, note, picture, isBad) {
  return el(
    "div",
    { class: `tile${isBad ? " bad" : ""}` },
    el("h3", {}, label),
    el("p", { class: "figures" }, value),
    note && el("p", { class: "note" }, note),
    picture,
  );
}

function alerts(crossed) {
  if (!crossed.length) return null;
  const { node } = dataTable({
    label: "Thresholds that were crossed",
    what: "threshold",
    rows: crossed,
    page: 8,
    columns: [
      { label: "Threshold", value: ({ name }) => checkName(name), kind: "key" },
      { label: "Host", value: ({ host }) => host || UNKNOWN },
      { label: "What was found", value: ({ text }) => text, kind: "words" },
    ],
  });
  return el(
    "div",
    { class: "part alerts" },
    el("h3", {}, shape("red"), `${counted(crossed.length, "threshold")} crossed`),
    node,
  );
}

/** Which checks found something, and on how many hosts. */
function findingsByCheck(hosts) {
  const found = new Map();
  for (const host of hosts) {
    for (const { check, level } of host.findings || []) {
      const levels = found.get(check) || { red: new Set(), amber: new Set() };
      (levels[level] || levels.amber).add(host);
      found.set(check, levels);
    }
  }
  const rows = [...found]
    .map(([check, { red, amber }]) => {
      red.forEach((host) => amber.delete(host));
      return { check, red: red.size, amber: amber.size };
    })
    .sort((one, other) => other.red - one.red || other.amber - one.amber);
  const most = Math.max(...rows.map(({ red, amber }) => red + amber), 0);
  if (!rows.length)
    return part("What was found", el("p", { class: "note" }, "Nothing: every check passed on every host."));
  return part(
    "What was found, by number of hosts",
    barTable(
      "Findings by check",
      rows.map(({ check, red, amber }) => ({
        name: el("button", { type: "button", class: "plainly", click: () => goToHosts({ check }) }, checkName(check)),
        value: [red && `${number(red)} red`, amber && `${number(amber)} amber`].filter(Boolean).join(", "),
        parts: [
          { value: red, kind: "red", label: `${counted(red, "host")} red` },
          { value: amber, kind: "amber", label: `${counted(amber, "host")} amber` },
        ],
      })),
      most,
    ),
  );
}

function controlsByFramework(controls) {
  const rows = byFramework(controls).map(([framework, entries]) => {
    const [met, missed, open] = countStates(entries);
    return {
      name: el("a", { href: `#${frameworkId(framework)}` }, frameworkName(framework)),
      value: `${number(met)} of ${number(entries.length)}`,
      told: toldStates(met, missed, open),
      whole: entries.length,
      parts: controlParts(met, missed, open),
    };
  });
  return rows.length ? part("Controls met, by framework", barTable("Controls met by framework", rows)) : null;
}
