// Numbers, times and names as people read them.

const UNKNOWN = "–";
const POSTURES = ["red", "amber", "unknown", "green"];
const ENGINES = { postgresql: "PostgreSQL", mariadb: "MariaDB", mysql: "MySQL", percona: "Percona Server" };
const FRAMEWORKS = {
  hipaa: "HIPAA",
  soc2: "SOC 2",
  pci_dss: "PCI DSS",
  gdpr: "GDPR",
  sox: "SOX",
  iso27001: "ISO/IEC 27001",
};
const CHECKS = {
  reachable: "Reachability",
  trail_installed: "Audit log",
  coverage: "Coverage",
  drift: "Drift from the inventory",
  exceptions: "Exceptions",
  partitions_ahead: "Partitions ahead",
  catch_all_empty: "Catch-all partition",
  sealed: "Seals",
  seals_signed: "Signatures of seals",
  append_only: "Append-only log",
  statements: "Statement auditing",
  ddl_recorded: "Recording of DDL",
  grants_recorded: "Recording of grants and roles",
  logins_recorded: "Recording of logins",
  reads_recorded: "Recording of reads",
  user_context: "Application users",
  sensitive_columns: "Sensitive columns",
  retention: "Retention",
  pending_restart: "Pending restarts",
  audit_failures: "Audit failures",
  limitations: "Limitations",
  user_checks: "Checks of your own",
};
const PERIODS = { week: "week", month: "month", quarter: "quarter", year: "year" };
const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const INTEGERS = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

function isNumber(value) {
  return typeof value === "number" && Number.isFinite(value);
}

/** 1234567 as 1,234,567. */
function number(value) {
  return isNumber(value) ? INTEGERS.format(value) : UNKNOWN;
}

/** 1234567 as 1.23 M. */
function short(value) {
  if (!isNumber(value)) return UNKNOWN;
  return Math.abs(value) < 10000 ? number(value) : scaled(value, 1000, ["", " k", " M", " bn", " tn"]);
}

/** 1536 as 1.50 KiB. */
function bytes(value) {
  return isNumber(value) ? scaled(value, 1024, [" B", " KiB", " MiB", " GiB", " TiB", " PiB"]) : UNKNOWN;
}

function scaled(value, base, units) {
  let rest = value;
  let unit = 0;
  // What would be shown as 1,000 of a unit is 1 of the next.
  while (Math.abs(rest) >= base * 0.9995 && unit < units.length - 1) {
    rest /= base;
    unit += 1;
  }
  const digits = unit === 0 || Math.abs(rest) >= 99.95 ? 0 : Math.abs(rest) >= 9.995 ? 1 : 2;
  return `${rest.toFixed(digits)}${units[unit]}`;
}

/** 0.9876 as 98.7 %: never rounded up to a hundred, for then nothing would be missing. */
function percent(share) {
  return isNumber(share)
    ? `${(Math.floor(share * 1000 + 1e-9) / 10).toFixed(share === 1 || share === 0 ? 0 : 1)} %`
    : UNKNOWN;
}

/** A part of a whole; null where there is no whole. */
function share(partOf, whole) {
  return isNumber(partOf) && isNumber(whole) && whole > 0 ? partOf / whole : null;
}

/** One host, two hosts. */
function counted(count, word, words = `${word}s`) {
  return `${number(count)} ${count === 1 ? word : words}`;
}

function capitalized(text) {
  const words = `${text ?? ""}`;
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** An ISO date or time as 5 Nov 2026, without looking at the reader's own time zone. */
function day(value) {
  const found = /^(\d{4})-(\d{2})(?:-(\d{2}))?/.exec(value || "");
  if (!found) return value ? `${value}` : UNKNOWN;
  const [, year, month, date] = found;
  return `${date ? `${Number(date)} ` : ""}${MONTHS[month - 1]} ${year}`;
}

/** An ISO time as 5 Nov 2026, 09:30. */
function time(value) {
  const found = /^\d{4}-\d{2}-\d{2}[T ](\d{2}:\d{2})/.exec(value || "");
  return found ? `${day(value)}, ${found[1]}` : day(value);
}

/** The time from one ISO time to another in its largest unit: 3 h, 12 days. */
function age(from, until) {
  const minutes = (Date.parse(until) - Date.parse(from)) / 60000;
  if (!Number.isFinite(minutes)) return "";
  if (Math.abs(minutes) < 60) return `${Math.round(minutes)} min`;
  if (Math.abs(minutes) < 2880) return `${Math.round(minutes / 60)} h`;
  return counted(Math.round(minutes / 1440), "day");
}

/** An instant as what it sorts by; what is missing comes before all. */
function instant(value) {
  const parsed = Date.parse(value || "");
  return Number.isNaN(parsed) ? null : parsed;
}

function engineName(engine) {
  return ENGINES[engine] || capitalized(engine) || UNKNOWN;
}

function frameworkName(framework) {
  return FRAMEWORKS[framework] || `${framework ?? ""}`;
}

function checkName(check) {
  return CHECKS[check] || capitalized(`${check ?? ""}`.replaceAll("_", " "));
}

/** The sum of a number of each entry; null where none is known. */
function total(entries, of) {
  const known = entries.map(of).filter(isNumber);
  return known.length ? known.reduce((sum, value) => sum + value, 0) : null;
}

/** Those whose log is counted: copies of a log hold the same. */
function countedOnce(databases) {
  return databases.filter((database) => database.counted !== false);
}

/** The smallest known of the entries; null where none is known. */
function least(entries, of) {
  const known = entries.map(of).filter((value) => value !== null && value !== undefined && value !== "");
  return known.length ? known.reduce((one, other) => (other < one ? other : one)) : null;
}
