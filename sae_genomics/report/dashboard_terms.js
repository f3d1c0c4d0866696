// The panel of evidence in the list and in the search: the best term, and the terms, diseases and phenotypes that a search finds.

const termKnown = (row) => significant(data.columns.term_log10q[row]);

// The best term; and one that a search found instead, where the best did not match.
function termCell(row) {
  const best = data.columns.term[row];
  if (best < 0) return NONE;
  const known = termKnown(row), match = known && view.found?.terms?.[best];
  return [element("span", { class: known ? "" : "soft" }, marked(meta.terms[best], match)), ...otherMatch(row, match)];
}

// What a search found of a feature beside the term that stands in the list.
function otherMatch(row, match) {
  const matches = view.found?.terms;
  if (!matches || match || !view.found.score[row]) return [];
  const { pointer, term } = data.terms;
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    if (matches[term[entry]] && passes(entry)) return [" … ", element("mark", {}, meta.terms[term[entry]])];
  }
  return [];
}

// Finds features by their terms that pass; of one kind, or of all.
function findTerms(query, found, raise, kind) {
  const names = matching("terms", query), ids = matching("term_ids", query);
  const wanted = kind === undefined ? -1 : meta.kind_names.indexOf(kind);
  found.terms = names.map((flag, code) => Number((flag || ids[code]) && (wanted < 0 || data.sets.kind[code] === wanted)));
  found.termGenes = matching("term_genes", query);
  if (!found.terms.includes(1)) return;
  const { term, log10q_matched: log10q, log10q_source: own, pointer } = data.terms;
  each(pointer, (row, entry) => {
    if (found.terms[term[entry]] && passes(entry)) raise(row, Math.min(1, 0.3 - Math.min(log10q[entry], own[entry] || 0) / 15));
  });
}

addPanel({
  order: 12,
  columns: ["term", "term_log10q", "name", "name_term", "name_sources", "name_log10q"],
  lists: {
    sets: ["source", "kind"],
    terms: ["length", "term", "overlap", "size", "expected", "odds", "odds_low", "log10q", "log10q_matched", "log10q_source", "explained"],
    shared: ["length", "gene"], overlaps: ["length", "position"],
  },
  listColumns: [
    { order: 2, title: "Name", width: [10, 2.6], narrow: [8, 2.2], shown: anyNamed, hint: "its strongest, most specific gene set that passes; grey: none does",
      show: (row) => nameCell(row) },
    { order: 30, title: "Best gene set", width: [11, 3], narrow: [8, 2.4], shown: () => !anyNamed(), show: (row) => termCell(row) },
    { order: 31, key: "term_log10q", title: "q (set)", number: true, width: [5], narrow: [4.6], table: "terms",
      hint: "q-value of the best gene set, among genes of the same detection and expression", show: (row) => probability(data.columns.term_log10q[row]) },
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
    ...(meta.source_nulls.some((each) => each.length) ? [element("div", { class: "scroll-x" }, Object.assign(bySourceTable(), { id: "by-source" }))] : []),
  ],
  heading: nameHeading,
  section: evidenceSection,
});

// The same search over one kind of terms.
for (const [kind, text, noun] of [["disease", "diseases and traits", "disease"], ["phenotype", "phenotypes", "phenotype"]]) {
  addPanel({
    order: 13, within: true, applies: () => meta.kinds.includes(kind), scope: [kind, text], finds: noun,
    find: (query, found, raise) => findTerms(query, found, raise, kind),
  });
}
