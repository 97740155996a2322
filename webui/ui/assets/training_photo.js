/* One photo, large: its caption, the part that is learnt, its mask, how often it counts. Changes are kept as they are made. */
"use strict";
const atelierTrainingPhoto = (() => {
  const T = atelierTraining, { make } = atelier;
  const MODES = { look: "Look", crop: "Crop", mask: "Mask" };
  const FREE = "free";

  /* `studio` is what training_photos.js gives: url, act, send, data, problemsOf. */
  function viewer(studio) {
    let names = [], at = 0, mode = "look", saved = "", dialog = null, parts = null, opener = null, cropsOnTheirWay = 0;
    const current = () => studio.photo(names[at]);

    /* ---- building ------------------------------------------------------------------------------------------------- */
    function build() {
      const crop = atelierTrainingCrop.cropper({ changed: saveCrop, moving: ([left, top, right, bottom]) => T.setText(parts.cropText, `${right - left} × ${bottom - top} px of the photo`) });
      const mask = atelierTrainingMask.painter({ changed: drawMaskTools });
      const key = (text, name, run) => T.tool(text, run, { "aria-label": name, title: name });
      parts = {
        crop, mask, title: make("h2"), place: make("span", { class: "at-train-note" }), error: T.error(),
        picture: make("img", { alt: "", draggable: "false" }), shade: make("img", { class: "at-mask-shown", alt: "", hidden: true }),
        modes: Object.fromEntries(Object.entries(MODES).map(([name, text]) => [name, T.tool(text, () => setMode(name), { "data-mode": name })])),
        caption: make("textarea", { rows: 5, name: "caption", "aria-label": "Caption", onblur: saveCaption, onkeydown: captionKey }),
        captionNote: T.note("", { hidden: true }), told: T.note("", { role: "status", hidden: true }),
        facts: T.note(), problems: make("ul", { class: "at-photo-problems", "aria-label": "Problems of this photo" }),
        excluded: make("input", { type: "checkbox", name: "excluded", onchange: () => change({ excluded: parts.excluded.checked }) }),
        repeats: make("input", { type: "number", name: "repeats", min: 1, max: 1000, step: 1, onchange: saveRepeats }),
        undo: T.tool("Undo", () => undo()), cropText: make("span", { class: "at-train-note" }),
      };
      parts.frame = make("div", { class: "at-photo-frame" }, parts.picture, parts.shade, mask.canvas, ...crop.nodes);
      parts.stage = make("div", { class: "at-photo-stage" }, parts.frame);
      parts.cropTools = cropTools();
      parts.maskTools = maskTools();
      const side = make("div", { class: "at-photo-side" },
        make("div", { class: "at-train-bar", role: "group", "aria-label": "What to do" }, ...Object.values(parts.modes), parts.undo), parts.cropTools, parts.maskTools, parts.error,
        T.labelled("Caption", parts.caption), parts.captionNote, parts.told, parts.problems, parts.facts,
        make("div", { class: "at-train-bar" }, make("label", { class: "at-train-tick", title: "It stays where it is, and is not learnt from." }, parts.excluded, "Leave out"),
          make("label", { class: "at-train-tick", title: "How often an epoch shows it." }, "Repeats", parts.repeats)));
      dialog = make("dialog", { class: "at-train-dialog at-photo-dialog", "aria-label": "Photo" },
        make("header", {}, key("‹", "Previous photo (Page up)", () => step(-1)), make("div", {}, parts.title, parts.place), key("›", "Next photo (Page down)", () => step(1)), key("✕", "Close", close)),
        parts.stage, side);
      dialog.addEventListener("keydown", onKey);
      dialog.addEventListener("cancel", (event) => { event.preventDefault(); close(); });
      addEventListener("pagehide", () => { if (dialog.open) saveCaption(); });
      parts.picture.addEventListener("load", fit);
      new ResizeObserver(fit).observe(parts.stage);
      (document.querySelector(".at-page") || document.body).append(dialog);
    }
    function cropTools() {
      parts.shape = make("select", { "aria-label": "Shape of the part", onchange: () => parts.crop.shape(parts.shape.value === FREE ? null : Number(parts.shape.value)) });
      parts.whole = T.tool("Whole photo", () => { parts.shape.value = FREE; parts.crop.shape(null); change({ crop: null }); });
      return make("div", { class: "at-train-bar", hidden: true }, parts.shape, parts.whole, parts.cropText);
    }
    function maskTools() {
      const { mask } = parts, covers = (on) => () => { mask.set({ covers: on }); for (const button of [parts.cover, parts.learn]) button.setAttribute("aria-pressed", String((button === parts.cover) === on)); };
      parts.cover = T.tool("Ignore", covers(true), { "aria-pressed": "true", title: "Paint over what is not to be learnt" });
      parts.learn = T.tool("Learn", covers(false), { "aria-pressed": "false", title: "Take the mask away where you paint" });
      parts.brush = make("input", { type: "range", min: 1, max: 40, value: 10, "aria-label": "Brush, percent of the longer side", oninput: () => mask.set({ size: parts.brush.value / 100 }) });
      parts.back = T.tool("Step back", () => mask.undo());
      parts.saveMask = T.main("Save mask", saveMask);
      parts.removeMask = T.tool("Remove mask", removeMask);
      return make("div", { class: "at-photo-masks", hidden: true }, make("div", { class: "at-train-bar" }, parts.cover, parts.learn, make("label", { class: "at-train-tick" }, "Brush", parts.brush)),
        make("div", { class: "at-train-bar" }, T.tool("Ignore all", () => mask.everything(true)), T.tool("Learn all", () => mask.everything(false)), parts.back, parts.removeMask, parts.saveMask));
    }

    /* ---- which photo, and how it is shown --------------------------------------------------------------------------- */
    function open(name, all, first = "look") {
      if (!dialog) build();
      names = all.includes(name) ? all : [name];
      opener = document.activeElement;
      mode = first;
      dialog.showModal();
      turnTo(names.indexOf(name));
      parts.caption.focus();
    }
    async function leave() {
      parts.crop.flush();
      await saveCaption();
      if (mode === "mask" && parts.mask.dirty()) await saveMask();
    }
    async function close() {
      await leave();
      dialog.close();
      const name = names[at];
      if (opener?.isConnected && !opener.closest(".at-photo-grid")) opener.focus();
      else studio.closed(name);
    }
    async function step(by) {
      const next = (at + by + names.length) % names.length;
      await leave();
      turnTo(next);
    }
    function turnTo(next) {
      at = next;
      const photo = current();
      if (!photo) return;
      parts.picture.src = studio.url(photo, "large");
      parts.picture.alt = photo.name;
      saved = photo.caption ?? "";
      parts.caption.value = saved;
      T.setText(parts.told, "");
      T.setText(parts.error, "");
      fillShapes(photo);
      parts.crop.shape(null);
      setMode(mode, true);
    }
    function setMode(name, again = false) {
      if (mode === "mask" && name !== "mask" && parts.mask.dirty()) saveMask();
      mode = name;
      dialog.dataset.mode = mode;
      for (const [each, button] of Object.entries(parts.modes)) button.setAttribute("aria-pressed", String(each === mode));
      parts.cropTools.hidden = mode !== "crop";
      parts.maskTools.hidden = mode !== "mask";
      if (mode !== "crop") parts.crop.hide();
      parts.mask.close();
      if (mode === "mask") openMask();
      draw();
      if (mode === "crop" && !again) parts.crop.node.focus({ preventScroll: true });
    }
    function fillShapes(photo) {
      const sizes = new Map([[FREE, "Free shape"]]);
      const add = ([width, height], text) => { const ratio = String(width / height); if (!sizes.has(ratio)) sizes.set(ratio, text); };
      if (photo.bucket) add(photo.bucket, `As trained, ${photo.bucket.join(" × ")}`);
      add([1, 1], "Square");
      for (const { size } of studio.data().buckets) add(size, size.join(" × "));
      parts.shape.replaceChildren(...[...sizes].map(([value, text]) => make("option", { value }, text)));
    }
    /* The frame is exactly as large as the picture on the screen, so that boxes over it can be in percent. */
    function fit() {
      const photo = current(), width = photo?.width || parts.picture.naturalWidth, height = photo?.height || parts.picture.naturalHeight;
      if (!width) return;
      const { clientWidth, clientHeight } = parts.stage, scale = Math.min((clientWidth - 24) / width, (clientHeight - 24) / height);
      Object.assign(parts.frame.style, { width: `${Math.max(40, width * scale)}px`, height: `${Math.max(40, height * scale)}px` });
    }
    /* What the server says of the photo now. */
    function draw() {
      const photo = current();
      if (!dialog?.open || !photo) return;
      const { caption } = parts;
      T.setText(parts.title, photo.name);
      T.setText(parts.place, `${at + 1} of ${names.length}`);
      if (caption.value === saved) { saved = photo.caption ?? ""; caption.value = saved; }
      const wrong = studio.data().can_write || "";
      for (const control of [caption, parts.excluded, parts.repeats, parts.shape, parts.whole]) control.disabled = !!wrong;
      T.setText(parts.captionNote, wrong || (photo.caption == null && !caption.value && studio.defaultCaption() ? `Without a caption it is called "${studio.defaultCaption()}".` : ""));
      parts.excluded.checked = photo.excluded;
      if (document.activeElement !== parts.repeats) parts.repeats.value = photo.repeats;
      parts.whole.disabled = !!wrong || !photo.crop;
      T.setText(parts.facts, factsOf(photo));
      parts.undo.disabled = !studio.data().undo;
      parts.undo.title = studio.data().undo || "Nothing was changed yet.";
      dialog.classList.toggle("at-photo-out", photo.excluded);
      drawProblems(photo);
      parts.shade.hidden = mode === "mask" || !photo.mask;
      if (photo.mask) { const url = studio.url(photo, "mask"); if (parts.shade.dataset.url !== url) { parts.shade.dataset.url = url; parts.shade.src = url; } }
      if (mode === "crop" && !cropsOnTheirWay) parts.crop.show(photo); // else it would jump back for a moment
      drawMaskTools();
      fit();
    }
    function factsOf(photo) {
      const facts = [photo.width ? `${photo.width} × ${photo.height} px.` : ""];
      if (photo.bucket) facts.push(`Trained in ${photo.bucket.join(" × ")} px, ${photo.lost >= 0.005 ? `${Math.round(100 * photo.lost)}% of ${photo.crop ? "the part" : "it"} is cut off.` : "nothing is cut off."}`);
      if (photo.held_out) facts.push("Kept back: it is measured with, not learnt from.");
      if (photo.is_prior) facts.push("A picture of the class.");
      if (photo.mask) facts.push("The shaded part is ignored where masks are on in the settings.");
      return facts.filter(Boolean).join(" ");
    }
    function drawProblems(photo) {
      const found = studio.problemsOf(photo.name), key = JSON.stringify(found);
      if (parts.problems.dataset.key === key) return;
      parts.problems.dataset.key = key;
      parts.problems.replaceChildren(...found.map((problem) => make("li", {}, make("span", {}, problem.sentence),
        ...problem.fixes.map((fix) => T.tool(fix.label, () => act("fix", { problem: problem.id, fix: fix.id }))))));
    }

    /* ---- changes ---------------------------------------------------------------------------------------------------- */
    async function act(path, body, options = {}) {
      const told = await studio.act(path, body, options);
      T.report(parts.error, told);
      return told;
    }
    const change = (edit) => act("edits", { names: [names[at]], ...edit });
    async function saveCrop(box) {
      cropsOnTheirWay++;
      await change({ crop: box });
      cropsOnTheirWay--;
      draw();
    }
    function saveRepeats() {
      const value = Math.round(Number(parts.repeats.value));
      if (value >= 1 && value <= 1000) return change({ repeats: value });
      parts.repeats.value = current().repeats;
      T.setText(parts.error, "Repeats are a number from 1 to 1000.");
    }
    async function saveCaption() {
      const name = names[at], text = parts.caption.value.trim();
      if (text === saved.trim()) return;
      const before = saved;
      saved = parts.caption.value;
      const told = await act("captions", { name, text: text || null }, { keepalive: true });
      if (told.failed) saved = before;
      else if (names[at] === name) T.setText(parts.told, "Saved.");
    }
    async function undo() {
      await leave();
      saved = parts.caption.value;
      await act("undo", {});
      setMode(mode, true);
    }
    async function openMask() {
      const photo = current(), name = photo.name;
      let drawn = null;
      if (photo.mask) {
        drawn = new Image();
        drawn.src = studio.url(photo, "mask");
        try { await drawn.decode(); } catch { drawn = null; T.setText(parts.error, "The mask cannot be read. Paint a new one."); }
      }
      if (mode === "mask" && names[at] === name) parts.mask.open(photo, drawn);
    }
    async function saveMask() {
      const name = names[at], picture = await parts.mask.png();
      parts.mask.saved();
      const told = await studio.send(`masks/${studio.pathOf(name)}`, { method: "POST", headers: { "Content-Type": "image/png" }, body: picture });
      T.report(parts.error, told);
      drawMaskTools();
    }
    async function removeMask() {
      const told = await studio.send(`masks/${studio.pathOf(names[at])}`, { method: "DELETE" });
      if (T.report(parts.error, told)) setMode("mask", true);
    }
    function drawMaskTools() {
      if (!parts?.saveMask) return;
      const wrong = !!studio.data()?.can_write;
      parts.saveMask.disabled = wrong || !parts.mask.dirty();
      parts.back.disabled = !parts.mask.steps();
      parts.removeMask.disabled = wrong || !current()?.mask;
    }

    /* ---- keys --------------------------------------------------------------------------------------------------------- */
    const writes = (node) => node.matches?.("textarea, select, input:not([type=checkbox])");
    function onKey(event) {
      const plain = !event.ctrlKey && !event.altKey && !event.metaKey;
      const by = { PageUp: -1, PageDown: 1, ...(writes(event.target) || mode !== "look" ? {} : { ArrowLeft: -1, ArrowRight: 1 }) }[event.key];
      if (by && plain) { event.preventDefault(); step(by); }
      else if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && mode === "mask" && !writes(event.target)) { event.preventDefault(); parts.mask.undo(); }
    }
    function captionKey(event) {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); event.stopPropagation(); step(1); }
    }
    return { open, draw, isOpen: () => !!dialog?.open };
  }
  return { viewer };
})();
