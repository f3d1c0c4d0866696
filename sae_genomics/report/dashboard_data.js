// The page's data: arrays unpacked from the blocks; and numbers as text.

const meta = JSON.parse(document.getElementById("meta").textContent);
const nouns = meta.nouns;
const ARRAYS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array,
};

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index++) found[index] = raw.charCodeAt(index);
  return found;
}

async function block(name) {
  const tag = document.getElementById("block:" + name);
  if (!tag) return null;
  const { dtype, data } = JSON.parse(tag.textContent);
  const stream = new Blob([bytes(data)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new ARRAYS[dtype](await new Response(stream).arrayBuffer());
}

async function blocks(prefix, names) {
  const found = await Promise.all(names.map((name) => block(prefix + "." + name)));
  return Object.fromEntries(names.map((name, index) => [name, found[index]]));
}

// Where each feature's entries begin: the lengths summed up, one more than there are features.
function pointers(lengths) {
  const found = new Uint32Array(lengths.length + 1);
  for (let index = 0; index < lengths.length; index++) found[index + 1] = found[index] + lengths[index];
  return found;
}

const data = {};

// --- panels ---

// What one kind of result adds to the page; each script of a panel calls this once.
//   columns: names of arrays with one value per feature. lists: name of a list -> names of its arrays.
//   listColumns: columns of the list, see COLUMNS in dashboard_list.js, each with an `order`.
//   scope: [value, text] in the choice of what to search; finds: what the search box names; find(query, found, raise): the search.
//   known(row): whether the feature matches something known; knownText: what that means. sort: {sort, descending} of the list at first.
//   byChance(layers): how many of them chance gives. overview(layers): elements above the list; overviewTitle: of that box.
//   inference: [order, table, what it is about] of the lines above the list.
//   order, section(row): its part of what is shown of one feature.
//   applies(): whether there is anything of it in this page, asked once the arrays are there.
const panels = [];
function addPanel(panel) { panels.push(panel); }
const inOrder = (items) => [...items].sort((one, other) => one.order - other.order);

async function load() {
  const own = ["layer", "feature", "n_items", "firing_rate", "heldout_firing_rate", "mean_activation", "max_activation", "specificity"];
  data.columns = await blocks("columns", [...own, ...panels.flatMap((panel) => panel.columns || [])]);
  data.n = meta.n_features;
  if (!data.n) return;
  const lists = Object.assign({}, ...panels.map((panel) => panel.lists || {}));
  await Promise.all(Object.entries(lists).map(async ([name, columns]) => {
    data[name] = await blocks(name, columns);
    if (data[name].length) data[name].pointer = pointers(data[name].length);
  }));
  data.rowOf = new Map();
  data.first = {};
  for (let row = 0; row < data.n; row++) data.rowOf.set(key(data.columns.layer[row], data.columns.feature[row]), row);
  for (const number of meta.layer_numbers) data.first[number] = data.columns.layer.indexOf(number);
  panels.splice(0, panels.length, ...panels.filter((panel) => !panel.applies || panel.applies()));
}

const key = (layer, feature) => layer * 2 ** 32 + feature;

// --- numbers as text ---

const NONE = "–";
const percent = (share) => {
  if (!Number.isFinite(share)) return NONE;
  const value = 100 * share;
  return (value === 0 ? "0" : value >= 10 ? value.toFixed(1) : value >= 0.001 ? value.toPrecision(2) : value.toExponential(0)) + " %";
};
const decimal = (value, places) => (Number.isFinite(value) ? value.toFixed(places) : NONE);
const short = (value) => {
  if (!Number.isFinite(value)) return NONE;
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(3)));
};
function probability(log) {
  if (Number.isNaN(log) || log === undefined) return NONE;
  if (log <= -320) return "< 1e-300";
  if (log > -3) return String(Number((10 ** log).toPrecision(2)));
  let exponent = Math.floor(log), digit = Math.round(10 ** (log - exponent));
  if (digit === 10) [digit, exponent] = [1, exponent + 1];
  return digit + "e" + exponent;
}

// --- text ---

const firstUpper = (text) => text.slice(0, 1).toUpperCase() + text.slice(1);
const a = (noun) => (/^[aeio]/i.test(noun) ? "an " : "a ") + noun;
