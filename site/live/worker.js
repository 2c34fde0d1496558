// Loads the networks and runs edits beside the page, which therefore never freezes.
// Takes {kind: "load"}, {kind: "edit", ...} and {kind: "stop"}; see panel.js for what it answers.

import { blendedLatent } from "./edit.js";
import { RUNTIMES, hasGPU, open } from "./networks.js";

const here = new URL(".", import.meta.url);
let running = 0; // the number of the edit that is wanted
let opened = null;

/** The model and its networks, on the graphics card where that works, else on the CPU. */
async function load() {
  const model = await (await fetched("model.json")).json();
  try {
    if (await hasGPU()) return [model, await loaded(model, "webgpu"), "webgpu"];
  } catch (error) {
    console.info(`Not on the graphics card: ${error.message}`);
  }
  return [model, await loaded(model, "wasm"), "wasm"];
}

async function loaded(model, on) {
  const { module, file } = RUNTIMES[on], sizes = { [file]: model.runtimes[on] };
  for (const name in model.networks) sizes[name + ".onnx"] = model.networks[name];
  const total = Object.values(sizes).reduce((a, b) => a + b);
  let sum = 0;
  const arrived = (bytes) => postMessage({ kind: "loading", loaded: (sum += bytes), total });

  const get = async (name) => [name, await whole(name, arrived)];
  const files = Object.fromEntries(await Promise.all(Object.keys(sizes).map(get)));
  postMessage({ kind: "starting" });
  const ort = await import(`./ort/${module}`);
  const cores = navigator.hardwareConcurrency, page = cores > 2 ? 1 : 0; // one for the page, of three or more
  const threads = self.crossOriginIsolated ? Math.min(4, cores - page) : 1;
  const wasmBinary = await unzipped(files[file]);
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: threads, wasmPaths: `${here}ort/` });
  const parts = Object.keys(model.networks).map((name) => [name, files[name + ".onnx"]]);
  return open(ort, model, Object.fromEntries(parts), on);
}

async function fetched(name) {
  const answer = await fetch(new URL(name, here));
  if (!answer.ok) throw new Error(`The server has no ${name}: build the site again with make site.`);
  return answer;
}

async function whole(name, arrived) {
  const parts = [], reader = (await fetched(name)).body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return new Uint8Array(await new Blob(parts).arrayBuffer());
    parts.push(value);
    arrived(value.length);
  }
}

async function unzipped(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** Load once; a load that failed is tried again. */
function networks() {
  opened ??= load().catch((error) => {
    opened = null;
    throw error;
  });
  return opened;
}

async function edit({ edit: asked, picture, mask, words, seed }, number) {
  const [model, nets, on] = await networks();
  if (number !== running) return;
  postMessage({ kind: "begun", edit: asked });
  for await (const { i, of, picture: seen } of blendedLatent(nets, model, picture, mask, words, seed)) {
    await new Promise((resolve) => setTimeout(resolve)); // a stop that has arrived comes first
    if (number !== running) return;
    postMessage({ kind: i === of ? "done" : "step", edit: asked, i, of, picture: seen, on });
  }
}

onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") await networks();
    if (data.kind === "load") postMessage({ kind: "ready" });
    if (data.kind === "stop") running++;
    if (data.kind === "edit") await edit(data, ++running);
  } catch (error) {
    postMessage({ kind: "error", edit: data.edit, text: error.message });
  }
};
