// Starts the page and ties list, panel, tools and address together.

function debounce(wait, act) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(act, wait); };
}

function open(row, focus = false) {
  view.selected = row;
  setHash("layer=" + data.columns.layer[row] + "&feature=" + data.columns.feature[row]);
  draw();
  showPanel(row, focus);
}

// A feature's address; replaced, not pushed, so that going back leaves the page.
function setHash(text) {
  history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
}

function followHash() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  if (!wanted.has("feature")) return;
  const row = data.place?.get(key(Number(wanted.get("layer")), Number(wanted.get("feature"))));
  if (row === undefined) {
    at("status").textContent = "There is no feature " + wanted.get("feature") + " of layer " + wanted.get("layer") + " in this page.";
    return;
  }
  at("status").textContent = "";
  open(row);
  const place = view.rows.indexOf(row);
  if (place >= 0) move(place);
}

function search() {
  const { choice } = view;
  choice.query = at("search").value;
  choice.scope = at("scope").value;
  const before = view.found;
  view.found = data.n ? find(choice.query, choice.scope) : null;
  if (view.found && !before) {
    view.sortBeforeSearch = { sort: choice.sort, descending: choice.descending };
    Object.assign(choice, { sort: "match", descending: false });
  } else if (!view.found && view.sortBeforeSearch) {
    Object.assign(choice, view.sortBeforeSearch);
    view.sortBeforeSearch = null;
  } else if (!view.found && choice.sort === "match") {
    choice.sort = "term_log10q";
  }
  update();
}

function searchFor(scope, name) {
  at("search").value = '"' + name + '"';
  at("scope").value = scope;
  search();
}

function buildTools() {
  at("layer").append(...meta.layer_numbers.map((number) => element("option", { value: number }, String(number))));
  at("annotated-label").textContent = "annotated only (gene set at q < " + meta.fdr + ")";
  at("search").addEventListener("input", debounce(120, search));
  at("scope").addEventListener("change", search);
  at("layer").addEventListener("change", () => { view.choice.layer = at("layer").value === "" ? null : Number(at("layer").value); update(); });
  at("annotated").addEventListener("change", () => { view.choice.annotated = at("annotated").checked; update(); });
  at("tools").addEventListener("submit", (event) => event.preventDefault());
  at("reset").addEventListener("click", () => {
    at("search").value = at("layer").value = "";
    at("annotated").checked = false;
    Object.assign(view.choice, { layer: null, annotated: false });
    search();
  });
  at("grid").addEventListener("keydown", onGridKey);
  let waiting = false;
  const redraw = () => {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  };
  at("grid").addEventListener("scroll", redraw, { passive: true });
  new ResizeObserver(redraw).observe(at("grid"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !at("panel").hidden) closePanel();
    if (event.key === "/" && !/^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) { at("search").focus(); event.preventDefault(); }
  });
  window.addEventListener("hashchange", followHash);
}

// Features and baselines of every layer, each beside what shuffled gene names give.
function sourcesTable(layers, number, value) {
  const titles = [
    number("Layer"), { title: "Units" }, number("Tested"), number("Annotated"), number("by chance, same expression"), number("by chance, any gene"),
    number("Different gene sets"), number("by chance, same expression"), number("by chance, any gene"), number("Gene sets per 100 units"), number("by chance, same expression"),
    number("by chance, any gene"),
  ];
  const chance = (mean, most) => decimal(value(mean), 1) + (most === null ? "" : ", max " + most);
  const rows = layers.flatMap((layer) => layer.sources.map((source) => [
    String(layer.layer), source.label, source.n_units.toLocaleString("en"),
    source.n_annotated + " (" + percent(value(source.share)) + ")",
    ...[source.matched, source.shuffled].map((one) => chance(one.n_annotated, one.n_annotated_max)),
    String(source.n_terms), ...[source.matched, source.shuffled].map((one) => chance(one.n_terms, one.n_terms_max)),
    decimal(value(source.terms_per_100), 1), decimal(value(source.matched.terms_per_100), 1), decimal(value(source.shuffled.terms_per_100), 1),
  ]));
  return table(titles, rows);
}

function buildOverview() {
  at("layers-box").open = window.innerHeight > 700 && (meta.layers || []).length <= 6;
  at("facts").textContent = (meta.facts || []).join(" · ");
  if (meta.above_chance) at("above-chance").textContent = meta.above_chance;
  const layers = meta.layers || [], number = (title) => ({ title, number: true });
  const value = (found) => (found === null || found === undefined ? NaN : found);
  at("headlines").replaceChildren(...layers.filter((layer) => layer.headline).map((layer) => element("li", {}, layer.headline + " " + layer.beside)));
  at("sources").replaceWith(Object.assign(sourcesTable(layers, number, value), { id: "sources" }));
  const rows = layers.map((layer) => [
    String(layer.layer), decimal(value(layer.fvu), 3), decimal(value(layer.l0), 1), layer.n_features ? layer.n_features.toLocaleString("en") : NONE,
  ]);
  at("layers").replaceWith(Object.assign(table(["Layer", "FVU", "L0", "Features"].map(number), rows), { id: "layers" }));
  at("layers-inference").replaceChildren(
    ...inferenceNote("annotation_nulls", "Annotated"), ...inferenceNote("features", "AUROC and q (type)"), ...inferenceNote("feature_terms", "q (set)"));
  const notes = [...(meta.notes || [])];
  if (meta.cells.without) {
    notes.push("The cells of " + meta.cells.without.toLocaleString("en") + " features were left out to keep this page small or are not there; the rest show at most " +
      meta.cells.most.toLocaleString("en") + " cells each.");
  }
  at("notes").replaceChildren(...notes.map((note) => element("li", {}, note)));
}

function buildTheme() {
  const root = document.documentElement, dark = window.matchMedia("(prefers-color-scheme: dark)");
  const set = (name) => {
    root.dataset.theme = name;
    if (!at("panel").hidden) panelState.redraw?.();
  };
  set(dark.matches ? "dark" : "light");
  dark.addEventListener("change", () => set(dark.matches ? "dark" : "light"));
  at("theme").addEventListener("click", () => set(root.dataset.theme === "dark" ? "light" : "dark"));
}

async function start() {
  buildTheme();
  if (typeof DecompressionStream === "undefined") {
    at("status").textContent = "This browser is too old to unpack the page's data; any of 2023 or later can.";
    return;
  }
  await load();
  buildOverview();
  buildHead();
  buildTools();
  if (!data.n || !data.columns.term_log10q.some((log) => !Number.isNaN(log))) {
    Object.assign(view.choice, { sort: "specificity", descending: true });
  }
  at("status").textContent = data.n ? "" : "No layer's features are done yet.";
  update();
  followHash();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
}

start().catch((error) => {
  at("status").textContent = "This page could not be opened: " + error.message;
  throw error;
});
