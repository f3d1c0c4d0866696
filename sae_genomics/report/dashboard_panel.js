// One feature: its numbers, cells, genes, cell types and gene sets.

const TYPE_COLOURS = [
  "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#332288", "#88CCEE", "#882255", "#B2B200", "#666666",
];
const OTHER_COLOUR = "#a8a8a8";
const FADE = { light: ["#fdca8c", "#f1605d", "#9e2f7f", "#3b0f70"], dark: ["#6b2a7a", "#b8377a", "#f1735d", "#fde3a2"] };
const panelState = { ranking: "specificity", colour: "activation", redraw: null };

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
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell, place) =>
      element("td", { class: numeric(titles[place]) }, ...(Array.isArray(cell) ? cell : [cell])))))));
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

async function showPanel(row, focus) {
  const { columns } = data, layer = columns.layer[row], feature = columns.feature[row];
  const panel = at("panel");
  panel.hidden = false;
  document.querySelector("main").classList.add("narrow");
  const step = (by) => {
    const place = view.rows.indexOf(row) + by;
    if (place >= 0 && place < view.rows.length) { move(place); open(view.rows[place], true); }
  };
  const cells = element("section", { id: "panel-cells" });
  panel.replaceChildren(
    element("div", { class: "panel-head" },
      element("h2", { id: "panel-title" }, "Layer " + layer + " · feature " + feature),
      element("button", { type: "button", "aria-label": "previous feature in the list", onclick: () => step(-1) }, "‹"),
      element("button", { type: "button", "aria-label": "next feature in the list", onclick: () => step(1) }, "›"),
      element("button", { type: "button", id: "panel-close", "aria-label": "close", onclick: () => closePanel() }, "×")),
    list([
      ["fires in", percent(columns.firing_rate[row]) + " of gene tokens (held-out cells: " + percent(columns.heldout_firing_rate[row]) + ")"],
      ["cells", columns.n_cells[row].toLocaleString("en") + " with at least one such token"],
      ["activation", "mean " + short(columns.mean_activation[row]) + " where active, largest " + short(columns.max_activation[row])],
      ["specificity", decimal(columns.specificity[row], 2) + " bits for its most specific gene"],
    ]),
    element("section", { id: "panel-genes" }), cells, typesSection(row), termsSection(row));
  drawGenes(row);
  if (focus) panel.focus({ preventScroll: true });
  panel.scrollTop = 0;
  const found = await layerCells(layer);
  if (view.selected === row) cells.replaceChildren(...cellsSection(row, found));
}

function closePanel() {
  at("panel").hidden = true;
  document.querySelector("main").classList.remove("narrow");
  view.selected = -1;
  setHash("");
  draw();
  at("grid").focus();
}

// --- genes ---

function drawGenes(row) {
  const { pointer, gene, score, specificity, rate } = data.genes;
  const rank = panelState.ranking === "score" ? data.genes.rank_score : data.genes.rank_specificity;
  const values = panelState.ranking === "score" ? score : specificity;
  const entries = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) if (rank[entry] <= meta.genes_listed) entries.push(entry);
  entries.sort((one, other) => rank[one] - rank[other]);
  const largest = Math.max(...entries.map((entry) => values[entry]), 1e-12);
  const bars = element("div", { class: "bars" }, ...entries.flatMap((entry) => {
    const fill = element("div", { class: "fill" + (panelState.ranking === "score" ? " second" : "") });
    fill.style.width = Math.max(0, Math.min(1, values[entry] / largest)) * 100 + "%";
    const id = meta.gene_ids[gene[entry]], name = geneName(gene[entry]);
    const about = (id === name ? name : name + " (" + id + ")") + ": active in " + percent(rate[entry] / 65535) + " of its tokens";
    return [
      element("div", { class: "name", title: about }, finder("genes", name, view.found?.genes?.[gene[entry]])),
      element("div", { class: "track", title: about }, fill),
      element("div", { class: "value" }, panelState.ranking === "score" ? short(score[entry]) : decimal(specificity[entry], 2) + " bits"),
    ];
  }));
  at("panel-genes").replaceChildren(
    element("h3", {}, "Genes"),
    choice("ranking", [["specificity", "by specificity"], ["score", "by score"]], panelState.ranking,
      (value) => { panelState.ranking = value; drawGenes(row); }),
    entries.length ? bars : element("p", { class: "note" }, "None: it never fires on a gene, or its table is not there."),
    element("p", { class: "note" }, panelState.ranking === "score"
      ? "Score: sum over gene tokens of activation × expression; genes that are everywhere rank high."
      : "Specificity: log2 of activation over what it would be if the feature ignored genes."));
}

// --- cell types and gene sets ---

function typesSection(row) {
  const { pointer, type, auroc, effect, log10q, n_cells: count } = data.types, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    rows.push([
      finder("types", meta.types[type[entry]], view.found?.types?.[type[entry]]), decimal(auroc[entry], 3), decimal(effect[entry], 2),
      probability(log10q[entry]), count[entry].toLocaleString("en"),
      ...(meta.type_groups ? [String(meta.type_groups[type[entry]] ?? NONE)] : []),
    ]);
  }
  return element("section", { id: "panel-types" }, element("h3", {}, "Cell types, on held-out cells"), rows.length
    ? table([{ title: "Cell type" }, { title: "AUROC", number: true }, { title: "Effect", number: true }, { title: "q", number: true },
      { title: "Cells", number: true }, ...(meta.type_groups ? [{ title: "Groups", number: true }] : [])], rows)
    : element("p", { class: "note" }, "None tested: the cells carry no annotation, or the feature was not tested."),
  ...(rows.length ? inferenceNote("feature_cell_types") : []));
}

function termsSection(row) {
  const { pointer, term, overlap, size, odds, log10q } = data.terms, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const shared = [];
    for (let place = data.overlaps.pointer[entry]; place < data.overlaps.pointer[entry + 1]; place++) {
      if (shared.length) shared.push(", ");
      shared.push(marked(meta.symbols[data.overlaps.gene[place]], view.found?.symbols?.[data.overlaps.gene[place]]));
    }
    const known = log10q[entry] < Math.log10(meta.fdr);
    rows.push([
      [element("span", { class: known ? "" : "soft", title: "collection: " + meta.term_collection[term[entry]] },
        finder("terms", meta.terms[term[entry]], view.found?.terms?.[term[entry]])),
        element("div", { class: "term-genes" }, ...shared)],
      overlap[entry] + " of " + size[entry].toLocaleString("en"), short(odds[entry]), probability(log10q[entry]),
    ]);
  }
  return element("section", { id: "panel-terms" }, element("h3", {}, "Gene sets"), rows.length
    ? table([{ title: "Gene set, shared genes" }, { title: "Overlap", number: true }, { title: "Odds ratio", number: true }, { title: "q", number: true }], rows)
    : element("p", { class: "note" }, "Its top genes share no gene with any set, or it was not tested."),
  rows.length ? element("p", { class: "note" }, "Grey: q ≥ " + meta.fdr + ", what chance gives too.") : "",
  ...(rows.length ? inferenceNote("feature_terms") : []));
}

// --- cells ---

function cellsSection(row, found) {
  const layer = data.columns.layer[row], made = [element("h3", {}, "Cells")];
  if (!found) return [...made, element("p", { class: "note" }, "No activations a cell are stored in this page for this layer.")];
  const place = row - data.first[layer];
  const start = found.pointer[place], stop = found.pointer[place + 1], firing = found.firing[place];
  const active = [];
  for (let entry = start; entry < stop; entry++) {
    active.push({ cell: found.cell[entry], value: found.level[entry] / 255 * found.largest[place], level: found.level[entry] / 255 });
  }
  const drawn = meta.cells.ids.length;
  const sampled = drawn < meta.cells.n_all ? "a sample of " + drawn.toLocaleString("en") + " of " + meta.cells.n_all.toLocaleString("en") + " cells" : "all " + drawn.toLocaleString("en") + " cells";
  if (!active.length) {
    const text = firing ? "This feature's cells were left out to keep the page small; features.h5ad of its layer has them." : "It fires in none of " + sampled + ".";
    return [...made, element("p", { class: "note" }, text)];
  }
  if (data.sample.x) made.push(...embeddingSection(active));
  const kept = active.length < firing ? "the " + active.length.toLocaleString("en") + " strongest of " : "";
  made.push(element("p", { class: "note" }, "Shown: " + kept + firing.toLocaleString("en") + " cells in which it fires, of " + sampled + "."));
  if (meta.cells.types.length) made.push(...typeShares(active));
  made.push(table([{ title: "Strongest cells" }, { title: "Cell type" }, { title: "Activation", number: true }],
    active.slice(0, 6).map(({ cell, value }) => [meta.cells.ids[cell], sampleType(cell), short(value)])));
  return made;
}

const sampleType = (cell) => (data.sample.type[cell] >= 0 ? meta.cells.types[data.sample.type[cell]] : NONE);

function typeShares(active) {
  const counts = new Map(), top = active.slice(0, 50);
  for (const { cell } of top) counts.set(sampleType(cell), (counts.get(sampleType(cell)) || 0) + 1);
  const sorted = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 5);
  return [element("p", { class: "note" }, "The " + top.length + " strongest cells by type"), element("div", { class: "bars" }, ...sorted.flatMap(([name, count]) => {
    const fill = element("div", { class: "fill" });
    fill.style.width = 100 * count / top.length + "%";
    return [element("div", { class: "name", title: name }, name), element("div", { class: "track" }, fill), element("div", { class: "value" }, String(count))];
  }))];
}

function embeddingSection(active) {
  const canvas = element("canvas", { id: "embedding", role: "img", "aria-label": "Cells on the " + meta.cells.basis + ", coloured by " + panelState.colour });
  const hover = element("p", { class: "note", id: "hovered" }, "Point at a cell to see which it is.");
  const legend = element("div", { class: "legend" });
  const redraw = () => paint(canvas, legend, active);
  const values = new Map(active.map(({ cell, value }) => [cell, value]));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const cell = nearest((event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height);
    if (cell < 0) return;
    hover.textContent = meta.cells.ids[cell] + " · " + sampleType(cell) + " · activation " + short(values.get(cell) ?? 0) +
      (data.sample.heldout[cell] ? " · held out" : "");
  });
  requestAnimationFrame(redraw);
  panelState.redraw = redraw;
  const options = [["activation", "activation"]];
  if (meta.cells.types.length) options.push(["type", "cell type"]);
  return [choice("colour", options, panelState.colour, (value) => { panelState.colour = value; redraw(); }), canvas, legend, hover];
}

const MARGIN = 0.03;
const screen = (value) => MARGIN + (1 - 2 * MARGIN) * value / 65535;

function nearest(x, y) {
  let best = -1, least = 0.03 ** 2;
  for (let cell = 0; cell < data.sample.x.length; cell++) {
    const distance = (screen(data.sample.x[cell]) - x) ** 2 + (1 - screen(data.sample.y[cell]) - y) ** 2;
    if (distance < least) [best, least] = [cell, distance];
  }
  return best;
}

function paint(canvas, legend, active) {
  const width = canvas.clientWidth || 380, scale = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(width * scale);
  const context = canvas.getContext("2d"), size = canvas.width;
  const theme = document.documentElement.dataset.theme === "dark" ? "dark" : "light";
  const radius = Math.min(Math.max(70 / Math.sqrt(data.sample.x.length), 1), 3.2) * scale;
  const dot = (cell, colour) => {
    context.fillStyle = colour;
    context.beginPath();
    context.arc(screen(data.sample.x[cell]) * size, (1 - screen(data.sample.y[cell])) * size, radius, 0, 2 * Math.PI);
    context.fill();
  };
  const byType = panelState.colour === "type", quiet = getComputedStyle(document.documentElement).getPropertyValue("--dot");
  const colours = typeColours();
  for (let cell = 0; cell < data.sample.x.length; cell++) dot(cell, byType ? colours.get(data.sample.type[cell]) || OTHER_COLOUR : quiet);
  if (byType) {
    legend.replaceChildren(...[...colours].map(([type, colour]) => {
      const spot = element("i");
      spot.style.background = colour;
      return element("span", {}, spot, meta.cells.types[type]);
    }));
    return;
  }
  for (const { cell, level } of [...active].sort((one, other) => one.level - other.level)) dot(cell, faded(level, theme));
  const bar = element("canvas", { width: 128, height: 12, "aria-hidden": "true" }), strip = bar.getContext("2d");
  for (let place = 0; place < 128; place++) {
    strip.fillStyle = faded(place / 127, theme);
    strip.fillRect(place, 0, 1, 12);
  }
  legend.replaceChildren(element("span", {}, "activation 0", bar, short(Math.max(...active.map(({ value }) => value)))));
}

// The most frequent types of the sample get the colours.
function typeColours() {
  const counts = new Map();
  for (const type of data.sample.type) if (type >= 0) counts.set(type, (counts.get(type) || 0) + 1);
  const frequent = [...counts].sort((one, other) => other[1] - one[1]).slice(0, TYPE_COLOURS.length);
  return new Map(frequent.map(([type], place) => [type, TYPE_COLOURS[place]]));
}

function faded(level, theme) {
  const stops = FADE[theme], where = Math.min(Math.max(level, 0), 1) * (stops.length - 1), first = Math.min(Math.floor(where), stops.length - 2);
  const parts = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
  const low = parts(stops[first]), high = parts(stops[first + 1]);
  return "rgb(" + low.map((value, place) => Math.round(value + (high[place] - value) * (where - first))).join(",") + ")";
}
