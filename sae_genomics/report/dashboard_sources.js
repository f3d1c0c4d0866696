// How many units of each layer match anything, beside chance: over all sources, and of each source alone.

const FEW = (mean, most) => decimal(mean ?? NaN, 1) + (most === null ? "" : ", max " + most);

// Features and baselines of every layer, each beside what shuffled gene names give.
function sourcesTable(layers) {
  const number = (title) => ({ title, number: true }), value = (found) => found ?? NaN;
  const titles = [
    number("Layer"), { title: "Units" }, number("Tested"), number("Annotated"), number("by chance, same expression"), number("by chance, any gene"),
    number("Different gene sets"), number("by chance, same expression"), number("by chance, any gene"), number("Gene sets per 100 units"), number("by chance, same expression"),
    number("by chance, any gene"),
  ];
  const rows = layers.flatMap((layer) => layer.sources.map((source) => [
    String(layer.layer), source.label, source.n_units.toLocaleString("en"),
    source.n_annotated.toLocaleString("en") + " (" + percent(value(source.share)) + ")",
    ...[source.matched, source.shuffled].map((one) => FEW(one.n_annotated, one.n_annotated_max)),
    String(source.n_terms), ...[source.matched, source.shuffled].map((one) => FEW(one.n_terms, one.n_terms_max)),
    decimal(value(source.terms_per_100), 1), decimal(value(source.matched.terms_per_100), 1), decimal(value(source.shuffled.terms_per_100), 1),
  ]));
  return table(titles, rows);
}

// Features of every layer that each source alone matches.
function bySourceTable() {
  const number = (title) => ({ title, number: true });
  const rows = meta.layer_numbers.flatMap((layer, index) => meta.source_nulls[index].map((one) => [
    String(layer), sourceName(one.source), one.n_units.toLocaleString("en"), one.n_annotated.toLocaleString("en") + " (" + percent(one.share ?? NaN) + ")",
    FEW(one.chance, one.chance_max),
  ]));
  return table([number("Layer"), { title: "Source" }, number("Features tested"), number("Annotated"), number("by chance, same expression")], rows);
}

// A source's full title and version; empty where they are not known.
function sourceTitle(source) {
  const known = (meta.layers || []).flatMap((layer) => layer.collections || []).find((each) => each.name === source);
  return known?.title ? known.title + (known.version ? ", version " + known.version : "") : "";
}
const sourceName = (source) => element("span", { title: sourceTitle(source) || "collection: " + source }, source);

// What shuffled gene names give in these layers together; nothing where it was not measured.
function termsByChance(layers) {
  const nulls = layers.map((layer) => layer.sources.find((source) => source.units === "features")?.matched.n_annotated ?? null);
  if (nulls.includes(null)) return "";
  return " (with names shuffled among genes of the same expression: about " + short(nulls.reduce((sum, each) => sum + each, 0)) + ")";
}
