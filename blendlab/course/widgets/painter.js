// A painter over a picture: a mask, colour scribbles, or cells of a grid; by mouse, touch, pen or keys.
// The layer keeps its own resolution, however large it is shown. Python gets it when a stroke ends.

const KEYS = {
  e: "erase", i: "invert", "+": "grow", "-": "shrink", "[": "smaller", "]": "larger",
  Delete: "clear", Backspace: "clear",
};
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { mask: ["erase", "soft"], scribble: ["erase"], cells: [] };
const BUTTONS = { mask: ["invert", "grow", "shrink"], scribble: [], cells: ["invert"] };
const TITLES = {
  undo: "Undo (Ctrl+Z)", redo: "Redo (Ctrl+Y)", clear: "Unpaint everything (Delete)",
  invert: "Swap painted and unpainted (I)",
  grow: "Wider by a pixel (+)", shrink: "Narrower by a pixel (-)",
  erase: "Erase instead of painting (E)", soft: "A brush with a soft edge, which paints greys",
};
const HINTS = {
  mask: "Arrows move the brush (Shift: further), Space paints, E erases, [ ] size, Ctrl+Z undo, " +
    "Ctrl+Y redo, Delete clears, I inverts, + grows, - shrinks.",
  scribble: "Arrows move the brush (Shift: further), Space paints, E erases, [ ] size, Ctrl+Z undo, " +
    "Ctrl+Y redo, Delete clears.",
  cells: "Arrows move to a cell (Shift: further), Space picks or drops it, Ctrl+Z undo, Ctrl+Y redo, " +
    "Delete clears, I inverts.",
};

function render({ model, el }) {
  const mode = model.get("mode"), cells = mode === "cells", scribble = mode === "scribble";
  let layer, at; // at: where the brush is, in pixels of the layer
  let pen = null; // the stroke that is being drawn
  let past = [], future = [], sending = false;

  // What is seen.
  const [foot, status, hint] = footer(HINTS[mode]);
  const picture = make("img", { alt: "", draggable: "false" });
  const canvas = make("canvas", { tabindex: 0, role: "application", "aria-describedby": hint });
  const ring = make("div", { class: "bl-ring", "aria-hidden": "true" });
  const grid = make("div", { class: "bl-grid", "aria-hidden": "true", hidden: cells ? null : "" });
  const stage = make("div", { class: "bl-stage" }, picture, canvas, grid, ring);
  const size = make("input", { type: "range", class: "bl-size", min: 1 });
  const colour = make("input", { type: "color", class: "bl-colour" });
  const buttons = {};
  for (const name of [...TOOLS[mode], "undo", "redo", "clear", ...BUTTONS[mode]]) {
    const press = () => actions[name]();
    const attributes = { type: "button", class: "bl-" + name, title: TITLES[name], onclick: press };
    buttons[name] = make("button", attributes, name[0].toUpperCase() + name.slice(1));
  }
  const row = (...children) => make("div", { class: "bl-row" }, ...children);
  const brush = [...TOOLS[mode].map((name) => buttons[name]), make("label", {}, "Size", size)];
  if (scribble) brush.push(make("label", {}, "Colour", colour));
  const others = Object.keys(buttons).filter((name) => !TOOLS[mode].includes(name));
  const rows = [...(cells ? [] : [row(...brush)]), row(...others.map((name) => buttons[name]))];
  root(el, "painter", ...rows, stage, foot);

  function report(where = "") {
    const picked = `${layer.painted} of ${layer.cover.length} cells`;
    status.textContent = where + (cells ? picked : `${layer.share} painted`);
    buttons.undo.disabled = !past.length;
    buttons.redo.disabled = !future.length;
  }

  function aim() {
    const side = cells ? 1 : 2 * radius(), [x, y] = snapped(at);
    const percent = (value, full) => (100 * value) / full + "%";
    ring.style.left = percent(x - side / 2, layer.width);
    ring.style.top = percent(y - side / 2, layer.height);
    ring.style.width = percent(side, layer.width);
    ring.style.height = percent(side, layer.height);
  }

  // What can be done, by a button or a key.
  function remember() {
    past = [...past.slice(-29), layer.copy];
    future = [];
  }
  function changed() {
    layer.draw(canvas);
    report();
    sending = true;
    send(model, { _layer: new DataView(layer.copy.buffer) });
    sending = false;
  }
  function act(change) {
    remember();
    change();
    changed();
  }
  function travel(from, to) {
    if (!from.length) return;
    to.push(layer.copy);
    layer.data.set(from.pop());
    changed();
  }
  function resize(change) {
    send(model, { brush: clamp(Math.round(model.get("brush") + change), 1, +size.max) });
  }
  const actions = {
    undo: () => travel(past, future),
    redo: () => travel(future, past),
    clear: () => act(() => layer.data.fill(0)),
    invert: () => act(() => layer.invert()),
    grow: () => act(() => layer.morph(Math.max)),
    shrink: () => act(() => layer.morph(Math.min)),
    erase: () => send(model, { erase: !model.get("erase") }),
    soft: () => send(model, { soft: !model.get("soft") }),
    larger: () => resize(Math.ceil(model.get("brush") / 8)),
    smaller: () => resize(-Math.ceil(model.get("brush") / 8)),
  };
  size.addEventListener("input", () => send(model, { brush: +size.value }));
  colour.addEventListener("input", () => send(model, { colour: colour.value }));

  // A stroke: from down, over move, to up. Thin brushes and cells go from middle to middle of pixels.
  const radius = () => (cells ? 0.5 : Math.max(0.5, model.get("brush") / 2));
  const snapped = (point) => (radius() < 1 ? point.map((value) => Math.floor(value) + 0.5) : point);
  const rgb = () => [1, 3, 5].map((i) => parseInt(model.get("colour").slice(i, i + 2), 16));
  function down(id, erase) {
    const [x, y] = at.map(Math.floor), picked = layer.cover[y * layer.width + x] > 0;
    pen = { id, erase: cells ? picked : erase || model.get("erase"), soft: !cells && model.get("soft") };
    if (scribble) pen.colour = rgb();
    pen.at = at;
    remember();
    layer.begin();
    move();
  }
  function move() {
    layer.draw(canvas, layer.line(snapped(pen.at), snapped(at), radius(), pen));
    pen.at = at;
  }
  function up(id) {
    if (pen?.id !== id) return;
    pen = null;
    changed();
  }

  // Mouse, touch and pen.
  function place(event) {
    const box = canvas.getBoundingClientRect();
    at = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    at = [at[0] * layer.width, at[1] * layer.height];
  }
  canvas.addEventListener("pointerdown", (event) => {
    up("keys");
    if (pen || ![0, 5].includes(event.button)) return;
    canvas.setPointerCapture(event.pointerId);
    place(event);
    down(event.pointerId, event.button === 5); // the other end of a pen
  });
  canvas.addEventListener("pointermove", (event) => {
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const each of passed.length ? passed : [event]) {
      place(each);
      if (pen?.id === event.pointerId) move();
    }
    aim();
  });
  canvas.addEventListener("pointerup", (event) => up(event.pointerId));
  canvas.addEventListener("pointercancel", (event) => up(event.pointerId));

  // Keys.
  function step([x, y], far) {
    const pixels = far ? Math.ceil(layer.width / 16) * (cells ? 4 : 1) : 1;
    const moved = (value, by, full) => clamp(value + pixels * by, 0.5, full - 0.5);
    at = [moved(at[0], x, layer.width), moved(at[1], y, layer.height)];
    if (pen?.id === "keys") move();
    aim();
    report(`column ${Math.floor(at[0]) + 1}, row ${Math.floor(at[1]) + 1}; `);
  }
  canvas.addEventListener("keydown", (event) => {
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const travels = { z: event.shiftKey ? "redo" : "undo", y: "redo" };
    const name = event.ctrlKey || event.metaKey ? travels[key] : KEYS[key];
    if (ARROWS[key]) step(ARROWS[key], event.shiftKey);
    else if (key === " ") pen || down("keys", false);
    else if (buttons[name] || (!cells && ["larger", "smaller"].includes(name))) pen || actions[name]();
    else return;
    event.preventDefault();
  });
  canvas.addEventListener("keyup", (event) => event.key === " " && up("keys"));
  canvas.addEventListener("blur", () => up("keys"));

  // What Python sets.
  const ends = [
    follow(model, ["_size"], () => {
      const [width, height] = model.get("_size");
      layer = new Layer(width, height, mode);
      [past, future, pen, at] = [[], [], null, [width / 2, height / 2]];
      Object.assign(canvas, { width, height });
      size.max = Math.ceil(Math.max(width, height) / 2);
      grid.style.backgroundSize = `${100 / width}% ${100 / height}%`;
    }),
    follow(model, ["_size", "shown"], () => {
      const [, , across, down] = model.get("_size"), shown = model.get("shown");
      Object.assign(stage.style, { width: shown + "px", aspectRatio: `${across} / ${down}` });
      stage.classList.toggle("bl-sharp", across * 2 <= shown);
    }),
    follow(model, ["_layer", "_size"], () => {
      const view = model.get("_layer");
      const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
      if (sending || bytes.length !== layer.data.length) return;
      if (!layer.equals(bytes)) {
        pen = null;
        remember();
        layer.data.set(bytes);
      }
      layer.draw(canvas);
      report();
    }),
    follow(model, ["brush"], () => { size.value = model.get("brush"); aim(); }),
    follow(model, ["_image"], () => show(picture, model.get("_image"))),
    follow(model, ["label"], () => canvas.setAttribute("aria-label", model.get("label"))),
    follow(model, ["colour"], () => (colour.value = model.get("colour"))),
    follow(model, ["erase"], () => buttons.erase?.setAttribute("aria-pressed", model.get("erase"))),
    follow(model, ["soft"], () => buttons.soft?.setAttribute("aria-pressed", model.get("soft"))),
  ];
  past = []; // the mask that the widget starts with is no change
  report();
  return () => ends.forEach((end) => end());
}
export default { render };
