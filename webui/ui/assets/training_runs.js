/* The Training tab's list of all runs: to open, go on with, begin again from, put beside each other, and remove. */
"use strict";
const atelierTrainingRuns = (() => {
  const T = atelierTraining, { make, keepRows } = atelier, { integer, percent, figure } = atelierCharts;
  const { open, startFrom, pathOf, isActive, lineOf, complete, resumeText, STATES, STANDING } = atelierTrainingRun;
  const FAST_MS = 2000, SLOW_MS = 6000;
  const METHODS = { lora: "LoRA", locon: "LoCon", dora: "DoRA", loha: "LoHa", lokr: "LoKr", ia3: "IA³", oft: "OFT", full: "Whole model", embedding: "Embedding", pivotal: "Word and LoRA" };
  const FILTERS = { "": "All", active: "Going on", finished: "Finished", stands: "Paused or stopped", failed: "Failed" };
  const MATCHES = { active: isActive, finished: (run) => run.state === "finished", stands: (run) => ["paused", "stopped"].includes(run.state), failed: (run) => run.state === "failed" };
  let parts = null, look = null, runs = [], known = new Map(), picked = [];

  const when = (time) => (time ? new Date(typeof time === "number" ? time * 1000 : time).toLocaleString("en-GB", { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit" }) : "");

  /* ---- the list -------------------------------------------------------------------------------------------------- */
  async function update() {
    const told = await T.get("runs");
    if (told.failed) { T.report(parts.error, told); return false; }
    runs = told.runs;
    picked = picked.filter((id) => runs.some((run) => run.run === id));
    T.summarize("runs", runs.length ? T.plural(runs.length, "run") : "");
    draw();
    return runs.some(isActive);
  }
  function draw() {
    const words = parts.search.value.toLowerCase().split(/\s+/).filter(Boolean), matches = MATCHES[parts.filter.value] || (() => true);
    const text = (run) => `${run.name} ${run.run} ${METHODS[run.method] || run.method} ${run.base} ${STATES[run.state]}`.toLowerCase();
    const found = runs.filter((run) => matches(run) && words.every((word) => text(run).includes(word)));
    parts.bar.hidden = !runs.length;
    T.setText(parts.note, !runs.length ? "No run yet. Choose photos and settings, and start one." : !found.length ? "Nothing matches." : "");
    known = keepRows(parts.list, known, found.map((run) => ({ ...run, id: run.run })), makeRow, drawRow);
    parts.compare.disabled = picked.length !== 2;
    T.setText(parts.hint, picked.length === 1 ? "Tick one more to compare with." : "");
  }
  function build(box) {
    const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search runs", oninput: draw });
    const filter = make("select", { "aria-label": "Which runs", onchange: draw }, ...Object.entries(FILTERS).map(([value, text]) => make("option", { value }, text)));
    const compare = T.tool("Compare", () => compareThem(), { disabled: true, title: "Tick two runs: their curves in one chart, what differs in the settings, and samples of the same prompt" });
    const hint = make("span", { class: "at-train-note", role: "status" });
    const list = make("ul", { class: "at-runs", "aria-label": "Runs" });
    parts = { box, search, filter, compare, hint, list, error: T.error(), note: T.note(), bar: make("div", { class: "at-train-bar" }, search, filter, compare, hint) };
    parts.all = make("div", { class: "at-runs-all" }, parts.bar, parts.note, list);
    parts.beside = make("div", { class: "at-runs-beside", hidden: true });
    box.replaceChildren(parts.error, parts.all, parts.beside);
    look = T.follow(box, update, { fast: FAST_MS, slow: SLOW_MS });
  }

  /* ---- one run --------------------------------------------------------------------------------------------------- */
  function makeRow({ run: id }) {
    const row = { id, name: make("button", { type: "button", class: "at-runs-name", onclick: () => open(id) }), state: make("span", { class: "at-run-state" }), about: make("p", { class: "at-train-note" }),
      line: make("p", { class: "at-train-note" }), fault: make("p", { class: "at-runs-fault" }), figures: make("dl", { class: "at-runs-figures" }), preview: make("img", { alt: "", loading: "lazy" }), bar: make("i") };
    row.progress = make("div", { class: "at-progress", "aria-hidden": "true" }, row.bar);
    row.tick = make("input", { type: "checkbox", onchange: () => { picked = [...picked.filter((one) => one !== id), ...(row.tick.checked ? [id] : [])].slice(-2); draw(); } });
    row.resume = T.tool("Resume", () => send(T.post(pathOf(id, "/resume"))));
    row.again = T.tool("Start from these settings", () => beginAgain(id));
    row.remove = T.tool("Remove", () => remove(row.shown));
    row.picture = make("div", { class: "at-runs-picture", "aria-hidden": "true" }, row.preview);
    row.node = make("li", { class: "at-train-card at-runs-one", "data-run": id }, make("label", { class: "at-runs-tick", title: "Compare with another one" }, row.tick), row.picture,
      make("div", { class: "at-runs-text" }, make("div", { class: "at-run-title" }, row.name, row.state), row.about, row.line, row.progress, row.fault), row.figures,
      make("div", { class: "at-train-bar" }, row.resume, row.again, row.remove));
    return row;
  }
  function drawRow(row, run) {
    row.shown = run;
    row.node.dataset.state = run.state;
    row.name.textContent = run.name;
    row.name.title = run.run;
    T.setText(row.state, STATES[run.state] || run.state);
    T.setText(row.about, [`${METHODS[run.method] || run.method} on ${run.base}`, `${integer(run.num_steps)} steps`, when(run.started_at)].filter(Boolean).join(" · "));
    T.setText(row.line, run.state === "finished" ? "" : lineOf(run));
    T.setText(row.fault, run.error?.message || "");
    row.progress.hidden = !isActive(run);
    row.bar.style.width = `${run.num_steps ? Math.min(100, (100 * run.step) / run.num_steps) : 0}%`;
    row.preview.hidden = !run.preview;
    if (run.preview && row.preview.getAttribute("src") !== run.preview) row.preview.src = run.preview;
    drawFigures(row, run);
    row.tick.checked = picked.includes(run.run);
    row.tick.setAttribute("aria-label", `Compare ${run.run}`);
    row.resume.hidden = !STANDING.includes(run.state);
    row.resume.textContent = resumeText(run);
    row.resume.setAttribute("aria-label", `${resumeText(run)}: ${run.run}`);
    row.again.setAttribute("aria-label", `Start from the settings of ${run.run}`);
    row.remove.setAttribute("aria-label", `Remove ${run.run}`);
    row.remove.disabled = isActive(run);
    row.remove.title = isActive(run) ? "Stop it first" : "";
  }
  function drawFigures(row, run) {
    const figures = [["Likeness", run.likeness == null ? null : percent(run.likeness), "Of the samples to the photos: 0% is the base's, 100% that of the photos to each other"],
      ["Error", run.error_held_out == null ? null : figure(run.error_held_out), "On photos kept back, where there are any"], ["Loss", run.loss == null ? null : figure(run.loss), "The last one that was reported"],
      ["Step", run.best_step ? `${integer(run.best_step)} at ${run.best_weight}` : null, "The step that is used, and the recommended weight"]].filter(([, value]) => value != null);
    const key = JSON.stringify(figures);
    if (row.figures.dataset.key === key) return;
    row.figures.dataset.key = key;
    row.figures.replaceChildren(...figures.map(([name, value, title]) => make("div", { title }, make("dt", {}, name), make("dd", {}, value))));
  }
  async function send(asked) {
    const told = await asked;
    T.report(parts.error, told);
    await look();
    atelier.poll();
    return !told.failed;
  }
  async function beginAgain(id) {
    const told = await T.get(pathOf(id));
    if (T.report(parts.error, told)) startFrom(told);
  }
  function remove(run) {
    const kept = run.adapter ? "What came out stays among the models." : "";
    atelierExtensions.ask(`Remove ${run.name}?`, [`Its folder ${run.run} with settings, curves, samples and candidates is deleted, and it cannot be resumed. ${kept}`.trim()], "Remove", async () => {
      const gone = await send(T.remove(pathOf(run.run)));
      if (gone && T.state().run === run.run) T.change({ run: "" });
    });
  }
  async function compareThem() {
    const told = await Promise.all(picked.map((id) => T.get(pathOf(id)))), failed = told.find((one) => one.failed);
    if (!T.report(parts.error, failed || {})) return;
    const back = T.tool("‹ All runs", () => { parts.beside.hidden = true; parts.all.hidden = false; parts.compare.focus(); });
    parts.beside.replaceChildren(make("div", { class: "at-train-bar" }, back), atelierCompare.build(...told.map(complete)));
    parts.all.hidden = true;
    parts.beside.hidden = false;
    back.focus();
  }
  T.register("runs", { build, show: () => look?.() });
  return { METHODS };
})();
window.atelierTrainingRuns = atelierTrainingRuns;
