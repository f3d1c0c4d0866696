// Starts the page and ties list, panel, tools and address together.

// Of the panel that says what is known, where it knows something.
function firstSort() {
  const wanted = keyPanel()?.sort;
  const there = wanted && data.columns[wanted.sort]?.some((value) => !Number.isNaN(value));
  return there ? wanted : { sort: "specificity", descending: true };
}

function debounce(wait, act) {
  let timer;
  return () => { clearTimeout(timer); timer = setTimeout(act, wait); };
}

// Does it again when the lists are there, and tells whether that is needed.
let listsThere = null;
function waits(act) {
  if (!data.complete) listsThere.then(act);
  return !data.complete;
}

function open(row, focus = false) {
  if (waits(() => open(row, focus))) return;
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
  const row = rowOf(Number(wanted.get("layer")), Number(wanted.get("feature")));
  if (row === undefined) {
    at("status").textContent = "There is no feature " + wanted.get("feature") + " of layer " + wanted.get("layer") + " in this page.";
    return;
  }
  at("status").textContent = "";
  open(row);
  const index = view.rows.indexOf(row);
  if (index >= 0) move(index);
}

function search() {
  if (waits(search)) return;
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
    Object.assign(choice, firstSort());
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
  at("annotated-label").textContent = keyPanel()?.knownText || "";
  at("annotated").parentElement.hidden = !keyPanel();
  const searched = inOrder(panels.filter((panel) => panel.find));
  at("scope").append(...searched.map((panel) => element("option", { value: panel.scope[0] }, panel.scope[1])));
  const names = searched.map((panel) => panel.finds);
  at("search").placeholder = [names.slice(0, -1).join(", "), names.at(-1)].filter(Boolean).join(" or ") + ", " + nouns.find_example;
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

function buildOverview() {
  const layers = meta.layers || [], number = (title) => ({ title, number: true });
  at("layers-box").open = window.innerHeight > 700 && layers.length <= 6;
  at("facts").textContent = (meta.facts || []).join(" · ");
  for (const name of meta.files || []) at("facts").append(" · ", ...linkOut(name, name, "all annotations of this run, beside this page"));
  at("headline").textContent = meta.headline || panels.find((panel) => panel.overviewTitle)?.overviewTitle || "Layers";
  at("headlines").replaceChildren(...layers.filter((layer) => layer.headline).map((layer) => element("li", {}, layer.headline)));
  at("overviews").replaceChildren(...panels.flatMap((panel) => panel.overview?.(layers) || []));
  const rows = layers.map((layer) => [
    String(layer.layer), decimal(layer.fvu ?? NaN, 3), decimal(layer.l0 ?? NaN, 1), layer.n_features ? layer.n_features.toLocaleString("en") : NONE,
  ]);
  at("layers").replaceWith(Object.assign(table(["Layer", "FVU", "L0", "Features"].map(number), rows), { id: "layers" }));
  const lines = panels.flatMap((panel) => panel.inference || []).sort((one, other) => one[0] - other[0]);
  at("layers-inference").replaceChildren(...lines.flatMap(([, name, about]) => inferenceNote(name, about)));
  at("notes").replaceChildren(...(meta.notes || []).map((note) => element("li", {}, note)));
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
  Object.assign(view.choice, firstSort());
  at("status").textContent = data.n ? "" : "No layer's features are done yet.";
  listsThere = painted().then(loadLists);
  update();
  document.documentElement.dataset.ready = String(Math.round(performance.now()));
  await listsThere;
  draw();
  followHash();
  document.documentElement.dataset.complete = String(Math.round(performance.now()));
}

// When the browser has drawn what there is; a hidden page is not drawn, and does not wait.
const painted = () => new Promise((done) => {
  setTimeout(done, 100);
  requestAnimationFrame(() => setTimeout(done));
});

start().catch((error) => {
  at("status").textContent = "This page could not be opened: " + error.message;
  throw error;
});
