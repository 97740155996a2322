/* The Settings step: what a newcomer decides, all settings below it, a check while they change, and the start. What the user
   decided is kept as a draft: preset, base, method, words, and the settings that were changed by hand. */
"use strict";
const atelierTrainingSettings = (() => {
  const { make } = atelier;
  const T = atelierTraining, M = atelierTrainingModel;
  const CHECK_MS = 350, QUEUE_MS = 2000;
  const DRAFT = { preset: "person-normal", base: "", method: "lora", name: "", trigger: "", own: {} };
  const STARTER = "starter", NAMELESS = "my training", WORD = "word";
  const ACTIVE = ["queued", "running"], WORDS = ["embedding", "pivotal"];
  const ABOUT = {
    person: "One person or animal, from photos of them alone.",
    object: "One thing: a toy, a bag, a building.",
    style: "How pictures look, whatever they show.",
  };
  const NO_CHECK = { problems: [], warnings: [], summary: null, result_bytes: null, unused: null, caption: null };
  let parts = null, form = null, fields = null, origin = null, presets = [], sets = [], loading = null;
  let draft = { ...DRAFT, ...T.state().draft }, checked = null, last = { unused: {}, caption: "", bytes: null };
  let published = "", timer = 0, asked = 0, drafted = 0, problems = {}, look = () => {};

  /* ---- what is set ----------------------------------------------------------------------------------------------- */
  const setOf = () => sets.find((one) => one.id === T.state().set);
  const nameOf = () => draft.name || M.fileName(draft.trigger || setOf()?.name || "") || NAMELESS;
  const subjectOf = () => draft.preset.split("-")[0];
  const values = () => ({ ...origin, ...draft.own, name: nameOf(), base: draft.base, subject: subjectOf(), "network.method": draft.method, "data.trigger": draft.trigger, "data.photos": T.state().set });
  function publish() {
    const config = M.nested(values());
    published = JSON.stringify(config);
    T.change({ draft, config });
    const method = form.methods.find((one) => one.id === draft.method);
    T.summarize("settings", `${method?.label.split(" (")[0] || draft.method}, ${T.plural(values()["schedule.num_steps"] ?? 0, "step")}`);
  }
  /* After every change by the user. */
  function changed(news) {
    draft = { ...draft, ...news };
    publish();
    draw();
    check();
  }
  function edit(name, value) {
    const own = { ...draft.own };
    if (M.same(value, origin[name])) delete own[name];
    else own[name] = value;
    changed({ own });
  }

  /* ---- the preset's values --------------------------------------------------------------------------------------- */
  /* Fetches them for the draft with `news` in it. `yields`: what they have otherwise than the last ones is taken from them. */
  async function redraft(news = {}, { yields = "" } = {}) {
    const next = { ...draft, ...news }, mine = ++drafted;
    const told = await T.post("draft", { preset: next.preset, base: next.base, method: next.method, name: WORD, trigger: WORD });
    if (mine !== drafted) return false;
    if (!T.report(parts.error, told)) { draw(); return false; }
    const fresh = M.flat(told.config);
    const { own, taken } = M.carried(draft.own, origin, fresh, !!yields);
    origin = fresh;
    presets = told.presets;
    say(own, taken, yields);
    changed({ ...news, own });
    return true;
  }
  function say(own, taken, from) {
    const named = (names) => names.map((name) => fields.labelOf(name)).join(", ");
    const kept = Object.keys(own);
    const sentences = [taken.length && `Taken from ${from}: ${named(taken)}.`, kept.length && `Kept what you changed: ${named(kept)}.`];
    T.setText(parts.told, sentences.filter(Boolean).join(" "));
  }
  /* Settings from elsewhere: of an earlier run, of a file. */
  async function adopt(config, from) {
    if (!(await ready())) return;
    const given = M.flat(config), subject = given.subject || "person";
    const known = form.bases.find((one) => one.name === given.base && !one.problem);
    draft = { ...draft, own: {} };
    const worked = await redraft({ preset: `${subject}-normal`, base: known ? given.base : draft.base, method: given["network.method"], name: given.name || "", trigger: given["data.trigger"] || "" });
    if (!worked) return;
    const like = presets.find((one) => one.id.startsWith(subject) && one.num_steps === given["schedule.num_steps"] && (one.rank === null || one.rank === given["network.rank"]));
    if (like && like.id !== draft.preset && !(await redraft({ preset: like.id }))) return;
    changed({ own: M.changesOf(given, origin) });
    T.setText(parts.told, `${from} ${known ? "" : `There is no '${given.base}' here that can be trained, so the base is '${draft.base}'. `}`.trim());
  }

  /* ---- the check ------------------------------------------------------------------------------------------------- */
  function check() {
    clearTimeout(timer);
    asked += 1;
    checked = null;
    parts.start.disabled = true;
    timer = setTimeout(askServer, CHECK_MS, asked);
  }
  async function askServer(mine) {
    const told = await T.post("check", { config: M.nested(values()), set: T.state().set });
    if (mine !== asked) return;
    T.report(parts.error, told);
    checked = told.failed ? null : { ...NO_CHECK, ...told };
    if (checked?.unused) last = { unused: checked.unused, caption: checked.caption ?? last.caption, bytes: checked.result_bytes };
    problems = Object.fromEntries((checked?.problems || []).map((problem) => [fieldOf(problem), sentenceOf(problem)]));
    draw();
  }
  /* Where a problem is shown: the server names parts of lists, and says "config" of what does not fit together. */
  function fieldOf({ field }) {
    if (field === "config") return WORDS.includes(draft.method) && !draft.trigger ? "data.trigger" : "data.prior_prediction";
    if (field === "set") return "data.photos";
    const parts = field.split(".");
    while (parts.length > 1 && !fields.has(parts.join("."))) parts.pop();
    return fields.has(parts.join(".")) ? parts.join(".") : field;
  }
  /* Settings are called here as they are called on the page. */
  function sentenceOf({ field, message, hint }) {
    const sentence = [message.startsWith(`${field}: `) ? message.slice(field.length + 2) : message, hint].filter(Boolean).join(" ");
    return sentence.replace(/\b[a-z]+\.[a-z_]+/g, (name) => (fields.has(name) ? `“${fields.labelOf(name)}”` : name));
  }
  function reveal(name) {
    if (name === "data.photos") T.go("photos");
    else if (name in parts.tops) { parts.tops[name].focus(); parts.tops[name].scrollIntoView({ block: "center" }); }
    else if (name === "network.method") { parts.methodBox.open = true; parts.methods.querySelector("input:checked")?.focus(); }
    else if (name === "subject") parts.presets.querySelector("input:checked")?.focus();
    else fields.show(name);
  }

  /* ---- starting -------------------------------------------------------------------------------------------------- */
  async function start() {
    parts.start.disabled = true;
    const told = await T.post("runs", { config: M.nested(values()), set: T.state().set });
    parts.start.disabled = false;
    if (!T.report(parts.error, told)) {
      if (told.field) { problems = { ...problems, [fieldOf(told)]: sentenceOf(told) }; draw(); }
      return;
    }
    T.change({ run: told.run });
    await look();
    T.go("run");
    atelier.poll();
  }
  async function showQueue() {
    const told = await T.get("runs");
    const runs = (told.runs || []).filter((run) => ACTIVE.includes(run.state)).sort((a, b) => (a.place || 0) - (b.place || 0));
    const key = JSON.stringify(runs.map((run) => [run.run, run.state, run.place, run.step]));
    if (parts.queue.dataset.key !== key) {
      parts.queue.dataset.key = key;
      parts.queue.hidden = !runs.length;
      parts.queueList.replaceChildren(...runs.map((run) => make("li", { "data-run": run.run }, make("strong", {}, run.run), make("span", { class: "at-train-note" }, placeOf(run)),
        T.tool("Watch", () => { T.change({ run: run.run }); T.go("run"); }, { "aria-label": `Watch ${run.run}` }))));
    }
    return runs.length > 0;
  }
  const placeOf = (run) => (run.state === "running" ? (run.step ? `Step ${run.step} of ${run.num_steps}` : run.doing || "Starting") : run.place > 1 ? `Place ${run.place} in the queue` : "Next in the queue");

  /* ---- as a file ------------------------------------------------------------------------------------------------- */
  async function download() {
    const told = await T.post("config", { config: M.nested(values()), set: T.state().set });
    if (!T.report(parts.fileError, told)) return;
    const url = URL.createObjectURL(new Blob([told.text], { type: "application/toml" }));
    make("a", { href: url, download: `${nameOf()}.toml` }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  async function load(input) {
    const [file] = input.files;
    if (!file) return;
    const told = await T.post("config/read", { text: await file.text() });
    input.value = "";
    if (T.report(parts.fileError, told)) await adopt(told.config, `The settings are those of ${file.name}; the photos are still your choice.`);
  }

  /* ---- the page: built once -------------------------------------------------------------------------------------- */
  function build(box) {
    parts = { box, tops: {}, errors: {}, error: T.error(), fileError: T.error(), told: T.note("", { role: "status", hidden: true }) };
    parts.wait = T.note("Just a moment");
    box.replaceChildren(parts.wait, parts.error);
    T.onChange((state, names) => {
      if (names.includes("config") && state.config && JSON.stringify(state.config) !== published) adopt(state.config, "These are the settings of that run.");
      else if (names.includes("set") && origin) showSets();
    });
  }
  /* True once the form is there. */
  function ready() {
    loading ||= fill().then((worked) => { if (!worked) loading = null; return worked; });
    return loading;
  }
  async function fill() {
    const told = await T.get("form");
    if (!T.report(parts.error, told)) return false;
    form = told;
    fields = atelierTrainingFields.build(form, { edit, back: (name) => edit(name, origin[name]), above: reveal });
    const usable = form.bases.filter((one) => !one.problem);
    if (!usable.some((one) => one.name === draft.base)) draft = { ...draft, base: (usable.find((one) => one.name === STARTER) || usable[0])?.name || "" };
    if (!form.methods.some((one) => one.id === draft.method)) draft = { ...draft, method: DRAFT.method };
    if (!form.presets.some((one) => one.id === draft.preset)) draft = { ...draft, preset: DRAFT.preset };
    parts.box.replaceChildren(newcomers(), queue(), everything());
    look = T.follow(parts.box, showQueue, { fast: QUEUE_MS });
    sets = (await T.get("sets")).sets || [];
    return redraft();
  }
  async function showSets() {
    sets = (await T.get("sets")).sets || sets;
    publish();
    draw();
    check();
  }
  const show = async () => {
    const before = !!origin;
    if (!(await ready())) parts.wait.hidden = true;
    else if (before) showSets();
  };

  /* What has to be decided, and the start. */
  function newcomers() {
    const off = form.enabled === false ? make("p", { class: "at-train-error" }, "Training is switched off in this program's settings.") : null;
    parts.presets = make("div", { class: "at-tset-presets", role: "radiogroup", "aria-label": "What it is, and how long" });
    parts.reset = T.tool("Set all back to the preset", () => { T.setText(parts.told, ""); changed({ own: {} }); }, { hidden: true });
    parts.summary = make("p", { class: "at-tset-summary", role: "status" });
    parts.photos = T.tool("Choose photos", () => T.go("photos"), { hidden: true });
    parts.warnings = make("ul", { class: "at-tset-warnings", "aria-label": "Worth knowing" });
    parts.problems = make("ul", { class: "at-tset-problems", "aria-label": "What has to be put right" });
    parts.start = T.main("Start training", start, { class: "at-tool at-train-main at-tset-start", disabled: true });
    return make("div", { class: "at-train-card at-tset-top" }, off,
      make("h3", {}, "What is it, and how long?"), parts.presets, make("div", { class: "at-train-bar" }, parts.told, parts.reset),
      make("h3", {}, "What learns it?"), basics(), words(),
      make("div", { class: "at-tset-end" }, parts.summary, parts.warnings, parts.problems, make("div", { class: "at-train-bar" }, parts.start, parts.photos), parts.error));
  }
  function basics() {
    const option = (one) => make("option", { value: one.name, disabled: !!one.problem }, `${one.title || one.name} · ${[one.family, `${one.native_size} px`].filter(Boolean).join(", ")}${one.problem ? " · cannot be trained" : ""}`);
    const base = make("select", { id: "tset-top-base", onchange: () => redraft({ base: base.value }, { yields: "the base" }).then((worked) => { if (!worked) base.value = draft.base; }) }, ...form.bases.map(option));
    const bad = form.bases.filter((one) => one.problem);
    const why = bad.length ? make("details", { class: "at-tset-why" }, make("summary", {}, `${T.plural(bad.length, "checkpoint")} cannot be trained`), make("ul", {}, ...bad.map((one) => make("li", {}, make("strong", {}, one.name), `: ${one.problem}`)))) : null;
    parts.methodName = make("strong");
    parts.methodAbout = make("span", { class: "at-train-note" });
    parts.methods = make("div", { class: "at-tset-methods", role: "radiogroup", "aria-label": "Method" }, ...form.methods.map((one) =>
      pickOf("method", one.id, () => redraft({ method: one.id }, { yields: one.label }), make("strong", {}, one.label), make("small", { class: "at-train-note" }, one.about))));
    parts.methodBox = make("details", { class: "at-tset-method" }, make("summary", {}, parts.methodName, parts.methodAbout), parts.methods);
    return make("div", { class: "at-tset-basics" }, top("base", "Base checkpoint", base, "What comes out fits this checkpoint, and others of its kind.", why),
      make("div", { class: "at-train-field" }, make("span", {}, "Method"), parts.methodBox));
  }
  function words() {
    const input = (name, more, run) => make("input", { id: `tset-top-${name}`, type: "text", autocomplete: "off", spellcheck: "false", maxlength: 64, oninput: (event) => run(event.target.value), ...more });
    parts.caption = T.note();
    return make("div", { class: "at-tset-words" },
      top("name", "Name", input("name", {}, (text) => changed({ name: text })), "The file is called so."),
      top("data.trigger", "Trigger word", input("trigger", { placeholder: "such as ohwx" }, (text) => changed({ trigger: text })), "A made-up word that calls it up in prompts."),
      top("data.class_word", "Class", input("class_word", { placeholder: "such as woman, dog, vase" }, (text) => edit("data.class_word", text)), "What it is in a common word: so the model starts from what it knows of those."),
      parts.caption);
  }
  /* A labelled control with a line below it and a place for its problem. */
  function top(name, label, control, about, more = null) {
    const error = parts.errors[name] = make("small", { class: "at-tset-problem", role: "alert", id: `${control.id}-problem`, hidden: true });
    const note = make("small", { class: "at-train-note", id: `${control.id}-about` }, about);
    control.setAttribute("aria-describedby", `${error.id} ${note.id}`);
    parts.tops[name] = control;
    return make("div", { class: "at-train-field" }, make("label", { for: control.id }, label), control, note, error, more);
  }
  const pickOf = (group, value, run, ...inside) => make("label", { class: "at-tset-pick" }, make("input", { type: "radio", name: `tset-${group}`, value, onchange: run }), ...inside);
  function queue() {
    parts.queueList = make("ul", { class: "at-tset-queue" });
    parts.queue = make("div", { class: "at-train-card", hidden: true }, make("h3", {}, "Running and waiting"), parts.queueList);
    return parts.queue;
  }
  function everything() {
    const file = make("input", { type: "file", accept: ".toml", hidden: true, "aria-label": "A file of settings", onchange: () => load(file) });
    return make("div", { class: "at-tset-more" }, make("h3", {}, "All settings"), fields.node, make("div", { class: "at-train-bar" },
      T.tool("Save as a file", download, { title: "A config.toml as `launch.py train` reads it; it looks for the photos beside itself" }), T.tool("Load a file", () => file.click(), { title: "A config.toml" }), file), parts.fileError);
  }

  /* ---- the page: drawn after every change ------------------------------------------------------------------------ */
  function draw() {
    if (!origin) return;
    const shown = values();
    drawPresets();
    for (const input of parts.methods.querySelectorAll("input")) input.checked = input.value === draft.method;
    const method = form.methods.find((one) => one.id === draft.method);
    T.setText(parts.methodName, method.label);
    T.setText(parts.methodAbout, method.about);
    const own = { base: draft.base, name: draft.name, "data.trigger": draft.trigger, "data.class_word": shown["data.class_word"] };
    for (const [name, control] of Object.entries(parts.tops)) {
      if (document.activeElement !== control && control.value !== own[name]) control.value = own[name];
      T.setText(parts.errors[name], problems[name] || "");
      if (problems[name]) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    }
    parts.tops.name.placeholder = nameOf();
    parts.reset.hidden = !Object.keys(draft.own).some((name) => name !== "data.class_word");
    T.setText(parts.caption, last.caption ? `A photo without a caption is learnt as “${last.caption}”.` : "A photo without a caption is learnt without words.");
    fields.draw({ values: shown, origin, own: draft.own, unused: last.unused, problems, sets: sets.filter((one) => one.id !== T.state().set) });
    drawEnd(shown);
  }
  function drawPresets() {
    const key = JSON.stringify(presets);
    if (parts.presets.dataset.key !== key) {
      parts.presets.dataset.key = key;
      const focused = parts.presets.contains(document.activeElement) ? document.activeElement.value : "";
      const label = Object.fromEntries(form.presets.map((one) => [one.id, one.label.split(", ")]));
      const subjects = [...new Set(presets.map((one) => one.id.split("-")[0]))];
      parts.presets.replaceChildren(...subjects.map((subject) => {
        const mine = presets.filter((one) => one.id.startsWith(`${subject}-`));
        return make("div", { class: "at-tset-subject" }, make("div", {}, make("strong", {}, label[mine[0].id][0]), make("small", { class: "at-train-note" }, ABOUT[subject] || "")), ...mine.map((one) => presetOf(one, label[one.id])));
      }));
      if (focused) parts.presets.querySelector(`input[value="${focused}"]`)?.focus();
    }
    for (const input of parts.presets.querySelectorAll("input")) input.checked = input.value === draft.preset;
  }
  function presetOf(one, [subject, size]) {
    const pick = pickOf("preset", one.id, () => redraft({ preset: one.id }), make("strong", {}, size[0].toUpperCase() + size.slice(1)),
      make("small", { class: "at-train-note" }, make("span", {}, T.plural(one.num_steps, "step")), " · ", make("span", {}, one.rank === null ? `rate ${one.rate}` : `rank ${one.rank}`)));
    pick.title = `${one.num_steps} steps of ${T.plural(one.batch_size, "photo")}, ${one.rank === null ? "" : `rank ${one.rank}, `}learning rate ${one.rate}, ${one.resolution} px`;
    pick.firstChild.setAttribute("aria-label", `${subject}, ${size}: ${T.plural(one.num_steps, "step")}${one.rank === null ? "" : `, rank ${one.rank}`}`);
    return pick;
  }
  function drawEnd(shown) {
    const noPhotos = !!problems["data.photos"];
    const others = Object.entries(problems).filter(([name]) => name !== "data.photos");
    parts.summary.textContent = summaryOf(checked?.summary, shown);
    parts.photos.hidden = !noPhotos;
    parts.photos.textContent = T.state().set ? "Look at the photos" : "Choose photos";
    parts.warnings.hidden = !checked?.warnings.length;
    parts.warnings.replaceChildren(...(checked?.warnings || []).map((text) => make("li", {}, text)));
    parts.problems.hidden = !others.length;
    parts.problems.replaceChildren(...others.map(([name, text]) => make("li", {}, make("button", { type: "button", onclick: () => reveal(name) }, fields.labelOf(name)), ` ${text}`)));
    parts.start.disabled = !checked || noPhotos || others.length > 0 || form.enabled === false;
  }
  function summaryOf(summary, shown) {
    const size = last.bytes ? ` A file of about ${M.amount(last.bytes)} comes out.` : "";
    if (!summary) return problems["data.photos"] ? `${T.state().set ? problems["data.photos"] : "First choose the photos."}${size}` : "";
    const passes = summary.passes_per_photo, back = summary.num_held_out ? `${summary.num_held_out} kept back to measure with` : "none kept back";
    const many = passes < 10 ? passes.toFixed(1) : Math.round(passes).toLocaleString("en");
    const batch = shown["schedule.batch_size"] * shown["schedule.accumulation"];
    return `${T.plural(summary.num_photos, "photo")}, ${back}. ${T.plural(summary.steps, "step")}${batch > 1 ? ` of ${batch} photos` : ""} = ${many} passes per photo.${size}`;
  }
  T.register("settings", { build, show });
  return { adopt };
})();
