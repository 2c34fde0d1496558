// Loads the networks and runs edits beside the page, which therefore never freezes.
// Takes {kind: "load"}, {kind: "edit", ...} and {kind: "stop"}; see panel.js for what it answers.

import * as ort from "./ort/ort.wasm.min.mjs";
import { blendedLatent } from "./edit.js";
import { open } from "./networks.js";

const here = new URL(".", import.meta.url);
let running = 0; // the number of the edit that is wanted
let opened = null;

async function load() {
  const model = await (await fetched("model.json")).json();
  const sizes = { "runtime.bin": model.runtime };
  for (const name in model.networks) sizes[name + ".onnx"] = model.networks[name];
  const total = Object.values(sizes).reduce((sum, size) => sum + size);
  let loaded = 0;
  const arrived = (bytes) => postMessage({ kind: "loading", loaded: (loaded += bytes), total });

  const get = async (name) => [name, await whole(name, arrived)];
  const files = Object.fromEntries(await Promise.all(Object.keys(sizes).map(get)));
  postMessage({ kind: "starting" });
  const spare = Math.min(4, navigator.hardwareConcurrency - 1); // one core is the page's
  const threads = self.crossOriginIsolated ? Math.max(1, spare) : 1;
  const wasmBinary = await unzipped(files["runtime.bin"]);
  Object.assign(ort.env.wasm, { wasmBinary, numThreads: threads, wasmPaths: `${here}ort/` });
  const parts = Object.keys(model.networks).map((name) => [name, files[name + ".onnx"]]);
  return [model, await open(ort, model, Object.fromEntries(parts))];
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

async function edit({ picture, mask, words, seed }, number) {
  const [model, nets] = await networks();
  if (number !== running) return;
  postMessage({ kind: "begun" });
  for await (const { i, of, picture: seen } of blendedLatent(nets, model, picture, mask, words, seed)) {
    await new Promise((resolve) => setTimeout(resolve)); // a stop that has arrived comes first
    if (number !== running) return;
    postMessage({ kind: i === of ? "done" : "step", i, of, picture: seen });
  }
}

onmessage = async ({ data }) => {
  try {
    if (data.kind === "load") await networks();
    if (data.kind === "load") postMessage({ kind: "ready" });
    if (data.kind === "stop") running++;
    if (data.kind === "edit") await edit(data, ++running);
  } catch (error) {
    postMessage({ kind: "error", text: error.message });
  }
};
