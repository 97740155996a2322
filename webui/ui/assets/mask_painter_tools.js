// What one press of the pointer does. Each tool is a class with `start(point)`, `move(point)`, `end()`; a point is
// {x, y, pressure} in picture pixels. The painter begins and ends the mask's change around it.

// Thinner lines are drawn from pixel centre to pixel centre.
const SNAP_BELOW_PX = 2;
const MIN_PRESSURE = 0.15;

class Brush {
  constructor(painter, value) {
    this.painter = painter;
    this.value = value;
  }

  // With a point to continue from (Shift), the mark begins there: a straight line.
  start(point, from = null) {
    this.last = this.#disc(point);
    this.#mark(from ? this.#disc({ ...from, pressure: point.pressure }) : this.last, this.last);
  }

  move(point) {
    const next = this.#disc(point);
    this.#mark(this.last, next);
    this.last = next;
  }

  end() {}

  #disc({ x, y, pressure }) {
    const size = this.painter.brushSize * Math.max(pressure, MIN_PRESSURE);
    if (size >= SNAP_BELOW_PX) return { x, y, radius: size / 2 };
    return { x: Math.floor(x) + 0.5, y: Math.floor(y) + 0.5, radius: size / 2 };
  }

  #mark(from, to) {
    const { mask } = this.painter;
    paintCapsule(from, to, mask.height, (y, left, right) => mask.span(y, left, right, this.value));
  }
}

class Rectangle {
  constructor(painter, value) {
    this.painter = painter;
    this.value = value;
  }

  start(point) {
    this.from = point;
    this.to = point;
  }

  move(point) {
    this.to = point;
    const { from, to } = this;
    this.painter.outline([from, { x: to.x, y: from.y }, to, { x: from.x, y: to.y }]);
  }

  end() {
    const { mask } = this.painter;
    paintRectangle(this.from, this.to, mask.height, (y, left, right) => mask.span(y, left, right, this.value));
  }
}

class Lasso {
  constructor(painter, value) {
    this.painter = painter;
    this.value = value;
  }

  start(point) {
    this.points = [point];
  }

  move(point) {
    this.points.push(point);
    this.painter.outline(this.points);
  }

  end() {
    const { mask } = this.painter;
    paintPolygon(this.points, mask.height, (y, left, right) => mask.span(y, left, right, this.value));
  }
}

// Fills the area around the point up to the edge of what is painted.
class Fill {
  constructor(painter, value) {
    this.painter = painter;
    this.value = value;
  }

  start(point) {
    const { mask } = this.painter;
    const [x, y] = [Math.floor(point.x), Math.floor(point.y)];
    if (x < 0 || y < 0 || x >= mask.width || y >= mask.height) return;
    if (mask.pixels[y * mask.width + x] === this.value) return;
    paintConnected(mask, x, y, (row, left, right) => mask.span(row, left, right, this.value));
  }

  move() {}

  end() {}
}

const TOOLS = { brush: Brush, eraser: Brush, rectangle: Rectangle, lasso: Lasso, fill: Fill };

function makeTool(painter, subtract) {
  const erases = subtract !== (painter.tool === "eraser");
  return new TOOLS[painter.tool](painter, erases ? 0 : MASKED);
}
