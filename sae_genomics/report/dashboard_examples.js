// The panel of strongest examples: the residues of each window, coloured by activation.

// Codes below 128 are letters of ASCII; others number the names of word pieces.
function unitText(code) {
  return code < 128 ? String.fromCharCode(code) : meta.window_units[code - 128];
}

function windowElement(entry) {
  const { start, position, largest } = data.examples, { letter, level, pointer } = data.windows;
  const first = pointer[entry], stop = pointer[entry + 1], made = [];
  for (let index = first; index < stop; index++) {
    const number = start[entry] + index - first, share = level[index] / 255;
    const value = share ? ": activation " + short(share * largest[entry]) : "";
    const residue = element("span", { class: number === position[entry] ? "strongest" : "", title: nouns.token + " " + number + value }, unitText(letter[index]));
    if (share) residue.style.backgroundColor = "rgba(230, 97, 0, " + (0.12 + 0.68 * share).toFixed(2) + ")";
    made.push(residue);
  }
  return element("div", { class: "window" }, ...made);
}

function examplesSection(row) {
  const { item, name, concepts, largest, position, start, pointer } = data.examples, made = [element("h3", {}, "Strongest examples")];
  for (let entry = pointer[row]; entry < pointer[row + 1]; entry++) {
    const length = data.windows.pointer[entry + 1] - data.windows.pointer[entry];
    const title = [meta.items[item[entry]], name[entry] >= 0 ? meta.item_names[name[entry]] : ""].filter(Boolean).join(" ");
    made.push(element("div", { class: "example" },
      element("div", { class: "example-head" }, element("span", { class: "example-name", title }, title), element("span", { class: "soft" }, short(largest[entry]))),
      windowElement(entry),
      element("p", { class: "note" }, nouns.tokens + " " + start[entry] + " to " + (start[entry] + length - 1) + ", strongest at " + position[entry] +
        (concepts[entry] >= 0 ? " · " + meta.example_concepts[concepts[entry]] : ""))));
  }
  if (made.length === 1) made.push(element("p", { class: "note" }, "None: it never fires, or its examples are not in this page."));
  else made.push(element("p", { class: "note" }, "The " + nouns.items + " with its largest activation, one window each. Colour: activation, as a share of the window's largest; framed: the strongest " + nouns.token + "."));
  return element("section", { id: "panel-examples" }, ...made);
}

addPanel({
  order: 7,
  applies: () => meta.items.length > 0,
  lists: { examples: ["length", "item", "name", "concepts", "largest", "position", "start"], windows: ["length", "letter", "level"] },
  section: examplesSection,
});
