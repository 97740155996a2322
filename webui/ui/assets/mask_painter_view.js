// What is seen: the picture on one canvas, the mask's tint on a second one, outlines and the brush in an SVG
// above. Zooming or panning redraws all; painting redraws only the rectangle that changed.

const MAX_ZOOM = 32;
const MARGIN_PX = 12;
const PIXELATED_FROM = 6; // screen pixels per picture pixel
const SHOWN_PIXELS = 4096 ** 2; // phones draw no larger canvas; a larger picture is shown, not sent, smaller
const MAX_SAMPLES = 3; // mask pixels looked at per view pixel and axis, when many fall on one
const SMALLEST_LEVEL_PX = 1024;

class View {
  #frame = 0;
  #tintRect = null; // view pixels still to be redrawn on the tint canvas
  #wholeView = false;
  #levels = []; // the picture at 1, 1/2, 1/4, ... of its size: a small view of a large one stays cheap

  constructor(stage) {
    this.stage = stage;
    this.pictureCanvas = stage.querySelector("[data-part=picture]");
    this.tintCanvas = stage.querySelector("[data-part=tint]");
    this.picture = null;
    this.mask = null;
    this.scale = 1; // CSS pixels per picture pixel
    this.x = 0; // the picture's corner, in CSS pixels from the stage's corner
    this.y = 0;
    this.fitted = true;
    this.color = "#ff2d9b";
    this.opacity = 0.55;
    this.onChange = () => {};
    new ResizeObserver(() => this.#resize()).observe(stage);
  }

  show(picture, mask) {
    this.picture = picture;
    this.mask = mask;
    this.#levels = picture ? halvings(picture) : [];
    this.#resize();
    this.fit();
  }

  toPicture(clientX, clientY) {
    const box = this.stage.getBoundingClientRect();
    return { x: (clientX - box.left - this.x) / this.scale, y: (clientY - box.top - this.y) / this.scale };
  }

  toStage({ x, y }) {
    return { x: x * this.scale + this.x, y: y * this.scale + this.y };
  }

  fit() {
    if (!this.picture || !this.width) return;
    this.scale = this.#fitScale();
    this.x = (this.width - this.picture.width * this.scale) / 2;
    this.y = (this.height - this.picture.height * this.scale) / 2;
    this.fitted = true;
    this.redraw();
  }

  // Keeps the picture pixel under the given client point where it is.
  zoomTo(scale, clientX, clientY) {
    if (!this.picture) return;
    const box = this.stage.getBoundingClientRect();
    const [px, py] = [clientX - box.left, clientY - box.top];
    const fit = this.#fitScale();
    const next = Math.min(Math.max(scale, Math.min(fit, 1) / 4), Math.max(MAX_ZOOM, fit));
    this.x = px - ((px - this.x) * next) / this.scale;
    this.y = py - ((py - this.y) * next) / this.scale;
    this.scale = next;
    this.#moved();
  }

  zoomBy(factor, clientX, clientY) {
    this.zoomTo(this.scale * factor, clientX, clientY);
  }

  zoomAtCentre(factor) {
    const box = this.stage.getBoundingClientRect();
    this.zoomBy(factor, box.left + box.width / 2, box.top + box.height / 2);
  }

  panBy(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.#moved();
  }

  redraw() {
    this.#wholeView = true;
    this.#schedule();
    this.onChange();
  }

  // Redraws what the mask reports as changed.
  maskChanged() {
    const dirty = this.mask?.takeDirty();
    if (!dirty) return;
    const ratio = this.#ratio();
    const from = this.toStage({ x: dirty.left, y: dirty.top });
    const to = this.toStage({ x: dirty.right, y: dirty.bottom });
    this.#tintRect = union(this.#tintRect, {
      left: Math.floor(from.x * ratio) - 1,
      top: Math.floor(from.y * ratio) - 1,
      right: Math.ceil(to.x * ratio) + 1,
      bottom: Math.ceil(to.y * ratio) + 1,
    });
    this.#schedule();
  }

  #fitScale() {
    const inside = (length) => Math.max(length - 2 * MARGIN_PX, 1);
    return Math.min(inside(this.width) / this.picture.width, inside(this.height) / this.picture.height);
  }

  #moved() {
    const keep = 48; // this much of the picture stays in sight, whatever one does
    const within = (value, size, room) => Math.min(Math.max(value, keep - size), room - keep);
    this.x = within(this.x, this.picture.width * this.scale, this.width);
    this.y = within(this.y, this.picture.height * this.scale, this.height);
    this.fitted = false;
    this.redraw();
  }

  #ratio() {
    return Math.min(window.devicePixelRatio || 1, 2);
  }

  #resize() {
    const { clientWidth, clientHeight } = this.stage;
    if (!clientWidth || !clientHeight) return; // in a hidden tab
    const [dx, dy] = [(clientWidth - this.width) / 2, (clientHeight - this.height) / 2];
    this.width = clientWidth;
    this.height = clientHeight;
    for (const canvas of [this.pictureCanvas, this.tintCanvas]) {
      canvas.width = Math.round(clientWidth * this.#ratio());
      canvas.height = Math.round(clientHeight * this.#ratio());
    }
    if (!this.picture) return;
    if (this.fitted || Number.isNaN(dx)) this.fit();
    else this.panBy(dx, dy);
  }

  #schedule() {
    if (!this.#frame) this.#frame = requestAnimationFrame(() => this.#draw());
  }

  #draw() {
    this.#frame = 0;
    const { width, height } = this.tintCanvas;
    const all = { left: 0, top: 0, right: width, bottom: height };
    if (this.#wholeView) this.#drawPicture();
    const rect = this.#wholeView ? all : intersection(this.#tintRect, all);
    if (rect) this.#drawTint(rect);
    this.#wholeView = false;
    this.#tintRect = null;
  }

  #drawPicture() {
    const context = this.pictureCanvas.getContext("2d");
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, this.pictureCanvas.width, this.pictureCanvas.height);
    if (!this.picture) return;
    const ratio = this.#ratio();
    const { width, height } = this.picture;
    const level = this.#levels.findLast((l) => l.width >= width * this.scale * ratio) ?? this.#levels[0];
    context.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, this.x * ratio, this.y * ratio);
    context.imageSmoothingEnabled = this.scale * ratio < PIXELATED_FROM;
    context.fillStyle = "#fff"; // transparent pictures are put on white when they are sent
    context.fillRect(0, 0, width, height);
    context.drawImage(level, 0, 0, width, height);
  }

  #drawTint({ left, top, right, bottom }) {
    const context = this.tintCanvas.getContext("2d");
    if (!this.mask) return context.clearRect(left, top, right - left, bottom - top);
    const ratio = this.#ratio();
    const step = 1 / (this.scale * ratio); // picture pixels per view pixel
    const samples = Math.min(MAX_SAMPLES, Math.max(1, Math.ceil(step - 0.01)));
    const columns = samplePoints(left, right, this.x * ratio, step, samples, this.mask.width);
    const rows = samplePoints(top, bottom, this.y * ratio, step, samples, this.mask.height);
    const tint = new ImageData(right - left, bottom - top);
    const out = new Uint32Array(tint.data.buffer);
    const palette = tintPalette(this.color, this.opacity, samples * samples);
    const { pixels, width } = this.mask;
    for (let y = 0, at = 0; y < tint.height; y++) {
      for (let x = 0; x < tint.width; x++, at++) {
        let covered = 0;
        for (let sy = y * samples; sy < (y + 1) * samples; sy++) {
          if (rows[sy] < 0) continue;
          const row = rows[sy] * width;
          for (let sx = x * samples; sx < (x + 1) * samples; sx++) {
            if (columns[sx] >= 0 && pixels[row + columns[sx]]) covered++;
          }
        }
        out[at] = palette[covered];
      }
    }
    return context.putImageData(tint, left, top);
  }
}

// For each view pixel from `start` to `end`, `samples` picture coordinates; -1 outside the picture.
function samplePoints(start, end, origin, step, samples, size) {
  return Int32Array.from({ length: (end - start) * samples }, (_, i) => {
    const at = Math.floor((start + (i + 0.5) / samples - origin) * step);
    return at >= 0 && at < size ? at : -1;
  });
}

// ABGR words for 0..`steps` covered samples of a view pixel.
function tintPalette(color, opacity, steps) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
  return Uint32Array.from({ length: steps + 1 }, (_, covered) => {
    const alpha = Math.round((255 * opacity * covered) / steps);
    return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
  });
}

function halvings({ image, width, height }) {
  const levels = [scaled(image, width, height, Math.min(1, Math.sqrt(SHOWN_PIXELS / (width * height))))];
  while (Math.max(levels.at(-1).width, levels.at(-1).height) > SMALLEST_LEVEL_PX) {
    const larger = levels.at(-1);
    levels.push(scaled(larger, larger.width, larger.height, 0.5));
  }
  return levels;
}

function scaled(image, width, height, factor) {
  const canvas = new OffscreenCanvas(Math.ceil(width * factor), Math.ceil(height * factor));
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function union(a, b) {
  if (!a) return b;
  return {
    left: Math.min(a.left, b.left),
    top: Math.min(a.top, b.top),
    right: Math.max(a.right, b.right),
    bottom: Math.max(a.bottom, b.bottom),
  };
}

function intersection(a, b) {
  if (!a) return null;
  const rect = {
    left: Math.max(a.left, b.left),
    top: Math.max(a.top, b.top),
    right: Math.min(a.right, b.right),
    bottom: Math.min(a.bottom, b.bottom),
  };
  return rect.left < rect.right && rect.top < rect.bottom ? rect : null;
}
