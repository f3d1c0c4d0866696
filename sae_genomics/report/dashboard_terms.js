// The panel of gene sets that a feature's top genes match.

const termKnown = (row) => significant(data.columns.term_log10q[row]);

// The best gene set; one that a search found instead, where the best did not match.
function termCell(row) {
  const best = data.columns.term[row], matches = view.found?.terms;
  if (best < 0) return NONE;
  const known = termKnown(row);
  const parts = [element("span", { class: known ? "" : "soft" }, marked(meta.terms[best], known && matches?.[best]))];
  if (matches && !matches[best] && view.found.score[row]) {
    const { pointer, term, log10q } = data.terms;
    for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
      if (!matches[term[entry]] || !significant(log10q[entry])) continue;
      parts.push(" … ", element("mark", {}, meta.terms[term[entry]]));
      break;
    }
  }
  return parts;
}

function termsSection(row) {
  const { pointer, term, overlap, size, odds, log10q } = data.terms, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const shared = [];
    for (let index = data.overlaps.pointer[entry]; index < data.overlaps.pointer[entry + 1]; index++) {
      if (shared.length) shared.push(", ");
      shared.push(marked(meta.term_genes[data.overlaps.gene[index]], view.found?.termGenes?.[data.overlaps.gene[index]]));
    }
    const known = significant(log10q[entry]);
    rows.push([
      [element("span", { class: known ? "" : "soft", title: "collection: " + meta.term_collection[term[entry]] },
        finder("terms", meta.terms[term[entry]], view.found?.terms?.[term[entry]])),
        element("div", { class: "term-genes" }, ...shared)],
      overlap[entry] + " of " + size[entry].toLocaleString("en"), short(odds[entry]), probability(log10q[entry]),
    ]);
  }
  return element("section", { id: "panel-terms" }, element("h3", {}, "Gene sets"), rows.length
    ? table([{ title: "Gene set, shared genes" }, { title: "Overlap", number: true }, { title: "Odds ratio", number: true }, { title: "q", number: true }], rows)
    : element("p", { class: "note" }, "Its top genes share no gene with any set, or it was not tested."),
  rows.length ? element("p", { class: "note" }, "Grey: q ≥ " + meta.fdr + ", what chance gives too.") : "",
  ...(rows.length ? inferenceNote("terms") : []));
}

function findTerms(query, found, raise) {
  found.terms = matching("terms", query);
  found.termGenes = matching("term_genes", query);
  const { term, log10q, pointer } = data.terms;
  if (!found.terms.includes(1)) return;
  each(pointer, (row, entry) => {
    if (found.terms[term[entry]] && significant(log10q[entry])) raise(row, Math.min(1, 0.3 - log10q[entry] / 15));
  });
}

// Features and baselines of every layer, each beside what shuffled gene names give.
function sourcesTable(layers) {
  const number = (title) => ({ title, number: true }), value = (found) => found ?? NaN;
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

// What shuffled gene names give in these layers together; nothing where it was not measured.
function termsByChance(layers) {
  const nulls = layers.map((layer) => layer.sources.find((source) => source.units === "features")?.matched.n_annotated ?? null);
  if (nulls.includes(null)) return "";
  return " (with names shuffled among genes of the same expression: about " + short(nulls.reduce((sum, each) => sum + each, 0)) + ")";
}

addPanel({
  order: 40,
  columns: ["term", "term_log10q"],
  lists: { terms: ["length", "term", "overlap", "size", "odds", "log10q"], overlaps: ["length", "gene"] },
  listColumns: [
    { order: 30, title: "Best gene set", width: [11, 3], narrow: [8, 2.4], show: (row) => termCell(row) },
    { order: 31, key: "term_log10q", title: "q (set)", number: true, width: [5], narrow: [4.6], hint: "q-value of the best gene set", table: "terms",
      show: (row) => probability(data.columns.term_log10q[row]) },
  ],
  scope: ["terms", "gene sets"], finds: "gene set", find: findTerms,
  known: termKnown, knownText: "annotated only (gene set at q < " + meta.fdr + ")",
  sort: { sort: "term_log10q", descending: false },
  byChance: termsByChance,
  inference: [[1, "annotation_nulls", "Annotated"], [3, "terms", "q (set)"]],
  overviewTitle: "Layers, and how many features match a gene set beside chance",
  overview: (layers) => [
    element("p", { class: "note" }, "A unit is annotated when its top genes match a gene set. Beside it stand mean and highest value by chance: with names " +
      "shuffled among genes of the same detection and expression, and among all genes."),
    element("div", { class: "scroll-x" }, Object.assign(sourcesTable(layers), { id: "sources" })),
  ],
  section: termsSection,
});
