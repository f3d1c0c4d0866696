// The panel of cells: those in which a feature is strongest, and where they lie on the embedding.

const TYPE_COLOURS = [
  "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#332288", "#88CCEE", "#882255", "#B2B200", "#666666",
];
const OTHER_COLOUR = "#a8a8a8";
const FADE = { light: ["#fdca8c", "#f1605d", "#9e2f7f", "#3b0f70"], dark: ["#6b2a7a", "#b8377a", "#f1735d", "#fde3a2"] };
let colouring = "activation";

// A layer's cells are unpacked when its first feature is opened.
const cellCache = new Map();
function layerCells(number) {
  if (!cellCache.has(number)) {
    cellCache.set(number, blocks("cells." + number, ["length", "cell", "level", "largest", "firing"]).then((found) => {
      if (!found.length) return null;
      found.pointer = pointers(found.length);
      return found;
    }));
  }
  return cellCache.get(number);
}

function cellsSection(row, found) {
  const layer = data.columns.layer[row], made = [element("h3", {}, "Cells")];
  if (!found) return [...made, element("p", { class: "note" }, "No activations per cell are stored in this page for this layer.")];
  const index = row - firstRow[layer];
  const start = found.pointer[index], stop = found.pointer[index + 1], firing = found.firing[index];
  const active = [];
  for (let entry = start; entry < stop; entry++) {
    active.push({ cell: found.cell[entry], value: found.level[entry] / 255 * found.largest[index], level: found.level[entry] / 255 });
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
  if (meta.cells.labels.length) made.push(...typeShares(active));
  made.push(table([{ title: "Strongest cells" }, { title: firstUpper(nouns.label) }, { title: "Activation", number: true }],
    active.slice(0, 6).map(({ cell, value }) => [meta.cells.ids[cell], sampleType(cell), short(value)])));
  return made;
}

const sampleType = (cell) => (data.sample.label[cell] >= 0 ? meta.cells.labels[data.sample.label[cell]] : NONE);

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
  const canvas = element("canvas", { id: "embedding", role: "img", "aria-label": "Cells on the " + meta.cells.basis + ", coloured by " + colouring });
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
  if (meta.cells.labels.length) options.push(["type", "cell type"]);
  return [choice("colour", options, colouring, (value) => { colouring = value; redraw(); }), canvas, legend, hover];
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
  const byType = colouring === "type", quiet = getComputedStyle(document.documentElement).getPropertyValue("--dot");
  const colours = typeColours();
  for (let cell = 0; cell < data.sample.x.length; cell++) dot(cell, byType ? colours.get(data.sample.label[cell]) || OTHER_COLOUR : quiet);
  if (byType) {
    legend.replaceChildren(...[...colours].map(([type, colour]) => {
      const spot = element("i");
      spot.style.background = colour;
      return element("span", {}, spot, meta.cells.labels[type]);
    }));
    return;
  }
  for (const { cell, level } of [...active].sort((one, other) => one.level - other.level)) dot(cell, faded(level, theme));
  const bar = element("canvas", { width: 128, height: 12, "aria-hidden": "true" }), strip = bar.getContext("2d");
  for (let index = 0; index < 128; index++) {
    strip.fillStyle = faded(index / 127, theme);
    strip.fillRect(index, 0, 1, 12);
  }
  legend.replaceChildren(element("span", {}, "activation 0", bar, short(Math.max(...active.map(({ value }) => value)))));
}

// The most frequent types of the sample get the colours.
function typeColours() {
  const counts = new Map();
  for (const type of data.sample.label) if (type >= 0) counts.set(type, (counts.get(type) || 0) + 1);
  const frequent = [...counts].sort((one, other) => other[1] - one[1]).slice(0, TYPE_COLOURS.length);
  return new Map(frequent.map(([type], index) => [type, TYPE_COLOURS[index]]));
}

function faded(level, theme) {
  const stops = FADE[theme], where = Math.min(Math.max(level, 0), 1) * (stops.length - 1), first = Math.min(Math.floor(where), stops.length - 2);
  const parts = (text) => [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
  const low = parts(stops[first]), high = parts(stops[first + 1]);
  return "rgb(" + low.map((value, index) => Math.round(value + (high[index] - value) * (where - first))).join(",") + ")";
}

addPanel({
  order: 20,
  lists: { sample: ["label", "heldout", "x", "y"] },
  section(row) {
    const part = element("section", { id: "panel-cells" });
    layerCells(data.columns.layer[row]).then((found) => { if (view.selected === row) part.replaceChildren(...cellsSection(row, found)); });
    return part;
  },
});
