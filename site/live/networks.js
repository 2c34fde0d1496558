// The four networks, run by onnxruntime-web: functions from arrays to arrays.
// It comes as WebAssembly with the page; with threads where the server isolates the page, else on one.

const INPUTS = {
  text: ({ length }) => [["int32", [2, length]]],
  unet: ({ shape, length, width }) => [
    ["float32", [2, ...shape]], ["float32", [2]], ["float32", [2, length, width]],
  ],
  encode: ({ size }) => [["float32", [1, 3, size, size]]],
  decode: ({ shape }) => [["float32", [1, ...shape]]],
};

/** ort: onnxruntime-web. files: {text, unet, encode, decode}, the bytes of the ONNX files. */
export async function open(ort, model, files) {
  const networks = {};
  for (const [name, describe] of Object.entries(INPUTS)) {
    const session = await ort.InferenceSession.create(files[name]), inputs = describe(model);
    networks[name] = async (...given) => {
      const feeds = inputs.map(([type, dims], i) => [`in${i}`, new ort.Tensor(type, given[i], dims)]);
      const { out } = await session.run(Object.fromEntries(feeds));
      return out.data;
    };
  }
  return networks;
}
