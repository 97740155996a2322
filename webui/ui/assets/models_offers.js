/* What a model in the prompt is made for: a line beside "Models" offers its settings, and then the way back. Nothing is
   set without a click. */
"use strict";
const atelierOffers = (() => {
  const { make, byId, currentTask } = atelier;
  const LOOK_MS = 400, REFRESH_MS = 4000, MEMORY = "atelier-before-offers", CONTROLS = ["sampler", "schedule", "steps", "cfg_scale"];
  const WORDS = { sampler: (name) => name, schedule: (name) => `schedule ${name}`, steps: (count) => `${count} step${count === "1" ? "" : "s"}`, cfg_scale: (scale) => `CFG ${scale}` };
  const lines = {}; // by task
  const taken = recall(); // by task: { name, settings, was, set }: what was used, the values before, and whether the form has shown it
  let lastNames = "", lastLoad = 0;

  function recall() {
    try { return JSON.parse(sessionStorage.getItem(MEMORY)) || {}; } catch { return {}; }
  }
  const remember = () => sessionStorage.setItem(MEMORY, JSON.stringify(taken));

  /* `settings` are [lowest, highest] by control, `values` one value each. */
  const span = ([low, high]) => (low === high ? `${low}` : `${low} to ${high}`);
  const words = (settings) => CONTROLS.filter((name) => name in settings).map((name) => WORDS[name](span(settings[name]))).join(", ");
  const wordsOf = (values) => words(Object.fromEntries(Object.entries(values).map(([name, value]) => [name, [value, value]])));
  const first = (settings) => Object.fromEntries(Object.entries(settings).map(([name, [low]]) => [name, low]));
  const fits = (settings, now) => Object.entries(settings).every(([name, [low, high]]) => low <= now[name] && now[name] <= high);
  /* For where no offer is in sight: the tab of all models. */
  const sentence = (card) => (currentTask() || !Object.keys(card.settings).length ? "" : ` It is made for ${words(card.settings)}; a button beside "Models" under the prompt sets that.`);

  /* The form's values as it shows them; null while the user is choosing or typing one, or where there is no form. */
  function shown(task) {
    const now = {};
    for (const name of CONTROLS) {
      const input = byId(`${task}_${name}`)?.querySelector("input[type=number], input:not([type=range])");
      const isNumber = input?.type === "number";
      if (!input || input.value === "" || (input === document.activeElement && (isNumber || input.getAttribute("aria-expanded") === "true"))) return null;
      now[name] = isNumber ? Number(input.value) : input.value;
    }
    return now;
  }
  function look() {
    const task = currentTask(), line = lines[task];
    if (!line || !document.body.dataset.ready) return;
    const text = byId(`${task}_prompt`)?.querySelector("textarea")?.value || "";
    know(text);
    const now = shown(task);
    if (now) draw(line, rows(task, text, now));
  }
  /* The cards of tags that were not there before, and of those that no card is known for: the panel with all cards may never
     have been open. */
  function know(text) {
    const names = [...atelierTags.named(text)].sort(), key = JSON.stringify(names);
    const isLate = Date.now() - lastLoad > REFRESH_MS && !document.hidden;
    if (names.length && (key !== lastNames || (isLate && !names.every(atelierModels.isKnown)))) {
      lastLoad = Date.now();
      atelierModels.load();
    }
    lastNames = key;
  }
  function rows(task, text, now) {
    const cards = atelierModels.madeFor(text), used = taken[task], list = [];
    if (used && !used.set && fits(used.settings, now)) { used.set = true; remember(); }
    if (used?.set && !fits(used.settings, now)) { delete taken[task]; remember(); } // changed since: theirs now
    for (const card of cards) {
      if (fits(card.settings, now)) continue;
      list.push({ text: `${card.name} is made for ${words(card.settings)}.`, buttons: [[`Use ${wordsOf(first(card.settings))}`, { set: first(card.settings), settings: card.settings, name: card.name }]] });
    }
    if (!taken[task]?.set) return list;
    const { name, was } = used, isThere = cards.some((card) => card.name === name);
    const back = [`Back to ${wordsOf(was)}`, { set: was }], keep = ["Keep", { set: {} }, "Keep these settings"];
    return [...list, { text: isThere ? `Set for ${name}.` : `${name} is not in the prompt any more.`, buttons: isThere ? [back] : [back, keep] }];
  }
  function draw(line, list) {
    const key = JSON.stringify(list);
    if (line.key === key) return;
    line.key = key;
    const focused = line.box.contains(document.activeElement);
    line.box.replaceChildren(...list.map(({ text, buttons }) => make("p", { class: "at-offer" }, make("span", {}, text),
      ...buttons.map(([label, value, name]) => make("button", { type: "button", class: "at-tool", "aria-label": name, onclick: () => { line.props.value = value; line.trigger(line.event); } }, label)))));
    if (focused) (line.box.querySelector("button") || byId(`${line.task}_prompt`)?.querySelector("textarea"))?.focus();
  }

  function line({ element, props, trigger, task, event }) {
    lines[task] = { box: element.querySelector(".at-offers"), props, trigger, task, event, key: "" };
    look();
  }
  /* A click on an offer or on the way back, with the form's values: those it has then. */
  const takenIn = (task) => (value, ...values) => {
    const now = Object.fromEntries(CONTROLS.map((name, at) => [name, values[at]]));
    const was = Object.fromEntries(Object.keys(value.set).map((name) => [name, now[name]]));
    if (value.settings) taken[task] = { name: value.name, settings: value.settings, was: { ...was, ...taken[task]?.was }, set: false };
    else delete taken[task];
    remember();
    return CONTROLS.map((name) => value.set[name] ?? now[name]);
  };
  setInterval(look, LOOK_MS);
  return { line, taken: takenIn, sentence };
})();
window.atelierOffers = atelierOffers;
