// Shapes as rows of pixels, hard-edged: a pixel belongs to a shape when its centre lies inside.
// Coordinates are image pixels; pixel x covers x to x + 1. `paint(y, left, right)` gets half-open rows.

// Below this radius a dot could fall between four pixel centres and paint none.
const MIN_RADIUS = 0.71;

// A brush mark from one {x, y, radius} to the next: the hull of the two discs.
function paintCapsule(from, to, height, paint) {
  const discs = [from, to].map((disc) => ({ ...disc, radius: Math.max(disc.radius, MIN_RADIUS) }));
  const corners = tangentQuad(...discs);
  const edges = corners.map((corner, i) => [corner, corners[(i + 1) % corners.length]]);
  const top = Math.max(0, Math.ceil(Math.min(...discs.map(({ y, radius }) => y - radius)) - 0.5));
  const bottom = Math.min(height - 1, Math.floor(Math.max(...discs.map(({ y, radius }) => y + radius)) - 0.5));
  for (let row = top; row <= bottom; row++) {
    const y = row + 0.5;
    let left = Infinity;
    let right = -Infinity;
    for (const disc of discs) {
      const square = disc.radius ** 2 - (y - disc.y) ** 2;
      if (square < 0) continue;
      const half = Math.sqrt(square);
      left = Math.min(left, disc.x - half);
      right = Math.max(right, disc.x + half);
    }
    for (const [p, q] of edges) {
      if (p.y <= y === q.y <= y) continue;
      const x = p.x + ((y - p.y) / (q.y - p.y)) * (q.x - p.x);
      left = Math.min(left, x);
      right = Math.max(right, x);
    }
    paint(row, Math.ceil(left - 0.5), Math.floor(right - 0.5) + 1);
  }
}

// The four points where the two outer tangents touch the discs; none when one disc holds the other.
function tangentQuad(a, b) {
  const distance = Math.hypot(b.x - a.x, b.y - a.y);
  if (distance <= Math.abs(a.radius - b.radius) || distance === 0) return [];
  const along = { x: (b.x - a.x) / distance, y: (b.y - a.y) / distance };
  const sin = (a.radius - b.radius) / distance;
  const cos = Math.sqrt(1 - sin * sin);
  const touch = (disc, side) => ({
    x: disc.x + disc.radius * (along.x * sin - side * along.y * cos),
    y: disc.y + disc.radius * (along.y * sin + side * along.x * cos),
  });
  return [touch(a, 1), touch(b, 1), touch(b, -1), touch(a, -1)];
}

// `a` and `b` are opposite corners.
function paintRectangle(a, b, height, paint) {
  const left = Math.ceil(Math.min(a.x, b.x) - 0.5);
  const right = Math.floor(Math.max(a.x, b.x) - 0.5) + 1;
  const top = Math.max(0, Math.ceil(Math.min(a.y, b.y) - 0.5));
  const bottom = Math.min(height - 1, Math.floor(Math.max(a.y, b.y) - 0.5));
  for (let y = top; y <= bottom; y++) paint(y, left, right);
}

// A closed outline of any shape. Where it crosses itself the inside stays inside (non-zero winding).
function paintPolygon(points, height, paint) {
  const rows = new Map(); // y -> [{x, turn}]
  points.forEach((p, i) => {
    const q = points[(i + 1) % points.length];
    const [upper, lower, turn] = p.y < q.y ? [p, q, 1] : [q, p, -1];
    const last = Math.min(height - 1, Math.ceil(lower.y - 0.5) - 1);
    for (let y = Math.max(0, Math.ceil(upper.y - 0.5)); y <= last; y++) {
      const x = upper.x + ((y + 0.5 - upper.y) / (lower.y - upper.y)) * (lower.x - upper.x);
      if (!rows.has(y)) rows.set(y, []);
      rows.get(y).push({ x, turn });
    }
  });
  for (const [y, row] of rows) {
    row.sort((p, q) => p.x - q.x);
    let winding = 0;
    row.forEach(({ x, turn }, i) => {
      winding += turn;
      if (winding !== 0) paint(y, Math.ceil(x - 0.5), Math.floor(row[i + 1].x - 0.5) + 1);
    });
  }
}

// The connected area of like pixels around (x, y), by whole rows. `paint` must change the pixels it is given.
function paintConnected(mask, x, y, paint) {
  const { pixels, width, height } = mask;
  const wanted = pixels[y * width + x];
  const seeds = [[x, y]];
  while (seeds.length > 0) {
    const [sx, sy] = seeds.pop();
    const row = sy * width;
    if (pixels[row + sx] !== wanted) continue;
    let left = sx;
    let right = sx + 1;
    while (left > 0 && pixels[row + left - 1] === wanted) left--;
    while (right < width && pixels[row + right] === wanted) right++;
    paint(sy, left, right);
    for (const ny of [sy - 1, sy + 1]) {
      if (ny < 0 || ny >= height) continue;
      for (let nx = left; nx < right; nx++) {
        const starts = nx === left || pixels[ny * width + nx - 1] !== wanted;
        if (starts && pixels[ny * width + nx] === wanted) seeds.push([nx, ny]);
      }
    }
  }
}
