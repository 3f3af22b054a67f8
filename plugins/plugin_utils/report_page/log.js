// The log itself: its growth, its partitions, its seals, and what has to be done at the servers.

const HORIZON = 12;

function log(model) {
  const databases = model.hosts.flatMap((host) =>
    (host.databases || []).map((database) => ({ ...database, host: host.name, posture: host.posture })),
  );
  const found = (check) =>
    model.hosts.flatMap(({ name, findings }) =>
      (findings || []).filter((finding) => finding.check === check).map((finding) => ({ ...finding, host: name })),
    );
  return section(
    "log",
    "Log",
    growth(model.growth || [], databases),
    databases.length > 0 && upkeep(databases, model),
    notes("Restarts pending", found("pending_restart")),
    notes("Audit failures", found("audit_failures")),
  );
}

/** The size of the log at each month's end, and where it goes if nothing is archived. */
function growth(months, databases) {
  if (!months.length) return null;
  const entries = withProjection(
    months,
    total(countedOnce(databases), (database) => database.projected_bytes),
  );
  const today = months.length - 1;
  const last = entries.length - 1;
  const goal = last > today ? ` In ${HORIZON} months it has ${bytes(entries[last].value)} if nothing is archived.` : "";
  return figure({
    title: "Growth of the log",
    height: 220,
    entries,
    told: `${bytes(entries[today].value)} at present. Dark is what each month added, hatched what is expected.${goal}`,
    columns: [
      { label: "Month", show: ({ month, kind }) => `${day(month)}${kind ? " (expected)" : ""}` },
      { label: "Rows added", numeric: true, show: ({ rows }) => number(rows) },
      { label: "Added", numeric: true, show: ({ added }) => bytes(added) },
      { label: "Size at the end", numeric: true, show: ({ value }) => bytes(value) },
    ],
    draw: (width, height) =>
      columnChart({
        width,
        height,
        shown: bytes,
        unit: 1024 ** Math.floor(Math.log(Math.max(entries[last].value, 1)) / Math.log(1024)),
        marked: last > today ? [today, last] : [today],
        entries: entries.map((entry, index) => ({ ...entry, tick: monthTick(entries, index, width) })),
      }),
  });
}

function withProjection(months, projected) {
  let size = 0;
  const entries = months.map(({ month, rows, bytes: added }) => {
    const base = size;
    size += added || 0;
    return {
      month,
      rows,
      added,
      base,
      value: size,
      label: `${day(month)}: ${bytes(size)}, of which ${bytes(added)} new`,
    };
  });
  if (!isNumber(projected) || projected <= size) return entries;
  const [year, month] = months.at(-1).month.split("-").map(Number);
  const expected = Array.from({ length: HORIZON }, (_, index) => {
    const value = Math.round(size + ((projected - size) * (index + 1)) / HORIZON);
    const date = new Date(Date.UTC(year, month + index, 1)).toISOString().slice(0, 7);
    return { month: date, value, kind: "expected", label: `${day(date)}: ${bytes(value)} expected` };
  });
  return [...entries, ...expected];
}

function monthTick(entries, index, width) {
  const [year, month] = entries[index].month.split("-").map(Number);
  const every = Math.ceil((entries.length * 46) / width);
  if (index % every) return null;
  return month === 1 || index === 0 ? `${MONTHS[month - 1]} ${year}` : MONTHS[month - 1];
}

function upkeep(databases, model) {
  const ends = databases.filter((database) => database.partitions_until);
  const end = least(ends, (database) => database.partitions_until);
  const sealed = least(databases, (database) => database.last_sealed_at);
  const unsealed = total(countedOnce(databases), (database) => database.unsealed_rows);
  const never = databases.filter((database) => !database.last_sealed_at).length;
  const where = (name, value) => {
    const { host, name: database } = databases.find((each) => each[name] === value);
    return `${host} ${database}`;
  };
  const { node } = dataTable({
    label: "Partitions and seals",
    what: "database",
    rows: databases,
    sorted: [3, "ascending"],
    page: 15,
    text: ({ host, name }) => `${host} ${name}`,
    columns: upkeepColumns(databases, model),
  });
  return part(
    "Partitions and seals, by database",
    facts(
      end && ["Partitions end first", day(end), where("partitions_until", end)],
      sealed && ["Oldest last seal", `${age(sealed, model.generated_at)} ago`, where("last_sealed_at", sealed)],
      ["Never sealed", counted(never, "database"), null],
      ["Not sealed yet", unsealed === null ? UNKNOWN : counted(unsealed, "row"), null],
    ),
    node,
  );
}

function upkeepColumns(databases, model) {
  const verified = (row) => row.verified_at;
  const when = (label, of) =>
    numberColumn(label, (row) => instant(of(row)), String, {
      show: (row) => (of(row) ? sealTime(of(row), model) : "never"),
      descending: false,
    });
  return [
    {
      label: "Host",
      value: ({ host }) => host,
      show: ({ host, posture }) => [shape(posture), " ", host],
      kind: "name",
    },
    { label: "Database", value: ({ name }) => name, kind: "key" },
    numberColumn("Partitions until", (row) => row.partitions_until, day, { descending: false }),
    when("Last sealed", (row) => row.last_sealed_at),
    numberColumn("Not sealed", (row) => row.unsealed_rows),
    ...(databases.some(verified) ? [when("Last verified", verified)] : []),
    numberColumn("Ahead", (row) => row.partitions_ahead, number, { wide: true }),
    numberColumn("Log", (row) => row.log_bytes, bytes, { wide: true }),
    numberColumn("In 12 months", (row) => row.projected_bytes, bytes, { wide: true }),
  ];
}

/** What a check found, host by host. */
function notes(title, found) {
  if (!found.length) return part(title, el("p", { class: "note" }, "None."));
  const { node } = dataTable({
    label: title,
    what: "finding",
    rows: found,
    page: 10,
    columns: [
      { label: "Host", value: ({ host }) => host, show: ({ host, level }) => [shape(level), " ", host], kind: "name" },
      { label: "What was found", value: ({ text }) => text, kind: "words" },
      {
        label: "Mended by",
        value: ({ fix }) => fix,
        show: ({ fix }) => fix && el("code", {}, fix),
        kind: "words",
        wide: true,
      },
    ],
  });
  return part(title, node);
}
