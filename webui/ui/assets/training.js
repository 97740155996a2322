/* The Training tab's shell: the steps Photos, Settings and Run, and the runs so far. Each step's script registers a panel; what
   was chosen is kept in the browser. Texts go in by textContent. */
"use strict";
const atelierTraining = (() => {
  const { make, visible } = atelier;
  const MEMORY = "atelier-training", VERSION = 1;
  const STEPS = [
    ["photos", "Photos", "Choose and look after the photos"],
    ["settings", "Settings", "What is learned, and how long"],
    ["run", "Run", "Watch it learn"],
    ["runs", "Runs", "All runs so far"],
  ];
  const FIRST = STEPS[0][0];
  const panels = {}, listeners = new Set();
  let parts = null, state = recall();

  /* ---- what is kept in the browser ------------------------------------------------------------------------------- */
  function recall() {
    const empty = { v: VERSION, step: FIRST, set: "", config: null, run: "", summaries: {} };
    try {
      const kept = JSON.parse(localStorage.getItem(MEMORY));
      return kept?.v === VERSION ? { ...empty, ...kept } : empty;
    } catch { return empty; }
  }
  /* `news` is any of {step, set, config, run}, and whatever else a step wants to find again. */
  function change(news) {
    const names = Object.keys(news).filter((name) => JSON.stringify(news[name]) !== JSON.stringify(state[name]));
    if (!names.length) return;
    state = { ...state, ...news };
    localStorage.setItem(MEMORY, JSON.stringify(state));
    if (names.includes("step")) draw();
    for (const listener of listeners) listener(state, names);
  }
  /* `text` stands under the step's name: "25 photos". */
  function summarize(step, text) {
    change({ summaries: { ...state.summaries, [step]: text } });
    const node = parts?.steps[step]?.summary;
    if (node) setText(node, text);
  }

  /* ---- talking to the server ------------------------------------------------------------------------------------- */
  /* What the server said, or {failed: true, message, hint, field}. Never throws. */
  async function ask(path, options = {}) {
    let answer;
    try {
      answer = await fetch(`training/${path}`, { cache: "no-store", ...options });
    } catch {
      return { failed: true, message: "The server does not answer.", hint: "" };
    }
    const told = await answer.json().catch(() => ({}));
    return answer.ok ? told : { message: `That did not work (${answer.status}).`, hint: "", ...told, failed: true, status: answer.status };
  }
  const get = (path) => ask(path);
  const post = (path, body = {}, options = {}) =>
    ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), ...options });
  const remove = (path) => ask(path, { method: "DELETE" });
  const sentenceOf = (told) => (told.failed ? [told.message, told.hint].filter(Boolean).join(" ") : "");
  /* Shows in `node` why it failed, or nothing; returns whether it worked. */
  function report(node, told) {
    setText(node, sentenceOf(told));
    if (told.failed) node.scrollIntoView({ block: "nearest" });
    return !told.failed;
  }
  /* Calls `work` again and again while `box` is in front: after `fast` ms where it returned true, after as many ms as it
     returned, else after `slow`. Returns a function that looks at once. */
  function follow(box, work, { fast = 1000, slow = 5000 } = {}) {
    let timer = 0, running = null, wanted = false;
    const inFront = () => visible(box) && !document.hidden;
    async function run() {
      let soon = false;
      try {
        do { wanted = false; soon = await work(); } while (wanted);
      } finally {
        running = null;
        if (inFront()) timer = setTimeout(look, soon === true ? fast : soon || slow);
      }
    }
    function look() {
      clearTimeout(timer);
      wanted = true;
      return (running ||= run());
    }
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) look(); }).observe(box);
    document.addEventListener("visibilitychange", () => { if (inFront()) look(); });
    return look;
  }

  /* ---- small parts that the steps share -------------------------------------------------------------------------- */
  const tool = (text, onclick, more = {}) => make("button", { type: "button", class: "at-tool", onclick, ...more }, text);
  const main = (text, onclick, more = {}) => tool(text, onclick, { class: "at-tool at-train-main", ...more });
  const note = (text = "", more = {}) => make("p", { class: "at-train-note", ...more }, text);
  const error = () => make("p", { class: "at-train-error", role: "alert", hidden: true });
  const labelled = (text, control, hint = "") => make("label", { class: "at-train-field", title: hint || null }, make("span", {}, text), control);
  function setText(node, text) {
    if (node.textContent !== text) node.textContent = text;
    node.hidden = !text;
  }
  const plural = (count, word, many = `${word}s`) => `${count.toLocaleString("en")} ${count === 1 ? word : many}`;

  /* ---- the tab --------------------------------------------------------------------------------------------------- */
  /* `build(box)` fills the step once; `show()`, if there is one, is called whenever it comes to the front. */
  function register(step, { build, show = () => {} }) {
    panels[step] = { build, show };
  }
  function panel({ element }) {
    const box = element.querySelector(".at-training");
    const steps = Object.fromEntries(STEPS.map(([name, label, title], at) => [name, stepOf(name, label, title, at)]));
    parts = { box, steps };
    const nodes = Object.values(steps);
    box.replaceChildren(make("nav", { class: "at-train-steps", "aria-label": "Steps of a training" }, ...nodes.map((one) => one.button)), ...nodes.map((one) => one.box));
    for (const [name, { build }] of Object.entries(panels)) build(steps[name].box);
    draw();
  }
  function stepOf(name, label, title, at) {
    const summary = make("small", {}, state.summaries[name] || "");
    const number = at < STEPS.length - 1 ? make("i", { "aria-hidden": "true" }, String(at + 1)) : null;
    const button = make("button", { type: "button", "data-step": name, title, onclick: () => go(name) }, number, make("span", {}, make("strong", {}, label), summary));
    return { summary, button, box: make("section", { class: "at-train-step", "data-step": name, "aria-label": label, hidden: true }) };
  }
  function draw() {
    if (!parts) return;
    if (!parts.steps[state.step]) state.step = FIRST;
    for (const [name, one] of Object.entries(parts.steps)) {
      const current = name === state.step;
      one.box.hidden = !current;
      if (current) one.button.setAttribute("aria-current", "step");
      else one.button.removeAttribute("aria-current");
      setText(one.summary, state.summaries[name] || "");
    }
    panels[state.step]?.show();
  }
  const go = (step) => change({ step });
  return { panel, register, go, change, summarize, get, post, remove, ask, report, sentenceOf, follow, tool, main, note, error, labelled, setText, plural,
    state: () => state, onChange: (listener) => listeners.add(listener) };
})();
window.atelierTraining = atelierTraining;
