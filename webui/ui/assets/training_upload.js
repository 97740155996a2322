/* Photos on their way to the server: from a file button or dropped, with their folders, a few at a time. */
"use strict";
const atelierTrainingUpload = (() => {
  const T = atelierTraining, { make } = atelier;
  const BATCH_FILES = 8, BATCH_BYTES = 24e6;
  const WITHOUT_END = /(-masklabel)?\.[^./]*$/, KOHYA_FOLDER = /^\d+_/;

  /* ---- what was dropped or chosen: [{name, file}], `name` with "/" for folders ------------------------------------- */
  /* To be called in the event itself: afterwards the browser has forgotten what was dropped. */
  function dropped(transfer) {
    const items = [...transfer.items].filter((item) => item.kind === "file");
    const roots = items.map((item) => item.webkitGetAsEntry?.() || item.getAsFile()).filter(Boolean);
    return Promise.all(roots.map((root) => (root instanceof File ? [{ name: root.name, file: root }] : filesOf(root, root.name)))).then((lists) => lists.flat());
  }
  async function filesOf(entry, name) {
    if (entry.isFile) return [{ name, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
    const reader = entry.createReader(), found = [];
    for (;;) { // a hundred at a time
      const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (!some.length) break;
      for (const inner of some) found.push(...(await filesOf(inner, `${name}/${inner.name}`)));
    }
    return found;
  }
  const chosen = (input) => [...input.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
  /* One folder that holds all is only where they lie; its name is the set's. One of kohya's says something of the photos. */
  function unfolded(files) {
    const tops = new Set(files.map(({ name }) => (name.includes("/") ? name.split("/")[0] : "")));
    const [top] = tops;
    if (tops.size !== 1 || !top) return { title: files.length === 1 ? files[0].name.replace(/\.zip$/i, "") : "", files };
    if (KOHYA_FOLDER.test(top)) return { title: top.replace(KOHYA_FOLDER, ""), files };
    return { title: top, files: files.map(({ name, file }) => ({ name: name.slice(top.length + 1), file })) };
  }

  /* ---- sending ---------------------------------------------------------------------------------------------------- */
  /* A photo's caption and mask go with it. */
  function batches(files) {
    const together = new Map();
    for (const one of files.filter(({ name }) => !name.split("/").pop().startsWith("."))) {
      const key = one.name.replace(WITHOUT_END, "");
      together.set(key, [...(together.get(key) || []), one]);
    }
    const made = [];
    let bytes = Infinity;
    for (const group of together.values()) {
      const size = group.reduce((sum, { file }) => sum + file.size, 0);
      if (bytes + size > BATCH_BYTES || made.at(-1).length + group.length > BATCH_FILES) { made.push([]); bytes = 0; }
      made.at(-1).push(...group);
      bytes += size;
    }
    return made;
  }
  /* `tell(done, total)` while it goes on; `stopped()` ends it between two batches. */
  async function send(set, files, tell, stopped) {
    const parcels = batches(files), total = parcels.reduce((sum, parcel) => sum + parcel.length, 0);
    const result = { added: 0, beside: 0, kept: 0, refused: [], failed: null, stopped: false };
    let done = 0;
    tell(done, total);
    for (const parcel of parcels) {
      if (stopped()) { result.stopped = true; break; }
      const form = new FormData();
      for (const { name, file } of parcel) form.append("files", file, name);
      const told = await T.ask(`sets/${set}/files`, { method: "POST", body: form });
      if (told.failed) { result.failed = told; break; }
      result.added += told.added;
      result.beside += told.beside || 0;
      result.kept += told.kept || 0;
      result.refused.push(...told.refused);
      done += parcel.length;
      tell(done, total);
    }
    return result;
  }

  /* ---- the part of the page: buttons, progress, and what was refused ------------------------------------------------ */
  /* `setFor(title)` gives the id of the set that they go to, made if need be; `after()` looks at it again. */
  function panel({ drop, setFor, after }) {
    let busy = false, stop = false;
    const input = (label, more) => make("input", { type: "file", multiple: true, "aria-label": label, onchange: (event) => { const files = chosen(event.target); event.target.value = ""; add(files); }, ...more });
    const button = (text, field) => make("label", { class: "at-tool at-photo-files" }, text, field);
    const bar = make("i"), progress = make("div", { class: "at-progress", role: "progressbar", "aria-label": "Upload", "aria-valuemin": 0, hidden: true }, bar);
    const told = T.note("", { role: "status", hidden: true }), error = T.error();
    const refused = make("details", { class: "at-photo-refused", hidden: true }, make("summary"), make("ul"));
    const halt = T.tool("Stop", () => { stop = true; }, { hidden: true, "aria-label": "Stop the upload" });
    const files = button("Add photos", input("Add photos or a zip", { accept: "image/*,.txt,.caption,.zip,.json,.jsonl,.avif,.ppm" }));
    const folder = button("Add a folder", input("Add a folder", { webkitdirectory: true }));
    function tell(done, total) {
      bar.style.width = `${total ? (100 * done) / total : 0}%`;
      progress.setAttribute("aria-valuemax", total);
      progress.setAttribute("aria-valuenow", done);
      T.setText(told, `Sending: ${done} of ${T.plural(total, "file")}`);
    }
    async function add(all) {
      if (!all.length) return;
      if (busy) return T.setText(error, "Files are still being sent. Wait for them, then add these.");
      busy = true; stop = false;
      T.setText(error, "");
      refused.hidden = true;
      const { title, files: some } = unfolded(all);
      const set = await setFor(title);
      if (set) {
        progress.hidden = halt.hidden = false;
        const result = await send(set, some, (done, total) => { tell(done, total); if (done) after(); }, () => stop);
        report(result);
      }
      busy = false;
      progress.hidden = halt.hidden = true;
      after();
    }
    function report({ added, beside, kept, refused: names, failed, stopped }) {
      T.setText(told, [`${T.plural(added, "photo")} added${beside ? `, and ${T.plural(beside, "caption or mask", "captions or masks")}` : ""}.`, kept ? `${T.plural(kept, "file")} ${kept === 1 ? "was" : "were"} there already.` : "", stopped ? "You stopped the rest." : ""].filter(Boolean).join(" "));
      if (failed) T.report(error, failed);
      refused.hidden = !names.length;
      refused.open = names.length < 6;
      refused.firstChild.textContent = `${T.plural(names.length, "file")} ${names.length === 1 ? "was" : "were"} not taken`;
      refused.lastChild.replaceChildren(...names.map(({ name, sentence }) => make("li", {}, sentence.includes(name) ? sentence : `${name}: ${sentence}`)));
    }
    let depth = 0;
    const over = (change) => (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      depth = Math.max(0, depth + change);
      drop.classList.toggle("at-over", depth > 0);
    };
    drop.addEventListener("dragenter", over(1));
    drop.addEventListener("dragover", over(0));
    drop.addEventListener("dragleave", over(-1));
    drop.addEventListener("drop", (event) => {
      if (!event.dataTransfer?.types.includes("Files")) return;
      event.preventDefault();
      depth = 0;
      drop.classList.remove("at-over");
      dropped(event.dataTransfer).then(add, () => T.setText(error, "What was dropped cannot be read."));
    });
    return { buttons: [files, folder], news: make("div", { class: "at-photo-news" }, progress, make("div", { class: "at-train-bar" }, told, halt), error, refused) };
  }
  return { panel };
})();
