// What is painted: one byte of cover for each pixel of the picture and, for scribbles, three of colour.

const TINT = [232, 28, 122]; // of a mask, as in viz.overlay

class Layer {
  constructor(width, height, mode) {
    const pixels = width * height;
    Object.assign(this, { width, height, coloured: mode === "scribble", outlined: mode === "mask" });
    this.data = new Uint8Array(pixels * (this.coloured ? 4 : 1));
    this.cover = this.data.subarray(0, pixels);
    this.colour = this.data.subarray(pixels);
  }

  get copy() {
    return this.data.slice();
  }

  equals(bytes) {
    return bytes.length === this.data.length && bytes.every((value, i) => value === this.data[i]);
  }

  invert() {
    this.cover.forEach((value, i) => (this.cover[i] = 255 - value));
  }

  begin() {
    this.before = this.cover.slice();
    this.stroke = new Uint8Array(this.cover.length);
  }

  /** Paint a line from a to b; returns the part to draw anew. A stroke covers a pixel as much as where
   * it comes nearest, not more. */
  line(a, b, radius, { soft, erase, colour }) {
    const [dx, dy] = [b[0] - a[0], b[1] - a[1]];
    const [left, right] = this.range(a[0], b[0], radius, this.width);
    const [top, bottom] = this.range(a[1], b[1], radius, this.height);
    for (let y = top; y < bottom; y++) {
      for (let x = left; x < right; x++) {
        const [px, py] = [x + 0.5 - a[0], y + 0.5 - a[1]];
        const along = clamp((px * dx + py * dy) / (dx * dx + dy * dy || 1), 0, 1);
        const away = Math.hypot(px - along * dx, py - along * dy) / radius;
        const value = soft ? Math.round(255 * clamp((1 - away) / 0.7, 0, 1)) : 255 * (away <= 1);
        const i = y * this.width + x;
        if (value <= this.stroke[i]) continue;
        this.stroke[i] = value;
        this.cover[i] = erase ? Math.min(this.before[i], 255 - value) : Math.max(this.before[i], value);
        if (colour && !erase) this.colour.set(colour, 3 * i);
      }
    }
    const wider = (low, high, side) => [Math.max(0, low - 1), Math.min(side, high + 1)]; // for edges
    return [...wider(left, right, this.width), ...wider(top, bottom, this.height)];
  }

  range(a, b, radius, side) {
    const low = Math.floor(Math.min(a, b) - radius), high = Math.ceil(Math.max(a, b) + radius);
    return [clamp(low, 0, side), clamp(high, 0, side)];
  }

  /** Each pixel becomes the largest (Math.max: grow) or smallest (Math.min) of the 3 x 3 around it. */
  morph(choose) {
    for (const [step, side] of [[1, this.width], [this.width, this.height]]) {
      const old = this.cover.slice();
      for (let i = 0; i < old.length; i++) {
        const at = Math.floor(i / step) % side;
        const before = old[at > 0 ? i - step : i], after = old[at < side - 1 ? i + step : i];
        this.cover[i] = choose(before, old[i], after);
      }
    }
  }

  /** Whether a painted pixel has an unpainted neighbour. */
  edge(i) {
    const x = i % this.width, { width, cover } = this, free = (j) => cover[j] < 128;
    const sideways = (x > 0 && free(i - 1)) || (x < width - 1 && free(i + 1));
    return !free(i) && (sideways || free(i - width) || free(i + width));
  }

  /** Show a part of the layer: columns left to right, rows top to bottom. */
  draw(canvas, [left, right, top, bottom] = [0, this.width, 0, this.height]) {
    if (left >= right || top >= bottom) return;
    const pixels = new ImageData(right - left, bottom - top);
    for (let y = top, o = 0; y < bottom; y++) {
      for (let x = left; x < right; x++, o += 4) {
        const i = y * this.width + x, cover = this.cover[i];
        const [from, at] = this.coloured ? [this.colour, 3 * i] : [TINT, 0];
        for (let c = 0; c < 3; c++) pixels.data[o + c] = from[at + c];
        const seen = this.outlined ? 0.45 : 0.65; // of what is painted; the picture shines through
        pixels.data[o + 3] = this.coloured ? cover : this.outlined && this.edge(i) ? 230 : seen * cover;
      }
    }
    canvas.getContext("2d").putImageData(pixels, left, top);
  }

  /** How much is painted, in words. */
  get share() {
    const mean = this.cover.reduce((sum, value) => sum + value, 0) / this.cover.length / 255;
    return mean > 0 && mean < 0.01 ? "under 1%" : Math.round(100 * mean) + "%";
  }

  get painted() {
    return this.cover.reduce((sum, value) => sum + (value > 0), 0);
  }
}
