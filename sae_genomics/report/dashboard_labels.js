// The panel of labels: the cell types, or families, that a feature tells apart.

function labelCell(row) {
  const best = data.columns.label[row];
  const sure = significant(data.columns.label_log10q[row]) && data.columns.auroc[row] > 0.5;
  return element("span", { class: sure ? "" : "soft" }, marked(nameOf("labels", best), view.found?.labels?.[best]));
}

function labelsSection(row) {
  const { pointer, label, auroc, effect, log10q, n_items: count } = data.labels, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    rows.push([
      finder("labels", meta.labels[label[entry]], view.found?.labels?.[label[entry]]), decimal(auroc[entry], 3), decimal(effect[entry], 2),
      probability(log10q[entry]), count[entry].toLocaleString("en"),
      ...(meta.label_groups ? [String(meta.label_groups[label[entry]] ?? NONE)] : []),
    ]);
  }
  return element("section", { id: "panel-labels" }, element("h3", {}, firstUpper(nouns.labels) + ", on held-out " + nouns.items), rows.length
    ? table([{ title: firstUpper(nouns.label) }, { title: "AUROC", number: true }, { title: "Effect", number: true }, { title: "q", number: true },
      { title: firstUpper(nouns.items), number: true }, ...(meta.label_groups ? [{ title: "Groups", number: true }] : [])], rows)
    : element("p", { class: "note" }, "None tested: the " + nouns.items + " carry no annotation, or the feature was not tested."),
  ...(rows.length ? inferenceNote("labels") : []));
}

function findLabels(query, found, raise) {
  found.labels = matching("labels", query);
  if (!found.labels.includes(1)) return;
  const { label, auroc, log10q, pointer } = data.labels, best = data.columns.label;
  each(pointer, (row, entry) => {
    if (found.labels[label[entry]] && auroc[entry] >= meta.matching_auroc && significant(log10q[entry])) raise(row, auroc[entry]);
  });
  for (let row = 0; row < data.n; row++) {
    if (best[row] >= 0 && found.labels[best[row]]) raise(row, Math.max(data.columns.auroc[row] || 0, 0.01));
  }
}

const anyTested = () => !data.n || data.columns.auroc.some(Number.isFinite);

addPanel({
  order: 30,
  columns: ["label", "label_log10q", "auroc"],
  lists: { labels: ["length", "label", "auroc", "effect", "log10q", "n_items"] },
  listColumns: [
    { order: 20, title: "Best " + nouns.label, width: [9, 2], narrow: [7.5, 2], show: (row) => labelCell(row) },
    { order: 21, key: "auroc", title: "AUROC", number: true, descending: true, width: [4.6], narrow: [4.2], table: "features", shown: anyTested,
      hint: "of the best " + nouns.label + ", on held-out " + nouns.items, show: (row) => decimal(data.columns.auroc[row], 3) },
    { order: 22, key: "label_log10q", title: "q (" + nouns.type + ")", number: true, width: [Math.max(5.2, Math.min(10, 2.4 + 0.6 * nouns.type.length))], narrow: [Math.max(4.8, Math.min(9, 2.2 + 0.55 * nouns.type.length))], table: "features", shown: anyTested,
      hint: "q-value of the best " + nouns.label + ", on held-out " + nouns.items, show: (row) => probability(data.columns.label_log10q[row]) },
  ],
  scope: ["labels", nouns.labels], finds: nouns.label, find: findLabels,
  inference: [[2, "features", "AUROC and q (" + nouns.type + ")"]],
  section: labelsSection,
});
