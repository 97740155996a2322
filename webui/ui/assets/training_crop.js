/* The part of a photo that is learnt: a box over the picture, moved and resized by mouse, finger or keys. */
"use strict";
const atelierTrainingCrop = (() => {
  const { make } = atelier;
  const SMALLEST_PX = 16, FINE_STEP = 0.01, COARSE_STEP = 0.05;
  const HANDLES = [[-1, -1], [0, -1], [1, -1], [-1, 0], [1, 0], [-1, 1], [0, 1], [1, 1]];
  const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  /* ---- boxes: [left, top, right, bottom] in pixels of a photo of `width` x `height` ---------------------------------- */
  const clamp = (value, low, high) => Math.min(Math.max(value, low), Math.max(low, high));
  function moved([left, top, right, bottom], dx, dy, { width, height }) {
    const x = clamp(left + dx, 0, width - (right - left)), y = clamp(top + dy, 0, height - (bottom - top));
    return [x, y, x + right - left, y + bottom - top];
  }
  /* `x` and `y` say which edges are pulled: -1 the left or upper one, 1 the other, 0 none. `aspect` is kept unless null. */
  function resized([left, top, right, bottom], x, y, dx, dy, { width, height }, aspect) {
    const roomOf = (way, low, high, all) => (way > 0 ? all - low : way < 0 ? high : Math.min(low + high, 2 * all - low - high));
    const roomX = x || !aspect ? roomOf(x || 1, left, right, width) : roomOf(0, left, right, width);
    const roomY = y || !aspect ? roomOf(y || 1, top, bottom, height) : roomOf(0, top, bottom, height);
    const smallest = Math.min(SMALLEST_PX, width, height);
    let w = Math.max(smallest, right - left + x * dx), h = Math.max(smallest, bottom - top + y * dy);
    if (aspect) {
      if (x && y) w = Math.max(w, h * aspect);
      else if (y) w = h * aspect;
      h = w / aspect;
      const scale = Math.min(1, roomX / w, roomY / h);
      w *= scale;
      h *= scale;
    }
    w = Math.min(w, roomX);
    h = Math.min(h, roomY);
    const place = (way, low, high, size) => (way > 0 ? low : way < 0 ? high - size : aspect ? (low + high - size) / 2 : low);
    const l = place(x, left, right, w), t = place(y, top, bottom, h);
    return [l, t, l + w, t + h];
  }
  /* The largest of this shape, about the middle of `box`. */
  function shaped([left, top, right, bottom], aspect, { width, height }) {
    const w = Math.min(width, height * aspect), h = w / aspect;
    const l = clamp((left + right - w) / 2, 0, width - w), t = clamp((top + bottom - h) / 2, 0, height - h);
    return [l, t, l + w, t + h];
  }
  const rounded = (box) => box.map(Math.round);

  /* ---- on the page ------------------------------------------------------------------------------------------------- */
  /* Over `frame`, which is as large as the picture on the screen. `changed(box)` is called when the user has let go. */
  function cropper({ changed, moving }) {
    let size = null, box = null, aspect = null, drag = null, keyed = 0;
    const handles = HANDLES.map(([x, y]) => make("i", { class: "at-crop-handle", "data-x": x, "data-y": y, style: `left:${50 + 50 * x}%;top:${50 + 50 * y}%` }));
    const node = make("div", { class: "at-crop-box", tabindex: 0, role: "group", hidden: true }, ...handles);
    const hole = make("i"), shade = make("div", { class: "at-crop-shade", hidden: true }, hole);

    function draw() {
      const percent = (value, all) => `${(100 * value) / all}%`;
      const [left, top, right, bottom] = box;
      const place = { left: percent(left, size.width), top: percent(top, size.height), width: percent(right - left, size.width), height: percent(bottom - top, size.height) };
      Object.assign(node.style, place);
      Object.assign(hole.style, place);
      const [l, t, r, b] = rounded(box);
      node.dataset.box = [l, t, r, b].join();
      node.setAttribute("aria-label", `Part that is learnt: ${r - l} by ${b - t} pixels, ${l} from the left, ${t} from the top. Arrows move it, with Shift they resize it.`);
      moving(rounded(box));
    }
    function start(event) {
      if (event.button > 0) return;
      event.preventDefault();
      node.focus({ preventScroll: true });
      node.setPointerCapture(event.pointerId);
      const { x, y } = event.target.dataset, frame = node.parentElement.getBoundingClientRect();
      drag = { id: event.pointerId, from: box, at: [event.clientX, event.clientY], scale: size.width / frame.width, edges: x === undefined ? null : [+x, +y] };
    }
    function pull(event) {
      if (!drag || event.pointerId !== drag.id) return;
      const dx = (event.clientX - drag.at[0]) * drag.scale, dy = (event.clientY - drag.at[1]) * drag.scale;
      box = drag.edges ? resized(drag.from, ...drag.edges, dx, dy, size, aspect) : moved(drag.from, dx, dy, size);
      draw();
    }
    function end(event) {
      if (!drag || event.pointerId !== drag.id) return;
      const { from } = drag;
      drag = null;
      if (rounded(from).join() !== rounded(box).join()) changed(rounded(box));
    }
    function key(event) {
      const way = KEYS[event.key];
      if (!way || event.altKey || event.metaKey) return;
      event.preventDefault();
      event.stopPropagation();
      const step = Math.max(1, Math.round((event.ctrlKey ? COARSE_STEP : FINE_STEP) * Math.max(size.width, size.height)));
      const [dx, dy] = way.map((one) => one * step);
      box = event.shiftKey ? resized(box, dx ? 1 : 0, dy ? 1 : 0, dx, dy, size, aspect) : moved(box, dx, dy, size);
      draw();
      clearTimeout(keyed);
      keyed = setTimeout(flush, 600);
    }
    /* What keys have changed and was not told yet. */
    function flush() {
      if (!keyed) return;
      clearTimeout(keyed);
      keyed = 0;
      changed(rounded(box));
    }
    node.addEventListener("pointerdown", start);
    node.addEventListener("pointermove", pull);
    node.addEventListener("pointerup", end);
    node.addEventListener("pointercancel", (event) => { if (drag) { box = drag.from; draw(); end(event); } });
    node.addEventListener("keydown", key);
    node.addEventListener("blur", flush);

    return {
      nodes: [shade, node],
      node,
      show(photo) {
        if (drag || keyed) return; // the server's answer to what was before
        size = { width: photo.width, height: photo.height };
        box = photo.crop || [0, 0, size.width, size.height];
        node.hidden = shade.hidden = !size.width;
        if (size.width) draw();
      },
      hide() { flush(); node.hidden = shade.hidden = true; },
      flush,
      /* `ratio` null: free. */
      shape(ratio) {
        aspect = ratio;
        if (!ratio) return;
        box = shaped(box, ratio, size);
        draw();
        changed(rounded(box));
      },
    };
  }
  return { cropper, moved, resized, shaped };
})();
