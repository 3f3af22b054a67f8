// What changed in the period: when, by whom, where, and what is unusual in it.

const BUSIEST = 10;

function activity({ activity: found }) {
  if (!found) return null;
  return section(
    "activity",
    "Activity",
    byDay(found.by_day || []),
    el(
      "div",
      { class: "pair" },
      byHour(found),
      offHours(found.off_hours, total(found.by_day || [], ({ changes }) => changes) ?? found.changes),
    ),
    el("div", { class: "pair" }, ranking("Busiest users", found.users), ranking("Busiest tables", found.tables)),
    applications(found.applications || []),
    bulk(found.bulk || []),
  );
}

function byDay(days) {
  if (!days.length) return null;
  const most = days.reduce((best, entry, index) => (entry.changes > days[best].changes ? index : best), 0);
  const sum = total(days, ({ changes }) => changes);
  const busiest = `${number(days[most].changes)}, on ${day(days[most].day)}`;
  const told = `${number(sum)} changes in ${counted(days.length, "day")}; the most, ${busiest}. Weekends are paler.`;
  return figure({
    title: "Changes by day",
    told,
    height: 210,
    entries: days,
    columns: [
      { label: "Day", show: (entry) => day(entry.day) },
      { label: "Changes", numeric: true, show: ({ changes }) => number(changes) },
    ],
    draw: (width, height) =>
      columnChart({
        width,
        height,
        shown: short,
        marked: [most],
        entries: days.map((entry, index) => ({
          value: entry.changes || 0,
          label: `${day(entry.day)}: ${number(entry.changes)} changes`,
          kind: isWeekend(entry.day) ? "pale" : "",
          tick: dayTick(days, index, width),
        })),
      }),
  });
}

function isWeekend(date) {
  return [0, 6].includes(new Date(date).getUTCDay());
}

/** A date below the first column, and below the first of a month or each Monday, as there is room. */
function dayTick(days, index, width) {
  const date = days[index].day;
  const room = width / days.length;
  const [, month, ofMonth] = date.split("-").map(Number);
  if (room * 7 > 56) return new Date(date).getUTCDay() === 1 ? `${ofMonth} ${MONTHS[month - 1]}` : null;
  if (ofMonth !== 1) return null;
  return room * 30 > 36 || month % 3 === 1 ? MONTHS[month - 1] : null;
}

function byHour({ by_hour: hours }) {
  if (!(hours || []).length) return null;
  const entries = hours.map((changes, hour) => ({ hour, changes }));
  const most = entries.reduce((best, { changes, hour }) => (changes > hours[best] ? hour : best), 0);
  const name = (hour) => `${`${hour}`.padStart(2, "0")}:00`;
  return figure({
    title: "Changes by hour of the day",
    height: 190,
    entries,
    told: `The most between ${name(most)} and ${name((most + 1) % 24)}.`,
    columns: [
      { label: "Hour", show: ({ hour }) => name(hour) },
      { label: "Changes", numeric: true, show: ({ changes }) => number(changes) },
    ],
    draw: (width, height) =>
      columnChart({
        width,
        height,
        shown: short,
        marked: [most],
        entries: entries.map(({ hour, changes }) => ({
          value: changes || 0,
          label: `${name(hour)} to ${name((hour + 1) % 24)}: ${number(changes)} changes`,
          tick: hour % (width < 400 ? 6 : 3) === 0 ? `${hour}`.padStart(2, "0") : null,
        })),
      }),
  });
}

function offHours(off, changes) {
  if (!off) return null;
  const ratio = share(off.changes, changes);
  return part(
    "Outside office hours and at weekends",
    el(
      "p",
      { class: "told" },
      `${number(off.changes)} changes${ratio === null ? "" : `, ${percent(ratio)} of all`}, the most by:`,
    ),
    (off.users || []).length > 0 && rankedBars("Changes outside office hours by user", named(off.users)),
  );
}

function ranking(title, entries) {
  return (entries || []).length ? part(title, rankedBars(title, named(entries))) : null;
}

function named(entries) {
  return entries.slice(0, BUSIEST).map(({ name, host, hosts: several = [], database, changes }) => {
    const places = host ? [host] : several.length > 2 ? [counted(several.length, "host")] : [several.join(", ")];
    return { name: name || "(unknown)", note: [...places, database].filter(Boolean).join(" "), count: changes };
  });
}

function applications(found) {
  if (!found.length) return null;
  const { node } = dataTable({
    label: "Applications",
    what: "application",
    rows: found,
    page: 10,
    columns: [
      { label: "Application", value: ({ name }) => name || "(no name)", kind: "name" },
      ...hostColumn(found),
      numberColumn("Changes", ({ changes }) => changes),
      numberColumn("Without a user", (entry) => entry.without_user),
      numberColumn("Share", unnamed, percent),
      { label: "User known / not known", value: unnamed, show: userBar, kind: "wide strip", descending: true },
    ],
  });
  return part(
    "Applications, and how many of their changes have no user",
    el(
      "p",
      { class: "told" },
      "Without a user are changes of which the application did not say on whose behalf it made them; their author is " +
        "the login.",
    ),
    node,
  );
}

function unnamed({ without_user: without, changes }) {
  return share(without, changes);
}

function userBar(entry) {
  const known = entry.changes - (entry.without_user || 0);
  return stackedBar(
    [
      { value: known, kind: "quantity", label: `${number(known)} with a user` },
      { value: entry.without_user, kind: "other", label: `${number(entry.without_user)} without a user` },
    ],
    entry.changes,
    `${percent(unnamed(entry))} without a user`,
  );
}

/** A column for the host where the entries say it. */
function hostColumn(entries) {
  if (!entries.some(({ host }) => host)) return [];
  return [{ label: "Host", value: ({ host, database }) => [host, database].filter(Boolean).join(" "), wide: true }];
}

function bulk(found) {
  if (!found.length) return null;
  const { node } = dataTable({
    label: "Bulk changes",
    what: "bulk change",
    rows: found,
    page: 10,
    columns: [
      { label: "When (UTC)", value: ({ at }) => instant(at), show: ({ at }) => time(at), kind: "name" },
      ...hostColumn(found),
      { label: "Table", value: ({ table }) => table, kind: "key" },
      { label: "Action", value: ({ action }) => action, show: ({ action }) => el("span", { class: "chip" }, action) },
      numberColumn("Rows", ({ rows }) => rows),
      { label: "Changed by", value: (entry) => entry.changed_by },
      { label: "Application", value: ({ application }) => application, wide: true },
      { label: "Transaction", value: (entry) => entry.transaction_id, wide: true },
    ],
  });
  const title = "Bulk changes: many rows of a table in one transaction, or where the server tells none, in a minute";
  return part(title, node);
}
