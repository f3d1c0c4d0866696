// The page's data: arrays unpacked from the blocks; and numbers as text.

const meta = JSON.parse(document.getElementById("meta").textContent);
const nouns = meta.nouns;
const ARRAYS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int16: Int16Array, int32: Int32Array, float32: Float32Array,
};

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let index = 0; index < raw.length; index++) found[index] = raw.charCodeAt(index);
  return found;
}

const unzipped = (data) => new Response(new Blob([bytes(data)]).stream().pipeThrough(new DecompressionStream("gzip")));

// The counterpart of dashboard_packing.py.
async function block(name) {
  const tag = document.getElementById("block:" + name);
  if (!tag) return null;
  const { dtype, data, logs, step } = JSON.parse(tag.textContent);
  tag.textContent = ""; // it is read once
  const array = joined(await unzipped(data).arrayBuffer(), ARRAYS[dtype]);
  if (logs) return decoded(array, (code) => (code > 1 ? 10 ** ((code - 32768) / logs) : code ? 0 : NaN));
  if (step) return decoded(array, (code) => (code === 32768 ? NaN : (code > 32768 ? code - 65536 : code) * step));
  return array;
}

// Of 16-bit codes, by a table of all there are.
function decoded(array, number) {
  const codes = new Uint16Array(array.buffer), table = new Float32Array(65536), found = new Float32Array(codes.length);
  for (let code = 0; code < 65536; code++) table[code] = number(code);
  for (let index = 0; index < codes.length; index++) found[index] = table[codes[index]];
  return found;
}

// Numbers from their first bytes, then their second bytes, and so on.
function joined(buffer, kind) {
  const size = kind.BYTES_PER_ELEMENT;
  if (size === 1) return new kind(buffer);
  const planes = new Uint8Array(buffer), n = planes.length / size, found = new Uint8Array(planes.length);
  for (let plane = 0; plane < size; plane++) {
    for (let index = 0, to = plane, from = plane * n; index < n; index++, to += size) found[to] = planes[from + index];
  }
  return new kind(found.buffer);
}

// Long lists of texts, into meta.
const unpackTexts = () => Promise.all((meta.packed_texts || []).map(async (name) => {
  const tag = document.getElementById("texts:" + name);
  meta[name] = await unzipped(JSON.parse(tag.textContent).data).json();
  tag.textContent = "";
}));

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
//   scope: [value, text] in the choice of what to search; within: whether another panel's search finds the same; finds: what the search box names; find(query, found, raise): the search.
//   known(row): whether the feature matches something known; knownText: what that means. sort: {sort, descending} of the list at first.
//   byChance(layers): how many of them chance gives. overview(layers): elements above the list; overviewTitle: of that box.
//   inference: [order, table, what it is about] of the lines above the list.
//   order, section(row): its part of what is shown of one feature; heading(row): elements right below that feature's number.
//   applies(): whether there is anything of it in this page, asked once columns and texts are there, before the lists are.
const panels = [];
function addPanel(panel) { panels.push(panel); }
const inOrder = (items) => [...items].sort((one, other) => one.order - other.order);

async function load() {
  const own = ["layer", "feature", "n_items", "firing_rate", "heldout_firing_rate", "mean_activation", "max_activation", "specificity"];
  await unpackTexts();
  data.columns = await blocks("columns", [...own, ...panels.flatMap((panel) => panel.columns || [])]);
  data.n = meta.n_features;
  const there = (panel) => !panel.applies || (data.n > 0 && panel.applies()); // without features no array is there to be asked
  panels.splice(0, panels.length, ...panels.filter(there));
  if (!data.n) return;
  for (const number of meta.layer_numbers) firstRow[number] = data.columns.layer.indexOf(number);
}

// The lists follow when the first rows are on the screen: they are most of the page.
async function loadLists() {
  const lists = Object.assign({}, ...panels.map((panel) => panel.lists || {}));
  for (const [name, columns] of Object.entries(lists)) {
    const found = await blocks(name, columns);
    if (found.length) found.pointer = pointers(found.length);
    data[name] = found;
  }
  data.complete = true;
}

const firstRow = {}; // layer -> its first row

// The row of a feature; undefined where it is not in the page. Rows of a layer stand by feature.
function rowOf(layer, feature) {
  const { columns } = data;
  for (let row = firstRow[layer]; row < data.n && columns.layer[row] === layer; row++) if (columns.feature[row] === feature) return row;
  return undefined;
}

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
