// The panel of concept vectors: which concepts layers know, where in an item, and which concepts a feature is part of.

const KNOWN_TEXT = { beyond: "beyond composition", composition: "beyond chance alone", chance: "no", untested: "not tested" };

function featureButton(layer, feature, weight) {
  return element("button", { type: "button", class: "find", title: "Show feature " + feature + " of layer " + layer,
    onclick: () => { const row = rowOf(layer, feature); if (row !== undefined) open(row, true); } }, feature + " (" + decimal(weight, 2) + ")");
}

function stripElement(example) {
  const letters = example.units.every((unit) => unit.length === 1);
  const made = example.units.map((unit, index) => {
    const level = example.levels[index] / 99;
    const classes = [example.span[index] === "1" ? "in-span" : "", example.window[index] === "1" ? "in-window" : ""].join(" ").trim();
    const token = element("span", { class: classes, title: nouns.token + " " + (example.start + index) }, letters ? unit : unit + " ");
    if (level) token.style.backgroundColor = (level > 0 ? "rgba(230, 97, 0, " : "rgba(0, 114, 178, ") + (0.75 * Math.abs(level)).toFixed(2) + ")";
    return token;
  });
  return element("div", { class: "example" },
    element("div", { class: "example-head" }, element("span", { class: "example-name", title: example.item }, example.choice + " · " + example.item),
      element("span", { class: "soft" }, "IoU " + decimal(example.iou ?? NaN, 2))),
    element("div", { class: "window" }, ...made));
}

function conceptPictures(concept) {
  const box = element("details", { class: "concept-pictures" }, element("summary", {}, concept.name + ", layer " + concept.layer));
  // Drawn when it is opened: a page has thousands of tokens of them.
  box.addEventListener("toggle", () => { if (box.open && box.children.length === 1) box.append(...concept.examples.map(stripElement)); });
  return box;
}

const maybe = (value, places) => decimal(value ?? NaN, places);

function conceptVectorsTable(concepts) {
  const number = (title) => ({ title, number: true });
  const located = concepts.some((concept) => concept.iou !== null);
  const titles = [{ title: "Concept" }, { title: "Kind" }, number("Layer"), number("AUROC"), number("95 %"), number("composition"), number("chance"), number("q"),
    ...(located ? [number("IoU"), number("ceiling"), number("random")] : []), { title: "Known" }, { title: "Features (weight)" }];
  const rows = concepts.map((concept) => [
    concept.name, { label: nouns.label, span: nouns.span }[concept.kind] || concept.kind, String(concept.layer), maybe(concept.auroc, 2), concept.low === null ? NONE : maybe(concept.low, 2) + " to " + maybe(concept.high, 2),
    maybe(concept.composition, 2), maybe(concept.chance, 2), probability(concept.log10q ?? NaN),
    ...(located ? [maybe(concept.iou, 2), maybe(concept.ceiling, 2), maybe(concept.random, 2)] : []), KNOWN_TEXT[concept.verdict],
    concept.features.length ? concept.features.flatMap(([feature, weight]) => [featureButton(concept.layer, feature, weight), " "]) : [NONE],
  ]);
  return table(titles, rows);
}

function conceptVectorsOverview() {
  const concepts = meta.concept_vectors, pictured = concepts.filter((concept) => concept.examples.length);
  const beyond = concepts.filter((concept) => concept.verdict === "beyond").length, tested = concepts.filter((concept) => concept.verdict !== "untested").length;
  const made = [element("summary", {}, "What layers know: " + beyond + " of " + tested + " concepts, beyond chance and beyond composition"),
    element("p", { class: "note" }, "Each concept's vector in its best layer, on held-out " + nouns.items + ". Chance: shuffled or random concepts. Composition: which " + nouns.units +
      " there are, without the model. q counts all concepts and layers. Features: those whose sum carries the vector better than it would a random direction."),
    element("div", { class: "scroll-x" }, Object.assign(conceptVectorsTable(concepts), { id: "concept-vectors" })),
    ...inferenceNote("concept_vectors")];
  if (pictured.length) {
    made.push(element("p", { class: "note" }, "Examples: orange where the score is above the " + nouns.item + "'s mean, blue below; line below: annotated " + nouns.span +
      "; line above: window chosen."), ...pictured.map(conceptPictures), ...inferenceNote("concept_localisation"));
  }
  return element("details", { id: "concept-vectors-box" }, ...made);
}

function carriesSection(row) {
  const { concept, weight, carried, pointer } = data.carries, rows = [];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    rows.push([meta.carried_concepts[concept[entry]], decimal(weight[entry], 2), carried[entry] ? "yes" : "no"]);
  }
  if (!rows.length) return element("section", { id: "panel-carries" });
  return element("section", { id: "panel-carries" }, element("h3", {}, "Concept vectors that it is part of"),
    table([{ title: "Concept" }, { title: "Weight", number: true }, { title: "Better than a random direction" }], rows), ...inferenceNote("concept_features"));
}

addPanel({
  order: 8,
  applies: () => meta.concept_vectors.length > 0,
  lists: { carries: ["length", "concept", "weight", "carried"] },
  overview: () => [conceptVectorsOverview()],
  section: carriesSection,
});
