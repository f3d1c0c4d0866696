// The panel of features over layers: what becomes of a feature, its matches in other layers, the module that it is in.

const FATE_BEFORE = {
  persistent: "the layer before has it too", split: "it is a part of a feature of the layer before", merged: "it takes up several features of the layer before",
  unit: "it matches a feature of the layer before by its " + nouns.unit + " alone", born: "the layer before has no such feature",
};
const FATE_AFTER = {
  persistent: "the next layer has it too", split: "several features of the next layer share it", merged: "a feature of the next layer takes it up with others",
  unit: "it matches a feature of the next layer by its " + nouns.unit + " alone", died: "the next layer has no such feature",
};

const featureLink = (layer, feature) => element("a", { href: "#layer=" + layer + "&feature=" + feature }, "layer " + layer + " · feature " + feature);

function fateText(row) {
  const word = (column) => nameOf("fates", data.columns[column][row]);
  const parts = [FATE_BEFORE[word("before")], FATE_AFTER[word("after")]].filter(Boolean);
  return parts.length ? firstUpper(parts.join("; ")) + "." : "Nothing is known: it never varies on the " + nouns.tokens + " that were compared.";
}

function partnersTable(row) {
  const { pointer, layer, feature, correlation, mutual } = data.partners, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    rows.push([featureLink(layer[entry], feature[entry]), decimal(correlation[entry], 2), mutual[entry] ? "best of both" : ""]);
  }
  return rows.length ? table([{ title: "Matches" }, { title: "Correlation", number: true }, { title: "" }], rows)
    : element("p", { class: "note" }, "No feature of another layer goes with it more than chance gives.");
}

// The module, in words, and the first others that are in it.
function moduleParts(row) {
  const code = data.columns.module[row];
  if (code < 0) return [];
  const about = meta.module_facts[code], others = [];
  for (let other = 0; other < data.n && others.length < 12; other++) if (other !== row && data.columns.module[other] === code) others.push(other);
  const links = others.flatMap((other, index) => [index ? ", " : "", element("a", { href: "#layer=" + data.columns.layer[other] + "&feature=" + data.columns.feature[other] }, String(data.columns.feature[other]))]);
  const facts = about.size ? " It has " + about.size + " features. On held-out " + nouns.items + " they meet 2^" + about.score.toFixed(2) +
    " times as often as in tables with the same margins (largest of those: 2^" + about.null_max.toFixed(2) + "; q " + probability(Math.log10(Math.max(about.q, 1e-300))) + ")." : "";
  return [
    element("h4", {}, "Fires together with others"),
    element("p", {}, finder("modules", about.name, view.found?.modules?.[code]), "." + facts),
    ...(about.units ? [element("p", { class: "note" }, firstUpper(nouns.units) + ": " + about.units)] : []),
    ...(links.length ? [element("p", { class: "note" }, "Others in it: ", ...links, about.size > others.length + 1 ? " …" : "")] : []),
    ...inferenceNote("module_summary"),
  ];
}

function crossLayerSection(row) {
  const fated = meta.fates.length > 0;
  return element("section", { id: "panel-cross-layer" }, element("h3", {}, "Over layers"),
    ...(fated ? [element("p", {}, fateText(row))] : []),
    ...(fated || data.partners.layer.length ? [partnersTable(row), ...inferenceNote("matches")] : []),
    ...moduleParts(row));
}

function findModules(query, found, raise) {
  found.modules = matching("modules", query);
  if (!found.modules.includes(1)) return;
  for (let row = 0; row < data.n; row++) if (data.columns.module[row] >= 0 && found.modules[data.columns.module[row]]) raise(row, 1);
}

addPanel({
  order: 60,
  applies: () => data.columns.fate.some((code) => code >= 0) || data.columns.module.some((code) => code >= 0),
  columns: ["fate", "before", "after", "module"],
  lists: { partners: ["length", "layer", "feature", "correlation", "mutual"] },
  listColumns: [{ order: 60, title: "Over layers", hint: "what becomes of it from layer to layer", width: [6, 1], narrow: [5, 1],
    show: (row) => nameOf("fates", data.columns.fate[row]) }],
  scope: ["modules", "modules"], finds: "module", find: findModules,
  section: crossLayerSection,
});
