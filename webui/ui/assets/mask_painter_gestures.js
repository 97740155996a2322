// Pointer, touch, pen and wheel on the stage. One finger paints, two move and zoom; a second finger takes back what
// the first one began to paint.
//
// The wheel: Ctrl + wheel always zooms, because a trackpad's pinch arrives as exactly that. Shift or Alt + wheel
// sizes the brush. A plain wheel zooms once the canvas has been clicked, and goes back to scrolling the page when
// the page has been scrolled elsewhere or the focus has left: a painter on the way down a page must not trap it.

const WHEEL_ZOOM = 0.0015; // natural logarithm of the zoom, per pixel of wheel
const LINE_PX = 16; // a wheel that counts in lines
const MIDDLE = 1;
const RIGHT = 2;

class Gestures {
  #pointers = new Map();
  #action = null; // {move, end, cancel} of the press that is going on
  #pinch = null;
  #penSeen = false;
  #armed = false; // a plain wheel zooms

  constructor(painter, canvas, signal) {
    this.painter = painter;
    this.canvas = canvas;
    this.spaceHeld = false;
    const on = (target, type, handler, options = {}) =>
      target.addEventListener(type, handler.bind(this), { signal, ...options });
    on(canvas, "pointerdown", this.#down);
    on(canvas, "pointermove", this.#move);
    on(canvas, "pointerup", this.#up);
    on(canvas, "pointercancel", this.#cancelled);
    on(canvas, "pointerleave", () => painter.hideBrush());
    on(canvas, "contextmenu", (event) => event.preventDefault());
    on(canvas, "wheel", this.#wheel, { passive: false });
    on(canvas, "focus", () => (this.#armed = true));
    on(canvas, "blur", this.#left);
    on(canvas, "keydown", () => canvas.removeAttribute("data-pressed"));
    on(document, "wheel", this.#wheelAnywhere, { passive: true });
  }

  get active() {
    return this.#action !== null;
  }

  // Ends the press as if the pointer had been lifted.
  finish() {
    const action = this.#action;
    this.#action = null;
    action?.end();
    this.painter.report();
  }

  cancel() {
    const action = this.#action;
    this.#action = null;
    action?.cancel();
    this.painter.report();
  }

  #down(event) {
    if (!this.painter.view.picture) return;
    this.canvas.setAttribute("data-pressed", ""); // no focus ring for a pointer
    this.canvas.focus({ preventScroll: true });
    this.#armed = true;
    this.#penSeen ||= event.pointerType === "pen";
    this.#pointers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    this.canvas.setPointerCapture(event.pointerId);
    if (this.#pointers.size === 2) this.#beginPinch();
    if (this.#pointers.size > 1 || this.active) return;
    event.preventDefault();
    this.#action = this.#pans(event) ? this.#panning(event) : this.#painting(event);
    this.painter.report();
  }

  #move(event) {
    const known = this.#pointers.get(event.pointerId);
    if (known) Object.assign(known, { x: event.clientX, y: event.clientY });
    if (this.#pinch) this.#movePinch();
    else if (known && this.#action) this.#action.move(event);
    if (event.pointerType !== "touch") this.painter.showBrush(event.clientX, event.clientY);
  }

  #up(event) {
    this.#pointers.delete(event.pointerId);
    if (this.#pinch) {
      if (this.#pointers.size < 2) this.#pinch = null;
    } else if (this.#pointers.size === 0 && this.#action) this.finish();
  }

  #cancelled(event) {
    this.#pointers.delete(event.pointerId);
    this.#pinch = null;
    this.cancel();
  }

  // With a pen at hand, a finger or the palm does not paint.
  #pans(event) {
    const { pointerType, button } = event;
    return button === MIDDLE || this.spaceHeld || !this.painter.paint || (pointerType === "touch" && this.#penSeen);
  }

  #panning(event) {
    let last = { x: event.clientX, y: event.clientY };
    const move = ({ clientX, clientY }) => {
      this.painter.view.panBy(clientX - last.x, clientY - last.y);
      last = { x: clientX, y: clientY };
    };
    return { move, end() {}, cancel() {} };
  }

  #painting(event) {
    const { painter } = this;
    const tool = makeTool(painter, event.altKey || event.button === RIGHT);
    painter.mask.begin();
    tool.start(this.#point(event), event.shiftKey ? painter.lastPoint : null);
    painter.view.maskChanged();
    painter.lastPoint = this.#point(event);
    return {
      move: (moved) => {
        const steps = moved.getCoalescedEvents?.() ?? [];
        for (const step of steps.length > 0 ? steps : [moved]) tool.move(this.#point(step));
        painter.lastPoint = this.#point(moved);
        painter.view.maskChanged();
      },
      end: () => {
        tool.end();
        painter.endChange();
      },
      cancel: () => {
        painter.mask.cancel();
        painter.endChange();
      },
    };
  }

  #point(event) {
    const pressure = event.pointerType === "pen" && this.painter.usesPressure ? event.pressure : 1;
    return { ...this.painter.view.toPicture(event.clientX, event.clientY), pressure };
  }

  #beginPinch() {
    this.cancel();
    this.#pinch = this.#span();
  }

  #movePinch() {
    const before = this.#pinch;
    const now = this.#span();
    this.painter.view.panBy(now.x - before.x, now.y - before.y);
    if (before.distance > 0) this.painter.view.zoomBy(now.distance / before.distance, now.x, now.y);
    this.#pinch = now;
  }

  #span() {
    const [a, b] = [...this.#pointers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, distance: Math.hypot(a.x - b.x, a.y - b.y) };
  }

  #wheel(event) {
    const { painter } = this;
    if (!painter.view.picture) return;
    const delta = (event.deltaY || event.deltaX) * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1);
    if (painter.paint && (event.shiftKey || event.altKey)) painter.growBrush(-Math.sign(delta));
    else if (event.ctrlKey || event.metaKey || this.#armed || painter.fullscreen) {
      // A pinch comes in small deltas, a wheel in notches of about 100.
      const speed = event.ctrlKey && Math.abs(delta) < 50 ? 6 * WHEEL_ZOOM : WHEEL_ZOOM;
      painter.view.zoomBy(Math.exp(-delta * speed), event.clientX, event.clientY);
    } else return;
    event.preventDefault();
    painter.showBrush(event.clientX, event.clientY);
  }

  #wheelAnywhere(event) {
    if (!this.painter.root.contains(event.target)) this.#armed = false;
  }

  #left() {
    this.#armed = false;
    this.spaceHeld = false;
  }
}
