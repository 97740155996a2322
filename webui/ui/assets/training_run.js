/* The Training tab's third step: one run as it goes on, what it measures and says, and what came out. */
"use strict";
const atelierTrainingRun = (() => {
  const T = atelierTraining, { make } = atelier, { integer } = atelierCharts, { candidateText, foundIn, weightText } = atelierCurves;
  const FAST_MS = 1000, SLOW_MS = 5000;
  const STATES = { queued: "Waiting", running: "Running", paused: "Paused", finished: "Finished", failed: "Failed", stopped: "Stopped" };
  const ROOMS = { lora: "loras", embedding: "embeddings", checkpoint: "checkpoints" };
  const ACTIVE = ["queued", "running"];
  const STANDING = ["paused", "stopped", "failed"];
  const NEAR_END_PX = 24, LONGER = 1.5;
  let parts = null, look = null, run = null, asked = "";

  const isActive = (one) => ACTIVE.includes(one.state);
  const resumeText = (one) => (one.can_resume ? "Resume" : "Start again");
  const perStep = (value) => (value >= 0.1 ? `${value.toFixed(2)} s per step` : `${Math.round(1000 * value)} ms per step`);
  function duration(value) {
    const seconds = Math.round(value), minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60);
    return hours ? `${hours} h ${minutes % 60} min` : minutes >= 10 ? `${minutes} min` : minutes ? `${minutes} min ${seconds % 60} s` : `${seconds} s`;
  }
  const pathOf = (id, more = "") => `runs/${encodeURIComponent(id)}${more}`;
  /* A run as the server tells it, with what it left out because there is none. */
  function complete(told) {
    const empty = { losses: [], rates: {}, validation: [], samples: [], notes: [], error: null, choice: null, estimate: null, scale: null, picking: null, doing: "", place: 0, tag: "", trigger: "", adapter: "" };
    const one = { ...empty, ...Object.fromEntries(Object.entries(told).filter(([, value]) => value != null)) };
    one.in_use ??= null;
    return one;
  }

  /* ---- asking the server ----------------------------------------------------------------------------------------- */
  async function update() {
    const id = T.state().run || (await latest());
    if (!id) { showNone(); return false; }
    const known = run?.run === id ? run.version : "";
    const told = await T.get(pathOf(id, `?known=${encodeURIComponent(known || "")}`));
    if (id !== T.state().run) return true; // another one was opened meanwhile
    if (told.failed) {
      if (told.status === 404 || told.status === 422) { run = null; showNone(T.sentenceOf(told)); }
      return false;
    }
    if (told.state) { run = complete(told); draw(); }
    return !!run && (isActive(run) || !!run.picking || !!asked);
  }
  /* The newest run that goes on, where none was opened. */
  async function latest() {
    const told = await T.get("runs"), found = told.runs?.find(isActive);
    if (found) T.change({ run: found.run });
    return found?.run || "";
  }
  async function act(action, body = {}) {
    asked = { pause: "Pausing after this step", stop: "Stopping", resume: "Starting again", pick: "" }[action];
    drawState();
    const told = await T.post(pathOf(run.run, `/${action}`), body);
    if (told.failed) asked = "";
    T.report(parts.error, told);
    await look();
    atelier.poll();
    if (action === "resume") asked = "";
    drawState();
    return !told.failed;
  }

  /* ---- the questions --------------------------------------------------------------------------------------------- */
  function stop() {
    const kept = run.state === "queued" ? "It is taken out of the queue; its settings stay among the runs." : "Its candidates and samples stay among the runs, and it can be resumed there.";
    atelierExtensions.ask(`Stop ${run.name}?`, [kept], "Stop", () => act("stop"));
  }
  function longer() {
    const least = run.state === "finished" ? run.num_steps + 1 : Math.max(run.step + 1, 1);
    const steps = make("input", { type: "number", min: least, max: 1000000, step: 1, value: Math.max(least, Math.round(run.num_steps * LONGER)), required: true });
    const error = T.error();
    const send = async () => {
      if (!steps.checkValidity()) return T.setText(error, `Give a whole number of steps, from ${integer(least)} on.`);
      const told = await T.post(pathOf(run.run, "/resume"), { changes: { "schedule.num_steps": Number(steps.value) } });
      if (!T.report(error, told)) return;
      dialog.close();
      T.report(parts.error, told);
      look();
      atelier.poll();
    };
    const dialog = make("dialog", { class: "at-train-dialog at-ext-dialog at-run-longer", "aria-label": "Continue longer" }, make("h2", {}, `Continue ${run.name}`),
      T.note(`It has learned for ${integer(run.step)} of ${integer(run.num_steps)} steps. The learning rate's schedule is stretched to the new number.`),
      T.labelled("Steps in all", steps), error, make("div", { class: "at-ext-answers" }, T.tool("Cancel", () => dialog.close()), T.main("Continue", send)));
    steps.addEventListener("keydown", (event) => { if (event.key === "Enter") send(); });
    dialog.addEventListener("close", () => dialog.remove());
    document.querySelector(".at-page").append(dialog);
    dialog.showModal();
    steps.select();
  }
  async function use(candidate) {
    await act("pick", { step: candidate.step, weight: candidate.weight });
  }
  async function tryIt(task) {
    const problem = await atelierTrial.tryIt(run, task);
    T.setText(parts.error, problem);
  }

  /* ---- the page -------------------------------------------------------------------------------------------------- */
  function build(box) {
    const samples = atelierSamples.build({ use }), curves = atelierCurves.build();
    parts = { box, samples, curves, none: T.note(), error: T.error(), ...headOf(), ...resultOf(), ...logOf() };
    parts.body = make("div", { class: "at-run", hidden: true }, parts.head, parts.result, curves.learning, curves.choosing, samples.node, parts.log, parts.settings);
    box.replaceChildren(parts.error, parts.none, parts.body);
    look = T.follow(box, update, { fast: FAST_MS, slow: SLOW_MS });
    T.onChange((state, names) => { if (names.includes("run")) look(); });
  }
  function headOf() {
    const title = make("h3"), state = make("span", { class: "at-run-state" }), line = make("p", { class: "at-run-line", role: "status" });
    const bar = make("i"), progress = make("div", { class: "at-progress", role: "progressbar", "aria-label": "Steps", "aria-valuemin": 0 }, bar);
    const memory = T.note(), fault = make("div", { class: "at-error at-run-fault", role: "alert", hidden: true }, make("strong"), make("span"));
    const buttons = {
      pause: T.tool("Pause", () => act("pause"), { title: "Stands still before the next step; nothing is lost" }),
      resume: T.main("Resume", () => act("resume")),
      longer: T.tool("Continue longer", longer, { title: "Goes on from its last step, for more steps" }),
      again: T.tool("Start from these settings", () => startFrom(run), { title: "Opens the settings of this run, for a new one" }),
      stop: T.tool("Stop", stop),
    };
    const head = make("section", { class: "at-train-card at-run-head", "aria-label": "State of the run" }, make("div", { class: "at-run-title" }, title, state), line, progress, memory, fault,
      make("div", { class: "at-train-bar" }, ...Object.values(buttons)));
    return { head, title, state, line, bar, progress, memory, fault, buttons };
  }
  function resultOf() {
    const facts = make("dl", { class: "at-run-facts" }), byHand = make("p", { class: "at-run-warning" }), told = T.note("", { role: "status" });
    const back = T.tool("Use the one that was found", () => use(foundIn(run))), download = make("a", { class: "at-tool", download: true }, "Download");
    const result = make("section", { class: "at-train-card at-run-result", "aria-label": "Result", hidden: true }, make("h3", {}, "Result"), facts, byHand,
      make("div", { class: "at-train-bar" }, T.main("Try it in txt2img", () => tryIt("txt2img")), T.tool("Try it in img2img", () => tryIt("img2img")), download, back), told);
    return { result, facts, byHand, back, download, told };
  }
  function logOf() {
    const list = make("ol", { class: "at-run-notes", tabindex: 0, "aria-label": "What the run said" });
    const whole = make("pre", { class: "at-run-output", tabindex: 0 }), more = make("details", { class: "at-chart-table" }, make("summary", {}, "Everything it said"), whole);
    more.addEventListener("toggle", () => { if (more.open) loadLog(); });
    const values = make("div", { class: "at-run-table" }), file = make("a", { class: "at-tool", download: true }, "Download as config.toml");
    const settings = make("details", { class: "at-train-card at-run-settings" }, make("summary", {}, "Settings of this run"), values, make("div", { class: "at-train-bar" }, file));
    settings.addEventListener("toggle", () => drawSettings());
    return { log: make("section", { class: "at-train-card", "aria-label": "Log" }, make("h3", {}, "Log"), list, more), notes: list, whole, more, settings, values, file };
  }
  function showNone(why = "") {
    run = null;
    parts.body.hidden = true;
    T.setText(parts.none, [why, "No run is open. Start one in Settings, or open one in Runs."].filter(Boolean).join(" "));
    T.summarize("run", "");
  }

  /* ---- drawing --------------------------------------------------------------------------------------------------- */
  function draw() {
    if (asked && (!isActive(run) || (asked === "Starting again" && run.state === "running"))) asked = "";
    parts.none.hidden = true;
    parts.body.hidden = false;
    parts.body.dataset.run = run.run;
    parts.body.dataset.state = run.state;
    drawState();
    drawResult();
    parts.curves.show(run);
    parts.samples.show(run);
    drawNotes();
    drawSettings();
  }
  /* "Step 120 of 800 · 0.52 s per step · 5 min left" */
  function lineOf(one) {
    const last = one.losses?.at(-1), speed = one.seconds_per_step ?? last?.[3] ?? one.estimate?.seconds_per_step;
    const steps = `step ${integer(one.step)} of ${integer(one.num_steps)}`;
    if (one.state === "queued") return one.place > 1 ? `Place ${one.place} in the queue` : "Next in the queue";
    if (one.state === "running") {
      const where = one.step || !one.doing ? (one.step ? `Step${steps.slice(4)}` : "Preparing") : one.doing;
      return [asked, where, one.step && one.doing ? one.doing : "", one.step && speed ? perStep(speed) : "", one.step && !one.doing && one.seconds_left ? `${duration(one.seconds_left)} left` : ""].filter(Boolean).join(" · ");
    }
    if (one.state === "finished") return `Finished: ${integer(one.num_steps)} steps`;
    return `${STATES[one.state] || one.state} ${one.step ? `after ${steps}` : "before the first step"}`;
  }
  function memoryOf({ estimate }) {
    if (!estimate) return "";
    const { peak_bytes: peak, free_bytes: free, changes = [] } = estimate;
    const memory = peak ? `Memory: about ${atelierModels.bytes(peak)}${free ? ` of ${atelierModels.bytes(free)} free` : ""}.` : "";
    return [memory, changes.length ? `Changed to fit: ${changes.join("; ")}.` : ""].filter(Boolean).join(" ");
  }
  function drawState() {
    if (!run) return;
    const { state } = run, stands = STANDING.includes(state);
    T.setText(parts.title, run.name);
    T.setText(parts.state, STATES[state] || state);
    T.setText(parts.line, lineOf(run));
    T.setText(parts.memory, memoryOf(run));
    T.summarize("run", `${run.name}: ${(STATES[state] || state).toLowerCase()}${state === "running" && run.num_steps ? `, ${Math.floor((100 * run.step) / run.num_steps)}%` : ""}`);
    const share = run.num_steps ? Math.min(1, run.step / run.num_steps) : 0;
    parts.progress.hidden = state === "finished";
    parts.progress.classList.toggle("at-unknown", state === "running" && !run.step);
    parts.progress.setAttribute("aria-valuemax", run.num_steps || 1);
    parts.progress.setAttribute("aria-valuenow", run.step || 0);
    parts.bar.style.width = `${100 * share}%`;
    parts.fault.hidden = !run.error;
    if (run.error) { parts.fault.firstChild.textContent = run.error.message; parts.fault.lastChild.textContent = run.error.hint || ""; }
    const { pause, resume, longer, stop, again } = parts.buttons;
    pause.hidden = state !== "running";
    resume.hidden = !stands;
    resume.textContent = resumeText(run);
    resume.title = run.can_resume ? "Goes on where it stood" : "It kept no state to go on from, so it starts at its first step";
    longer.hidden = state !== "finished" && !(stands && run.can_resume);
    stop.hidden = !isActive(run);
    again.hidden = isActive(run) || !run.config;
    for (const button of [pause, resume, longer, stop]) button.disabled = !!asked;
  }
  function drawResult() {
    const { in_use: used } = run, found = foundIn(run), done = !!run.adapter && !!used;
    parts.result.hidden = !done;
    if (!done) return;
    const fact = (name, ...values) => [make("dt", {}, name), make("dd", {}, ...values)];
    const kinds = { lora: "LoRA", embedding: "Embedding", checkpoint: "Whole model" };
    const facts = [fact("Name", `${atelierTrial.stemOf(run.adapter)} (${kinds[run.kind] || run.kind}, trained on ${run.base})`), fact("Where", make("code", {}, `models/${ROOMS[run.kind]}`))];
    if (run.kind === "lora") facts.push(fact("Weight", `${weightText(run.best_weight)} is recommended`));
    if (run.best_step) facts.push(fact("Step", `${integer(run.best_step)} of ${integer(run.num_steps)}`));
    if (run.trigger) facts.push(fact("Trigger", make("code", {}, run.trigger)));
    if (run.tag && run.kind !== "checkpoint") facts.push(fact("In a prompt", make("code", {}, run.tag)));
    if (found && !used.by_hand) facts.push(fact("Why", found.reason));
    const key = JSON.stringify([run.adapter, run.tag, run.best_step, run.best_weight, used, found]);
    if (parts.facts.dataset.key !== key) parts.facts.replaceChildren(...facts.flat());
    parts.facts.dataset.key = key;
    T.setText(parts.byHand, used.by_hand ? `Chosen by hand.${found ? ` The measures found ${candidateText(found)}.` : ""}` : found?.warning || "");
    parts.back.hidden = !used.by_hand || !found || !!run.picking || isActive(run);
    T.setText(parts.told, run.picking ? `Writing ${candidateText(run.picking)}.` : "");
    parts.download.hidden = !run.download;
    if (run.download) parts.download.href = run.download;
  }
  /* Follows the end, unless the reader has scrolled up. */
  function drawNotes() {
    const { notes } = parts, key = `${run.run} ${run.notes.length}`;
    if (notes.dataset.key === key) return;
    const atEnd = notes.scrollHeight - notes.scrollTop - notes.clientHeight < NEAR_END_PX, sameRun = notes.dataset.key?.startsWith(`${run.run} `);
    const shown = sameRun && run.notes.length >= notes.children.length ? notes.children.length : 0;
    if (!shown) notes.replaceChildren();
    notes.dataset.key = key;
    notes.append(...run.notes.slice(shown).map(({ text, kind, step }) => make("li", { "data-kind": kind }, step ? make("small", {}, `Step ${integer(step)}`) : null, kind === "warning" ? make("b", {}, "Warning: ") : null, text)));
    notes.hidden = !run.notes.length;
    if (atEnd || !sameRun) notes.scrollTop = notes.scrollHeight;
    if (!sameRun) { parts.more.open = run.state === "failed"; parts.whole.textContent = ""; }
    if (parts.more.open) loadLog();
  }
  async function loadLog() {
    const { whole } = parts, id = run.run, atEnd = whole.scrollHeight - whole.scrollTop - whole.clientHeight < NEAR_END_PX;
    const answer = await fetch(`training/${pathOf(id, "/log")}`, { cache: "no-store" }).catch(() => null);
    const text = answer?.ok ? await answer.text() : "";
    if (id !== run?.run) return;
    whole.textContent = text || "Nothing.";
    if (atEnd) whole.scrollTop = whole.scrollHeight;
  }
  /* [["schedule.num_steps", "800"], ...] of a run's settings. */
  function settingsOf(config, before = "") {
    return Object.entries(config || {}).flatMap(([name, value]) => (value && typeof value === "object" && !Array.isArray(value) ? settingsOf(value, `${before}${name}.`) : [[`${before}${name}`, wordOf(value)]]));
  }
  const wordOf = (value) => (value === true ? "yes" : value === false ? "no" : value == null || value === "" ? "–" : Array.isArray(value) ? value.join(", ") || "–" : String(value));
  function drawSettings() {
    parts.settings.hidden = !run?.config;
    if (!parts.settings.open || !run?.config) return;
    const key = JSON.stringify(run.config);
    parts.file.href = `training/${pathOf(run.run, "/config.toml")}`;
    if (parts.values.dataset.key === key) return;
    parts.values.dataset.key = key;
    parts.values.replaceChildren(atelierCurves.tableOf(["Setting", "Value"], settingsOf(run.config)));
  }

  /* ---- for the other steps --------------------------------------------------------------------------------------- */
  function open(id) {
    T.change({ run: id, step: "run" });
  }
  /* Back to the settings, with those of `one`. */
  function startFrom(one) {
    T.change({ config: one.config, set: one.set || T.state().set, step: "settings" });
  }
  T.register("run", { build, show: () => look?.() });
  return { open, startFrom, settingsOf, complete, duration, pathOf, isActive, lineOf, resumeText, STATES, STANDING };
})();
window.atelierTrainingRun = atelierTrainingRun;
