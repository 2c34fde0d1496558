// Blended Latent Diffusion (2206.02779) for a browser tab. It does what these do, in their order:
// blendlab/sampler.py (sample), guidance.py (denoiser, cfg), papers/blended_latent.py (blendedLatent).
// Latents are Float32Arrays of C x h x w numbers; a mask has h x w. Next: worker.js, which calls it.

import { noise } from "./noise.js";

/** What the text encoder reads: start, words, end, then padding. Unknown words are refused by name. */
export function tokens(text, { words, ends, length }) {
  const parts = text.toLowerCase().match(/[\p{L}\p{N}_'-]+|[^\p{L}\p{N}_\s]/gu) ?? [];
  const strange = [...new Set(parts)].filter((part) => !Object.hasOwn(words, part));
  if (strange.length) {
    const known = Object.keys(words).filter((word) => /^[a-z]{2,}$/.test(word)).sort().join(", ");
    const unknown = strange.map((part) => `“${part}”`).join(", ");
    throw new Error(`The model does not know ${unknown}. It knows ${known}.`);
  }
  const [start, end, pad] = ends, ids = [start, ...parts.flatMap((part) => words[part]), end];
  if (ids.length > length) {
    throw new Error(`That is ${ids.length - 2} words, and the model reads ${length - 2}: shorten it.`);
  }
  return [...ids, ...Array(length - ids.length).fill(pad)];
}

/** A mask of the picture's size (1 = edit) at latent size: each cell looks at the pixel in its middle. */
export function toLatent(mask, { cells }) {
  const small = Float32Array.from(cells, (pixel) => mask[pixel]);
  if (mask.every((value) => value === 0)) throw new Error("Nothing is painted: paint where to edit.");
  if (small.every((value) => value === 0)) {
    throw new Error("What is painted is thinner than the model can see: paint it thicker.");
  }
  return small;
}

/** The square of the latent to edit in, {y, x, h, w} in cells: around the mask, at least `window` pixels
 * wide and a third more than the mask, in steps that the network can halve; else the whole. */
export function square(mask, small, { shape: [, H, W], size, window, step }) {
  let [top, left, bottom, right] = [H, W, 0, 0];
  const cell = size / W, touch = (y, x) => {
    [top, left] = [Math.min(top, y), Math.min(left, x)];
    [bottom, right] = [Math.max(bottom, y + 1), Math.max(right, x + 1)];
  };
  mask.forEach((value, i) => value && touch(Math.floor(i / size / cell), Math.floor((i % size) / cell)));
  small.forEach((value, i) => value && touch(Math.floor(i / W), i % W));
  const wanted = Math.max(Math.ceil(window / cell), (4 / 3) * Math.max(bottom - top, right - left));
  const side = Math.ceil(wanted / step) * step;
  if (!window || side >= Math.min(H, W)) return { y: 0, x: 0, h: H, w: W };
  const start = (low, high, room) =>
    Math.min(Math.max(Math.floor((low + high - side) / 2), 0), room - side);
  return { y: start(top, bottom, H), x: start(left, right, W), h: side, w: side };
}

/** The numbers of a latent (or mask) that lie in a square, and the way back. */
function cut(whole, { y, x, h, w }, [, H, W]) {
  const part = new Float32Array((whole.length / (H * W)) * h * w);
  return part.map((_, i) => whole[place(i, y, x, h, w, H, W)]);
}

function put(part, whole, { y, x, h, w }, [, H, W]) {
  const filled = whole.slice();
  part.forEach((value, i) => (filled[place(i, y, x, h, w, H, W)] = value));
  return filled;
}

/** Where number i of a square lies in the whole. */
function place(i, y, x, h, w, H, W) {
  const row = Math.floor((i % (h * w)) / w), column = i % w;
  return Math.floor(i / (h * w)) * H * W + (y + row) * W + x + column;
}

/** The edit inside the mask, what is kept outside. A mask covers all channels. */
export function blend(mask, edit, keep) {
  return edit.map((value, i) => {
    const m = mask[i % mask.length];
    return m * value + (1 - m) * keep[i];
  });
}

/** The picture x0 as it looks on a level; at the clean one it is x0 itself. */
function addNoise(x0, [a, s], drawn) {
  return x0.map((value, i) => a * value + s * drawn[i]);
}

/** From the network to a guided denoiser (2207.12598): without and with the words in one call. */
function guided(unet, text, model, { h, w }) {
  const cleanFrom = {
    epsilon: (x, out, a, s) => (x - s * out) / a,
    v_prediction: (x, out, a, s) => a * x - s * out,
    sample: (x, out) => out,
  }[model.prediction];
  return async (x, i) => {
    const [a, s] = model.levels[i], t = model.timesteps[i], n = x.length;
    const both = new Float32Array(2 * n);
    both.set(x);
    both.set(x, n);
    const out = await unet(both, Float32Array.of(t, t), text, [h, w]);
    return x.map((value, j) => {
      const u = cleanFrom(value, out[j], a, s), c = cleanFrom(value, out[n + j], a, s);
      return u + model.w * (c - u);
    });
  };
}

/** Yield one step per move down the levels; whatever is left in step.x feeds the next one. */
async function* sample(denoise, x, { levels, eta }, fresh) {
  for (let i = 0; i < levels.length - 1; i++) {
    const [[a, s], [aNext, sNext]] = [levels[i], levels[i + 1]];

    // Look: the clean picture in x, and the noise that is then left.
    const clean = await denoise(x, i);
    const eps = x.map((value, j) => (value - a * clean[j]) / s);

    // Move: rebuild the state on the next level, exchanging a share of the noise for fresh noise.
    const share = eta ** 2 * (sNext / s) ** 2 * (s ** 2 - (a / aNext) ** 2 * sNext ** 2);
    const kept = Math.sqrt(Math.max(sNext ** 2 - share, 0));
    x = clean.map((value, j) => aNext * value + kept * eps[j]);
    if (eta && sNext > 0) {
      const drawn = fresh();
      x = x.map((value, j) => value + Math.sqrt(share) * drawn[j]);
    }

    const step = { i, x, clean, level: levels[i + 1], last: i === levels.length - 2 };
    yield step;
    x = step.x;
  }
}

/** Edit a picture inside a mask as the words ask; yield {i, of, picture, latents} after each move.
 * networks: text(ids), unet(x, t, text), encode(picture), decode(z). picture: 3 x H x W in [-1, 1].
 * mask: H x W, 1 = edit. Outside it the last picture is the source, bit for bit.
 * Every third move, and the last, has a picture, as decoding costs nearly as much as a move; before
 * the last it is the clean estimate's. */
export async function* blendedLatent(networks, model, picture, mask, prompt, seed, every = 3) {
  const small = toLatent(mask, model); // refused here, before any network runs
  const ids = [...tokens("", model), ...tokens(prompt, model)];
  const { levels, shape } = model, where = square(mask, small, model), count = shape[0] * where.h * where.w;
  const [initial, background, fresh] = ["initial", "background", "step"].map((purpose) =>
    noise(seed, purpose, count));

  const whole = await networks.encode(picture);
  const source = cut(whole, where, shape), inside = cut(small, where, shape);
  const denoise = guided(networks.unet, await networks.text(Int32Array.from(ids)), model, where);
  const start = addNoise(source, levels[0], initial());

  for await (const step of sample(denoise, start, model, fresh)) {
    // The source, on the level that the state is on now. Then the edit inside, the source outside.
    const keep = step.last ? source : addNoise(source, step.level, background());
    step.x = blend(inside, step.x, keep);

    const i = step.i + 1, of = levels.length - 1;
    const seen = put(step.last ? step.x : blend(inside, step.clean, source), whole, where, shape);
    const decoded = (of - i) % every === 0 ? await networks.decode(seen) : null;
    yield { i, of, picture: decoded && blend(mask, decoded, picture), latents: seen };
  }
}
