/* Step 1 of a training: the set of photos, what is wrong with it, and what was decided about single photos. */
"use strict";
const atelierTrainingPhotos = (() => {
  const T = atelierTraining, { make } = atelier;
  const MANY_PROBLEMS = 8, MANY_ALIKE = 3, SHOWN_PICTURES = 6, FAST_MS = 700, MS_A_PHOTO = 1.5;
  const STARTER = "starter"; // what the settings begin with
  const OF_PURPOSE = ["resolution", "bucket_step", "holdout", "trigger", "class_word", "masks"];
  const FILTERS = {
    all: ["All", () => true],
    problems: ["With problems", (photo, problems) => problems.has(photo.name)],
    silent: ["Without caption", (photo) => !photo.caption],
    out: ["Left out", (photo) => photo.excluded],
    held: ["Kept back", (photo) => photo.held_out],
  };
  const WORDS = { "nearly the same": "Twice", "too small": "Small", "odd shape": "Odd shape", "no face": "No face", "several faces": "Several faces", "small face": "Small face", "another person": "Someone else", "no caption": "", "no mask": "", mask: "Mask wrong" };
  const BY_HAND = {
    "odd shape": (name, names) => T.tool("Crop by hand", () => viewer.open(name, names, "crop")),
    "no caption": (name, names) => make("span", { class: "at-train-bar" }, T.tool("Write them", () => viewer.open(name, names)), T.tool("Set a trigger word", () => T.go("settings"))),
  };
  let sets = [], data = null, parts = null, look = null, viewer = null, usual = null;
  let line = Promise.resolve(); // changes go to the server one after the other
  let filter = "all", tag = "", query = "", of = new Map(), named = new Map(), chosen = new Set(), last = "", problemsShown = MANY_PROBLEMS;

  /* ---- what the parts of this step share ----------------------------------------------------------------------------- */
  const pathOf = (name) => name.split("/").map(encodeURIComponent).join("/");
  const studio = {
    data: () => data,
    photo: (name) => named.get(name) || null,
    problemsOf: (name) => of.get(name) || [],
    pathOf,
    url: (photo, size) => `training/sets/${encodeURIComponent(data.id)}/pictures/${pathOf(photo.name)}?size=${size}&${size === "mask" ? `at=${data.version}` : `v=${encodeURIComponent(photo.sha)}`}`,
    chosen: () => [...chosen],
    tag: () => tag,
    filterTag(name) { tag = tag === name ? "" : name; draw(); },
    async send(path, options) {
      const whole = `sets/${encodeURIComponent(data.id)}/${path}`;
      line = line.then(() => T.ask(whole, options));
      const told = await line;
      if (!told.failed) await look();
      return told;
    },
    act: (path, body = {}, more = {}) => studio.send(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...more }),
    look: () => look(),
    /* What a photo without a caption is called; "" as long as nobody said. */
    defaultCaption() {
      const { subject, data: said = {} } = T.state().config || {}, { trigger = "", class_word: word = "", caption = "" } = said;
      if (caption) return caption.replaceAll("{trigger}", trigger).replaceAll("{class}", word);
      if (!trigger && !word) return "";
      return subject === "style" ? `picture in the style of ${trigger || word}` : `photo of ${[trigger, word].filter(Boolean).join(" ")}`;
    },
    closed: (name) => parts.grid.focus(name),
  };

  /* ---- talking to the server ----------------------------------------------------------------------------------------- */
  async function loadSets() {
    const [told, form] = await Promise.all([T.get("sets"), T.get("form")]);
    if (told.failed) return T.report(parts.error, told);
    ({ sets } = told);
    const usable = (form.bases || []).filter((one) => !one.problem);
    usual = usable.find((one) => one.name === STARTER) || usable[0];
    T.setText(parts.why, told.may_use_folders ? "" : told.why_not);
    parts.openFolder.hidden = !told.may_use_folders;
    const id = T.state().set;
    if (id && !sets.some((one) => one.id === id)) T.change({ set: "" });
    drawSets();
    return true;
  }
  function purpose() {
    const config = T.state().config, asked = new URLSearchParams();
    if (config?.subject) asked.set("subject", config.subject);
    for (const name of OF_PURPOSE) {
      const value = config?.data?.[name];
      if (value !== null && value !== undefined && value !== "") asked.set(name, value);
    }
    if (!config && usual) { // as the settings will begin
      asked.set("resolution", usual.native_size);
      asked.set("bucket_step", usual.bucket_step);
    }
    return asked;
  }
  async function refresh() {
    const id = T.state().set;
    if (!id) { data = null; draw(); return false; }
    const asked = purpose();
    if (data?.id === id) asked.set("known", data.version);
    const helped = await parts.assistants.look(id); // first, so that its last change is seen
    const told = await T.get(`sets/${encodeURIComponent(id)}?${asked}`);
    if (T.state().set !== id) return true;
    if (told.failed) {
      T.report(parts.error, told);
      if (told.status && told.status < 500) await loadSets();
      return false;
    }
    if (data?.id !== id) T.setText(parts.error, "");
    data = told.photos ? told : { ...data, ...told };
    if (told.photos) index();
    draw();
    return (!!data.checking || helped) && Math.max(FAST_MS, data.photos.length * MS_A_PHOTO);
  }
  function index() {
    named = new Map(data.photos.map((photo) => [photo.name, photo]));
    of = new Map();
    for (const problem of data.problems) for (const name of problem.names) of.set(name, [...(of.get(name) || []), problem]);
    for (const name of chosen) if (!named.has(name)) chosen.delete(name);
    if (tag && !data.tags.some(([name]) => name === tag)) tag = "";
  }
  function choose(id) {
    T.change({ set: id });
    data = null; chosen = new Set(); tag = ""; query = ""; filter = "all"; problemsShown = MANY_PROBLEMS;
    parts.search.value = "";
    look();
  }
  async function makeSet(body) {
    const told = await T.post("sets", body);
    if (!T.report(parts.error, told)) return "";
    await loadSets();
    choose(told.id);
    drawSets();
    return told.id;
  }
  /* The set that added files go to: a folder of this machine is only looked at. */
  async function setFor(title) {
    const current = sets.find((one) => one.id === T.state().set);
    if (current?.own) return current.id;
    return makeSet({ name: freeName(title || "My photos") });
  }
  function freeName(title) {
    const taken = new Set(sets.map((one) => one.name.toLowerCase()));
    let name = title;
    for (let number = 2; taken.has(name.toLowerCase()); number++) name = `${title} ${number}`;
    return name;
  }
  async function act(path, body) {
    const told = await studio.act(path, body);
    T.report(parts.error, told);
    return !told.failed;
  }

  /* ---- the step ------------------------------------------------------------------------------------------------------ */
  function build(box) {
    const upload = atelierTrainingUpload.panel({ drop: box, setFor, after: () => { look(); loadSets(); } });
    viewer = atelierTrainingPhoto.viewer(studio);
    const captions = atelierTrainingCaptions.panel(studio), assistants = atelierTrainingAssist.panel(studio);
    const grid = atelierTrainingGrid.grid({ label: "Photos", makeTile });
    parts = { box, upload, captions, assistants, grid, error: T.error(), why: T.note("", { hidden: true }), status: T.note("", { role: "status" }),
      select: make("select", { "aria-label": "Photo set", onchange: () => choose(parts.select.value) }),
      undo: T.tool("Undo", async () => { await act("undo", {}); }), remove: T.tool("Remove set", removeSet),
      search: make("input", { type: "search", placeholder: "Search names and captions", "aria-label": "Search photos", oninput: () => { query = parts.search.value.toLowerCase(); drawGrid(); } }),
      filters: make("div", { class: "at-train-bar", role: "group", "aria-label": "Which photos are shown" }), tagChip: T.tool("", () => studio.filterTag(tag), { hidden: true }),
      none: T.note("", { hidden: true }), problems: make("ul", { class: "at-photo-problems", "aria-label": "Problems" }), problemsTitle: make("h3"),
      left: make("details", { class: "at-photo-left", hidden: true }, make("summary"), make("ul")), notes: make("ul", { class: "at-photo-notes" }),
      buckets: make("ul", { class: "at-photo-buckets", "aria-label": "Sizes" }), split: T.note() };
    parts.moreProblems = T.tool("Show all problems", () => { problemsShown = Infinity; drawProblems(); }, { hidden: true });
    parts.newSet = smallForm("New set", "Name of the new set", "Make it", (name) => makeSet({ name }));
    parts.openFolder = smallForm("Open a folder", "Full path of a folder, zip or OneTrainer list on this machine", "Open it", (folder) => makeSet({ folder }));
    parts.bulk = bulkTools();
    parts.empty = make("p", { class: "at-photo-drop" }, "Drop photos, a folder or a zip here.", make("small", {}, "15 to 30 good photos are enough for a person or a thing. Captions (.txt) and masks (NAME-masklabel.png) come along."));
    parts.problemCard = make("section", { class: "at-train-card", "aria-label": "Problems" }, parts.problemsTitle, parts.problems, parts.moreProblems, parts.left);
    parts.work = make("div", { class: "at-photo-work" },
      make("div", { class: "at-train-card at-photo-main" }, make("div", { class: "at-train-bar" }, parts.filters, parts.search), parts.bulk.node, parts.tagChip, parts.none, grid.node),
      make("div", { class: "at-photo-aside" }, parts.problemCard, captions.node, assistants.node,
        make("section", { class: "at-train-card", "aria-label": "Sizes and measuring" }, make("h3", {}, "Sizes and measuring"), parts.split, T.tool("Show which are kept back", () => { filter = "held"; draw(); }, { class: "at-tool at-photo-held" }), parts.buckets, parts.notes)));
    box.replaceChildren(make("div", { class: "at-train-card" }, make("div", { class: "at-train-bar" }, parts.select, parts.newSet.node, parts.openFolder.node, ...upload.buttons, parts.undo, parts.remove, T.main("Next: Settings", () => T.go("settings"), { "data-tool": "next" })),
      parts.why, parts.error, upload.news, parts.status, parts.empty), parts.work);
    parts.openFolder = parts.openFolder.node;
    look = T.follow(box, refresh);
    T.onChange((state, names) => { if (names.includes("config") && T.state().step === "photos") look(); });
    assistants.load();
    loadSets().then(() => look());
  }
  /* A button that unfolds a line to write in. */
  function smallForm(text, label, go, run) {
    const input = make("input", { type: "text", "aria-label": label, placeholder: label, autocomplete: "off", spellcheck: "false" });
    const form = make("form", { class: "at-photo-form", hidden: true, novalidate: true, onsubmit: async (event) => { event.preventDefault(); if (!input.value.trim()) return input.focus(); if (await run(input.value.trim())) { input.value = ""; toggle(); } },
      onkeydown: (event) => { if (event.key === "Escape") { event.stopPropagation(); toggle(); button.focus(); } } }, input, make("button", { type: "submit", class: "at-tool" }, go));
    const toggle = () => { form.hidden = !form.hidden; button.setAttribute("aria-expanded", String(!form.hidden)); if (!form.hidden) input.focus(); };
    const button = T.tool(text, toggle, { "aria-expanded": "false" });
    return { node: make("span", { class: "at-photo-new" }, button, form) };
  }
  function removeSet() {
    const set = sets.find((one) => one.id === T.state().set);
    if (!set) return;
    const text = set.own ? `Its ${T.plural(set.num_photos, "photo")}, captions and masks are deleted.` : `It is only forgotten; ${set.folder} stays as it is.`;
    atelierExtensions.ask(`Remove "${set.name}"?`, [text], "Remove", async () => {
      choose("");
      await look(); // nothing asks for it any more, so nothing is told that it is gone
      const told = await T.remove(`sets/${set.id}`);
      await loadSets();
      if (told.failed) { choose(set.id); await look(); }
      T.report(parts.error, told);
    });
  }
  function bulkTools() {
    const names = () => [...chosen], count = make("strong");
    const repeats = make("input", { type: "number", min: 1, max: 1000, value: 2, "aria-label": "Repeats of the chosen photos" });
    const run = (edit) => () => act("edits", { names: names(), ...edit() });
    const node = make("div", { class: "at-train-bar at-photo-bulk", role: "group", "aria-label": "Chosen photos", hidden: true }, count, T.tool("Leave out", run(() => ({ excluded: true }))), T.tool("Take in", run(() => ({ excluded: false }))),
      T.tool("Whole photos", run(() => ({ crop: null })), { title: "Forgets which part was chosen" }), make("span", { class: "at-train-tick" }, T.tool("Set repeats", run(() => ({ repeats: Math.round(Number(repeats.value)) })), { title: "How often an epoch shows each of them" }), repeats),
      T.tool("Choose all shown", () => { for (const photo of shown()) chosen.add(photo.name); drawGrid(); captionsOf(); }), T.tool("Choose none", () => { chosen.clear(); drawGrid(); captionsOf(); }));
    return { node, count };
  }
  const captionsOf = () => parts.captions.draw();

  /* ---- drawing ------------------------------------------------------------------------------------------------------- */
  function drawSets() {
    const id = T.state().set, rows = [...(id ? [] : [["", sets.length ? "Choose a set" : "No set yet"]]), ...sets.map((one) => [one.id, `${one.name} (${one.gone ? "not there" : one.num_photos})`])];
    const key = JSON.stringify(rows);
    if (parts.select.dataset.key !== key) parts.select.replaceChildren(...rows.map(([value, text]) => make("option", { value }, text)));
    parts.select.dataset.key = key;
    parts.select.value = id;
    parts.select.disabled = !sets.length;
  }
  function draw() {
    drawSets();
    const there = !!data, own = !there || data.own;
    parts.work.hidden = !there || (!data.photos.length && !data.left_out.length && !data.checking);
    parts.empty.hidden = !parts.work.hidden;
    parts.undo.hidden = parts.remove.hidden = !there;
    parts.undo.disabled = !data?.undo;
    parts.undo.title = data?.undo || "Nothing was changed yet.";
    parts.box.querySelector("[data-tool=next]").hidden = !data?.photos.length;
    T.setText(parts.status, statusOf());
    T.summarize("photos", there ? summaryOf() : "");
    if (!there) return drawNone();
    parts.box.dataset.version = data.version;
    parts.box.dataset.checking = data.checking ? "1" : "";
    parts.box.classList.toggle("at-photo-foreign", !own);
    drawProblems();
    drawGrid();
    drawSizes();
    parts.captions.draw();
    viewer.draw();
  }
  /* Without a set: pictures that are still on their way are given up. */
  function drawNone() {
    for (const image of parts.problems.querySelectorAll("img")) if (!image.complete) image.removeAttribute("src");
    parts.problems.replaceChildren();
    parts.problems.dataset.key = "";
    parts.grid.show([]);
  }
  const used = () => data.photos.filter((photo) => !photo.excluded && !photo.is_prior).length;
  const summaryOf = () => (data.photos.length ? T.plural(used(), "photo") : "No photos yet");
  function statusOf() {
    if (!data?.photos.length) return data?.checking ? "Looking at the photos" : "";
    const all = data.photos.length, out = data.photos.filter((photo) => photo.excluded).length, prior = data.photos.filter((photo) => photo.is_prior).length;
    const texts = [T.plural(all, "photo"), out ? `${out} left out` : "", prior ? `${T.plural(prior, "picture")} of the class` : "", data.own ? "" : data.source, data.can_write || "", data.checking ? `looking at them: ${data.checking.done} of ${data.checking.total}` : ""];
    return texts.filter(Boolean).join(" · ");
  }
  function drawProblems() {
    const { problems } = data, key = JSON.stringify([problems, problemsShown]);
    parts.problemCard.hidden = !problems.length && !otherFiles().length;
    if (parts.problems.dataset.key !== key) {
      parts.problems.dataset.key = key;
      T.setText(parts.problemsTitle, problems.length ? T.plural(problems.length, "problem") : "");
      parts.problems.replaceChildren(...problems.slice(0, problemsShown).map(problemRow));
      parts.moreProblems.hidden = problems.length <= problemsShown;
    }
    const left = otherFiles();
    parts.left.hidden = !left.length;
    parts.left.firstChild.textContent = `${T.plural(left.length, "file")} ${left.length === 1 ? "is" : "are"} not used`;
    const texts = left.map(({ name, sentence }) => (sentence.includes(name) ? sentence : `${name}: ${sentence}`)), told = JSON.stringify(texts);
    if (parts.left.dataset.key === told) return;
    parts.left.dataset.key = told;
    parts.left.lastChild.replaceChildren(...texts.map((text) => make("li", {}, text)));
  }
  const otherFiles = () => data.left_out.filter((one) => one.kind !== "excluded" && !studio.photo(one.name)?.excluded);
  function problemRow(problem) {
    const photos = problem.names.map(studio.photo).filter(Boolean), names = photos.map((photo) => photo.name);
    const pictures = photos.slice(0, SHOWN_PICTURES).map((photo) => make("button", { type: "button", title: photo.name, "aria-label": `Open ${photo.name}`, onclick: () => viewer.open(photo.name, names) }, make("img", { src: studio.url(photo, "thumb"), alt: "", loading: "lazy" })));
    const rest = photos.length > SHOWN_PICTURES ? make("span", { class: "at-train-note" }, `and ${photos.length - SHOWN_PICTURES} more`) : null;
    const by = photos[0] && BY_HAND[problem.kind]?.(photos[0].name, names), alike = alikeOf(problem);
    return make("li", { "data-kind": problem.kind }, make("span", {}, problem.sentence), pictures.length ? make("div", { class: "at-photo-few" }, ...pictures, rest) : null,
      problem.fixes.length || by || alike.length ? make("div", { class: "at-train-bar" }, ...problem.fixes.map((fix) => T.tool(fix.label, () => act("fix", { problem: problem.id, fix: fix.id }))), by,
        alike.length ? T.tool(`Leave all ${alike.length} out`, () => act("edits", { names: alike, excluded: true }), { title: `All photos with this problem: ${alike.join(", ")}` }) : null) : null);
  }
  /* The photos of all problems of this kind, told at the first one, where there are many. */
  function alikeOf({ id, kind }) {
    const same = data.problems.filter((one) => one.kind === kind && one.names.length === 1);
    return same.length >= MANY_ALIKE && same[0].id === id ? same.map((one) => one.names[0]).filter((name) => named.has(name)) : [];
  }
  function drawSizes() {
    const { train, held_out: held, suggested } = data.split;
    T.setText(parts.split, `${T.plural(train, "photo")} ${train === 1 ? "is" : "are"} learnt from, ${held} ${held === 1 ? "is" : "are"} kept back to measure with${held === suggested ? "" : ` (${suggested} would be usual)`}.`);
    parts.box.querySelector(".at-photo-held").hidden = !held;
    const lost = (size) => { const of = data.photos.filter((photo) => photo.bucket && photo.bucket.join() === size.join()); return of.length ? of.reduce((sum, photo) => sum + photo.lost, 0) / of.length : 0; };
    const key = JSON.stringify([data.buckets, data.version]);
    if (parts.buckets.dataset.key === key) return;
    parts.buckets.dataset.key = key;
    const most = Math.max(1, ...data.buckets.map((one) => one.num));
    parts.buckets.replaceChildren(...data.buckets.map(({ size, num }) => {
      const cut = Math.round(100 * lost(size));
      return make("li", { title: `${T.plural(num, "photo")} of this size. ${cut ? `On average ${cut}% of them is cut off.` : "Nothing is cut off."}` }, make("span", {}, size.join(" × ")), make("i", { style: `width:${(100 * num) / most}%` }), make("span", {}, `${num}${cut ? ` · ${cut}% cut off` : ""}`));
    }));
    parts.notes.replaceChildren(...data.notes.map((text) => make("li", {}, text)));
  }

  /* ---- the grid ------------------------------------------------------------------------------------------------------ */
  const hasTag = (photo) => !tag || (photo.caption || "").split(",").some((one) => one.trim().toLowerCase() === tag.toLowerCase());
  function shown() {
    const [, fits] = FILTERS[filter];
    return data.photos.filter((photo) => fits(photo, of) && hasTag(photo) && (!query || `${photo.name} ${photo.caption || ""}`.toLowerCase().includes(query)));
  }
  function drawGrid() {
    if (!data) return;
    const photos = shown();
    parts.grid.show(photos);
    T.setText(parts.none, photos.length || !data.photos.length ? "" : "No photo is like that.");
    T.setText(parts.tagChip, tag && `Tag: ${tag} ✕`);
    parts.tagChip.title = "Show all again";
    parts.bulk.node.hidden = !chosen.size;
    T.setText(parts.bulk.count, `${chosen.size} chosen`);
    const counts = Object.entries(FILTERS).map(([name, [text, fits]]) => [name, text, data.photos.filter((photo) => fits(photo, of)).length]).filter(([name, , count]) => count || name === "all" || name === filter);
    const key = JSON.stringify([counts, filter]);
    if (parts.filters.dataset.key === key) return;
    parts.filters.dataset.key = key;
    const focused = parts.filters.contains(document.activeElement) && document.activeElement.dataset.filter;
    parts.filters.replaceChildren(...counts.map(([name, text, count]) => T.tool(`${text} ${count}`, () => { filter = name; draw(); }, { "data-filter": name, "aria-pressed": String(name === filter) })));
    if (focused) parts.filters.querySelector(`[data-filter=${focused}]`)?.focus();
  }
  function makeTile(first) {
    const name = first.name, image = make("img", { alt: "", decoding: "async", draggable: "false", onerror: () => image.classList.add("at-gone"), onload: () => image.classList.remove("at-gone") });
    const marks = make("span", { class: "at-badges" });
    const open = make("button", { type: "button", class: "at-photo-open", onclick: (event) => (event.ctrlKey || event.metaKey || event.shiftKey ? pick(name, event.shiftKey) : viewer.open(name, shown().map((photo) => photo.name))) }, image, marks);
    const tick = make("input", { type: "checkbox", "aria-label": `Choose ${name}`, onclick: (event) => pick(name, event.shiftKey, tick.checked) });
    const node = make("li", { class: "at-photo-tile", "data-name": name }, open, tick);
    let key = "", src = "";
    const load = () => { if (image.getAttribute("src") !== src) image.src = src; };
    const drop = () => { if (!image.complete) image.removeAttribute("src"); };
    return { node, load, drop, draw(photo) {
      const isChosen = chosen.has(name), badges = badgesOf(photo), now = JSON.stringify([badges, photo.excluded, isChosen, photo.caption]);
      const url = studio.url(photo, "thumb");
      src = url;
      if (now === key) return;
      key = now;
      tick.checked = isChosen;
      node.classList.toggle("at-photo-out", photo.excluded);
      node.classList.toggle("at-photo-chosen", isChosen);
      open.title = photo.caption ? `${name}\n${photo.caption}` : name;
      open.setAttribute("aria-label", [name, ...badges.map(([, , title]) => title)].join(". "));
      marks.replaceChildren(...badges.map(([text, tone, title]) => make("span", { class: "at-badge", "data-tone": tone, title }, text)));
    } };
  }
  function badgesOf(photo) {
    if (photo.excluded) return [["Left out", "", "Left out: it is not learnt from"]];
    const found = (of.get(photo.name) || []).map((problem) => [WORDS[problem.kind] ?? problem.kind[0].toUpperCase() + problem.kind.slice(1), "warn", problem.sentence]).filter(([text]) => text);
    const more = found.length > 2 ? [...found.slice(0, 1), [`+${found.length - 1}`, "warn", found.slice(1).map(([, , title]) => title).join(" ")]] : found;
    return [...more, photo.held_out && ["Kept back", "good", "Kept back to measure with"], photo.is_prior && ["Class", "", "A picture of the class"], photo.repeats > 1 && [`×${photo.repeats}`, "", `Shown ${photo.repeats} times an epoch`],
      photo.crop && ["Part", "", "Only a part is learnt"], photo.mask && ["Mask", "", "It has a mask"]].filter(Boolean);
  }
  function pick(name, range, on = !chosen.has(name)) {
    const names = shown().map((photo) => photo.name), from = names.indexOf(last), to = names.indexOf(name);
    const some = range && from >= 0 ? names.slice(Math.min(from, to), Math.max(from, to) + 1) : [name];
    for (const one of some) if (on) chosen.add(one); else chosen.delete(one);
    last = name;
    drawGrid();
    captionsOf();
  }
  T.register("photos", { build, show: () => { if (parts) { loadSets(); look(); parts.assistants.load(); } } });
  return { studio };
})();
window.atelierTrainingPhotos = atelierTrainingPhotos;
