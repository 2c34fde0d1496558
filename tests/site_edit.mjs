// Runs the site's edit in Node.js: node site_edit.mjs LIVE, a request as JSON on the standard input.
// Answers with the latents and the picture after the last move, or with the error.

import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { pathToFileURL } from "node:url";

const live = process.argv[2], read = (name) => readFileSync(`${live}/${name}`);
const module = (name) => import(pathToFileURL(`${live}/${name}`));
const ort = await module("ort/ort.wasm.min.mjs");
const { blendedLatent, tokens } = await module("edit.js");
const { open } = await module("networks.js");

const model = JSON.parse(read("model.json")), asked = JSON.parse(readFileSync(0, "utf8"));
const { picture, mask, words, seed } = asked;
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = pathToFileURL(`${live}/ort/`).href;
ort.env.wasm.wasmBinary = gunzipSync(read("runtime.bin"));
let answer;
try {
  const files = Object.keys(model.networks).map((name) => [name, read(`${name}.onnx`)]);
  const networks = asked.refused ? {} : await open(ort, model, Object.fromEntries(files));
  const numbers = Float32Array.from(picture), where = Float32Array.from(mask);
  for await (const step of blendedLatent(networks, model, numbers, where, words, seed)) {
    if (step.i === step.of) answer = { picture: [...step.picture], latents: [...step.latents] };
  }
  answer.tokens = tokens(words, model);
} catch (error) {
  answer = { error: error.message };
}
console.log(JSON.stringify(answer));
