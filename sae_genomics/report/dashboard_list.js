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

// width: [least width in em, share of what is left] of a column; narrow: the same beside an open panel. needs: the list that `show` reads. shown: whether it has any number.
const OWN_COLUMNS = [
  { order: 0, key: "layer", title: "Layer", number: true, width: [3.6], narrow: [3.4], show: (row) => String(data.columns.layer[row]) },
  { order: 1, key: "feature", title: "Feature", number: true, width: [4.6], narrow: [4.4], show: (row) => String(data.columns.feature[row]) },
  { order: 90, key: "firing_rate", title: "Fires in", number: true, descending: true, width: [5], narrow: [4.8],
    hint: "firing rate: share of " + nouns.tokens + " in which the feature is active", show: (row) => percent(data.columns.firing_rate[row]) },
  { order: 91, key: "specificity", title: "Specificity", number: true, descending: true, width: [6.8], narrow: [6.4],
    hint: "largest specificity among its " + nouns.units + ", bits", show: (row) => decimal(data.columns.specificity[row], 2) },
];
let COLUMNS = [];

const view = {
  rows: new Uint32Array(0), found: null, active: 0, selected: -1,
  choice: { layer: null, annotated: false, sort: "specificity", descending: true, scope: "all", query: "" },
  sortBeforeSearch: null,
};

const nameOf = (list, index) => (index >= 0 ? meta[list][index] : NONE);
const marked = (text, match) => (match ? element("mark", {}, text) : text);
// The columns of all panels, and room for each.
function buildColumns() {
  COLUMNS = inOrder([...OWN_COLUMNS, ...panels.flatMap((panel) => panel.listColumns || [])].filter((column) => !column.shown || column.shown()));
  const main = document.querySelector("main");
  for (const [kind, gap] of [["width", 0.7], ["narrow", 0.6]]) {
    const widths = COLUMNS.map((column) => column[kind]);
    main.style.setProperty("--columns-" + kind, widths.map(([least, share]) => (share ? "minmax(" + least + "em, " + share + "fr)" : least + "em")).join(" "));
    main.style.setProperty("--least-" + kind, widths.reduce((sum, [least]) => sum + least + gap, 1) + "em");
  }
}

function buildHead() {
  buildColumns();
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

// A number of features that match says nothing without the number that chance gives.
function byChance() {
  const { layer, annotated } = view.choice;
  const shown = (meta.layers || []).filter((each) => layer === null || each.layer === layer);
  return annotated && !view.found && shown.length ? keyPanel()?.byChance?.(shown) || "" : "";
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
  for (let index = start; index < stop; index++) made.push(rowElement(index));
  rows.replaceChildren(...made);
  const active = at("grid-row-" + view.active);
  if (active) at("grid").setAttribute("aria-activedescendant", active.id);
  else at("grid").removeAttribute("aria-activedescendant");
}

function rowElement(index) {
  const row = view.rows[index];
  const made = element("div", {
    role: "row", id: "grid-row-" + index, class: "row" + (index === view.active ? " active" : ""), "aria-rowindex": index + 2,
    "aria-selected": row === view.selected ? "true" : "false", onclick: () => { view.active = index; open(row); },
  });
  for (const column of COLUMNS) {
    const shown = column.needs && !data[column.needs] ? "…" : column.show(row);
    made.append(element("div", { role: "gridcell", class: column.number ? "number" : "" }, ...(Array.isArray(shown) ? shown : [shown])));
  }
  return made;
}

function scrollTo(index) {
  const grid = at("grid"), full = view.rows.length * ROW_HEIGHT, room = roomForRows();
  if (full > TALLEST) {
    const { first } = position();
    if (index < first || index > first + room / ROW_HEIGHT - 1) {
      grid.scrollTop = index / Math.max(view.rows.length - room / ROW_HEIGHT, 1) * (TALLEST - room);
    }
  } else if (index * ROW_HEIGHT < grid.scrollTop) grid.scrollTop = index * ROW_HEIGHT;
  else if ((index + 1) * ROW_HEIGHT > grid.scrollTop + room) grid.scrollTop = (index + 1) * ROW_HEIGHT - room;
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
