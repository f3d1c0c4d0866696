// The short name of a feature beside its number.

const anyNamed = () => Boolean(meta.names?.length);

function nameCell(row) {
  const name = data.columns.name[row];
  if (name < 0) return [element("span", { class: "soft" }, "unnamed"), ...otherMatch(row, false)];
  const match = view.found?.terms?.[data.columns.name_term[row]];
  return [marked(meta.names[name], match), ...otherMatch(row, match)];
}

// The name, what it was taken from, and the independent sources that agree.
function nameHeading(row) {
  if (!anyNamed()) return [];
  const { name, name_term: term, name_sources: agreeing, name_log10q: log10q } = data.columns;
  if (name[row] < 0) return [element("p", { id: "panel-name", class: "soft" }, "unnamed: no gene set passes")];
  const source = meta.sources[data.sets.source[term[row]]], id = meta.term_ids[term[row]];
  const others = (meta.name_sources[agreeing[row]] || "").split(",").filter((each) => each && each !== source);
  return [
    element("p", { id: "panel-name" }, element("strong", {}, meta.terms[term[row]]), " ",
      ...linkOut(pageOf(meta.term_links, id || meta.terms[term[row]], source), id || "↗", meta.terms[term[row]] + ", on the web: " + source)),
    element("p", { class: "note" }, "Named after " + source + ", q " + probability(log10q[row]) + " among genes of the same expression. " +
      (others.length ? "Independent sources that agree: " + others.join(", ") + "." : "No other independent source agrees.")),
  ];
}
