/* The Extensions tab: the list with switches, settings and models, and installing in two steps. Texts go in by textContent. */
"use strict";
const atelierExtensions = (() => {
  const { make, keepRows, visible } = atelier;
  const FAST_MS = 500, SLOW_MS = 4000;
  const ACTIVE = ["queued", "running"];
  const STATES = { on: "On", off: "Off", failed: "Does not run" };
  let parts = null, known = new Map(), timer = 0, rights = { no_changes: "", no_installs: "" };

  const tool = (text, onclick, more = {}) => make("button", { type: "button", class: "at-tool", onclick, ...more }, text);
  const setText = (node, text) => { if (node.textContent !== text) node.textContent = text; node.hidden = !text; };
  const join = (told) => [told.message || "That did not work.", told.hint].filter(Boolean).join(" ");

  /* ---- talking to the server ------------------------------------------------------------------------------------- */
  async function post(path, body = {}, options = {}) {
    let answer;
    try {
      const json = { headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
      answer = await fetch(path, { method: "POST", ...json, ...options });
    } catch {
      return { message: "The server does not answer.", failed: true };
    }
    const told = await answer.json().catch(() => ({}));
    return answer.ok ? told : { message: "That did not work.", ...told, failed: true };
  }
  async function poll() {
    clearTimeout(timer);
    let active = false;
    try {
      const answer = await fetch("installed-extensions", { cache: "no-store" });
      if (answer.ok) active = show(await answer.json());
    } catch { active = true; } // the page itself says that the connection is lost
    if (active || visible(parts.box)) timer = setTimeout(poll, active && visible(parts.box) ? FAST_MS : SLOW_MS);
  }
  function tell(text) { parts.told.textContent = text; }
  function complain(text) { setText(parts.error, text); }

  /* ---- the tab --------------------------------------------------------------------------------------------------- */
  function panel({ element }) {
    const box = element.querySelector(".at-extensions");
    parts = {
      box,
      reason: make("p", { class: "at-ext-reason", hidden: true }),
      error: make("p", { class: "at-ext-error", role: "alert", hidden: true }),
      told: make("p", { class: "at-ext-note", role: "status" }),
      list: make("ul", { class: "at-ext-list", "aria-label": "Installed extensions" }),
      again: tool("Look again", lookAgain, { title: "Looks into the folders again" }),
    };
    const install = atelierInstalls.build({ post, poll, tell, complain, join, tool, setText });
    box.replaceChildren(make("header", {}, make("h3", {}, "Installed extensions"), parts.again), parts.reason, parts.error, parts.told, parts.list, install);
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) poll(); }).observe(box);
    poll();
  }
  async function lookAgain() {
    const told = await post("installed-extensions/refresh");
    complain(told.failed ? join(told) : "");
    poll();
  }
  function show(state) {
    rights = state;
    setText(parts.reason, [state.problem, state.no_changes].filter(Boolean).join(" "));
    parts.again.hidden = !!state.no_changes;
    known = keepRows(parts.list, known, state.extensions, makeRow, draw);
    const installing = atelierInstalls.show(state);
    return installing || state.extensions.some((one) => one.models.some((model) => model.job && ACTIVE.includes(model.job.state)));
  }

  /* ---- one extension --------------------------------------------------------------------------------------------- */
  function makeRow(extension) {
    const id = extension.id, path = `installed-extensions/${id}`;
    const row = { id, path, busy: false, shown: extension, models: new Map(), form: "" };
    row.on = make("input", { type: "checkbox", role: "switch", onchange: () => turn(row) });
    row.title = make("strong");
    row.version = make("span", { class: "at-ext-version" });
    row.kind = make("span", { class: "at-ext-tag" });
    row.state = make("span", { class: "at-ext-state" });
    row.description = make("p");
    row.adds = make("p", { class: "at-ext-note" });
    row.problems = make("ul", { class: "at-ext-problems", "aria-label": "Problems" });
    row.restart = make("p", { class: "at-ext-restart" }, "Start the program again: tabs and sections come and go then.");
    row.settings = make("details", { class: "at-ext-more" }, make("summary", {}, "Settings"));
    row.count = make("span");
    row.modelList = make("ul", { class: "at-ext-models" });
    row.modelBox = make("details", { class: "at-ext-more" }, make("summary", {}, "Models ", row.count), row.modelList);
    row.source = make("span", { class: "at-ext-note" });
    row.told = make("p", { class: "at-ext-note", role: "status", hidden: true });
    row.check = tool("Check for an update", () => check(row));
    row.update = tool("Update", () => atelierInstalls.propose(`${path}/update`, {}, row.update), { hidden: true });
    row.remove = tool("Remove", () => remove(row));
    row.reload = tool("Load again", () => turn(row, true), { title: "Loads its files as they are now" });
    row.tools = make("div", { class: "at-ext-tools" }, row.reload, row.check, row.update, row.remove, row.source);
    row.node = make("li", { class: "at-ext", "data-id": id },
      make("div", { class: "at-ext-head" }, make("label", { class: "at-ext-switch" }, row.on, make("span")), make("div", { class: "at-ext-name" }, row.title, row.version, row.kind), row.state),
      row.description, row.adds, row.problems, row.restart, row.settings, row.modelBox, row.tools, row.told);
    return row;
  }
  function draw(row, extension) {
    row.shown = extension;
    row.node.dataset.state = extension.state;
    if (!row.busy) row.on.checked = extension.state !== "off";
    row.on.disabled = row.busy || !!rights.no_changes || !extension.version;
    row.on.setAttribute("aria-label", `${extension.title} on`);
    setText(row.title, extension.title);
    setText(row.version, extension.version);
    setText(row.kind, extension.built_in ? "Comes with the program" : "Yours");
    row.kind.title = extension.folder;
    setText(row.state, row.busy ? "Just a moment" : STATES[extension.state] || extension.state);
    setText(row.description, extension.description);
    const adds = extension.adds.join(" · ");
    setText(row.adds, adds && `${adds[0].toUpperCase()}${adds.slice(1)}.`);
    drawProblems(row, extension.problems);
    row.restart.hidden = !extension.needs_restart;
    drawSettings(row, extension.settings);
    drawModels(row, extension.models);
    setText(row.source, extension.source && `From ${extension.source}`);
    for (const button of [row.check, row.remove]) button.hidden = extension.built_in || !!rights.no_installs;
    row.reload.hidden = !!rights.no_changes || extension.state === "off" || (extension.built_in && extension.state === "on") || !extension.version;
    row.reload.disabled = row.busy;
    row.tools.hidden = row.reload.hidden && row.check.hidden && row.source.hidden;
  }
  function drawProblems(row, problems) {
    const key = JSON.stringify(problems);
    row.problems.hidden = !problems.length;
    if (row.problems.dataset.key === key) return;
    row.problems.dataset.key = key;
    row.problems.replaceChildren(...problems.map((problem) => make("li", {}, problem)));
  }
  async function turn(row, on = row.on.checked) {
    const title = row.shown.title, from = document.activeElement;
    row.busy = true;
    draw(row, row.shown);
    const told = await post(`${row.path}/switch`, { on });
    row.busy = false;
    complain(told.failed ? join(told) : "");
    if (!told.failed) tell(told.state === "failed" ? `${title} does not run.` : `${title} is ${told.state}.${told.needs_restart ? "" : " Reload the page, and the other tabs follow."}`);
    await poll();
    from?.focus(); // a control that was disabled meanwhile has lost it
  }
  async function check(row) {
    row.check.disabled = true;
    setText(row.told, "Asking");
    const told = await post(`${row.path}/check`);
    row.check.disabled = false;
    setText(row.told, told.failed ? join(told) : told.text);
    row.update.hidden = !told.can_update;
  }
  function remove(row) {
    const { title, folder } = row.shown;
    ask(`Remove ${title}?`, [`Its files in ${folder} and its settings are deleted. Models, pictures and Python packages stay.`], "Remove", async () => {
      const told = await post(`${row.path}/remove`);
      complain(told.failed ? join(told) : "");
      if (!told.failed) tell(`${title} is removed.`);
      poll();
    });
  }
  /* A question; `texts` are texts or nodes. */
  function ask(title, texts, yes, run, no = () => {}) {
    let agreed = false;
    const heading = make("h2", {}, title);
    const dialog = make("dialog", { class: "at-ext-dialog", "aria-label": title }, heading, ...texts.map((text) => (typeof text === "string" ? make("p", {}, text) : text)),
      make("div", { class: "at-ext-answers" }, tool("Cancel", () => dialog.close(), { autofocus: true }), tool(yes, () => { agreed = true; dialog.close(); }, { class: "at-tool at-ext-yes" })));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => { dialog.remove(); (agreed ? run : no)(); });
    document.querySelector(".at-page").append(dialog); // inside the box that Gradio confines style sheets to
    dialog.showModal();
  }

  /* ---- its settings ---------------------------------------------------------------------------------------------- */
  function drawSettings(row, settings) {
    row.settings.hidden = !settings;
    const key = JSON.stringify(settings?.fields ?? null);
    if (!settings || row.form === key) return;
    row.form = key;
    row.settings.replaceChildren(row.settings.firstChild, atelierSettings.form(row, settings, { post, join, tool, setText }));
  }

  /* ---- its models ------------------------------------------------------------------------------------------------ */
  function drawModels(row, models) {
    row.modelBox.hidden = !models.length;
    const missing = models.filter((model) => model.state !== "present").length;
    setText(row.count, `(${models.length - missing} of ${models.length} are there)`);
    row.models = keepRows(row.modelList, row.models, models.map((model) => ({ ...model, id: model.file })), (model) => makeModel(row, model), drawModel);
  }
  function makeModel(row, model) {
    const line = { name: make("strong", {}, model.file), about: make("span", { class: "at-ext-note" }), status: make("span", { class: "at-ext-note", role: "status" }), bar: make("i"), mark: make("span", { class: "at-ext-tag at-ext-warn" }, "Non-commercial") };
    line.progress = make("div", { class: "at-progress", role: "progressbar", "aria-label": model.file, "aria-valuemin": 0, "aria-valuemax": 100 }, line.bar);
    line.get = tool("Get", () => agree(row, line.model), { "aria-label": `Get ${model.file}` });
    line.stop = tool("Stop", async () => { await post(`jobs/${line.model.job.id}/interrupt`); poll(); }, { "aria-label": `Stop: ${model.file}` });
    line.node = make("li", { "data-model": model.file }, make("div", {}, line.name, line.about, line.progress, line.status), line.mark, line.get, line.stop);
    return line;
  }
  function drawModel(line, model) {
    const job = model.job, active = !!job && ACTIVE.includes(job.state);
    line.model = model;
    line.node.dataset.state = model.state;
    const there = { present: "There", missing: "Missing", other: "Another file of this name is there" }[model.state];
    setText(line.about, [there, model.amount, model.licence, model.shipped ? "comes with the extension" : ""].filter(Boolean).join(" · "));
    line.mark.hidden = !model.non_commercial;
    const done = model.state === "present";
    setText(line.status, job && (active || (!done && job.state !== "finished")) ? job.status : "");
    line.progress.hidden = line.stop.hidden = !active;
    const percent = active && job.num_steps ? Math.floor((100 * job.step) / job.num_steps) : 0;
    line.bar.style.width = `${percent}%`;
    line.progress.setAttribute("aria-valuenow", percent);
    line.get.hidden = active || model.shipped || model.state !== "missing" || !rights.downloads;
  }
  function agree(row, model) {
    const link = (text, href) => make("a", { href, target: "_blank", rel: "noreferrer" }, text);
    const texts = [make("p", {}, "Licence: ", model.licence_url ? link(model.licence, model.licence_url) : model.licence)];
    if (model.non_commercial) texts.push(make("p", { class: "at-ext-strong" }, "This licence allows no commercial use."));
    texts.push(make("p", { class: "at-ext-note" }, `${model.amount} from ${new URL(model.url).host}, into models/${model.file}`));
    ask(`Get ${model.file.split("/").pop()}?`, texts, "I agree, get it", async () => {
      const told = await post(`${row.path}/models`, { file: model.file, licence: model.licence });
      complain(told.failed ? join(told) : "");
      poll();
      atelier.poll();
    });
  }
  return { panel, ask };
})();
window.atelierExtensions = atelierExtensions;
