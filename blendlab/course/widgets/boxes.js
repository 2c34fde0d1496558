// Boxes over a picture: drag them, pull their corners; with the keyboard, arrows move and Shift resizes.
// A box is [left, top, right, bottom] in fractions; its corners lie between pixels.

const COLOURS = ["#2f6db5", "#b3551a", "#2f7d4c", "#8e5aa8", "#6b6b6b"]; // legible below white
const CORNERS = { nw: [0, 1], ne: [2, 1], sw: [0, 3], se: [2, 3] }; // the sides that a corner moves
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const HINT = "Tab goes to a box; arrows move it, with Shift they resize it, with Ctrl by ten pixels.";

function render({ model, el }) {
  const [foot, status, hint] = footer(HINT);
  const picture = make("img", { alt: "", draggable: "false" });
  const stage = make("div", { class: "bl-stage", role: "group" }, picture);
  root(el, "boxes", stage, foot);
  let boxes = []; // [{ name, box, element }]

  const snap = (value, axis) => Math.round(value * model.get("_size")[axis]) / model.get("_size")[axis];
  const pixel = (axis) => 1 / model.get("_size")[axis];
  /** Height over width, in fractions, that boxes keep; 0 for any. */
  function slope() {
    const [width, height] = model.get("_size"), aspect = model.get("aspect");
    return aspect ? width / height / aspect : 0;
  }

  function moved(box, x, y) {
    const dx = clamp(x, -box[0], 1 - box[2]), dy = clamp(y, -box[1], 1 - box[3]);
    const [left, top] = [snap(box[0] + dx, 0), snap(box[1] + dy, 1)];
    return [left, top, Math.min(1, left + box[2] - box[0]), Math.min(1, top + box[3] - box[1])];
  }

  /** Pull the sides i (left or right) and j (top or bottom); the opposite corner stays. */
  function pulled(box, [i, j], x, y) {
    const [sx, sy] = [i ? 1 : -1, j === 3 ? 1 : -1], [fx, fy] = [box[2 - i], box[4 - j]]; // what stays
    const room = [i ? 1 - fx : fx, j === 3 ? 1 - fy : fy], least = [2 * pixel(0), 2 * pixel(1)];
    let width = clamp(sx * (snap(box[i] + x, 0) - fx), least[0], room[0]);
    let height = clamp(sy * (snap(box[j] + y, 1) - fy), least[1], room[1]);
    if (slope()) {
      width = Math.min(Math.max(width, height / slope()), room[0], room[1] / slope());
      height = width * slope();
    }
    const next = [...box];
    [next[i], next[j]] = [clamp(fx + sx * width, 0, 1), clamp(fy + sy * height, 0, 1)];
    return next;
  }

  function draw({ name, box, element }) {
    const percent = (value) => 100 * value + "%";
    const [left, top, right, bottom] = box;
    Object.assign(element.style, { left: percent(left), top: percent(top) });
    Object.assign(element.style, { width: percent(right - left), height: percent(bottom - top) });
    const [width, height] = model.get("_size"), pixels = (share, side) => Math.round(share * side);
    const size = `${pixels(right - left, width)} x ${pixels(bottom - top, height)} pixels`;
    const words = `${name}: ${size}, ${pixels(left, width)} from the left, ` +
      `${pixels(top, height)} from the top`;
    element.setAttribute("aria-label", words);
    return words;
  }

  function change(one, box) {
    one.box = box;
    status.textContent = draw(one);
  }

  const sent = () => send(model, { _boxes: boxes.map(({ name, box }) => [name, box]) });

  /** Let one follow the pointer from where it was pressed; corner is null for the whole box. */
  function drag(event, one, corner) {
    if (event.button > 0) return;
    event.preventDefault();
    event.stopPropagation();
    one.element.focus();
    const handle = event.currentTarget, start = one.box;
    const { width, height } = stage.getBoundingClientRect();
    handle.setPointerCapture(event.pointerId);
    handle.onpointermove = (now) => {
      const by = [(now.clientX - event.clientX) / width, (now.clientY - event.clientY) / height];
      change(one, corner ? pulled(start, corner, ...by) : moved(start, ...by));
    };
    handle.onpointerup = handle.onpointercancel = () => {
      handle.onpointermove = handle.onpointerup = handle.onpointercancel = null;
      if (one.box !== start) sent();
    };
  }

  function key(event, one) {
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const far = event.ctrlKey || event.metaKey ? 10 : 1;
    const by = arrow.map((direction, axis) => direction * far * pixel(axis));
    change(one, event.shiftKey ? pulled(one.box, CORNERS.se, ...by) : moved(one.box, ...by));
    sent();
  }

  function build([name, box], i) {
    const one = { name, box };
    const handles = Object.entries(CORNERS).map(([corner, sides]) => make("span", {
      class: "bl-corner bl-" + corner, onpointerdown: (event) => drag(event, one, sides),
    }));
    one.element = make("div", {
      class: "bl-box", tabindex: 0, role: "application",
      "aria-roledescription": "box", "aria-describedby": hint,
      style: `--bl-box: ${COLOURS[i % COLOURS.length]}`,
      onpointerdown: (event) => drag(event, one, null), onkeydown: (event) => key(event, one),
    }, make("span", { class: "bl-name" }, name), ...handles);
    draw(one);
    return one;
  }

  const ends = [
    follow(model, ["_size", "shown"], () => {
      const [width, height] = model.get("_size"), shown = model.get("shown");
      Object.assign(stage.style, { width: shown + "px", aspectRatio: `${width} / ${height}` });
      stage.classList.toggle("bl-sharp", width * 2 <= shown);
    }),
    follow(model, ["_boxes", "_size"], () => {
      const given = model.get("_boxes");
      if (given.length === boxes.length && given.every(([name], i) => name === boxes[i].name)) {
        given.forEach(([, box], i) => draw(Object.assign(boxes[i], { box }))); // keeps the focus
        return;
      }
      boxes.forEach(({ element }) => element.remove());
      boxes = given.map(build);
      stage.append(...boxes.map(({ element }) => element));
    }),
    follow(model, ["_image"], () => show(picture, model.get("_image"))),
    follow(model, ["label"], () => stage.setAttribute("aria-label", model.get("label"))),
  ];
  return () => ends.forEach((end) => end());
}
export default { render };
