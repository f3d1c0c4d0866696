// The list: only the rows in sight are elements, however many features there are.

const ROW_HEIGHT = 34, SPARE_ROWS = 6, TALLEST = 8e6; // browsers stop laying out beyond some 17 million pixels

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") made.className = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children); // strings become text, never markup
  return made;
}
const at = (id) => document.getElementById(id);

const COLUMNS = [
  { key: "layer", title: "Layer", number: true, show: (row) => String(data.columns.layer[row]) },
  { key: "feature", title: "Feature", number: true, show: (row) => String(data.columns.feature[row]) },
  { title: "Most specific genes", show: (row) => geneCell(row) },
  { title: "Best cell type", show: (row) => typeCell(row) },
  { key: "auroc", title: "AUROC", number: true, descending: true, hint: "of the best cell type, on held-out cells", table: "features",
    show: (row) => decimal(data.columns.auroc[row], 3) },
  { key: "type_log10q", title: "q (type)", number: true, hint: "q-value of the best cell type, on held-out cells", table: "features",
    show: (row) => probability(data.columns.type_log10q[row]) },
  { title: "Best gene set", show: (row) => termCell(row) },
  { key: "term_log10q", title: "q (set)", number: true, hint: "q-value of the best gene set", table: "feature_terms",
    show: (row) => probability(data.columns.term_log10q[row]) },
  { key: "firing_rate", title: "Fires in", number: true, descending: true, hint: "firing rate: share of gene tokens in which the feature is active",
    show: (row) => percent(data.columns.firing_rate[row]) },
  { key: "specificity", title: "Specificity", number: true, descending: true, hint: "largest specificity among its genes, bits",
    show: (row) => decimal(data.columns.specificity[row], 2) },
];

const view = {
  rows: new Uint32Array(0), found: null, active: 0, selected: -1,
  choice: { layer: null, annotated: false, sort: "term_log10q", descending: false, scope: "all", query: "" },
  sortBeforeSearch: null,
};

const nameOf = (list, place) => (place >= 0 ? meta[list][place] : NONE);
const marked = (text, match) => (match ? element("mark", {}, text) : text);
const geneName = (place) => (meta.gene_symbol[place] >= 0 ? meta.symbols[meta.gene_symbol[place]] : meta.gene_ids[place]);

function geneCell(row) {
  const { pointer, gene, rank_specificity: rank } = data.genes, parts = [];
  const matches = view.found?.genes;
  let shown = 0;
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const first = shown < 6 && rank[entry] <= meta.genes_listed;
    if (!first && !matches?.[gene[entry]]) continue;
    if (parts.length) parts.push(first ? ", " : " … ");
    parts.push(marked(geneName(gene[entry]), matches?.[gene[entry]]));
    shown++;
    if (shown > 12) break;
  }
  return parts.length ? parts : nameOf("symbols", data.columns.top_gene[row]);
}

function typeCell(row) {
  const best = data.columns.type[row];
  const sure = data.columns.type_log10q[row] < Math.log10(meta.fdr) && data.columns.auroc[row] > 0.5;
  return element("span", { class: sure ? "" : "soft" }, marked(nameOf("types", best), view.found?.types?.[best]));
}

// The best gene set; one that a search found instead, where the best did not match.
function termCell(row) {
  const best = data.columns.term[row], matches = view.found?.terms;
  if (best < 0) return NONE;
  const known = annotatedAt(row);
  const parts = [element("span", { class: known ? "" : "soft" }, marked(meta.terms[best], known && matches?.[best]))];
  if (matches && !matches[best] && view.found.score[row]) {
    const { pointer, term, log10q } = data.terms;
    for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
      if (!matches[term[entry]] || !(log10q[entry] < Math.log10(meta.fdr))) continue;
      parts.push(" … ", element("mark", {}, meta.terms[term[entry]]));
      break;
    }
  }
  return parts;
}

function buildHead() {
  at("head").replaceChildren(...COLUMNS.map((column) => {
    const about = column.table && meta.inference[column.table];
    const title = about ? column.hint + ". " + about : column.hint;
    const cell = element("div", { role: "columnheader", class: column.number ? "number" : "", title, "data-key": column.key });
    if (column.key) cell.append(element("button", { type: "button", onclick: () => sortBy(column) }, column.title));
    else cell.append(element("span", { class: "plain" }, column.title));
    return cell;
  }));
}

function sortBy(column) {
  const { choice } = view;
  choice.descending = choice.sort === column.key ? !choice.descending : Boolean(column.descending);
  choice.sort = column.key;
  view.sortBeforeSearch = null;
  update();
}

// Filter and sort anew.
function update({ keepPlace = false } = {}) {
  const { choice } = view;
  view.rows = data.n ? ordered(choice, view.found) : new Uint32Array(0);
  const active = view.rows.indexOf(view.selected);
  view.active = active >= 0 ? active : 0;
  for (const cell of at("head").children) {
    const here = cell.dataset.key === choice.sort && cell.dataset.key;
    if (here) cell.setAttribute("aria-sort", choice.descending ? "descending" : "ascending");
    else cell.removeAttribute("aria-sort");
  }
  const all = data.n.toLocaleString("en"), some = view.rows.length.toLocaleString("en");
  at("count").textContent = (some === all ? all : some + " of " + all) + " features" + byChance() + (choice.sort === "match" ? ", best match first" : "");
  at("grid").setAttribute("aria-rowcount", view.rows.length + 1);
  at("empty").hidden = view.rows.length > 0 || !data.n;
  at("body").style.height = Math.min(view.rows.length * ROW_HEIGHT, TALLEST) + "px";
  if (!keepPlace) at("grid").scrollTop = 0;
  draw();
}

// A number of annotated features says nothing without the number that shuffled genes give.
function byChance() {
  const { layer, annotated } = view.choice;
  const shown = (meta.layers || []).filter((each) => layer === null || each.layer === layer);
  const nulls = shown.map((each) => each.sources.find((source) => source.units === "features")?.matched.n_annotated ?? null);
  if (!annotated || view.found || !shown.length || nulls.includes(null)) return "";
  return " (with names shuffled among genes of the same expression: about " + short(nulls.reduce((sum, each) => sum + each, 0)) + ")";
}

const roomForRows = () => Math.max(at("grid").clientHeight - at("head").offsetHeight, ROW_HEIGHT);

// First row in sight (a fraction while scrolling) and the pixel it stands at. Very long lists scroll in proportion.
function position() {
  const grid = at("grid"), full = view.rows.length * ROW_HEIGHT;
  if (full <= TALLEST) return { first: grid.scrollTop / ROW_HEIGHT, top: grid.scrollTop };
  const share = grid.scrollTop / Math.max(TALLEST - roomForRows(), 1);
  return { first: share * (view.rows.length - roomForRows() / ROW_HEIGHT), top: grid.scrollTop };
}

function draw() {
  const { first, top } = position();
  const start = Math.max(Math.floor(first) - SPARE_ROWS, 0);
  const stop = Math.min(Math.ceil(first + roomForRows() / ROW_HEIGHT) + SPARE_ROWS, view.rows.length);
  const rows = at("rows");
  rows.style.transform = "translateY(" + (top - (first - start) * ROW_HEIGHT) + "px)";
  const made = [];
  for (let place = start; place < stop; place++) made.push(rowElement(place));
  rows.replaceChildren(...made);
  const active = at("grid-row-" + view.active);
  if (active) at("grid").setAttribute("aria-activedescendant", active.id);
  else at("grid").removeAttribute("aria-activedescendant");
}

function rowElement(place) {
  const row = view.rows[place];
  const made = element("div", {
    role: "row", id: "grid-row-" + place, class: "row" + (place === view.active ? " active" : ""), "aria-rowindex": place + 2,
    "aria-selected": row === view.selected ? "true" : "false", onclick: () => { view.active = place; open(row); },
  });
  for (const column of COLUMNS) {
    const shown = column.show(row);
    made.append(element("div", { role: "gridcell", class: column.number ? "number" : "" }, ...(Array.isArray(shown) ? shown : [shown])));
  }
  return made;
}

function scrollTo(place) {
  const grid = at("grid"), full = view.rows.length * ROW_HEIGHT, room = roomForRows();
  if (full > TALLEST) {
    const { first } = position();
    if (place < first || place > first + room / ROW_HEIGHT - 1) {
      grid.scrollTop = place / Math.max(view.rows.length - room / ROW_HEIGHT, 1) * (TALLEST - room);
    }
  } else if (place * ROW_HEIGHT < grid.scrollTop) grid.scrollTop = place * ROW_HEIGHT;
  else if ((place + 1) * ROW_HEIGHT > grid.scrollTop + room) grid.scrollTop = (place + 1) * ROW_HEIGHT - room;
}

function move(to) {
  if (!view.rows.length) return;
  view.active = Math.min(Math.max(to, 0), view.rows.length - 1);
  scrollTo(view.active);
  draw();
}

function onGridKey(event) {
  if (event.target !== at("grid")) return;
  const page = Math.max(Math.floor(roomForRows() / ROW_HEIGHT) - 1, 1);
  const steps = {
    ArrowDown: view.active + 1, ArrowUp: view.active - 1, PageDown: view.active + page, PageUp: view.active - page,
    Home: 0, End: view.rows.length - 1,
  };
  if (event.key in steps) move(steps[event.key]);
  else if ((event.key === "Enter" || event.key === " ") && view.rows.length) open(view.rows[view.active], true);
  else return;
  event.preventDefault();
}
