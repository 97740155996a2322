// The mask itself: one byte a pixel (0 or 255) at the picture's own size. Every change goes through `span`,
// so undo can keep the touched tiles alone, and the view learns which rectangle to redraw.

const MASKED = 255;
const TILE_PX = 256;
const HISTORY_BYTES = 64 * 2 ** 20;

class Mask {
  #before = null; // tile index -> its pixels before the change that is going on; null: no change is going on
  #undo = [];
  #redo = [];
  #dirty = null;

  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.pixels = new Uint8Array(width * height);
    this.version = 0; // grows with every finished change
    this.columns = Math.ceil(width / TILE_PX);
    this.tiles = this.columns * Math.ceil(height / TILE_PX);
  }

  get empty() {
    return !this.pixels.includes(MASKED);
  }

  get changing() {
    return this.#before !== null;
  }

  get canUndo() {
    return this.#undo.length > 0;
  }

  get canRedo() {
    return this.#redo.length > 0;
  }

  begin() {
    this.#before = new Map();
  }

  // Sets the pixels left <= x < right of row y. Clips; the caller need not.
  span(y, left, right, value) {
    left = Math.max(0, left);
    right = Math.min(this.width, right);
    if (y < 0 || y >= this.height || left >= right) return;
    this.#remember(y, left, right);
    this.pixels.fill(value, y * this.width + left, y * this.width + right);
    this.#touch(left, y, right, y + 1);
  }

  invert() {
    this.#rememberAll();
    const { pixels } = this;
    for (let i = 0; i < pixels.length; i++) pixels[i] ^= MASKED;
  }

  // `pixels` has width * height values, 0 or 255.
  replace(pixels) {
    this.#rememberAll();
    this.pixels.set(pixels);
  }

  // Ends the change; false when nothing differs from before.
  commit() {
    const tiles = new Map([...this.#before].filter(([index, before]) => this.#differs(index, before)));
    this.#before = null;
    if (tiles.size === 0) return false;
    this.#undo.push(tiles);
    this.#redo = [];
    this.#forgetOldest();
    this.version++;
    return true;
  }

  // Ends the change as if it had never begun.
  cancel() {
    this.#before?.forEach((before, index) => this.#writeTile(index, before));
    this.#before = null;
  }

  undo() {
    return this.#step(this.#undo, this.#redo);
  }

  redo() {
    return this.#step(this.#redo, this.#undo);
  }

  // The rectangle {left, top, right, bottom} changed since the last call, or null.
  takeDirty() {
    const dirty = this.#dirty;
    this.#dirty = null;
    return dirty;
  }

  #step(from, to) {
    const tiles = from.pop();
    if (!tiles) return false;
    to.push(new Map([...tiles].map(([index]) => [index, this.#readTile(index)])));
    tiles.forEach((pixels, index) => this.#writeTile(index, pixels));
    this.version++;
    return true;
  }

  #remember(y, left, right) {
    const row = Math.floor(y / TILE_PX) * this.columns;
    const last = row + Math.floor((right - 1) / TILE_PX);
    for (let index = row + Math.floor(left / TILE_PX); index <= last; index++) {
      if (!this.#before.has(index)) this.#before.set(index, this.#readTile(index));
    }
  }

  #rememberAll() {
    for (let index = 0; index < this.tiles; index++) {
      if (!this.#before.has(index)) this.#before.set(index, this.#readTile(index));
    }
    this.#touch(0, 0, this.width, this.height);
  }

  #rect(index) {
    const left = (index % this.columns) * TILE_PX;
    const top = Math.floor(index / this.columns) * TILE_PX;
    return { left, top, right: Math.min(left + TILE_PX, this.width), bottom: Math.min(top + TILE_PX, this.height) };
  }

  // The tile's pixels, or one number when all are alike: most tiles of most masks.
  #readTile(index) {
    const { left, top, right, bottom } = this.#rect(index);
    const first = this.pixels[top * this.width + left];
    if (this.#isUniform(index, first)) return first;
    const tile = new Uint8Array((right - left) * (bottom - top));
    for (let y = top, at = 0; y < bottom; y++, at += right - left) {
      tile.set(this.pixels.subarray(y * this.width + left, y * this.width + right), at);
    }
    return tile;
  }

  #writeTile(index, tile) {
    const { left, top, right, bottom } = this.#rect(index);
    for (let y = top, at = 0; y < bottom; y++, at += right - left) {
      const start = y * this.width + left;
      if (typeof tile === "number") this.pixels.fill(tile, start, start + right - left);
      else this.pixels.set(tile.subarray(at, at + right - left), start);
    }
    this.#touch(left, top, right, bottom);
  }

  #isUniform(index, value) {
    const { left, top, right, bottom } = this.#rect(index);
    for (let y = top; y < bottom; y++) {
      for (let i = y * this.width + left, end = i + right - left; i < end; i++) {
        if (this.pixels[i] !== value) return false;
      }
    }
    return true;
  }

  #differs(index, before) {
    if (typeof before === "number") return !this.#isUniform(index, before);
    const { left, top, right, bottom } = this.#rect(index);
    for (let y = top, at = 0; y < bottom; y++) {
      for (let i = y * this.width + left, end = i + right - left; i < end; i++, at++) {
        if (this.pixels[i] !== before[at]) return true;
      }
    }
    return false;
  }

  #forgetOldest() {
    const size = (tiles) => [...tiles.values()].reduce((sum, tile) => sum + (tile.length ?? 8), 0);
    let total = this.#undo.reduce((sum, tiles) => sum + size(tiles), 0);
    while (total > HISTORY_BYTES && this.#undo.length > 1) total -= size(this.#undo.shift());
  }

  #touch(left, top, right, bottom) {
    const d = this.#dirty;
    if (!d) this.#dirty = { left, top, right, bottom };
    else {
      d.left = Math.min(d.left, left);
      d.top = Math.min(d.top, top);
      d.right = Math.max(d.right, right);
      d.bottom = Math.max(d.bottom, bottom);
    }
  }
}
