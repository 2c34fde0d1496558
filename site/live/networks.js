// The four networks, run by onnxruntime-web: functions from arrays to arrays. On the graphics card by
// WebGPU, or as WebAssembly, with threads where the server isolates the page, else on one.

/** What each of the two loads: its module and its WebAssembly. */
export const RUNTIMES = {
  webgpu: { module: "ort.jspi.min.mjs", file: "runtime-gpu.bin" },
  wasm: { module: "ort.wasm.min.mjs", file: "runtime.bin" },
};

const INPUTS = {
  text: ({ length }) => [["int32", [2, length]]],
  unet: ({ shape, length, width }, [h, w]) => [
    ["float32", [2, shape[0], h, w]], ["float32", [2]], ["float32", [2, length, width]],
  ],
  encode: ({ size }) => [["float32", [1, 3, size, size]]],
  decode: ({ shape }) => [["float32", [1, ...shape]]],
};

/** Whether this browser runs networks on a graphics card; one that the CPU imitates is slower than it. */
export async function hasGPU() {
  const adapter = "Suspending" in WebAssembly && (await navigator.gpu?.requestAdapter());
  return Boolean(adapter) && !adapter.info.isFallbackAdapter;
}

/** ort: onnxruntime-web. files: {text, unet, encode, decode}, the bytes of the ONNX files.
 * on: "wasm" or "webgpu". A graphics card that gets other numbers than PyTorch did is refused. */
export async function open(ort, model, files, on = "wasm") {
  const networks = {}, options = { executionProviders: [on] };
  for (const [name, describe] of Object.entries(INPUTS)) {
    const session = await ort.InferenceSession.create(files[name], options);
    networks[name] = async (...given) => {
      const inputs = describe(model, given.at(-1)); // the network of moves is told the size of its square
      const feeds = inputs.map(([type, dims], i) => [`in${i}`, new ort.Tensor(type, given[i], dims)]);
      const { out } = await session.run(Object.fromEntries(feeds));
      return out.data;
    };
  }
  if (on === "webgpu") await check(networks, model);
  return networks;
}

/** One call of the network, compared with PyTorch's: see export.py (probe). */
async function check({ unet }, { shape, length, width, probe }) {
  const count = 2 * shape.reduce((product, side) => product * side);
  const x = Float32Array.from({ length: count }, (_, i) => Math.sin(i));
  const out = await unet(x, Float32Array.of(500, 500), new Float32Array(2 * length * width), shape.slice(1));
  const right = probe.values.every((value, i) => Math.abs(out[i * probe.every] - value) < 0.01);
  if (!right) throw new Error("The graphics card gets other numbers than PyTorch did.");
}
