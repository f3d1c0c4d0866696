// The page's data: arrays unpacked from the blocks, the search over them, and the order of the list.

const meta = JSON.parse(document.getElementById("meta").textContent);
const ARRAYS = {
  uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, int32: Int32Array, float32: Float32Array,
};

function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), found = new Uint8Array(raw.length);
  for (let place = 0; place < raw.length; place++) found[place] = raw.charCodeAt(place);
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
  return Object.fromEntries(names.map((name, place) => [name, found[place]]));
}

// Where each feature's entries begin: the lengths summed up, one more than there are features.
function pointers(lengths) {
  const found = new Uint32Array(lengths.length + 1);
  for (let place = 0; place < lengths.length; place++) found[place + 1] = found[place] + lengths[place];
  return found;
}

const data = {};

async function load() {
  data.columns = await blocks("columns", [
    "layer", "feature", "top_gene", "type", "type_log10q", "term", "term_log10q", "auroc", "n_cells", "firing_rate",
    "heldout_firing_rate", "mean_activation", "max_activation", "specificity",
  ]);
  data.n = meta.n_features;
  if (!data.n) return;
  const ragged = {
    genes: ["length", "gene", "score", "specificity", "rate", "rank_score", "rank_specificity"],
    types: ["length", "type", "auroc", "effect", "log10q", "n_cells"],
    terms: ["length", "term", "overlap", "size", "odds", "log10q"],
    overlaps: ["length", "gene"],
    sample: ["type", "heldout", "x", "y"],
  };
  await Promise.all(Object.entries(ragged).map(async ([name, columns]) => {
    data[name] = await blocks(name, columns);
    if (data[name].length) data[name].pointer = pointers(data[name].length);
  }));
  data.place = new Map();
  for (let row = 0; row < data.n; row++) data.place.set(key(data.columns.layer[row], data.columns.feature[row]), row);
  for (const number of meta.layer_numbers) {
    const first = data.columns.layer.indexOf(number);
    data.first = { ...data.first, [number]: first };
  }
}

const key = (layer, feature) => layer * 2 ** 32 + feature;

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

// --- search ---

const lowered = {};
function lower(name) {
  if (!lowered[name]) lowered[name] = meta[name].map((text) => text.toLowerCase());
  return lowered[name];
}

// A text matches when it holds every word of the query; "in quotes", when it is exactly that.
function matching(name, query) {
  const quoted = /^"(.*)"$/.exec(query);
  const words = quoted ? [] : query.split(/\s+/).filter(Boolean);
  const texts = lower(name), found = new Uint8Array(texts.length);
  for (let place = 0; place < texts.length; place++) {
    found[place] = quoted ? texts[place] === quoted[1] : words.every((word) => texts[place].includes(word));
  }
  return found;
}

// What a query finds: how well each feature matches (0: not at all), and which names did it.
function find(query, scope) {
  query = query.trim().toLowerCase();
  if (!query) return null;
  const score = new Float32Array(data.n), limit = Math.log10(meta.fdr);
  const raise = (row, value) => { if (value > score[row]) score[row] = value; };
  const found = { score };
  if (scope === "all" || scope === "genes") {
    const symbols = matching("symbols", query), ids = matching("gene_ids", query);
    found.symbols = symbols;
    const { gene, rank_specificity: rank, pointer } = data.genes;
    found.genes = ids.map((flag, place) => flag || (meta.gene_symbol[place] >= 0 && symbols[meta.gene_symbol[place]]));
    if (found.genes.includes(1)) each(pointer, (row, entry) => { if (found.genes[gene[entry]]) raise(row, 1 / (1 + rank[entry] / 4)); });
    const top = data.columns.top_gene;
    for (let row = 0; row < data.n; row++) if (top[row] >= 0 && symbols[top[row]]) raise(row, 0.05);
  }
  if (scope === "all" || scope === "types") {
    found.types = matching("types", query);
    if (found.types.includes(1)) {
      const { type, auroc, log10q, pointer } = data.types;
      each(pointer, (row, entry) => {
        if (found.types[type[entry]] && auroc[entry] >= meta.matching_auroc && log10q[entry] < limit) raise(row, auroc[entry]);
      });
      const best = data.columns.type;
      for (let row = 0; row < data.n; row++) {
        if (best[row] >= 0 && found.types[best[row]]) raise(row, Math.max(data.columns.auroc[row] || 0, 0.01));
      }
    }
  }
  if (scope === "all" || scope === "terms") {
    found.terms = matching("terms", query);
    const { term, log10q, pointer } = data.terms;
    if (found.terms.includes(1)) {
      each(pointer, (row, entry) => {
        if (found.terms[term[entry]] && log10q[entry] < limit) raise(row, Math.min(1, 0.3 - log10q[entry] / 15));
      });
    }
  }
  return found;
}

function each(pointer, visit) {
  for (let row = 0; row < data.n; row++) for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) visit(row, entry);
}

// --- order ---

const annotatedAt = (row) => data.columns.term_log10q[row] < Math.log10(meta.fdr);

// Rows to show, in order. NaN stands last whichever way; equal values keep the order of layers and features.
function ordered(choice, found) {
  const rows = new Uint32Array(data.n);
  let count = 0;
  for (let row = 0; row < data.n; row++) {
    if (choice.layer !== null && data.columns.layer[row] !== choice.layer) continue;
    if (choice.annotated && !annotatedAt(row)) continue;
    if (found && !found.score[row]) continue;
    rows[count++] = row;
  }
  const values = choice.sort === "match" && found ? found.score : data.columns[choice.sort];
  const sign = choice.sort === "match" || choice.descending ? -1 : 1;
  const shown = rows.subarray(0, count);
  if (!values) return shown;
  return shown.sort((one, other) => {
    const first = values[one], second = values[other];
    if (Number.isNaN(first) || Number.isNaN(second)) return Number.isNaN(first) - Number.isNaN(second) || one - other;
    return sign * (first - second) || one - other;
  });
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
