/* The box of tools that make models of models: forms from a table, checked by the server, and the jobs. Texts go in by
   textContent. */
"use strict";
const atelierTools = (() => {
  const { make, keepRows, byId, visible } = atelier;
  const FAST_MS = 500, SLOW_MS = 4000;
  const ACTIVE = ["queued", "running"];
  const MODELS = ["checkpoint", "adapter", "vae"];
  let parts = null, cards = [], stamp = "", timer = 0, known = new Map(), asked = new Set();

  function panel({ element, props }) {
    const box = element.querySelector(".at-make");
    const forms = new Map(props.value.forms.map((form) => [form.tool, formOf(form)]));
    const buttons = new Map(props.value.forms.map(({ tool, title }) => [tool,
      make("button", { type: "button", class: "at-tool", "data-form": tool, onclick: () => { show(tool); loadModels(); } }, title)]));
    parts = { box, forms, buttons, list: make("ul", { class: "at-made", "aria-label": "Models in the making" }), told: make("p", { class: "at-make-told", role: "status" }) };
    const more = make("details", { class: "at-make-more", ontoggle: () => { if (more.open) { loadModels(); poll(); } } },
      make("summary", {}, make("h3", {}, "Tools"), make("span", {}, "Merge, convert, bake, extract, resize")),
      make("div", { class: "at-make-kinds", role: "group", "aria-label": "Tool" }, ...buttons.values()),
      ...[...forms.values()].map((form) => form.node));
    parts.more = more;
    box.replaceChildren(more, parts.told, parts.list);
    show(props.value.forms[0].tool);
    poll();
  }
  function show(tool) {
    for (const [name, form] of parts.forms) form.node.hidden = name !== tool;
    for (const [name, button] of parts.buttons) button.setAttribute("aria-pressed", String(name === tool));
  }

  /* ---- forms ----------------------------------------------------------------------------------------------------- */
  function formOf({ tool, action, summary, fields }) {
    const id = (name) => `tool_${tool}_${name}`;
    const form = { tool, controls: new Map(), rows: null, error: make("p", { class: "at-make-error", id: id("error"), role: "alert", hidden: true }) };
    const boxes = fields.map((field) => (field.kind === "loras" ? lorasOf(form, field) : fieldOf(form, field, id(field.name))));
    form.node = make("form", { class: "at-make-form", "data-tool": tool, novalidate: true, autocomplete: "off", onsubmit: (event) => { event.preventDefault(); submit(form); } },
      make("p", { class: "at-make-summary" }, summary), make("div", { class: "at-get-grid" }, ...boxes), form.error,
      make("div", {}, make("button", { type: "submit", class: "at-tool at-make-run" }, action)));
    return form;
  }
  function fieldOf(form, field, id) {
    const note = field.note ? make("small", { id: `${id}_note` }, field.note) : null;
    const control = controlOf(field, { id, "aria-describedby": note?.id });
    const box = make("div", { class: "at-get-field" }, make("label", { for: id }, field.label), control, note);
    form.controls.set(field.name, { field, control });
    if (field.needs) {
      const other = form.controls.get(field.needs).control, follow = () => { box.hidden = !other.value; };
      other.addEventListener("change", follow);
      follow();
    }
    return box;
  }
  function controlOf({ kind, start, step, choices, empty }, attributes) {
    if (MODELS.includes(kind)) return make("select", { ...attributes, "data-kind": kind, "data-empty": empty });
    if (kind === "choice") {
      const shown = (empty ? [["", empty]] : []).concat(choices);
      return make("select", attributes, ...shown.map(([value, text]) => make("option", { value, selected: value === start }, text)));
    }
    const type = kind === "number" ? { type: "number", step, inputmode: "decimal" } : { type: "text", spellcheck: "false", autocomplete: "off" };
    return make("input", { ...attributes, ...type, value: start, placeholder: empty });
  }
  function lorasOf(form, field) {
    const list = make("ul", { class: "at-make-loras" });
    form.rows = [];
    const add = () => {
      const number = (empty, start) => controlOf({ kind: "number", step: "0.05", start, empty }, {});
      const row = { name: controlOf({ kind: "adapter", empty: "Choose a LoRA" }, {}), unet_weight: number("1", "1"), text_encoder_weight: number("The same", "") };
      row.remove = make("button", { type: "button", class: "at-tool", onclick: () => { form.rows.splice(form.rows.indexOf(row), 1); row.node.remove(); name(); more.focus(); } }, "✕");
      const cell = (text, control) => make("label", {}, make("span", {}, text), control);
      row.node = make("li", {}, row.name, cell("Weight", row.unet_weight), cell("Text encoder", row.text_encoder_weight), row.remove);
      form.rows.push(row);
      list.append(row.node);
      fill(row.name);
      name();
      return row;
    };
    const name = () => form.rows.forEach((row, at) => {
      const label = (node, text) => node.setAttribute("aria-label", `${text} ${at + 1}`);
      label(row.name, "LoRA");
      label(row.unet_weight, "Weight of LoRA");
      label(row.text_encoder_weight, "Text encoder weight of LoRA");
      label(row.remove, "Remove LoRA");
      row.remove.hidden = form.rows.length < 2;
    });
    const more = make("button", { type: "button", class: "at-tool", onclick: () => add().name.focus() }, "Add a LoRA");
    const box = make("fieldset", { class: "at-make-wide" }, make("legend", {}, field.label),
      make("div", { class: "at-make-heads", "aria-hidden": "true" }, make("span", {}, "LoRA"), make("span", {}, "Weight"), make("span", {}, "Text encoder")), list, more);
    add();
    return box;
  }
  const valueOf = (control) => (control.type === "number" ? (control.value === "" ? undefined : Number(control.value)) : control.value);
  function requestOf(form) {
    const request = { tool: form.tool };
    for (const [name, { field, control }] of form.controls) {
      const value = valueOf(control);
      if (field.kind !== "choice" || value) request[name] = value;
    }
    if (form.rows) request.loras = form.rows.map((row) => ({ name: row.name.value, unet_weight: valueOf(row.unet_weight), text_encoder_weight: valueOf(row.text_encoder_weight) }));
    return request;
  }
  async function submit(form) {
    let answer;
    try {
      answer = await fetch("tools", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(requestOf(form)) });
    } catch {
      return tell(form, "The server does not answer.");
    }
    const told = await answer.json().catch(() => ({}));
    if (!answer.ok) return tell(form, [told.message || "That did not work.", told.hint].filter(Boolean).join(" "), told.field);
    tell(form, "");
    form.controls.get("destination").control.value = "";
    asked.add(told.id);
    poll();
    atelier.poll();
  }
  /* Says what is wrong, and goes to the control to mend. */
  function tell(form, text, field = "") {
    form.error.textContent = text;
    form.error.hidden = !text;
    for (const control of form.node.querySelectorAll("[aria-invalid]")) { control.removeAttribute("aria-invalid"); control.removeAttribute("aria-errormessage"); }
    const [name, at, key] = field.split("."), control = name === "loras" ? form.rows?.[at || 0]?.[key || "name"] : form.controls.get(name)?.control;
    if (!control) return;
    control.setAttribute("aria-invalid", "true");
    control.setAttribute("aria-errormessage", form.error.id);
    control.focus();
  }

  /* ---- models to choose from ------------------------------------------------------------------------------------- */
  async function loadModels() {
    try {
      const answer = await fetch(`models?seen=${encodeURIComponent(stamp)}`, { cache: "no-store" });
      const list = answer.ok ? await answer.json() : { stamp };
      if (list.stamp !== stamp) {
        stamp = list.stamp;
        cards = list.cards.filter((card) => !card.problem).sort((one, other) => one.name.localeCompare(other.name, undefined, { numeric: true }));
      }
    } catch { return; } // the page itself says that the connection is lost
    for (const select of parts.box.querySelectorAll("select[data-kind]")) fill(select);
  }
  function fill(select) {
    const { kind, empty } = select.dataset, before = select.value, key = `${kind} ${stamp}`;
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    const options = cards.filter((card) => card.kind === kind).map((card) => make("option", { value: card.name }, card.label ? `${card.name} (${card.label})` : card.name));
    select.replaceChildren(make("option", { value: "" }, empty), ...options);
    select.value = before;
    if (select.selectedIndex < 0) select.value = ""; // the chosen one is gone
  }

  /* ---- jobs ------------------------------------------------------------------------------------------------------ */
  async function poll() {
    clearTimeout(timer);
    let active = false;
    try {
      const answer = await fetch("tools", { cache: "no-store" });
      if (answer.ok) active = showAll(await answer.json());
    } catch { active = true; } // the page itself says that the connection is lost
    if (active) timer = setTimeout(poll, visible(parts.box) ? FAST_MS : SLOW_MS);
  }
  function showAll({ enabled, tools }) {
    parts.more.hidden = !enabled;
    if (!enabled) parts.told.textContent = "Making models is switched off on this server.";
    return showJobs(tools);
  }
  function showJobs(jobs) {
    known = keepRows(parts.list, known, jobs, makeRow, draw);
    return jobs.some((job) => ACTIVE.includes(job.state));
  }
  function makeRow(job) {
    const stop = async () => { await fetch(`jobs/${job.id}/interrupt`, { method: "POST" }); poll(); atelier.poll(); };
    const row = { title: make("strong"), status: make("span", { class: "at-download-status" }), bar: make("i"), stop: make("button", { type: "button", class: "at-tool", "aria-label": `Stop: ${job.title}`, onclick: stop }, "Stop"), state: asked.has(job.id) ? "queued" : "" }; // a quick one has ended before it was ever seen
    row.progress = make("div", { class: "at-progress", role: "progressbar", "aria-label": job.title, "aria-valuemin": 0, "aria-valuemax": 100 }, row.bar);
    row.node = make("li", { "data-made": job.id }, make("div", { class: "at-download-text" }, row.title, row.status, row.progress), row.stop);
    return row;
  }
  function draw(row, job) {
    const active = ACTIVE.includes(job.state), percent = job.num_steps ? Math.floor((100 * job.step) / job.num_steps) : 0;
    row.node.dataset.state = job.state;
    row.title.textContent = job.title;
    row.status.textContent = [job.status, job.hint].filter(Boolean).join(" ");
    row.progress.hidden = row.stop.hidden = !active;
    row.bar.style.width = `${percent}%`;
    row.progress.setAttribute("aria-valuenow", percent);
    if (!active && ACTIVE.includes(row.state)) {
      parts.told.textContent = `${job.title}: ${row.status.textContent}`;
      byId("refresh")?.click(); // a new checkpoint belongs in the list
      loadModels();
    }
    row.state = job.state;
  }
  return { panel };
})();
window.atelierTools = atelierTools;
