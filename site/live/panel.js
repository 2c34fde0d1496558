// The panel of the front page: a scene, a mask painted over it, words, the edit as it appears.
// Painter and viewer are the notebooks' widgets; a Model stands for what Jupyter gives them.

import painter from "./painter.mjs";
import viewer from "./viewer.mjs";

class Model {
  constructor(values) {
    Object.assign(this, { values, listeners: {} });
  }
  get(name) {
    return this.values[name];
  }
  set(name, value) {
    if (this.values[name] === value) return;
    this.values[name] = value;
    (this.listeners["change:" + name] ?? []).slice().forEach((listener) => listener());
  }
  put(values) {
    for (const name in values) this.set(name, values[name]);
  }
  on(events, listener) {
    for (const event of events.split(" ")) (this.listeners[event] ??= []).push(listener);
  }
  off(events, listener) {
    for (const event of events.split(" ")) {
      this.listeners[event] = this.listeners[event].filter((one) => one !== listener);
    }
  }
  save_changes() {}
}

function make(tag, attributes = {}, ...children) {
  const element = Object.assign(document.createElement(tag), attributes);
  element.append(...children);
  return element;
}

// Pictures: files to numbers in [-1, 1], and back to files.
const bytesOf = async (url) => new Uint8Array(await (await fetch(url)).arrayBuffer());

async function pixelsOf(bytes) {
  const bitmap = await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none" });
  const canvas = make("canvas", { width: bitmap.width, height: bitmap.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height).data; // red, green, blue, alpha
}

function planes(pixels) {
  const area = pixels.length / 4;
  return Float32Array.from({ length: 3 * area }, (_, i) =>
    pixels[4 * (i % area) + Math.floor(i / area)] / 127.5 - 1);
}

async function png(picture, size) {
  const canvas = make("canvas", { width: size, height: size }), seen = new ImageData(size, size);
  const area = size * size;
  for (let i = 0; i < 4 * area; i++) {
    seen.data[i] = i % 4 === 3 ? 255 : Math.round((picture[(i % 4) * area + (i >> 2)] + 1) * 127.5);
  }
  canvas.getContext("2d").putImageData(seen, 0, 0);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve));
  return new Uint8Array(await blob.arrayBuffer());
}

const NOTHING = new Uint8Array(0);
const article = (word) => (/^[aeiou]/.test(word) ? "an" : "a");

async function build(place) {
  const base = new URL(".", import.meta.url), file = (name) => new URL(name, base);
  const world = await (await fetch(file("model.json"))).json(), { size } = world;
  const shown = size * Math.max(1, Math.round(340 / size)); // whole factors, so that pixels are squares
  place.style.setProperty("--shown", shown + "px");
  const megabytes = (bytes) => (bytes / 1e6).toFixed(1);

  // The two widgets.
  const paint = new Model({
    mode: "mask", _size: [size, size, size, size], shown, brush: Math.round(size / 8),
    erase: false, soft: false, colour: "#d9722e", label: "The scene: paint where to edit",
    _layer: new DataView(new ArrayBuffer(size * size)), _image: NOTHING,
  });
  const film = new Model({
    film: [], picture: NOTHING, preview: NOTHING, before: NOTHING, busy: false, done: 0,
    status: "", error: "", label: "The edited scene", shown, table: "",
  });
  const left = make("section", { className: "live-paint" }, make("h3", {}, "Paint where to edit"));
  const empty = make("p", { className: "live-empty" }, "The edit appears here, step by step.");
  const right = make("section", { className: "live-result" }, make("h3", {}, "Watch the edit"), empty);
  painter.render({ model: paint, el: left });
  viewer.render({ model: film, el: right });

  // The scenes.
  const scenes = make("fieldset", { className: "live-scenes" }, make("legend", {}, "Choose a scene"));
  for (const scene of world.scenes) {
    const picture = make("img", { src: file(`scenes/${scene.name}.png`), alt: scene.name });
    const pick = make("input", { type: "radio", name: "live-scene", value: scene.name });
    pick.addEventListener("change", () =>
      choose(scene).catch((error) => film.put({ error: error.message })));
    scenes.append(make("label", { title: scene.caption }, pick, picture));
  }

  // The words.
  const words = make("input", { type: "text", id: "live-words", autocomplete: "off", spellcheck: false });
  const seed = make("input", { type: "number", min: 0, max: 999999, value: 0 });
  const edit = make("button", { type: "submit", className: "live-edit" }, "Edit");
  const stop = make("button", { type: "button", disabled: true }, "Stop");
  const chips = (name, list) => {
    const group = make("div", { className: "live-chips", role: "group", ariaLabel: name });
    for (const word of list) {
      const chip = make("button", { type: "button", value: word }, word);
      if (name === "Colours") chip.prepend(make("span", { className: `live-dot live-${word}` }));
      chip.addEventListener("click", () => say(word));
      group.append(chip);
    }
    return group;
  };
  const colours = chips("Colours", world.colours), kinds = chips("Objects", world.kinds);
  const asked = make("form", { className: "live-words" },
    make("h3", {}, make("label", { htmlFor: "live-words" }, "Choose words")),
    colours, kinds,
    make("div", { className: "live-row" }, words,
      make("label", {}, "Seed", seed), edit, stop));
  const note = make("p", { className: "live-note" });
  place.replaceChildren(make("div", { className: "live-grid" }, scenes, left, asked, right, note));

  const said = (list) => list.find((word) => words.value.toLowerCase().split(/\W+/).includes(word));
  function say(word) {
    const colour = world.colours.includes(word) ? word : said(world.colours);
    const kind = world.kinds.includes(word) ? word : said(world.kinds);
    const both = [colour, kind].filter(Boolean);
    words.value = [article(both[0]), ...both].join(" ");
    press();
  }
  function press() {
    for (const [group, list] of [[colours, world.colours], [kinds, world.kinds]]) {
      const one = said(list);
      for (const chip of group.children) chip.ariaPressed = String(chip.value === one);
    }
  }
  words.addEventListener("input", press);

  let source = null, scene = null;
  async function choose(chosen) {
    finish();
    scene = chosen;
    const picture = await bytesOf(file(`scenes/${chosen.name}.png`));
    const mask = await pixelsOf(await bytesOf(file(`masks/${chosen.name}.png`)));
    if (scene !== chosen) return; // another was picked meanwhile
    finish(); // of an edit of the scene before, begun meanwhile
    source = { bytes: picture, pixels: planes(await pixelsOf(picture)) };
    paint.put({ _image: picture });
    paint.put({ _layer: new DataView(mask.filter((_, i) => i % 4 === 0).buffer) });
    film.put({ film: [], picture: NOTHING, before: NOTHING, status: "", error: "" });
    empty.hidden = false;
    words.value = chosen.prompt;
    press();
  }

  // The worker, started at the first touch, so that a reader who does not play loads nothing.
  let worker = null, frames = [], began = 0, wanted = 0;
  function start() {
    if (worker) return;
    worker = new Worker(file("worker.js"), { type: "module" });
    worker.onmessage = ({ data }) => { // late answers are of an edit that is not wanted any more
      if (data.edit === undefined || data.edit === wanted) answers[data.kind](data);
    };
    worker.onerror = () => {
      worker?.terminate();
      worker = null; // the next press tries again
      answers.error({ text: "This browser cannot run the model: try a newer one." });
    };
    worker.postMessage({ kind: "load" });
  }
  function finish(values = {}) {
    wanted++;
    worker?.postMessage({ kind: "stop" });
    edit.disabled = false;
    stop.disabled = true;
    place.dataset.state = "idle";
    film.put({ preview: NOTHING, busy: false, ...values });
  }
  const answers = {
    loading: ({ loaded, total }) => edit.disabled && film.put({
      done: loaded / total, status: `Loading the model, ${megabytes(loaded)} of ${megabytes(total)} MB`,
    }),
    starting: () => edit.disabled && film.put({ done: null, status: "Starting the model" }),
    ready: () => (place.dataset.loaded = "true"),
    begun: () => {
      began = performance.now();
      film.put({ done: 0, status: "Reading the words" });
    },
    step: async ({ i, of, picture }) => {
      film.put({ done: i / of, status: `Step ${i} of ${of}` });
      if (!picture) return;
      const number = wanted, frame = await png(picture, size);
      if (number !== wanted) return;
      frames.push(frame);
      empty.hidden = true;
      film.put({ preview: frame });
    },
    done: async ({ of, picture, on }) => {
      const number = wanted, seconds = ((performance.now() - began) / 1000).toFixed(1);
      const result = await png(picture, size);
      if (number !== wanted) return;
      empty.hidden = true;
      film.put({ before: source.bytes, film: frames, picture: result });
      const where = on === "webgpu" ? " on the graphics card" : "";
      finish({ status: `${of} steps in ${seconds} s${where}` });
      place.dataset.state = "done";
    },
    error: ({ text }) => finish({ error: text, status: "" }),
  };
  asked.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!source || edit.disabled) return;
    start();
    finish();
    frames = [];
    [edit.disabled, stop.disabled, place.dataset.state] = [true, false, "busy"];
    film.put({ film: [], error: "", busy: true, done: null, status: "Waiting for the model" });
    right.scrollIntoView({ block: "nearest" });
    const view = paint.get("_layer");
    const mask = Float32Array.from({ length: size * size }, (_, i) => +(view.getUint8(i) > 127));
    worker.postMessage({
      kind: "edit", edit: wanted, picture: source.pixels, mask, words: words.value,
      seed: Math.trunc(+seed.value) || 0,
    });
  });
  stop.addEventListener("click", () => {
    finish({ status: "Stopped" });
    edit.focus();
  });
  for (const event of ["pointerdown", "keydown"]) place.addEventListener(event, start, { once: true });

  const all = Object.values(world.networks).reduce((sum, bytes) => sum + bytes, world.runtimes.wasm);
  note.textContent = `Everything runs in this tab: ${Math.round(all / 1e6)} MB load at the first touch, ` +
    "and nothing is sent anywhere. Outside the mask the scene stays as it is, pixel for pixel.";
  scenes.querySelector("input").checked = true;
  await choose(world.scenes[0]);
  place.dataset.state = "idle";
}

/** WebAssembly has threads only on a page that its server isolates. A plain file server does not, so a
 * service worker adds the headers, and the page is loaded once more; true while that is under way. */
async function isolating() {
  const once = "blendlab-isolated", workers = navigator.serviceWorker;
  if (self.crossOriginIsolated || !workers || sessionStorage.getItem(once)) return false;
  sessionStorage.setItem(once, "tried");
  const at = new URL("../isolate.js", import.meta.url);
  const registered = await workers.register(at).then(() => workers.ready).catch(() => null);
  if (registered) location.reload();
  return Boolean(registered);
}

const place = document.getElementById("live");
try {
  if (!(await isolating().catch(() => false))) await build(place); // storage may be blocked
} catch (error) {
  place.textContent = `The panel could not start: ${error.message}`;
}
