/* A mask painted over a photo: what is covered is ignored. A plain brush; the painter of the Inpaint tab belongs to Gradio's value. */
"use strict";
const atelierTrainingMask = (() => {
  const { make } = atelier;
  const LONGEST_PX = 1024, COLOR = "#e11d48", BACK_STEPS = 12;

  /* Over the picture's frame. `changed()` is called after every stroke. */
  function painter({ changed }) {
    const canvas = make("canvas", { class: "at-mask-canvas", hidden: true, "aria-label": "Mask: what is covered is ignored", role: "img" });
    const brush = canvas.getContext("2d", { willReadFrequently: true });
    let size = 0.1, covers = true, last = null, back = [], dirty = false;

    function open({ width, height }, mask) {
      const scale = Math.min(1, LONGEST_PX / Math.max(width, height));
      canvas.width = Math.max(1, Math.round(width * scale));
      canvas.height = Math.max(1, Math.round(height * scale));
      back = [];
      dirty = false;
      if (mask) cover(mask);
      canvas.hidden = false;
      changed();
    }
    /* Black in `mask` is covered. */
    function cover(mask) {
      brush.drawImage(mask, 0, 0, canvas.width, canvas.height);
      const pixels = brush.getImageData(0, 0, canvas.width, canvas.height), { data } = pixels;
      const [red, green, blue] = [1, 3, 5].map((at) => parseInt(COLOR.slice(at, at + 2), 16));
      for (let at = 0; at < data.length; at += 4) {
        const ignored = 255 - (data[at] * data[at + 3]) / 255;
        [data[at], data[at + 1], data[at + 2], data[at + 3]] = [red, green, blue, ignored];
      }
      brush.putImageData(pixels, 0, 0);
    }
    function remember() {
      back.push(brush.getImageData(0, 0, canvas.width, canvas.height));
      if (back.length > BACK_STEPS) back.shift();
      dirty = true;
    }
    function undo() {
      const before = back.pop();
      if (before) brush.putImageData(before, 0, 0);
      changed();
      return !!before;
    }
    function everything(covered) {
      remember();
      brush.globalCompositeOperation = "source-over";
      brush.clearRect(0, 0, canvas.width, canvas.height);
      brush.fillStyle = COLOR;
      if (covered) brush.fillRect(0, 0, canvas.width, canvas.height);
      changed();
    }
    const pointOf = (event) => {
      const place = canvas.getBoundingClientRect();
      return [((event.clientX - place.left) / place.width) * canvas.width, ((event.clientY - place.top) / place.height) * canvas.height];
    };
    function stroke(from, to) {
      brush.globalCompositeOperation = covers ? "source-over" : "destination-out";
      brush.strokeStyle = COLOR;
      brush.lineWidth = size * Math.max(canvas.width, canvas.height);
      brush.lineCap = "round";
      brush.beginPath();
      brush.moveTo(...from);
      brush.lineTo(...to);
      brush.stroke();
    }
    canvas.addEventListener("pointerdown", (event) => {
      if (event.button > 0) return;
      event.preventDefault();
      canvas.setPointerCapture(event.pointerId);
      remember();
      last = pointOf(event);
      stroke(last, last);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!last) return;
      for (const each of event.getCoalescedEvents?.() || [event]) { const to = pointOf(each); stroke(last, to); last = to; }
    });
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, () => { if (last) { last = null; changed(); } });
    /* White is learnt, black ignored. */
    function png() {
      const whole = make("canvas", { width: canvas.width, height: canvas.height }), context = whole.getContext("2d");
      context.drawImage(canvas, 0, 0);
      context.globalCompositeOperation = "source-in";
      context.fillStyle = "#000";
      context.fillRect(0, 0, whole.width, whole.height);
      context.globalCompositeOperation = "destination-over";
      context.fillStyle = "#fff";
      context.fillRect(0, 0, whole.width, whole.height);
      return new Promise((resolve) => whole.toBlob(resolve, "image/png"));
    }
    return { canvas, open, undo, everything, png, close: () => { canvas.hidden = true; dirty = false; }, dirty: () => dirty, saved: () => { dirty = false; }, steps: () => back.length,
      set: (news) => { ({ size, covers } = { size, covers, ...news }); } };
  }
  return { painter };
})();
