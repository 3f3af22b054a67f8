// Builds what the page shows. Text goes in as text nodes only, so that no value of a server can become markup.

const SVG = "http://www.w3.org/2000/svg";

/** An HTML element. Functions among the attributes are listeners; null and false are left out, also as children. */
function el(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** An SVG element, as el(). */
function svg(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") node.addEventListener(name, value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
  }
  node.append(
    ...children
      .flat(Infinity)
      .filter((child) => isShown(child))
      .map((child) => (isNode(child) ? child : `${child}`)),
  );
  return node;
}

function isShown(child) {
  return child !== null && child !== undefined && child !== false && child !== "";
}

function isNode(value) {
  return value instanceof Node;
}

let lastId = 0;

/** A new id for an element that another one refers to. */
function newId(word) {
  lastId += 1;
  return `${word}-${lastId}`;
}

/** Tells those who do not see the page what has changed on it. */
function announce(text) {
  document.getElementById("live").textContent = text;
}

const SHAPES = {
  green: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z",
  amber: "M8 1.5L15.2 14.2H.8z",
  red: "M8 .6L15.4 8L8 15.4L.6 8z",
  unknown: "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13zm0 2.4a4.1 4.1 0 1 1 0 8.2a4.1 4.1 0 1 1 0-8.2z",
};

/** The shape of a posture, which says the same as its colour. */
function shape(posture) {
  const path = svg("path", { d: SHAPES[posture] || SHAPES.unknown, "fill-rule": "evenodd" });
  return svg("svg", { class: `shape ${posture}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, path);
}

/** A posture as shape and word. */
function badge(posture, word = capitalized(posture)) {
  return el("span", { class: `badge ${posture}` }, shape(posture), word);
}

/** A button that copies a text. */
function copyButton(text, what) {
  const button = el("button", { type: "button", class: "copy", "aria-label": `Copy ${what}` }, "Copy");
  button.addEventListener("click", async () => {
    const done = await copied(text);
    button.textContent = done ? "Copied" : "Not copied";
    announce(done ? `Copied ${what}` : "The browser did not allow copying");
    setTimeout(() => {
      button.textContent = "Copy";
    }, 2000);
  });
  return button;
}

async function copied(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copiedBySelection(text);
  }
}

// A file that was opened from a disk has no clipboard in some browsers.
function copiedBySelection(text) {
  const area = el("textarea", { class: "visually-hidden" }, text);
  const focused = document.activeElement;
  document.body.append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  focused?.focus();
  return done;
}

/** A text to copy: a command or YAML. */
function code(text, what) {
  return el(
    "div",
    { class: "code" },
    el("pre", { tabindex: "0", role: "group", "aria-label": capitalized(what) }, text),
    copyButton(text, what),
  );
}

/** A link to a page of the web, or its text where the address is none. */
function link(address, text) {
  if (!/^https?:\/\//i.test(address || "")) return text;
  return el("a", { href: address, rel: "noopener noreferrer", target: "_blank" }, text);
}

const builders = new WeakMap();

/** What is opened by a click, and made only then. */
function lazyDetails(summary, build, attributes = {}) {
  const node = el("details", attributes, el("summary", {}, summary));
  builders.set(node, build);
  node.addEventListener("toggle", () => node.open && fill(node));
  return node;
}

/** Makes what is in a details element, unless it is there. */
function fill(node) {
  const build = builders.get(node);
  builders.delete(node);
  if (build) node.append(build());
}

/** A section of the page; nothing when it has nothing to show. */
function section(id, title, ...children) {
  const shown = children.flat().filter((child) => isShown(child));
  if (!shown.length) return null;
  const heading = newId("heading");
  return el("section", { id, "aria-labelledby": heading }, el("h2", { id: heading }, title), shown);
}

/** A part of a section. */
function part(title, ...children) {
  const shown = children.flat().filter((child) => isShown(child));
  return shown.length ? el("div", { class: "part" }, el("h3", {}, title), shown) : null;
}

/** Short facts in a row: [label, value, note]. */
function facts(...entries) {
  return el(
    "dl",
    { class: "facts" },
    entries
      .filter(Boolean)
      .map(([label, value, note]) =>
        el("div", {}, el("dt", {}, label), el("dd", {}, value, note && el("span", { class: "note" }, note))),
      ),
  );
}

/** Words that mark something, such as a classification. */
function chips(words) {
  return (words || []).map((word) => el("span", { class: "chip" }, word));
}
