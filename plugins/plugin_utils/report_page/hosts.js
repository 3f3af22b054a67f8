// The hosts: filtered, sorted, searched; opened, with what was found on them, their databases and tables.

const SEVERITY = { red: 0, unknown: 1, amber: 2, green: 3 };
/** What the filters of the hosts are set to; "" is all. */
const filters = {};
let hostTable = null;

function hosts(model) {
  const found = [...new Set(model.hosts.flatMap((host) => (host.findings || []).map(({ check }) => check)))].sort();
  const engines = [...new Set(model.hosts.map(({ engine }) => engine).filter(Boolean))].sort();
  hostTable = dataTable({
    label: "Hosts",
    what: "host",
    rows: model.hosts,
    sorted: [0, "ascending"],
    columns: hostColumns(model),
    named: (host) => host.name,
    text: hostText,
    open: (host) => hostDetails(host, model),
    tools: [
      postureFilter(model.hosts),
      engines.length > 1 &&
        choice(
          "Engine",
          "engine",
          engines.map((engine) => [engine, engineName(engine)]),
        ),
      found.length > 1 &&
        choice(
          "Finding",
          "check",
          found.map((check) => [check, checkName(check)]),
        ),
    ],
  });
  return section("hosts", "Hosts", hostTable.node);
}

function hostColumns(model) {
  const sum = (name) => (host) => total(host.databases || [], (database) => database[name]);
  const coverage = (host) => share(sum("audited")(host), sum("auditable")(host));
  const sealed = (host) => least(host.databases || [], (database) => database.last_sealed_at);
  return [
    {
      label: "Posture",
      value: ({ posture }) => SEVERITY[posture] ?? 1,
      show: ({ posture }) => badge(posture),
      kind: "state",
    },
    { label: "Host", value: ({ name }) => name, kind: "name" },
    { label: "Engine", value: engineAndVersion, wide: true },
    numberColumn("Databases", (host) => (host.databases || []).length, number, { wide: true }),
    numberColumn("Audited", coverage, percent, { descending: false }),
    numberColumn("Changes", sum("changes"), number, { wide: true }),
    numberColumn("Log", sum("log_bytes"), bytes, { wide: true }),
    {
      label: "Oldest last seal",
      value: (host) => instant(sealed(host)),
      show: (host) => sealTime(sealed(host), model),
      numeric: true,
      wide: true,
    },
    numberColumn("Findings", ({ findings }) => (findings || []).length),
  ];
}

function engineAndVersion({ engine, version }) {
  return `${engineName(engine)} ${version || ""}`.trim();
}

function sealTime(sealed, model) {
  if (!sealed) return UNKNOWN;
  return el("span", { title: `${time(sealed)} UTC` }, `${age(sealed, model.generated_at)} ago`);
}

function hostText(host) {
  const names = (host.databases || []).map(({ name }) => name);
  const found = (host.findings || []).map(({ text, check }) => `${checkName(check)} ${text}`);
  return [host.name, engineAndVersion(host), host.posture, ...names, ...found].join("\n");
}

function postureFilter(entries) {
  const counts = Object.fromEntries(
    POSTURES.map((posture) => [posture, entries.filter((host) => host.posture === posture).length]),
  );
  const button = (posture, ...words) =>
    el(
      "button",
      {
        type: "button",
        "data-posture": posture,
        "aria-pressed": posture ? "false" : "true",
        click: () => setFilter("posture", posture),
      },
      words,
    );
  return el(
    "div",
    { class: "segments", id: "postures", role: "group", "aria-label": "Posture" },
    button("", "All"),
    POSTURES.filter((posture) => counts[posture]).map((posture) =>
      button(posture, badge(posture), " ", number(counts[posture])),
    ),
  );
}

function choice(label, name, entries) {
  return el(
    "label",
    { class: "choice" },
    el("span", {}, label),
    el(
      "select",
      { id: `filter-${name}`, change: (event) => setFilter(name, event.target.value) },
      el("option", { value: "" }, "all"),
      entries.map(([value, text]) => el("option", { value }, text)),
    ),
  );
}

function setFilter(name, value) {
  filters[name] = value;
  document
    .querySelectorAll("#postures button")
    .forEach((button) => button.setAttribute("aria-pressed", `${button.dataset.posture === (filters.posture || "")}`));
  hostTable.filter(
    (host) =>
      (!filters.posture || host.posture === filters.posture) &&
      (!filters.engine || host.engine === filters.engine) &&
      (!filters.check || (host.findings || []).some(({ check }) => check === filters.check)),
  );
}

/** Shows only the hosts of a posture, or with a finding. */
function goToHosts({ posture = "", check = "" }) {
  const select = document.getElementById("filter-check");
  if (select) select.value = check;
  filters.check = check;
  setFilter("posture", posture);
  document.getElementById("hosts").scrollIntoView();
  document.querySelector("#postures [aria-pressed=true]").focus({ preventScroll: true });
}

let lines = null;

/** Unpacks what is known of the hosts beyond their rows: a line for each. */
async function unpackDetails() {
  const packed = Uint8Array.from(atob(document.getElementById("details").textContent), (character) =>
    character.charCodeAt(0),
  );
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  lines = (await new Response(stream).text()).split("\n");
}

let unpacking = null;

/** An element that shows what make() returns, at once or when the details are unpacked. */
function afterUnpacking(make) {
  const place = el("div", { class: "late" });
  if (lines) return filled(place, {}, make());
  unpacking ||= unpackDetails();
  unpacking.then(() => filled(place, {}, make()));
  return place;
}

function hostDetails(host, model) {
  const findings = host.findings || [];
  const databases = host.databases || [];
  return el(
    "div",
    { class: "details" },
    el("p", { class: "note narrow" }, engineAndVersion(host)),
    databases.some(({ counted }) => counted === false) &&
      el("p", { class: "note" }, "What its log holds is counted with another host, which has the same log."),
    host.reason && el("p", {}, host.reason),
    findings.length > 0 &&
      el(
        "ul",
        { class: "findings" },
        findings.map((finding) => findingItem(finding)),
      ),
    !findings.length && !host.reason && el("p", { class: "note" }, "Nothing was found that has to be mended."),
    databases.length > 0 && databaseTable(databases, model),
    databases.filter(({ error }) => error).map(({ name, error }) => el("p", {}, `${name} could not be read: ${error}`)),
    afterUnpacking(() => unpackedOf(databases, JSON.parse(lines[model.hosts.indexOf(host)]))),
  );
}

function unpackedOf(databases, { databases: details, checks: found }) {
  return [
    databases.map((database, index) => tablesOf(database, details[index])),
    details.map(({ estimate }, index) => estimateOf(databases[index], estimate)),
    exceptionsOf(databases, details),
    checksOf(found),
  ];
}

/** What auditing the tables that are not audited would add to the log. */
function estimateOf({ name }, estimate) {
  if (!isNumber(estimate?.rows_per_day) || !estimate.rows_per_day) return null;
  const added = `${counted(Math.round(estimate.rows_per_day), "row")} and ${bytes(estimate.bytes_per_day)} a day`;
  const note = estimate.basis && el("span", { class: "note" }, ` ${estimate.basis}`);
  return el("p", {}, `${name}: to audit the other tables, too, would add about ${added}.`, note);
}

/** Every check of a host, also those that passed. */
function checksOf(found) {
  const entries = Object.entries(found);
  if (!entries.length) return null;
  const passed = entries.filter(([, { level }]) => level === "ok").length;
  return lazyDetails(
    `All checks: ${number(passed)} of ${number(entries.length)} passed`,
    () =>
      plainTable(
        "Checks",
        [
          { label: "Check", show: ([check]) => checkName(check), kind: "key" },
          { label: "Result", show: ([, { level }]) => levelBadge(level) },
          { label: "What was found", show: ([, { text }]) => text, kind: "words" },
        ],
        entries,
      ),
    { class: "bulky" },
  );
}

function levelBadge(level) {
  return level === "ok"
    ? badge("green", "Passed")
    : badge(level, level === "unknown" ? "Not known" : capitalized(level));
}

/** Tables that somebody has decided not to audit. */
function exceptionsOf(databases, details) {
  const entries = details.flatMap(({ exceptions }, index) =>
    (exceptions || []).map((exception) => ({ ...exception, database: databases[index].name })),
  );
  if (!entries.length) return null;
  return lazyDetails(counted(entries.length, "exception"), () =>
    plainTable(
      "Exceptions",
      [
        { label: "Table", show: ({ database, table }) => `${database} ${table}`, kind: "key" },
        { label: "Reason", show: ({ reason }) => reason, kind: "words" },
        { label: "Approved by", show: (entry) => entry.approved_by },
        {
          label: "Until",
          show: ({ until, expired }) => [day(until), expired && el("span", {}, " ", badge("red", "Expired"))],
        },
      ],
      entries,
    ),
  );
}

function findingItem({ level, check, database, text, fix }) {
  return el(
    "li",
    {},
    el(
      "p",
      { class: "what" },
      badge(level),
      el("strong", {}, checkName(check)),
      database && el("span", { class: "chip" }, database),
    ),
    el("p", { class: "why" }, text),
    fix && code(fix, "the command that mends it"),
  );
}

function databaseTable(databases, model) {
  return plainTable(
    "Databases",
    [
      { label: "Database", show: ({ name }) => el("strong", {}, name) },
      {
        label: "Audited",
        numeric: true,
        show: ({ audited, auditable }) => `${number(audited)} of ${number(auditable)}`,
      },
      { label: "Changes", numeric: true, show: ({ changes }) => number(changes) },
      { label: "Log", numeric: true, show: (database) => bytes(database.log_bytes) },
      { label: "In 12 months", numeric: true, show: (database) => bytes(database.projected_bytes) },
      { label: "Partitions until", numeric: true, show: (database) => day(database.partitions_until) },
      { label: "Last sealed", numeric: true, show: (database) => sealTime(database.last_sealed_at, model) },
      { label: "Not sealed", numeric: true, show: (database) => number(database.unsealed_rows) },
    ],
    databases,
  );
}

/** The tables of a database; too many in a fleet to be made before somebody asks, and on paper. */
function tablesOf(database, { tables: { keys, rows } }) {
  if (!rows.length) return null;
  const { auditable, audited, excepted } = database;
  const missed = isNumber(auditable) && isNumber(audited) ? auditable - audited - (excepted || 0) : 0;
  const rest = missed > 0 ? `, ${number(missed)} not audited` : "";
  const summary = `${database.name}: ${counted(rows.length, "table")}${rest}`;
  const entries = () => rows.map((row) => Object.fromEntries(keys.map((key, index) => [key, row[index]])));
  return lazyDetails(summary, () => tableList(entries(), database.name), { class: "bulky" });
}

function tableList(rows, database) {
  return dataTable({
    label: `Tables of ${database}`,
    what: "table",
    rows,
    sorted: [1, "ascending"],
    text: rows.length > 10 ? tableText : null,
    columns: [
      { label: "Table", value: ({ table }) => table, kind: "name" },
      {
        label: "Audited",
        value: (row) => (row.audited ? (row.problem ? 3 : 4) : excused(row) ? 2 : row.audited === false ? 0 : 1),
        show: auditedMark,
      },
      { label: "Policy", value: ({ policy }) => policy, wide: true },
      {
        label: "Classification",
        value: ({ classification }) => classification,
        show: ({ classification, tags }) => chips([classification, ...(tags || [])].filter(Boolean)),
      },
      { label: "Operations", value: ({ operations }) => (operations || []).join(", "), wide: true },
      numberColumn("Rows", (row) => row.rows),
      { label: "Retention", value: ({ retention }) => retention, wide: true },
    ],
  }).node;
}

/** Whether a table is deliberately not audited, and still may be. */
function excused({ exception }) {
  return Boolean(exception) && !exception.expired;
}

function auditedMark(row) {
  const { audited, problem, exception } = row;
  const [posture, word] = audited
    ? [problem ? "amber" : "green", "Yes"]
    : excused(row)
      ? ["amber", "Exception"]
      : audited === false
        ? ["red", "No"]
        : ["unknown", "Not known"];
  const { reason, approved_by: by, until } = exception || {};
  const excuse = exception && `${reason} (${by}${until ? `, until ${until}` : ""})`;
  const notes = [problem, excuse].filter(Boolean);
  return [badge(posture, word), ...notes.map((text) => el("span", { class: "note" }, text))];
}

function tableText({ table, policy, classification, tags }) {
  return [table, policy, classification, ...(tags || [])].filter(Boolean).join("\n");
}
