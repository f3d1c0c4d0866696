// One feature: its numbers, and a part of each panel.

const panelState = { redraw: null };

function list(pairs) {
  return element("dl", { class: "pairs" }, ...pairs.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}

function choice(name, options, chosen, pick) {
  return element("div", { class: "choice", role: "radiogroup" }, ...options.map(([value, text]) => element("label", {},
    element("input", { type: "radio", name, value, checked: value === chosen, onchange: () => pick(value) }), text)));
}

function table(titles, rows) {
  const numeric = (column) => (column.number ? "number" : "");
  return element("table", {},
    element("thead", {}, element("tr", {}, ...titles.map((column) => element("th", { class: numeric(column), scope: "col" }, column.title)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell, index) =>
      element("td", { class: numeric(titles[index]) }, ...(Array.isArray(cell) ? cell : [cell])))))));
}

// What the statistics above it are about: unit of inference, n, null.
function inferenceNote(table, about) {
  const text = meta.inference[table];
  return text ? [element("p", { class: "note inference" }, about ? about + ": " + text : text)] : [];
}

// A name that, pressed, searches for exactly itself.
function finder(scope, name, match) {
  return element("button", { type: "button", class: "find", title: "Find the features of " + name, onclick: () => searchFor(scope, name) }, marked(name, match));
}

// --- pages elsewhere, followed by the reader alone ---

// The page about an id; empty without one. As term_links.py does.
function pageOf(addresses, id, source) {
  for (const { pattern, page, source: only } of addresses || []) {
    const match = (!only || only === source) && new RegExp("^(?:" + pattern + ")$").exec(id);
    if (match) return page.replace(/\{(id|\d)\}/g, (_, part) => (part === "id" ? match[0] : match[Number(part)]));
  }
  return "";
}

// A link out, or nothing; the other site is not told where the reader comes from.
const linkOut = (page, text, title) => (page ? [element("a", { class: "out", href: page, target: "_blank", rel: "noopener noreferrer", title }, text)] : []);

function showPanel(row, focus) {
  const { columns } = data, layer = columns.layer[row], feature = columns.feature[row];
  const panel = at("panel");
  panel.hidden = false;
  document.querySelector("main").classList.add("narrow");
  const step = (by) => {
    const index = view.rows.indexOf(row) + by;
    if (index >= 0 && index < view.rows.length) { move(index); open(view.rows[index], true); }
  };
  panelState.redraw = null;
  const parts = inOrder(panels.filter((each) => each.section)).map((each) => each.section(row));
  panel.replaceChildren(
    element("div", { class: "panel-head" },
      element("h2", { id: "panel-title" }, "Layer " + layer + " · feature " + feature),
      element("button", { type: "button", "aria-label": "previous feature in the list", onclick: () => step(-1) }, "‹"),
      element("button", { type: "button", "aria-label": "next feature in the list", onclick: () => step(1) }, "›"),
      element("button", { type: "button", id: "panel-close", "aria-label": "close", onclick: () => closePanel() }, "×")),
    ...inOrder(panels.filter((each) => each.heading)).flatMap((each) => each.heading(row)),
    list([
      ["fires in", percent(columns.firing_rate[row]) + " of " + nouns.tokens + " (held-out " + nouns.items + ": " + percent(columns.heldout_firing_rate[row]) + ")"],
      [nouns.items, columns.n_items[row].toLocaleString("en") + " with at least one such " + (nouns.kind === "cells" ? "token" : nouns.token)],
      ["activation", "mean " + short(columns.mean_activation[row]) + " where active, largest " + short(columns.max_activation[row])],
      ["specificity", decimal(columns.specificity[row], 2) + " bits for its most specific " + nouns.unit],
    ]),
    ...parts);
  if (focus) panel.focus({ preventScroll: true });
  panel.scrollTop = 0;
}

function closePanel() {
  at("panel").hidden = true;
  document.querySelector("main").classList.remove("narrow");
  view.selected = -1;
  setHash("");
  draw();
  at("grid").focus();
}
