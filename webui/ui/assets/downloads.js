/* The box that gets models: asks our own server to fetch something and shows how far it is. Texts go in by textContent. */
"use strict";
const atelierDownloads = (() => {
  const { make, keepRows, byId, visible } = atelier;
  const FAST_MS = 500, SLOW_MS = 4000;
  const ACTIVE = ["queued", "running"];
  let parts = null, timer = 0, known = new Map();

  function panel({ element, props }) {
    const box = element.querySelector(".at-get");
    const { starters, kinds } = props.value;
    const field = (label, control) => make("label", { class: "at-get-field" }, make("span", {}, label), control);
    const tick = (name, label) => make("label", { class: "at-get-tick" }, make("input", { type: "checkbox", name }), make("span", {}, label));
    parts = {
      box,
      source: make("input", { type: "text", name: "source", "aria-label": "What to get", spellcheck: "false", autocomplete: "off",
        placeholder: "owner/name of Hugging Face, a page of Civitai, or the https address of a file",
        onkeydown: (event) => { if (event.key === "Enter" && !event.ctrlKey && !event.metaKey) { event.preventDefault(); submit(); } } }),
      get: make("button", { type: "button", class: "at-tool", "data-tool": "get", onclick: submit }, "Get"),
      target: make("select", { name: "target" }, make("option", { value: "" }, "By what it is"),
        ...Object.entries(kinds).map(([kind, word]) => make("option", { value: kind }, word))),
      name: make("input", { type: "text", name: "name", placeholder: "Its own", autocomplete: "off" }),
      options: make("details", { class: "at-get-options" }, make("summary", {}, "Options")),
      error: make("p", { class: "at-get-error", role: "alert", hidden: true }),
      list: make("ul", { class: "at-downloads", "aria-label": "Downloads" }),
      starters: make("details", { class: "at-starters" }, make("summary", {}, "Models to begin with")),
    };
    parts.options.append(make("div", { class: "at-get-grid" }, field("Put it among", parts.target), field("File name", parts.name),
      tick("fp16", "Half precision where both are offered"),
      tick("allow_pickle", "Also old formats (.ckpt, .pt, .pth): they can carry code, so only from makers you trust")));
    parts.starters.append(make("ul", {}, ...starters.map(starterRow)));
    box.replaceChildren(make("h3", {}, "Get models"), make("div", { class: "at-get-bar" }, parts.source, parts.get), parts.options, parts.error, parts.list, parts.starters);
    new IntersectionObserver((entries) => { if (entries.some((entry) => entry.isIntersecting)) poll(); }).observe(box);
    poll();
  }
  function starterRow(starter) {
    return make("li", {},
      make("div", {}, make("strong", {}, starter.title), make("span", {}, starter.purpose)),
      make("span", { class: "at-starter-about" }, `about ${starter.amount} · `,
        make("a", { href: starter.licence_page, target: "_blank", rel: "noreferrer" }, starter.licence)),
      make("button", { type: "button", class: "at-tool", "aria-label": `Get ${starter.title}`,
        onclick: () => ask({ source: starter.source, name: starter.name, fp16: starter.fp16 }) }, "Get"));
  }
  async function submit() {
    const source = parts.source.value.trim();
    if (!source) { parts.source.focus(); return; }
    const ticked = (name) => parts.options.querySelector(`[name=${name}]`).checked;
    const taken = await ask({ source, target: parts.target.value, name: parts.name.value.trim(), fp16: ticked("fp16"), allow_pickle: ticked("allow_pickle") });
    if (taken) { parts.source.value = ""; parts.name.value = ""; }
  }
  const ask = (request) => post("downloads", request);
  async function post(path, body) {
    let answer;
    try {
      answer = await fetch(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body || {}) });
    } catch {
      return tell("The server does not answer.");
    }
    const told = await answer.json().catch(() => ({}));
    tell(answer.ok ? "" : [told.message || "That did not work.", told.hint].filter(Boolean).join(" "));
    if (told.field === "allow_pickle" || told.field === "name") parts.options.open = true;
    poll();
    atelier.poll();
    return answer.ok;
  }
  function tell(text) {
    parts.error.textContent = text;
    parts.error.hidden = !text;
    return false;
  }
  async function poll() {
    clearTimeout(timer);
    let active = false;
    try {
      const answer = await fetch("downloads", { cache: "no-store" });
      if (answer.ok) active = show(await answer.json());
    } catch { active = true; } // the page itself says that the connection is lost
    if (active || visible(parts.box)) timer = setTimeout(poll, active && visible(parts.box) ? FAST_MS : SLOW_MS);
  }
  function show({ enabled, downloads }) {
    parts.box.classList.toggle("at-get-off", !enabled);
    for (const control of parts.box.querySelectorAll("input, select, button")) if (!control.closest(".at-downloads")) control.disabled = !enabled;
    if (!enabled) tell("Getting models is switched off on this server.");
    known = keepRows(parts.list, known, downloads, makeRow, draw);
    return downloads.some((job) => ACTIVE.includes(job.state));
  }
  function makeRow(job) {
    const row = {
      title: make("strong"), status: make("span", { class: "at-download-status" }), bar: make("i"),
      stop: make("button", { type: "button", class: "at-tool", onclick: () => post(`jobs/${job.id}/interrupt`) }, "Stop"),
      resume: make("button", { type: "button", class: "at-tool", onclick: () => post(`downloads/${job.id}/resume`) }, "Go on"),
      discard: make("button", { type: "button", class: "at-tool", onclick: () => post(`downloads/${job.id}/discard`) }, "Throw away"),
      state: "",
    };
    row.progress = make("div", { class: "at-progress", role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 }, row.bar);
    row.node = make("li", { "data-download": job.id }, make("div", { class: "at-download-text" }, row.title, row.status, row.progress), row.stop, row.resume, row.discard);
    return row;
  }
  function draw(row, job) {
    const active = ACTIVE.includes(job.state);
    row.node.dataset.state = job.state;
    row.title.textContent = job.title;
    row.title.title = job.source;
    row.status.textContent = [job.status, job.hint].filter(Boolean).join(" ");
    row.progress.hidden = !active;
    const percent = job.total ? Math.floor((100 * job.done) / job.total) : 0;
    row.bar.style.width = `${percent}%`;
    row.progress.setAttribute("aria-valuenow", percent);
    row.progress.setAttribute("aria-label", job.title);
    row.stop.hidden = !active;
    row.resume.hidden = active || job.state === "finished";
    row.resume.textContent = job.kept ? "Go on" : "Try again";
    row.discard.hidden = active || !job.kept;
    if (job.state === "finished" && ACTIVE.includes(row.state)) byId("refresh")?.click(); // a new checkpoint belongs in the list
    row.state = job.state;
  }
  return { panel };
})();
window.atelierDownloads = atelierDownloads;
