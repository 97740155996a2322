// The mask painter: puts the parts together, and connects buttons, keys, files and messages to them.
//
// For the page: `await atelierFlush(elemId)` resolves when every stroke is in the component's value, and rejects,
// with a message on the canvas, when one cannot be sent. For tests, on the component's element: data-ready="WxH",
// data-view="x y scale" (where the picture lies in the stage), data-commits, data-busy, data-error.

const PREFERENCES_KEY = "atelier.painter";
const PREFERENCES = { color: "#ff2d9b", opacity: 0.55, pressure: true };
const BRUSH_STEP = 1.12; // one press of [ or ], one notch of the wheel
const ZOOM_STEP = 1.25;
const PAN_STEP_PX = 48;
const BRUSH_SHOWN_MS = 900;

const KEYS = {
  "[": (p) => p.growBrush(-1),
  "]": (p) => p.growBrush(1),
  b: (p) => p.setTool("brush"),
  e: (p) => p.setTool("eraser"),
  r: (p) => p.setTool("rectangle"),
  l: (p) => p.setTool("lasso"),
  g: (p) => p.setTool("fill"),
  i: (p) => p.do.invert(),
  Delete: (p) => p.do.clear(),
  Backspace: (p) => p.do.clear(),
  "Ctrl+a": (p) => p.do.everything(),
  "Ctrl+z": (p) => p.do.undo(),
  "Ctrl+Shift+z": (p) => p.do.redo(),
  "Ctrl+y": (p) => p.do.redo(),
};
const KEYS_FROM_ELSEWHERE = ["[", "]", "Ctrl+z", "Ctrl+Shift+z", "Ctrl+y"];
const VIEW_KEYS = {
  "+": (p) => p.do["zoom-in"](),
  "=": (p) => p.do["zoom-in"](),
  "-": (p) => p.do["zoom-out"](),
  0: (p) => p.view.fit(),
  1: (p) => p.view.zoomAtCentre(1 / p.view.scale),
  f: (p) => p.do.fullscreen(),
  "?": (p) => p.do.help(),
};
const CANVAS_KEYS = {
  ArrowLeft: (p) => p.view.panBy(PAN_STEP_PX, 0),
  ArrowRight: (p) => p.view.panBy(-PAN_STEP_PX, 0),
  ArrowUp: (p) => p.view.panBy(0, PAN_STEP_PX),
  ArrowDown: (p) => p.view.panBy(0, -PAN_STEP_PX),
};

class Painter {
  #opening = null; // the picture being fetched or decoded; the newest wins
  #uploadFailureShown = false;
  #published = ""; // the paths of the value as this side knows it
  #brushAt = null; // where the pointer is, for the brush's outline
  #brushTimer = 0;
  #stop = new AbortController();

  constructor({ element, props, trigger, upload, watch }) {
    this.element = element;
    this.props = props;
    this.trigger = trigger;
    this.paint = props.paint;
    this.root = this.part("root");
    this.surface = this.part("surface");
    this.preferences = readPreferences();
    this.mask = null;
    this.tool = "brush";
    this.lastPoint = null;
    this.brushSize = 32;
    this.brushChosen = false;
    this.view = new View(this.part("stage"));
    this.view.onChange = () => this.#viewChanged();
    this.sync = new ValueSync({
      upload,
      publish: (value, isNewPicture) => this.#publish(value, isNewPicture ? "upload" : "input"),
      onState: () => this.report(),
    });
    this.gestures = new Gestures(this, this.surface, this.#stop.signal);
    this.do = this.#commands();
    this.#listen();
    this.#applyPreferences();
    watch("value", () => this.#adopt());
    this.#adopt();
    this.#viewChanged();
    this.report();
  }

  part(name) {
    return this.element.querySelector(`[data-part=${name}]`);
  }

  get visible() {
    return this.element.isConnected && this.element.getClientRects().length > 0;
  }

  get fullscreen() {
    return this.root.hasAttribute("data-full");
  }

  get usesPressure() {
    return this.preferences.pressure;
  }

  // -- the value ------------------------------------------------------------------------------------------------

  async flush() {
    if (this.gestures.active) this.gestures.finish();
    while (this.#opening) await this.#opening;
    try {
      await this.sync.flush();
    } catch (error) {
      this.root.scrollIntoView({ block: "nearest" });
      throw error;
    }
    return this.props.value || null;
  }

  // A File from the user. Nothing changes unless it is a picture.
  async openFile(file) {
    await this.#open(async (isNewest) => {
      const picture = await decodePicture(file, file.name, this.props.max_pixels);
      if (!isNewest()) return;
      this.#show(picture);
      this.sync.open({ file }, this.mask);
    });
  }

  async openSample() {
    const { sample } = this.props;
    await this.#open(async (isNewest) => {
      const picture = await this.#fetchPicture(sample);
      if (!isNewest()) return;
      this.#show(picture);
      this.sync.open({ data: sample }, this.mask);
    });
  }

  async loadMask(file) {
    await this.#open(async (isNewest) => {
      const picture = await decodePicture(file, file.name, this.props.max_pixels);
      if (!isNewest() || !this.mask) return;
      const { width, height } = this.mask;
      this.#change(() => this.mask.replace(maskPixels(picture, width, height)));
      if (picture.width !== width || picture.height !== height) {
        const size = `${picture.width} × ${picture.height}`;
        this.tell(`The mask has ${size} pixels and was stretched to ${width} × ${height}.`);
      }
    });
  }

  // The value came from the server, for instance from "Send to inpaint": it replaces picture and mask.
  async #adopt() {
    const value = this.props.value || null;
    if (pathsOf(value) === this.#published) return;
    this.#published = pathsOf(value);
    this.gestures.cancel();
    if (!value?.image) return this.#forget();
    delete this.element.dataset.ready;
    await this.#open(async (isNewest) => {
      const picture = await this.#fetchPicture(value.image);
      const painted = value.mask && this.paint ? await this.#fetchPicture(value.mask) : null;
      if (!isNewest()) return;
      const mask = new Mask(picture.width, picture.height);
      if (painted) mask.pixels.set(maskPixels(painted, picture.width, picture.height));
      this.#show(picture, mask);
      this.sync.adopt(value.image, this.mask, value.mask ?? null);
    });
  }

  // Runs `work(isNewest)`, which may end by showing a picture; a failure becomes a message.
  #open(work) {
    const opening = work(() => this.#opening === opening)
      .catch((error) => this.tell(error.message))
      .finally(() => {
        if (this.#opening === opening) this.#opening = null;
        this.report();
      });
    this.#opening = opening;
    this.report();
    return opening;
  }

  async #fetchPicture({ url, orig_name }) {
    const response = await fetch(url);
    if (!response.ok) throw new NotAPicture(`The picture could not be fetched from the server (${response.status}).`);
    return decodePicture(await response.blob(), orig_name ?? "The picture", this.props.max_pixels);
  }

  #show(picture, mask = new Mask(picture.width, picture.height)) {
    this.gestures.cancel();
    this.mask = this.paint ? mask : null;
    this.lastPoint = null;
    this.root.removeAttribute("data-empty");
    this.part("stage").style.aspectRatio = `${picture.width} / ${picture.height}`;
    this.view.show(picture, this.mask);
    if (!this.brushChosen) this.setBrushSize(Math.max(8, Math.min(picture.width, picture.height) / 14), false);
    else this.setBrushSize(this.brushSize, true);
    this.quiet();
    this.part("live").textContent = `Picture opened, ${picture.width} x ${picture.height}`;
    this.part("facts").textContent = `${picture.width} × ${picture.height}`;
    this.element.dataset.ready = `${picture.width}x${picture.height}`;
    this.report();
  }

  #forget() {
    this.#opening = null;
    this.gestures.cancel();
    this.mask = null;
    this.brushChosen = false;
    this.root.setAttribute("data-empty", "");
    this.view.show(null, null);
    this.sync.adopt(null, null, null);
    this.quiet();
    this.part("facts").textContent = "";
    delete this.element.dataset.ready;
    this.report();
  }

  #publish(value, event) {
    this.#published = pathsOf(value);
    this.props.value = value;
    this.element.dataset.commits = Number(this.element.dataset.commits ?? 0) + 1;
    this.trigger(event);
  }

  // -- the mask -------------------------------------------------------------------------------------------------

  #change(edit) {
    if (!this.mask) return;
    this.gestures.cancel();
    this.mask.begin();
    edit();
    this.endChange();
  }

  endChange() {
    this.outline(null);
    if (this.mask.changing && this.mask.commit()) this.sync.maskChanged();
    this.view.maskChanged();
    this.report();
  }

  #stepHistory(step) {
    this.gestures.cancel();
    if (!this.mask?.[step]()) return;
    this.view.maskChanged();
    this.sync.maskChanged();
  }

  // -- what is shown --------------------------------------------------------------------------------------------

  // Brings attributes and buttons in line with the state.
  report() {
    const { sync, gestures, mask } = this;
    const busy = sync.pending || this.#opening || (gestures?.active && mask?.changing);
    setFlag(this.element, "data-busy", busy);
    setFlag(this.element, "data-error", sync.error);
    this.part("saving").hidden = !busy || Boolean(sync.error);
    this.#disable("undo", !mask?.canUndo);
    this.#disable("redo", !mask?.canRedo);
    if (sync.error && !this.#uploadFailureShown) this.#tellUploadFailed(sync.error);
    else if (!sync.error && this.#uploadFailureShown) this.quiet();
  }

  tell(text) {
    this.part("message-text").textContent = text;
    this.part("message").hidden = false;
    this.element.querySelector("[data-do=retry]").hidden = true;
  }

  quiet() {
    this.part("message").hidden = true;
    this.#uploadFailureShown = false;
  }

  #tellUploadFailed(error) {
    this.#uploadFailureShown = true;
    this.tell(`This could not be sent to the server, but nothing is lost here. (${error.message})`);
    this.element.querySelector("[data-do=retry]").hidden = false;
  }

  outline(points) {
    const corners = points?.map((point) => {
      const { x, y } = this.view.toStage(point);
      return `${x.toFixed(1)} ${y.toFixed(1)}`;
    });
    for (const name of ["outline-dark", "outline-light"]) {
      this.part(name).setAttribute("d", corners ? `M${corners.join("L")}Z` : "");
    }
  }

  showBrush(clientX, clientY) {
    const sized = this.paint && this.view.picture && ["brush", "eraser"].includes(this.tool);
    const radius = sized ? Math.max((this.brushSize * this.view.scale) / 2, 1) : 0;
    const box = this.surface.getBoundingClientRect();
    this.#brushAt = { clientX, clientY };
    for (const [name, grow] of [["brush-dark", 0.5], ["brush-light", -0.5]]) {
      const circle = this.part(name);
      circle.setAttribute("cx", clientX - box.left);
      circle.setAttribute("cy", clientY - box.top);
      circle.setAttribute("r", sized ? Math.max(radius + grow, 0.5) : 0);
    }
    this.surface.style.cursor = sized && radius > 4 && !this.gestures.spaceHeld ? "none" : "";
  }

  hideBrush() {
    this.#brushAt = null;
    for (const name of ["brush-dark", "brush-light"]) this.part(name).setAttribute("r", 0);
  }

  setTool(tool) {
    if (!this.paint) return;
    this.gestures.cancel();
    this.tool = tool;
    for (const button of this.element.querySelectorAll("[data-tool]")) {
      button.setAttribute("aria-pressed", button.dataset.tool === tool);
    }
    if (this.#brushAt) this.showBrush(this.#brushAt.clientX, this.#brushAt.clientY);
  }

  growBrush(direction) {
    const step = Math.max(1, Math.round(this.brushSize * (BRUSH_STEP - 1)));
    this.setBrushSize(this.brushSize + direction * step, true);
    this.#flashBrush();
  }

  setBrushSize(size, chosen) {
    if (!this.paint) return;
    this.brushChosen = chosen;
    this.brushSize = Math.round(Math.min(Math.max(size, 1), this.#largestBrush()));
    const slider = this.part("size");
    slider.value = 100 * Math.sqrt((this.brushSize - 1) / (this.#largestBrush() - 1));
    slider.setAttribute("aria-valuetext", `${this.brushSize} pixels`);
    this.part("size-text").textContent = `${this.brushSize} px`;
  }

  // The slider is quadratic: small brushes need finer steps.
  #slideBrush(position) {
    this.setBrushSize(1 + (this.#largestBrush() - 1) * (position / 100) ** 2, true);
    this.#flashBrush();
  }

  #largestBrush() {
    const { picture } = this.view;
    return picture ? Math.max(128, Math.round(Math.min(picture.width, picture.height) / 2)) : 256;
  }

  #flashBrush() {
    if (this.#brushAt) return this.showBrush(this.#brushAt.clientX, this.#brushAt.clientY);
    const box = this.surface.getBoundingClientRect();
    this.showBrush(box.left + box.width / 2, box.top + box.height / 2);
    this.#brushAt = null;
    clearTimeout(this.#brushTimer);
    this.#brushTimer = setTimeout(() => this.#brushAt ?? this.hideBrush(), BRUSH_SHOWN_MS);
    return undefined;
  }

  #viewChanged() {
    this.part("zoom").textContent = this.view.picture ? `${Math.round(this.view.scale * 100)}%` : "";
    const { x, y, scale } = this.view;
    this.element.dataset.view = `${x} ${y} ${scale}`;
    setFlag(this.surface, "data-still", !this.paint && this.view.fitted);
    if (this.#brushAt) this.showBrush(this.#brushAt.clientX, this.#brushAt.clientY);
  }

  #disable(name, disabled) {
    this.element.querySelector(`[data-do=${name}]`)?.setAttribute("aria-disabled", String(disabled));
  }

  // -- commands -------------------------------------------------------------------------------------------------

  #commands() {
    const commands = {
      open: () => this.element.querySelector("input[type=file]").click(),
      paste: () => this.#pasteFromClipboard(),
      sample: () => this.openSample(),
      remove: () => this.#remove(),
      retry: () => this.sync.flush().catch(() => {}), // the message stays
      dismiss: () => this.quiet(),
      fit: () => this.view.fit(),
      "zoom-in": () => this.view.zoomAtCentre(ZOOM_STEP),
      "zoom-out": () => this.view.zoomAtCentre(1 / ZOOM_STEP),
      fullscreen: () => this.#toggleFullscreen(),
      help: () => this.#togglePopover("help"),
    };
    const painting = {
      undo: () => this.#stepHistory("undo"),
      redo: () => this.#stepHistory("redo"),
      invert: () => this.#change(() => this.mask.invert()),
      clear: () => this.#change(() => this.#setAll(0)),
      everything: () => this.#change(() => this.#setAll(MASKED)),
      load: () => pickFile((file) => this.loadMask(file)),
      save: () => this.#saveMask(),
      options: () => this.#togglePopover("options"),
    };
    return this.paint ? { ...commands, ...painting } : commands;
  }

  #setAll(value) {
    for (let y = 0; y < this.mask.height; y++) this.mask.span(y, 0, this.mask.width, value);
  }

  #remove() {
    this.#forget();
    this.#publish({ image: null, mask: null }, "clear"); // Gradio turns null into "", which no handler can read
    this.part("live").textContent = "Picture removed";
  }

  async #saveMask() {
    if (!this.mask) return;
    const url = URL.createObjectURL(await encodeMask(this.mask));
    const link = Object.assign(document.createElement("a"), { href: url, download: "mask.png" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async #pasteFromClipboard() {
    try {
      for (const item of await navigator.clipboard.read()) {
        const type = item.types.find((name) => name.startsWith("image/"));
        if (type) return await this.openFile(new File([await item.getType(type)], "pasted.png", { type }));
      }
      return this.tell("There is no picture on the clipboard.");
    } catch {
      return this.tell("The browser does not let this page read the clipboard. Press Ctrl+V instead.");
    }
  }

  #toggleFullscreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else if (this.fullscreen) this.#setFull(false);
    else if (this.root.requestFullscreen) this.root.requestFullscreen().catch(() => this.#setFull(true));
    else this.#setFull(true); // phones that only let videos go fullscreen
  }

  #setFull(full) {
    setFlag(this.root, "data-full", full);
    this.element.querySelector("[data-do=fullscreen]").setAttribute("aria-pressed", String(full));
  }

  #togglePopover(name) {
    this.#showPopover(this.part(name).hidden ? name : null);
  }

  // One at a time; null closes them all.
  #showPopover(name) {
    for (const other of this.paint ? ["options", "help"] : ["help"]) {
      const show = other === name;
      this.part(other).hidden = !show;
      if (show) keepWithin(this.part(other), this.root);
      this.element.querySelector(`[data-do=${other}]`).setAttribute("aria-expanded", String(show));
    }
  }

  // -- events ---------------------------------------------------------------------------------------------------

  #listen() {
    const on = (target, type, handler) => target?.addEventListener(type, handler, { signal: this.#stop.signal });
    on(this.root, "click", (event) => this.#clicked(event));
    on(this.root, "keydown", (event) => this.keyDown(event));
    on(this.root, "keyup", (event) => event.key === " " && this.#holdSpace(false));
    on(this.root, "focusin", () => (Painter.latest = this));
    on(document, "fullscreenchange", () => this.#setFull(document.fullscreenElement === this.root));
    on(document, "pointerdown", (event) => event.target.closest(".anchor") ?? this.#showPopover(null));
    on(this.root, "dragover", (event) => this.#dragOver(event));
    on(this.root, "dragleave", (event) => setFlag(this.root, "data-drop", this.root.contains(event.relatedTarget)));
    on(this.root, "drop", (event) => this.#dropped(event));
    const input = this.element.querySelector("input[type=file]");
    on(input, "change", () => {
      if (input.files[0]) this.openFile(input.files[0]);
      input.value = ""; // the same file may be chosen again
    });
    on(this.part("size"), "input", (event) => this.#slideBrush(event.target.valueAsNumber));
    for (const name of Object.keys(PREFERENCES)) on(this.part(name), "input", () => this.#readOptions());
    const sample = this.element.querySelector("img[data-part=sample]");
    if (sample) sample.src = this.props.sample.url;
  }

  #clicked(event) {
    const button = event.target.closest("button");
    if (!button || button.getAttribute("aria-disabled") === "true") return;
    if (button.dataset.tool) this.setTool(button.dataset.tool);
    else this.do[button.dataset.do]?.();
  }

  keyDown(event) {
    const typing = event.target.matches("input:not([type=range], [type=checkbox]), textarea, select");
    if (typing || event.defaultPrevented) return;
    if (event.key === " " && event.target === this.surface) return this.#take(event, () => this.#holdSpace(true));
    if (event.key === "Escape") return this.#escape(event);
    const name = keyName(event);
    const table = { ...(this.paint ? KEYS : {}), ...VIEW_KEYS, ...(event.target === this.surface ? CANVAS_KEYS : {}) };
    if (this.view.picture && Object.hasOwn(table, name)) this.#take(event, () => table[name](this));
    return undefined;
  }

  #take(event, action) {
    event.preventDefault();
    event.stopPropagation();
    action();
  }

  // Takes Escape only when there is something here to leave: elsewhere it means "interrupt".
  #escape(event) {
    const open = ["options", "help"].find((name) => this.part(name)?.hidden === false);
    if (open) this.#take(event, () => this.#showPopover(null));
    else if (this.gestures.active) this.#take(event, () => this.gestures.cancel());
    else if (this.fullscreen) this.#take(event, () => this.#toggleFullscreen());
  }

  #holdSpace(held) {
    this.gestures.spaceHeld = held;
    setFlag(this.surface, "data-pan", held);
    if (this.#brushAt) this.showBrush(this.#brushAt.clientX, this.#brushAt.clientY);
  }

  #dragOver(event) {
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    setFlag(this.root, "data-drop", true);
  }

  #dropped(event) {
    setFlag(this.root, "data-drop", false);
    if (!hasFiles(event.dataTransfer)) return;
    event.preventDefault();
    event.stopPropagation();
    const file = event.dataTransfer.files[0];
    if (file) this.openFile(file);
    else this.tell("What was dropped is not a picture file.");
  }

  // -- preferences ----------------------------------------------------------------------------------------------

  #applyPreferences() {
    const { color, opacity, pressure } = this.preferences;
    Object.assign(this.view, { color, opacity });
    if (!this.paint) return;
    this.part("color").value = color;
    this.part("opacity").value = opacity * 100;
    this.part("pressure").checked = pressure;
  }

  #readOptions() {
    this.preferences = {
      color: this.part("color").value,
      opacity: this.part("opacity").valueAsNumber / 100,
      pressure: this.part("pressure").checked,
    };
    this.#applyPreferences();
    this.view.redraw();
    try {
      localStorage.setItem(PREFERENCES_KEY, JSON.stringify(this.preferences));
    } catch {
      // A browser that keeps nothing: the choice holds until the page is left.
    }
  }

  leave() {
    this.#stop.abort();
  }
}

Painter.latest = null; // the one used last

function readPreferences() {
  try {
    return { ...PREFERENCES, ...JSON.parse(localStorage.getItem(PREFERENCES_KEY)) };
  } catch {
    return { ...PREFERENCES };
  }
}

function setFlag(element, name, on) {
  if (on) element.setAttribute(name, "1");
  else element.removeAttribute(name);
}

// Shifts a popover sideways as far as it stands out of the painter.
function keepWithin(popover, root) {
  popover.style.translate = "";
  const [box, room] = [popover.getBoundingClientRect(), root.getBoundingClientRect()];
  popover.style.translate = `${Math.max(0, room.left + 6 - box.left)}px`;
}

function pathsOf(value) {
  return value?.image ? `${value.image.path}|${value.mask?.path ?? ""}` : "";
}

function keyName(event) {
  const control = event.ctrlKey || event.metaKey;
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.altKey) return "";
  return `${control ? "Ctrl+" : ""}${control && event.shiftKey ? "Shift+" : ""}${key}`;
}

function hasFiles(transfer) {
  return transfer.types.includes("Files");
}

function pickFile(use) {
  const input = Object.assign(document.createElement("input"), { type: "file", accept: "image/*" });
  input.addEventListener("change", () => input.files[0] && use(input.files[0]));
  input.click();
}

// -- all painters of the page -----------------------------------------------------------------------------------

const painters = new Map(); // elem_id -> Painter

function mount(connection) {
  const { id } = connection.element.parentElement.closest("[id]");
  painters.get(id)?.leave();
  painters.set(id, new Painter(connection));
}

function inCharge() {
  const visible = [...painters.values()].filter((painter) => painter.visible);
  return visible.find((painter) => painter === Painter.latest) ?? visible[0];
}

// A pasted picture goes to the painter in sight, unless text is being pasted into a field.
document.addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])].find((candidate) => candidate.type.startsWith("image/"));
  const painter = inCharge();
  if (!file || !painter || event.clipboardData.types.includes("text/plain")) return;
  event.preventDefault();
  painter.openFile(file);
});

// Some keys reach the painter used last from elsewhere too, say from Generate, but never from a field.
document.addEventListener("keydown", (event) => {
  const painter = Painter.latest;
  const elsewhere = event.target.matches("body, button, a") && !painter?.root.contains(event.target);
  const meant = elsewhere && KEYS_FROM_ELSEWHERE.includes(keyName(event));
  if (meant && painter && painter === inCharge()) painter.keyDown(event);
});

window.atelierPainter = { mount };
window.atelierFlush = async (elemId) => painters.get(elemId)?.flush() ?? null;
