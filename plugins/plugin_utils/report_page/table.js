// Tables that sort, search and open their rows, and that hold no more of them than somebody looks at.

const PAGE = 50;
/** So many rows of a table are printed at most; a note says how many more there are. */
const PRINTED = 200;
const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
/** The tables of the page by their nodes. */
const tables = new WeakMap();

/**
 * A table of any number of rows.
 *
 * options: label (of the table), what (its rows are: "host"), rows,
 *   columns: [{label, value(row): what it sorts by, show(row): what it shows (the value if absent), numeric, wide (left
 *     out on a narrow screen), descending (sorted so first)}],
 *   sorted: [index of a column, "ascending" or "descending"]; without it, rows stay in their order,
 *   open(row): what is below a row when it is opened, named(row): what the row is called,
 *   text(row): what a search looks at; without it there is no search field, tools: more controls beside it,
 *   page: rows shown at first.
 * Gives {node, filter(isWanted)}.
 */
function dataTable(options) {
  const table = {
    options,
    page: options.page || PAGE,
    limit: options.page || PAGE,
    sorted: options.sorted,
    // Each open row with what is below it, which is so kept as it is when rows are shown anew.
    opened: new Map(),
    wanted: () => true,
    words: [],
    head: options.columns.map((column, index) => headCell(column, () => sortBy(table, index))),
    body: el("tbody", {}),
    count: el("p", { class: "count" }),
    more: el("button", { type: "button", class: "more", click: () => showMore(table) }),
  };
  table.body.addEventListener("keydown", (event) => steer(table, event));
  const view = el(
    "div",
    { class: "scroll" },
    el(
      "table",
      { class: "data" },
      el("caption", { class: "visually-hidden" }, options.label),
      el("thead", {}, el("tr", {}, table.head)),
      table.body,
    ),
  );
  const node = el(
    "div",
    { class: "listing" },
    toolbar(table),
    view,
    el("div", { class: "foot" }, table.count, table.more),
  );
  arrange(table);
  tables.set(node, table);
  return {
    node,
    filter: (wanted) => {
      table.wanted = wanted;
      rearrange(table);
    },
  };
}

/** A column of numbers, which sorts the largest first: of(row) is the number, shown(number) how it is written. */
function numberColumn(label, of, shown = number, more = {}) {
  return { label, value: of, show: (row) => shown(of(row)), numeric: true, descending: true, ...more };
}

function headCell(column, sort) {
  const button = el("button", { type: "button", class: "sort", click: sort }, column.label);
  return el("th", { scope: "col", class: cellClass(column), "aria-sort": "none" }, button);
}

function cellClass(column) {
  return [column.numeric && "number", column.wide && "wide", column.kind].filter(Boolean).join(" ") || null;
}

function toolbar(table) {
  const { text, tools, what } = table.options;
  if (!text && !tools) return null;
  const input = el("input", {
    type: "search",
    placeholder: `Search ${what}s`,
    "aria-label": `Search ${what}s`,
    autocomplete: "off",
    spellcheck: "false",
    input: () => {
      table.words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      rearrange(table);
    },
  });
  return el("div", { class: "toolbar" }, tools, text && input);
}

function sortBy(table, index) {
  const first = table.options.columns[index].descending ? "descending" : "ascending";
  const [column, direction] = table.sorted || [];
  const other = direction === "ascending" ? "descending" : "ascending";
  table.sorted = [index, column === index ? other : first];
  table.limit = table.page;
  arrange(table);
  announce(`Sorted by ${table.options.columns[index].label}, ${table.sorted[1]}`);
}

/** Shows the rows anew after a search or a filter. */
function rearrange(table) {
  table.limit = table.page;
  arrange(table);
  announce(table.count.textContent);
}

function arrange(table) {
  const { rows } = table.options;
  table.shown = rows.filter((row) => table.wanted(row) && isFound(table, row));
  if (table.sorted) order(table);
  table.head.forEach((cell, index) =>
    cell.setAttribute("aria-sort", table.sorted?.[0] === index ? table.sorted[1] : "none"),
  );
  render(table);
}

function isFound(table, row) {
  if (!table.words.length) return true;
  table.texts ||= new Map(table.options.rows.map((each) => [each, table.options.text(each).toLowerCase()]));
  return table.words.every((word) => table.texts.get(row).includes(word));
}

function order(table) {
  const [index, direction] = table.sorted;
  const { value } = table.options.columns[index];
  const values = new Map(table.shown.map((row) => [row, value(row)]));
  const sign = direction === "ascending" ? 1 : -1;
  table.shown.sort((one, other) => sign * compare(values.get(one), values.get(other)));
}

/** What is not known comes before everything else. */
function compare(one, other) {
  if (one === null || one === undefined) return other === null || other === undefined ? 0 : -1;
  if (other === null || other === undefined) return 1;
  return typeof one === "number" && typeof other === "number" ? one - other : collator.compare(one, other);
}

function render(table) {
  const { rows, what, columns } = table.options;
  const visible = table.shown.slice(0, table.limit);
  table.body.replaceChildren(...visible.flatMap((row) => rowNodes(table, row)));
  if (!visible.length) {
    table.body.append(el("tr", {}, el("td", { colspan: columns.length, class: "nothing" }, `No ${what} found`)));
  }
  const hidden = table.shown.length - visible.length;
  const all = counted(rows.length, what);
  const found = table.shown.length === rows.length ? all : `${number(table.shown.length)} of ${all}`;
  table.count.textContent = hidden ? `${found}, the first ${number(visible.length)} shown` : found;
  table.more.hidden = !hidden;
  table.more.textContent = `Show ${number(Math.min(hidden, table.page))} more`;
}

function showMore(table) {
  const before = table.limit;
  table.limit += table.page;
  render(table);
  announce(table.count.textContent);
  // Where reading goes on.
  table.body.querySelectorAll("tr.row")[before]?.querySelector(".opener")?.focus();
}

function rowNodes(table, row) {
  const { columns } = table.options;
  const cells = columns.map((column) => {
    const content = column.show ? column.show(row) : column.value(row);
    return el("td", { class: cellClass(column) }, content ?? UNKNOWN);
  });
  const node = el("tr", { class: "row" }, cells);
  if (!table.options.open) return [node];
  const name = `Details of ${table.options.named(row)}`;
  const opener = el("button", { type: "button", class: "opener", "aria-expanded": "false", "aria-label": name });
  cells[0].prepend(opener);
  node.addEventListener("click", (event) => {
    if (isForRow(event, opener)) toggle(table, row, node);
  });
  if (!table.opened.has(row)) return [node];
  markOpen(node, opener, table.opened.get(row));
  return [node, table.opened.get(row)];
}

/** A click anywhere in the row, but for one that selects text or that something in the row is waiting for. */
function isForRow(event, opener) {
  return opener.contains(event.target) || (!event.target.closest("a, button, summary") && !`${getSelection()}`);
}

function markOpen(node, opener, detail) {
  opener.setAttribute("aria-expanded", "true");
  opener.setAttribute("aria-controls", detail.id);
  node.classList.add("open");
}

function open(table, row) {
  const content = el("td", { colspan: table.options.columns.length }, table.options.open(row));
  table.opened.set(row, el("tr", { class: "detail", id: newId("detail") }, content));
}

function toggle(table, row, node) {
  const opener = node.querySelector(".opener");
  if (table.opened.has(row)) {
    table.opened.get(row).remove();
    table.opened.delete(row);
    node.classList.remove("open");
    opener.setAttribute("aria-expanded", "false");
    opener.removeAttribute("aria-controls");
  } else {
    open(table, row);
    markOpen(node, opener, table.opened.get(row));
    node.after(table.opened.get(row));
  }
}

/** Arrow keys go from row to row, and open and close one. */
function steer(table, event) {
  if (!event.target.classList.contains("opener")) return;
  const openers = [...table.body.querySelectorAll(":scope > tr.row .opener")];
  const at = openers.indexOf(event.target);
  const goal = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: openers.length - 1 }[event.key];
  const isOpen = event.target.getAttribute("aria-expanded") === "true";
  if (goal !== undefined) openers[goal]?.focus();
  else if (event.key === (isOpen ? "ArrowLeft" : "ArrowRight")) event.target.click();
  else return;
  event.preventDefault();
}

/** On paper there is nothing to click: rows and what is behind them, in their order, as far as anybody would read. */
function openForPrint() {
  document.querySelectorAll(".listing").forEach((node) => {
    const table = tables.get(node);
    table.screen = { limit: table.limit, opened: new Set(table.opened.keys()) };
    table.limit = PRINTED;
    if (table.options.open) {
      table.shown
        .slice(0, PRINTED)
        .filter((row) => !table.opened.has(row))
        .forEach((row) => open(table, row));
    }
    render(table);
  });
  document.querySelectorAll("details:not([open], .bulky)").forEach((node) => {
    fill(node);
    node.open = true;
    node.dataset.printed = "";
  });
}

function closeAfterPrint() {
  document.querySelectorAll("details[data-printed]").forEach((node) => {
    node.open = false;
    delete node.dataset.printed;
  });
  document.querySelectorAll(".listing").forEach((node) => {
    const table = tables.get(node);
    if (!table.screen) return;
    table.limit = table.screen.limit;
    [...table.opened.keys()].filter((row) => !table.screen.opened.has(row)).forEach((row) => table.opened.delete(row));
    delete table.screen;
    render(table);
  });
}
