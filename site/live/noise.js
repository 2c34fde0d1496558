// Randomness with a name, as in blendlab/noise.py: the same seed gives the same picture as in Python.
// PyTorch's own: a Mersenne twister, made normal by Box and Muller in blocks of 16.

/** The first 4 bytes of SHA-256, as a number; only texts under 56 bytes. */
function digest(text) {
  const root = (n, power) => (n ** power % 1) * 2 ** 32 | 0;
  const primes = [];
  for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
  const k = primes.map((p) => root(p, 1 / 3)), h = primes.slice(0, 8).map((p) => root(p, 1 / 2));
  const bytes = new TextEncoder().encode(text), block = new DataView(new ArrayBuffer(64));
  [...bytes, 0x80].forEach((byte, i) => block.setUint8(i, byte));
  block.setUint32(60, bytes.length * 8);
  const turn = (x, by) => (x >>> by) | (x << (32 - by)), w = [];
  for (let i = 0; i < 16; i++) w.push(block.getInt32(4 * i));
  for (let i = 16; i < 64; i++) {
    const [x, y] = [w[i - 15], w[i - 2]];
    const low = turn(x, 7) ^ turn(x, 18) ^ (x >>> 3), high = turn(y, 17) ^ turn(y, 19) ^ (y >>> 10);
    w.push((w[i - 16] + low + w[i - 7] + high) | 0);
  }
  let [a, b, c, d, e, f, g, last] = h;
  for (let i = 0; i < 64; i++) {
    const choice = (e & f) ^ (~e & g), most = (a & b) ^ (a & c) ^ (b & c);
    const one = (last + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + choice + k[i] + w[i]) | 0;
    const two = ((turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + most) | 0;
    [last, g, f, e, d, c, b, a] = [g, f, e, (d + one) | 0, c, b, a, (one + two) | 0];
  }
  return (h[0] + a) >>> 0;
}

/** A Mersenne twister (MT19937): a function that draws whole numbers of 32 bits. */
function twister(seed) {
  const state = new Uint32Array(624);
  state[0] = seed;
  for (let i = 1; i < 624; i++) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let y = state[at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
}

/** A function that draws `count` normal numbers (a multiple of 16), further on at each call. */
export function noise(seed, purpose, count) {
  const draw = twister(digest(`${seed}/0/${purpose}`));
  return () => {
    const drawn = Float32Array.from({ length: count }, () => (draw() & 0xffffff) / 2 ** 24);
    for (let i = 0; i < count; i += i % 16 === 7 ? 9 : 1) {
      const radius = Math.sqrt(-2 * Math.log(1 - drawn[i])), angle = 2 * Math.PI * drawn[i + 8];
      drawn[i] = radius * Math.cos(angle);
      drawn[i + 8] = radius * Math.sin(angle);
    }
    return drawn;
  };
}
