// The panel of units: the genes, or amino acids, that a feature fires on.

let ranking = "specificity";
const unitName = (code) => (meta.unit_name[code] >= 0 ? meta.unit_names[meta.unit_name[code]] : meta.unit_ids[code]);

function unitCell(row) {
  const { pointer, unit, rank_specificity: rank } = data.units, parts = [];
  const matches = view.found?.units;
  let shown = 0;
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const first = shown < 6 && rank[entry] <= meta.units_listed;
    if (!first && !matches?.[unit[entry]]) continue;
    if (parts.length) parts.push(first ? ", " : " … ");
    parts.push(marked(unitName(unit[entry]), matches?.[unit[entry]]));
    shown++;
    if (shown > 12) break;
  }
  return parts.length ? parts : nameOf("unit_names", data.columns.top_unit[row]);
}

// Pages about a gene, of its id and of its symbol.
const geneLinks = (id, name) => (meta.gene_links || []).flatMap((link) => {
  const text = link.title === "Ensembl" ? id : name;
  return linkOut(pageOf([link], text), link.title[0], name + " at " + link.title);
});

// Fills its part: again when the ranking is changed.
function drawUnits(part, row) {
  const { pointer, unit, score, specificity, rate } = data.units;
  const rank = ranking === "score" ? data.units.rank_score : data.units.rank_specificity;
  const values = ranking === "score" ? score : specificity;
  const entries = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) if (rank[entry] <= meta.units_listed) entries.push(entry);
  entries.sort((one, other) => rank[one] - rank[other]);
  const largest = Math.max(...entries.map((entry) => values[entry]), 1e-12);
  const bars = element("div", { class: "bars" + (meta.gene_links?.length ? " linked" : "") }, ...entries.flatMap((entry) => {
    const fill = element("div", { class: "fill" + (ranking === "score" ? " second" : "") });
    fill.style.width = Math.max(0, Math.min(1, values[entry] / largest)) * 100 + "%";
    const id = meta.unit_ids[unit[entry]], name = unitName(unit[entry]);
    const about = (id === name ? name : name + " (" + id + ")") + ": active in " + percent(rate[entry]) + " of its tokens";
    return [
      element("div", { class: "name", title: about }, finder("units", name, view.found?.units?.[unit[entry]])),
      ...(meta.gene_links?.length ? [element("div", { class: "links" }, ...geneLinks(id, name))] : []),
      element("div", { class: "track", title: about }, fill),
      element("div", { class: "value" }, ranking === "score" ? short(score[entry]) : decimal(specificity[entry], 2) + " bits"),
    ];
  }));
  part.replaceChildren(
    element("h3", {}, firstUpper(nouns.units)),
    choice("ranking", [["specificity", "by specificity"], ["score", "by score"]], ranking,
      (value) => { ranking = value; drawUnits(part, row); }),
    entries.length ? bars : element("p", { class: "note" }, "None: it never fires on " + a(nouns.unit) + ", or its table is not there."),
    element("p", { class: "note" }, ranking === "score"
      ? "Score: sum over " + nouns.tokens + " of " + nouns.weighed + "; " + nouns.units + " that are everywhere rank high."
      : "Specificity: log2 of activation over what it would be if the feature ignored " + nouns.units + "."));
}

function findUnits(query, found, raise) {
  const names = matching("unit_names", query), ids = matching("unit_ids", query);
  const { unit, rank_specificity: rank, pointer } = data.units, top = data.columns.top_unit;
  found.units = ids.map((flag, code) => flag || (meta.unit_name[code] >= 0 && names[meta.unit_name[code]]));
  if (found.units.includes(1)) each(pointer, (row, entry) => { if (found.units[unit[entry]]) raise(row, 1 / (1 + rank[entry] / 4)); });
  for (let row = 0; row < data.n; row++) if (top[row] >= 0 && names[top[row]]) raise(row, 0.05);
}

addPanel({
  order: 10,
  columns: ["top_unit"],
  lists: { units: ["length", "unit", "score", "specificity", "rate", "rank_score", "rank_specificity"] },
  listColumns: [{ order: 10, needs: "units", title: "Most specific " + nouns.units, hint: "most specific " + nouns.units + " first", width: nouns.kind === "cells" ? [15, 3] : [8, 1.5], narrow: nouns.kind === "cells" ? [9, 3] : [6, 1.5],
    show: (row) => unitCell(row) }],
  scope: ["units", nouns.units], finds: nouns.unit, find: findUnits,
  section(row) {
    const part = element("section", { id: "panel-units" });
    drawUnits(part, row);
    return part;
  },
});
