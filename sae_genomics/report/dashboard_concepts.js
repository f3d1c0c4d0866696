// The panel of concepts: annotated stretches that a feature finds, per residue and per stretch.

const conceptKnown = (row) => data.columns.concept_f1_residue[row] >= meta.least_f1 && significant(data.columns.concept_log10q[row]);

function conceptCell(row) {
  const best = data.columns.concept[row], matches = view.found?.concepts;
  if (best < 0) return NONE;
  const parts = [element("span", { class: conceptKnown(row) ? "" : "soft" }, marked(meta.concepts[best], matches?.[best]))];
  if (matches && !matches[best] && view.found.score[row]) {
    const { pointer, concept } = data.concepts;
    for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
      if (!matches[concept[entry]] || !conceptEntryKnown(entry)) continue;
      parts.push(" … ", element("mark", {}, meta.concepts[concept[entry]]));
      break;
    }
  }
  return parts;
}

const conceptEntryKnown = (entry) => data.concepts.f1_residue[entry] >= meta.least_f1 && significant(data.concepts.log10q[entry]);

// Two tables, one per measure: precision and recall of residues and of stretches are never mixed.
function conceptsSection(row) {
  const list = data.concepts, entries = [];
  for (let entry = list.pointer[row]; entry < list.pointer[row + 1]; entry++) entries.push(entry);
  const name = (entry) => element("span", { class: conceptEntryKnown(entry) ? "" : "soft" },
    finder("concepts", meta.concepts[list.concept[entry]], view.found?.concepts?.[list.concept[entry]]));
  const number = (title) => ({ title, number: true });
  const scores = (entry, measure) => ["precision", "recall", "f1"].map((score) => decimal(list[score + "_" + measure][entry], 2));
  const titles = (last) => [{ title: "Concept" }, number("Precision"), number("Recall"), number("F1"), last];
  const made = [element("h3", {}, "Concepts")];
  if (!entries.length) return element("section", { id: "panel-concepts" }, ...made, element("p", { class: "note" }, "It overlaps no annotated " + nouns.span + ", or none was tested."));
  return element("section", { id: "panel-concepts" }, ...made,
    element("p", { class: "note" }, "Per " + nouns.token + ": of the " + nouns.tokens + " above the threshold, and of the concept's"),
    table(titles(number("q")), entries.map((entry) => [name(entry), ...scores(entry, "residue"), probability(list.log10q[entry])])),
    element("p", { class: "note" }, "Per " + nouns.span + ": of the stretches above the threshold, and of the annotated " + nouns.spans),
    table(titles(number(firstUpper(nouns.spans))), entries.map((entry) => [name(entry), ...scores(entry, "span"), list.n_spans[entry].toLocaleString("en")])),
    element("p", { class: "note" }, "Thresholds were chosen on one half of the " + nouns.items + ", scores are of the other. Grey: F1 per " + nouns.token +
      " below " + meta.least_f1 + " or q ≥ " + meta.fdr + "."),
    ...inferenceNote("concepts"));
}

function findConcepts(query, found, raise) {
  found.concepts = matching("concepts", query);
  if (!found.concepts.includes(1)) return;
  const { concept, f1_residue: score, pointer } = data.concepts;
  each(pointer, (row, entry) => { if (found.concepts[concept[entry]] && conceptEntryKnown(entry)) raise(row, score[entry]); });
}

// How many concepts each kind of units finds, in every layer.
function conceptsTable(layers) {
  const number = (title) => ({ title, number: true });
  const titles = [number("Layer"), { title: "Units" }, number("Tried"), number("that find a concept"), number("Concepts found"), number("of tested")];
  const rows = layers.flatMap((layer) => (layer.concepts || []).map((one) => [
    String(layer.layer), one.units, ...[one.n_units, one.n_with, one.n_found, one.n_tested].map((value) => value.toLocaleString("en")),
  ]));
  return table(titles, rows);
}

addPanel({
  order: 5,
  applies: () => data.columns.concept.some((code) => code >= 0),
  columns: ["concept", "concept_f1_residue", "concept_f1_span", "concept_log10q"],
  lists: { concepts: ["length", "concept", "threshold", "precision_residue", "recall_residue", "f1_residue", "precision_span", "recall_span", "f1_span", "log10q",
    "n_spans", "n_proteins"] },
  listColumns: [
    { order: 5, title: "Best concept", width: [11, 3], narrow: [8, 2.4], show: (row) => conceptCell(row) },
    { order: 6, key: "concept_f1_residue", title: "F1, " + nouns.tokens, number: true, descending: true, width: [6.4], narrow: [6.2], table: "concepts",
      hint: "F1 per " + nouns.token + " of the best concept, on the half that it was not chosen on", show: (row) => decimal(data.columns.concept_f1_residue[row], 2) },
    { order: 7, key: "concept_f1_span", title: "F1, " + nouns.spans, number: true, descending: true, width: [6.4], narrow: [6.2], table: "concepts",
      hint: "F1 per " + nouns.span + " of the best concept, on the half that it was not chosen on", show: (row) => decimal(data.columns.concept_f1_span[row], 2) },
    { order: 8, key: "concept_log10q", title: "q (concept)", number: true, width: [6.2], narrow: [6], table: "concepts", hint: "q-value of the best concept",
      show: (row) => probability(data.columns.concept_log10q[row]) },
  ],
  scope: ["concepts", "concepts"], finds: "concept", find: findConcepts,
  known: conceptKnown, knownText: "only with a concept (F1 per " + nouns.token + " ≥ " + meta.least_f1 + ", q < " + meta.fdr + ")",
  sort: { sort: "concept_f1_residue", descending: true },
  inference: [[1, "concept_counts", "Concepts"]],
  overviewTitle: "Layers, and how many concepts features find beside simpler means",
  overview(layers) {
    const criterion = layers.find((layer) => layer.criterion)?.criterion;
    if (!criterion) return [];
    return [element("p", { class: "note" }, "A concept counts as found by this rule: " + criterion + "."),
      element("div", { class: "scroll-x" }, Object.assign(conceptsTable(layers), { id: "concept-counts" }))];
  },
  section: conceptsSection,
});
