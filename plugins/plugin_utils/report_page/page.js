// Puts the page together from the model in it.

function start() {
  const model = JSON.parse(document.getElementById("model").textContent);
  const shown = { ...model, hosts: model.hosts || [], summary: model.summary || {} };
  document.getElementById("subtitle").append(...subtitle(shown));
  const sections = [overview, hosts, controls, activity, log, discovery, checks]
    .map((show) => show(shown))
    .filter(Boolean);
  document.getElementById("main").append(definitions(), ...sections);
  document
    .getElementById("footer")
    .append(
      `Made by dbfleet.audit ${model.collection_version || ""} on ${time(model.generated_at)} UTC. ` +
        "All times are UTC. This file holds the whole report and loads nothing.",
    );
  showBar(sections);
  watchPrinting();
  // Nobody waits for it now, and printing cannot.
  setTimeout(() => {
    unpacking ||= unpackDetails();
  }, 300);
}

function subtitle({ period = {}, profiles = [], generated_at: made }) {
  const length = PERIODS[period.name] && `${capitalized(period.name)} from `;
  return [
    `${length || ""}${day(period.since)} to ${day(period.until)}`,
    el("span", { class: "note" }, `Made on ${time(made)} UTC`),
    el("span", { class: "note" }, chips(profiles.map(frameworkName))),
  ];
}

function showBar(sections) {
  const bar = document.getElementById("bar");
  const links = sections.map((node) =>
    el("a", { href: `#${node.id}` }, node.id === "overview" ? "Overview" : node.querySelector("h2").textContent),
  );
  bar.append(
    el("div", { class: "links" }, links),
    themeSwitch(),
    el("button", { type: "button", class: "print", click: () => window.print() }, "Print"),
  );
  bar.hidden = false;
  const mark = (id) => links.forEach((entry) => entry.setAttribute("aria-current", `${entry.hash === `#${id}`}`));
  const watcher = new IntersectionObserver(
    (changes) => changes.filter(({ isIntersecting }) => isIntersecting).forEach(({ target }) => mark(target.id)),
    { rootMargin: "-20% 0px -75% 0px" },
  );
  sections.forEach((node) => watcher.observe(node));
}

const THEME = "dbfleet-audit-report-theme";

function themeSwitch() {
  const chosen = remembered();
  applyTheme(chosen);
  return el(
    "fieldset",
    { class: "segments", id: "theme" },
    el("legend", { class: "visually-hidden" }, "Colours"),
    ["auto", "light", "dark"].map((theme) =>
      el(
        "label",
        {},
        el("input", {
          type: "radio",
          name: "theme",
          value: theme,
          checked: theme === chosen,
          change: () => applyTheme(theme),
        }),
        el("span", {}, capitalized(theme)),
      ),
    ),
  );
}

function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
  try {
    localStorage.setItem(THEME, theme);
  } catch {
    // A browser that keeps nothing for files: the choice ends with the page.
  }
}

function remembered() {
  try {
    const theme = localStorage.getItem(THEME);
    return ["light", "dark"].includes(theme) ? theme : "auto";
  } catch {
    return "auto";
  }
}

function watchPrinting() {
  const paper = matchMedia("print");
  // Browsers differ in which of the two they tell first, and tools that make a PDF tell one of them.
  const onPaper = (is) => {
    if (is === document.body.classList.contains("printing")) return;
    document.body.classList.toggle("printing", is);
    (is ? openForPrint : closeAfterPrint)();
  };
  paper.addEventListener("change", ({ matches }) => onPaper(matches));
  addEventListener("beforeprint", () => onPaper(true));
  addEventListener("afterprint", () => onPaper(paper.matches));
}

start();
