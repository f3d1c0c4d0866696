// The panel of interventions: what changes when a feature is taken out, beside four nulls, and how that goes with the dose.

const causalEntry = (list, row, visit) => { for (let entry = list.pointer[row]; entry < list.pointer[row + 1]; entry++) visit(entry); };

function causalOutcome(entry) {
  const list = data.causal, outcome = meta.causal_outcomes[list.outcome[entry]];
  const names = { token: nouns.kind === "cells" ? "expression" : "distribution", from_item: "expression, from embedding", embedding: "embedding" };
  return (names[outcome] || outcome) + (list.masked[entry] ? " (hidden)" : "");
}

function drawing(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// Own and matched targets by dose, as lines in a small picture; the numbers stand in the table below it.
function doseCurve(row) {
  const { dose, own, matched, off_target: off } = data.doses, points = [];
  causalEntry(data.doses, row, (entry) => points.push([dose[entry], own[entry], matched[entry], off[entry]]));
  if (points.length < 2) return [];
  const values = points.flatMap(([, one, other]) => [one, other]).filter(Number.isFinite), doses = points.map(([at]) => at);
  const low = Math.min(0, ...values), high = Math.max(0, ...values), span = high - low || 1, first = Math.min(...doses), width = Math.max(...doses) - first || 1;
  const x = (at) => 8 + 284 * (at - first) / width, y = (value) => 104 - 96 * (value - low) / span;
  const path = (index) => points.filter((point) => Number.isFinite(point[index])).map((point) => x(point[0]).toFixed(1) + "," + y(point[index]).toFixed(1)).join(" ");
  const line = (index, kind) => drawing("polyline", { points: path(index), fill: "none", class: "curve " + kind });
  const picture = drawing("svg", { viewBox: "0 0 300 112", class: "doses", role: "img", "aria-label": "effect on own and matched targets by dose" },
    drawing("line", { x1: 8, x2: 292, y1: y(0), y2: y(0), class: "zero" }), drawing("line", { x1: x(1), x2: x(1), y1: 8, y2: 104, class: "zero" }),
    line(2, "matched"), line(1, "own"), ...points.map(([at, value]) => drawing("circle", { cx: x(at), cy: y(value), r: 2.6, class: "own" })));
  const number = (title) => ({ title, number: true });
  return [
    element("h4", {}, "Dose and response"), picture,
    element("p", { class: "note" }, "Blue: own targets. Grey: matched targets. The dose multiplies the feature's activation: 1 changes nothing, 0 takes it out."),
    table([number("Dose"), number("Own"), number("Matched"), number("Off target")], points.map(([at, ...rest]) => [short(at), ...rest.map((value) => decimal(value, 3))])),
  ];
}

function causalSection(row) {
  const list = data.causal, rows = [], chances = [], columns = data.columns, number = (title) => ({ title, number: true });
  const nulls = ["p_direction", "p_feature", "p_permuted", "p_targets"], first = list.pointer[row];
  const log = (p) => probability(Math.log10(p));
  causalEntry(list, row, (entry) => {
    const interval = Number.isFinite(list.specificity_low[entry]) ? " (" + decimal(list.specificity_low[entry], 2) + " to " + decimal(list.specificity_high[entry], 2) + ")" : "";
    rows.push([causalOutcome(entry), decimal(list.effect_own[entry], 3), decimal(list.effect_matched[entry], 3), decimal(list.specificity[entry], 2) + interval]);
    chances.push([causalOutcome(entry), ...nulls.map((name) => log(list[name][entry])), probability(list.log10q[entry])]);
  });
  const reads = Number.isFinite(columns.reads[row])
    ? [element("p", {}, "Input score " + decimal(columns.reads[row], 2) + " (random directions " + decimal(columns.reads_random[row], 2) + ", q " + probability(columns.reads_log10q[row]) + "): how well the " +
      nouns.unit + " alone tells where it fires." + (columns.causal_role[row] >= 0 ? " It " + { reads: "reads", writes: "writes", both: "reads and writes", neither: "neither reads nor writes" }[meta.causal_roles[columns.causal_role[row]]] + "." : ""))]
    : [];
  const made = [element("h3", {}, "What it changes in the model"), ...reads];
  if (!rows.length) return element("section", { id: "panel-causal" }, ...made, element("p", { class: "note" }, "It was not taken out: the stage tests the features that one gradient ranks highest, and a few at random."));
  return element("section", { id: "panel-causal" }, ...made,
    element("p", { class: "note" }, { zero: "Taken out", mean: "Set to its mean at the " + nouns.unit, resample: "Set to its value at a random " + nouns.token + " of the same " + nouns.unit }[meta.causal_ablation] + " in " + list.n_items[first].toLocaleString("en") + " held-out " + nouns.items + ". Own and matched: change of what is predicted there, per unit of edit norm. " +
      "Hidden: the " + nouns.tokens + " looked at were hidden from the model."),
    table([{ title: "Predicted" }, number("Own"), number("Matched"), number("Specificity")], rows),
    element("p", { class: "note" }, "p against four nulls: " + meta.causal_nulls.join(", ") + ". q: of the largest."),
    table([{ title: "Predicted" }, number("Dir."), number("Feat."), number("Tok."), number("Targ."), number("q")], chances),
    ...inferenceNote("causal_features"), ...doseCurve(row));
}

addPanel({
  order: 50,
  applies: () => data.columns.causal_specificity.some(Number.isFinite) || data.columns.reads.some(Number.isFinite),
  columns: ["causal_specificity", "causal_log10q", "reads", "reads_random", "reads_log10q", "causal_role"],
  lists: {
    causal: ["length", "outcome", "masked", "effect_own", "effect_matched", "specificity", "specificity_low", "specificity_high", "p_direction", "p_feature", "p_permuted",
      "p_targets", "log10q", "n_items"],
    doses: ["length", "dose", "own", "matched", "off_target"],
  },
  listColumns: [
    { order: 50, key: "causal_log10q", title: "q (effect)", number: true, width: [5.8], narrow: [5.6], table: "causal_features",
      shown: () => data.columns.causal_log10q.some(Number.isFinite), hint: "q-value of what taking it out changes, against four nulls; only some features were taken out",
      show: (row) => probability(data.columns.causal_log10q[row]) },
  ],
  section: causalSection,
});
