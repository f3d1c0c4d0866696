// The search over names, and the order of the list.

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
  for (let index = 0; index < texts.length; index++) {
    found[index] = quoted ? texts[index] === quoted[1] : words.every((word) => texts[index].includes(word));
  }
  return found;
}

// What a query finds: how well each feature matches (0: not at all), and which names did it.
function find(query, scope) {
  query = query.trim().toLowerCase();
  if (!query) return null;
  const score = new Float32Array(data.n), found = { score };
  const raise = (row, value) => { if (value > score[row]) score[row] = value; };
  for (const panel of panels) if (panel.find && (scope === "all" ? !panel.within : scope === panel.scope[0])) panel.find(query, found, raise);
  return found;
}

function each(pointer, visit) {
  for (let row = 0; row < data.n; row++) for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) visit(row, entry);
}

// --- order ---

const significant = (log10q) => log10q < Math.log10(meta.fdr);
const keyPanel = () => panels.find((panel) => panel.known);
const knownAt = (row) => Boolean(keyPanel()?.known(row));

// Rows to show, in order. NaN stands last whichever way; equal values keep the order of layers and features.
function ordered(choice, found) {
  const rows = new Uint32Array(data.n);
  let count = 0;
  for (let row = 0; row < data.n; row++) {
    if (choice.layer !== null && data.columns.layer[row] !== choice.layer) continue;
    if (choice.annotated && !knownAt(row)) continue;
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
