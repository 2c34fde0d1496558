// What all widgets share; Python puts it before the widget's own file, as a widget is one module.

/** An element with attributes (those named on... are listeners) and children. Jupyter's shortcuts are
 * off in it: "d d" deletes a cell, and a shortcut may name the very element that has the focus. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  element.dataset.lmSuppressShortcuts = "true";
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

/** The widget's root, which has the theme and keeps its keys to itself. */
function root(el, name, ...children) {
  const frame = make("div", { class: `bl bl-${name}` });
  frame.addEventListener("keydown", (event) => event.stopPropagation());
  frame.append(...children);
  el.append(frame);
  return frame;
}

/** An id that no other element of the page has. */
const unique = () => "bl-" + Math.random().toString(36).slice(2);

/** What is said below a widget: its status, and its keys to unfold; [row, status, id of the keys]. */
function footer(keys) {
  const id = unique(), status = make("span", { class: "bl-status", role: "status" });
  const unfold = make("details", {}, make("summary", {}, "Keyboard"), make("p", { id }, keys));
  return [make("div", { class: "bl-row bl-footer" }, status, unfold), status, id];
}

/** Show bytes of a picture in an <img>; no bytes hide it. */
function show(img, bytes) {
  if (img.src) URL.revokeObjectURL(img.src);
  img.hidden = !bytes?.byteLength;
  if (img.hidden) img.removeAttribute("src");
  else img.src = URL.createObjectURL(new Blob([bytes]));
}

/** Call f now and whenever one of these traits changes; returns the function that ends it. */
function follow(model, names, f) {
  const events = names.map((name) => "change:" + name).join(" ");
  model.on(events, f);
  f();
  return () => model.off(events, f);
}

/** Send traits to Python. */
function send(model, traits) {
  for (const [name, value] of Object.entries(traits)) model.set(name, value);
  model.save_changes();
}

const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
