// A table whose cells are buttons; Python hears which one is pressed.

function render({ model, el }) {
  const caption = make("caption"), head = make("thead"), body = make("tbody");
  const table = make("table", { class: "bl-numbers" }, caption, head, body);
  root(el, "table-picker", make("div", { class: "bl-table" }, table));
  let buttons = []; // [row][column], null where a cell is empty

  function build() {
    const columns = model.get("_columns"), rows = model.get("_rows");
    const names = columns.map((name) => make("th", { scope: "col" }, name));
    head.replaceChildren(make("tr", {}, make("td"), ...names));
    buttons = model.get("_cells").map((texts, i) => texts.map((text, j) => text ? make("button", {
      type: "button", "aria-label": `${rows[i]}, ${columns[j]}: ${text}`,
      onclick: () => send(model, { _at: [i, j] }), onkeydown: (event) => walk(event, i, j),
    }, text) : null));
    body.replaceChildren(...buttons.map((row, i) => make("tr", {},
      make("th", { scope: "row" }, rows[i]),
      ...row.map((button) => make("td", {}, button ?? "")))));
  }

  /** Arrows go to the next button that way, past empty cells; Tab passes the table in one step. */
  function walk(event, i, j) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const step = steps[event.key];
    if (!step) return;
    event.preventDefault();
    do [i, j] = [i + step[0], j + step[1]];
    while (buttons[i]?.[j] === null);
    reach(buttons[i]?.[j]);
  }

  function reach(button) {
    if (!button) return;
    buttons.flat().forEach((one) => one && (one.tabIndex = one === button ? 0 : -1));
    button.focus();
  }

  function mark() {
    const [row, column] = model.get("_at");
    buttons.forEach((list, i) => list.forEach((button, j) => {
      if (!button) return;
      button.setAttribute("aria-pressed", i === row && j === column);
      button.tabIndex = i === row && j === column ? 0 : -1;
    }));
  }

  const ends = [
    follow(model, ["label"], () => (caption.textContent = model.get("label"))),
    follow(model, ["_rows", "_columns", "_cells"], () => { build(); mark(); }),
    follow(model, ["_at"], mark),
  ];
  return () => ends.forEach((end) => end());
}
export default { render };
