// A feature's evidence: the terms of each source, and how many features of the layer that source matches by chance.

const SHOWN_OF_SOURCE = 3; // further ones are folded away
const passes = (entry) => significant(data.terms.log10q_matched[entry]) || significant(data.terms.log10q_source[entry]);

function evidenceSection(row) {
  const { pointer, term } = data.terms, bySource = new Map();
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const source = meta.sources[data.sets.source[term[entry]]];
    if (!bySource.has(source)) bySource.set(source, []);
    bySource.get(source).push(entry);
  }
  const made = element("section", { id: "panel-terms" }, element("h3", {}, "Known biology, by source"));
  if (!bySource.size) {
    made.append(element("p", { class: "note" }, "Its top genes share no gene with any set, or it was not tested."));
    return made;
  }
  const parts = [...bySource].map(([source, entries]) => ({ source, found: entries.some(passes), made: sourcePart(row, source, entries) }));
  for (const part of parts.filter((each) => each.found)) made.append(...part.made);
  const without = parts.filter((each) => !each.found);
  if (without.length === parts.length) made.append(element("p", { class: "note" }, "No term passes in any source."));
  if (without.length) {
    const names = without.map((each) => each.source).join(", ");
    made.append(element("details", { class: "more without" }, element("summary", {}, "No term passes, but these come closest: " + names), ...without.flatMap((each) => each.made)));
  }
  made.append(
    element("p", { class: "note" }, "By chance: shared genes expected of a list of the same length. q, any gene: against lists drawn among all genes that the source " +
      "could have named. q, same expr.: the same among genes of the same detection and expression; this one decides. Grey: q ≥ " + meta.fdr + ", what chance gives too."),
    ...inferenceNote("terms"));
  return made;
}

function sourcePart(row, source, entries) {
  const found = meta.source_nulls[meta.layer_numbers.indexOf(data.columns.layer[row])]?.find((each) => each.source === source);
  const chance = found ? percent(found.share ?? NaN) + " of the layer's features match this source; by chance " +
    (found.chance === null ? "not measured" : percent(found.chance_share ?? NaN)) + "." : "";
  const title = sourceTitle(source), few = entries.slice(0, SHOWN_OF_SOURCE), more = entries.slice(SHOWN_OF_SOURCE);
  return [
    element("h4", { class: entries.some(passes) ? "" : "soft" }, sourceName(source), ...(title ? [element("span", {}, " " + title)] : [])),
    ...(chance ? [element("p", { class: "note source-null" }, chance)] : []),
    termsTable(few),
    ...(more.length ? [element("details", { class: "more" }, element("summary", {}, more.length + " more of " + source), termsTable(more))] : []),
  ];
}

function termsTable(entries) {
  const number = (text) => element("th", { class: "number", scope: "col" }, text);
  return element("table", { class: "terms" },
    element("thead", {}, element("tr", {}, number("Overlap"), number("Odds ratio"), number("q, any gene"), number("q, same expr."))),
    ...entries.map(termRows));
}

// A term: its name over the numbers, the shared genes below them.
function termRows(entry) {
  const { term, overlap, size, expected, odds, odds_low: low, log10q, log10q_matched: matched, log10q_source: own } = data.terms;
  const name = meta.terms[term[entry]], source = meta.sources[data.sets.source[term[entry]]], id = meta.term_ids[term[entry]];
  const cell = (...parts) => element("td", { class: "number" }, ...parts), below = (text) => element("div", { class: "below" }, text);
  const across = (kind, ...parts) => element("tr", { class: kind }, element("td", { colspan: 4 }, ...parts));
  const interval = Number.isFinite(low[entry]) ? [below(twoDigits(low[entry]) + " to " + twoDigits(odds[entry] ** 2 / low[entry]))] : [];
  return element("tbody", { class: passes(entry) ? "" : "soft" },
    across("term-name", finder("terms", name, view.found?.terms?.[term[entry]]),
      ...linkOut(pageOf(meta.term_links, id || name, source), id || "↗", name + ", on the web: " + source)),
    element("tr", {},
      cell(overlap[entry] + " of " + size[entry].toLocaleString("en"), below("by chance " + twoDigits(expected[entry]))),
      cell(twoDigits(odds[entry]), ...interval),
      cell(probability(log10q[entry])),
      cell(probability(matched[entry]), ...(!Number.isNaN(own[entry]) ? [below("in " + source + " " + probability(own[entry]))] : []))),
    across("term-genes", ...sharedGenes(entry)),
    ...explanation(entry));
}

const twoDigits = (value) => (Number.isFinite(value) ? Number(value.toPrecision(2)).toLocaleString("en", { maximumSignificantDigits: 2 }) : NONE);

function sharedGenes(entry) {
  const parts = [], { pointer, position } = data.overlaps, start = data.shared.pointer[rowOfEntry(entry)];
  for (let index = pointer[entry]; index < pointer[entry + 1]; index++) {
    const gene = data.shared.gene[start + position[index]];
    if (parts.length) parts.push(", ");
    parts.push(marked(meta.term_genes[gene], view.found?.termGenes?.[gene]));
  }
  const left = data.terms.overlap[entry] - (pointer[entry + 1] - pointer[entry]);
  return left > 0 ? [...parts, " and " + left + " more"] : parts;
}

// The feature that an entry belongs to: the last one whose entries begin at or before it.
function rowOfEntry(entry) {
  const { pointer } = data.terms;
  let low = 0, high = data.n - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (pointer[middle] <= entry) low = middle; else high = middle - 1;
  }
  return low;
}

// The more specific term whose genes explain this one.
function explanation(entry) {
  const code = data.terms.explained[entry];
  if (code < 0) return [];
  const id = meta.explaining[code], known = meta.term_ids.indexOf(id);
  const text = "Explained by the more specific " + (known >= 0 ? meta.terms[known] : id) + ".";
  return [element("tr", { class: "explained" }, element("td", { colspan: 4 }, text))];
}
