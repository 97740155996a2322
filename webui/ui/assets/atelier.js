/* The pages' own script: follows jobs, shows results, keys and theme. Reads and writes only elements that carry our own
   ids and classes. Texts go in by textContent, never as HTML. */
"use strict";
const atelier = (() => {
  const FAST_MS = 300, SLOW_MS = 4000, READY_FALLBACK_MS = 30000;
  const panels = {};
  let queueList = null, timer = 0, busy = false, again = false, lost = false;

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value === true) node.setAttribute(name, "");
      else if (value !== false && value != null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child != null));
    return node;
  };
  /* The rows of `list` for `jobs`, in their order. Rows of `known` jobs are kept, so that a click that begins on a button
     also ends on it. */
  const keepRows = (list, known, jobs, makeRow, draw) => {
    const rows = new Map();
    for (const job of jobs) {
      const row = known.get(job.id) || makeRow(job);
      draw(row, job);
      rows.set(job.id, row);
    }
    const order = [...rows.values()].map((row) => row.node);
    if (order.length !== list.children.length || order.some((node, at) => list.children[at] !== node)) list.replaceChildren(...order);
    return rows;
  };
  const byId = (id) => document.getElementById(id);
  const visible = (node) => !!node && node.isConnected && node.offsetParent !== null;
  const currentTask = () => Object.keys(panels).find((task) => visible(panels[task].box)) || null;
  const pictureUrl = (job, index, more = "") => `pictures/${job}/${index}${more}`;
  const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
  const seconds = (value) =>
    value < 10 ? `${value.toFixed(1)} s` : value < 90 ? `${Math.round(value)} s` : `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;

  /* ---- following jobs ------------------------------------------------------------------------------------------ */
  async function poll() {
    if (busy) { again = true; return; }
    busy = true;
    clearTimeout(timer);
    const task = currentTask(), panel = panels[task];
    let active = false;
    try {
      const query = new URLSearchParams({ task: task || "txt2img", picked: panel?.picked || "", kept: panel?.kept || "", seen: panel?.shown?.stamp || "" });
      const answer = await fetch(`jobs?${query}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(`status ${answer.status}`);
      const state = await answer.json();
      active = state.jobs.length > 0;
      setLost(false);
      showQueue(state.jobs);
      if (panel) showPanel(panel, state);
    } catch (error) {
      if (!(error instanceof TypeError) && !/^status 5/.test(error.message)) console.warn(error);
      setLost(true);
    }
    busy = false;
    const pause = again ? 0 : active && !document.hidden ? FAST_MS : lost ? 1000 : SLOW_MS;
    again = false;
    timer = setTimeout(poll, pause);
  }
  function setLost(now) {
    lost = now;
    document.body.classList.toggle("at-lost", now); // for tests
    for (const panel of Object.values(panels)) panel.box.classList.toggle("at-no-server", now);
  }
  const post = async (job, action) => {
    await fetch(`jobs/${job}/${action}`, { method: "POST" });
    poll();
  };
  function act(action) {
    const job = panels[currentTask()]?.active;
    if (job) post(job.id, action);
    return [];
  }

  /* ---- the owner's queue, in the side bar ---------------------------------------------------------------------- */
  function queue({ element }) {
    queueList = element.querySelector(".at-queue");
    poll();
  }
  function showQueue(jobs) {
    document.body.dataset.activeJobs = jobs.length;
    if (!queueList) return;
    queueList.dataset.active = jobs.length;
    // Rows are kept, so that a click that begins on a button also ends on it.
    const rows = new Map([...queueList.querySelectorAll("li[data-job]")].map((row) => [row.dataset.job, row]));
    for (const [id, row] of rows) if (!jobs.some((job) => job.id === id)) row.remove();
    for (const job of jobs) {
      const row = rows.get(job.id) || queueRow(job);
      const state = job.status || (job.state === "running" ? (job.num_steps ? `Step ${job.step} of ${job.num_steps}` : job.label || "Starting") : `Place ${job.place} in the queue`);
      row.dataset.state = job.state;
      row.querySelector(".at-queue-name").textContent = job.prompt || "(no prompt)";
      row.querySelector(".at-queue-state").textContent = state;
      if (!row.isConnected) queueList.append(row);
    }
    queueList.querySelector(".at-none")?.remove();
    if (!jobs.length) queueList.append(make("li", { class: "at-none" }, "Nothing is waiting."));
  }
  function queueRow(job) {
    const name = job.prompt || "(no prompt)";
    return make("li", { "data-job": job.id },
      make("div", {}, make("span", { class: "at-queue-name", title: name }, name), make("span", { class: "at-queue-state" })),
      make("button", { type: "button", "aria-label": `Cancel: ${name}`, title: "Cancel", onclick: () => post(job.id, "interrupt") }, "✕"));
  }

  /* ---- results ------------------------------------------------------------------------------------------------- */
  function results({ element, props, trigger, watch, task, events }) {
    const old = panels[task];
    const panel = { task, trigger, events, box: element.querySelector(".at-results"), picked: old?.picked || "", kept: old?.kept || "", index: old?.index ?? null, compare: false, shown: null, active: null };
    panels[task] = panel;
    build(panel);
    watch("value", () => {
      const value = props.value || {};
      markProblem(task, value.problem);
      if (value.job) {
        panel.picked = "";
        panel.kept = value.job;
        if (visible(panel.box) && matchMedia("(max-width: 900px)").matches) panel.box.scrollIntoView({ block: "nearest", behavior: "smooth" });
        poll();
      }
    });
    poll();
  }
  function build(panel) {
    const button = (label, name, run) => make("button", { type: "button", class: "at-tool", "data-tool": name, onclick: run }, label);
    const send = (name) => () => panel.trigger(name, { job: panel.shown.id, index: panel.index });
    const parts = panel.parts = {
      progress: make("div", { class: "at-progress", role: "progressbar", "aria-label": "Progress", "aria-valuemin": 0, hidden: true }, make("i")),
      status: make("p", { class: "at-status", role: "status" }),
      error: make("div", { class: "at-error", role: "alert", hidden: true }),
      stage: make("div", { class: "at-stage" }),
      thumbs: make("div", { class: "at-thumbs", role: "group", "aria-label": "Pictures of this job", hidden: true }),
      info: make("p", { class: "at-info" }),
      tools: make("div", { class: "at-tools", hidden: true }),
      notes: make("ul", { class: "at-notes" }),
      parameters: make("details", { class: "at-parameters", hidden: true }, make("summary", {}, "Parameters"), make("pre")),
      recent: make("div", { class: "at-recent", hidden: true }),
    };
    parts.download = make("a", { class: "at-tool", "data-tool": "download", download: true }, "Download original");
    parts.compare = button("Compare with input", "compare", () => { panel.compare = !panel.compare; drawStage(panel); });
    parts.tools.append(parts.download, parts.compare, button("Send to img2img", "send_img2img", send("send_img2img")),
      button("Send to inpaint", "send_inpaint", send("send_inpaint")), button("Send to Extras", "send_extras", send("send_extras")), button("Reuse all settings", "reuse", send("reuse")));
    parts.parameters.addEventListener("toggle", () => loadParameters(panel));
    panel.box.replaceChildren(parts.progress, parts.status, parts.error, parts.stage, parts.thumbs, parts.info, parts.tools, parts.notes, parts.parameters, parts.recent);
    drawStage(panel);
  }
  function showPanel(panel, state) {
    const next = state.shown;
    const job = next && next.id ? next : next ? panel.shown : null;
    if (!job || !panel.shown || job.stamp !== panel.shown.stamp) {
      if (job?.id !== panel.shown?.id) { panel.index = null; panel.compare = false; }
      const pictures = job?.pictures || [];
      if (pictures.length && !pictures.some((picture) => picture.index === panel.index)) panel.index = pictures[0].index;
      panel.shown = job;
      panel.kept = job?.id || "";
      draw(panel);
    }
    drawRecent(panel, state.recent);
    panel.active = state.jobs.find((other) => other.task === panel.task) || null;
    for (const [action, possible] of [["interrupt", panel.active], ["skip", panel.active?.state === "running"]]) {
      const control = byId(`${panel.task}_${action}`);
      if (control) control.disabled = !possible;
    }
  }
  function statusText(job) {
    if (!job) return "";
    if (job.state === "queued") return job.place === 1 ? "Next in the queue" : `Place ${job.place} in the queue`;
    if (job.state === "running") {
      const step = job.num_steps ? `Step ${job.step} of ${job.num_steps}` : job.label ? "" : "Starting";
      const left = job.seconds_left == null ? "" : `${seconds(job.seconds_left)} left`;
      return [job.label, step, left].filter(Boolean).join(" · ");
    }
    return job.state === "cancelled" ? "Interrupted" : "";
  }
  function draw(panel) {
    const { box, parts, shown: job } = panel;
    const running = job?.state === "running" || job?.state === "queued";
    box.dataset.state = job ? job.state : "empty";
    box.dataset.job = job ? job.id : "";
    box.dataset.pictures = job ? job.pictures.length : 0;
    parts.progress.hidden = !running;
    parts.progress.dataset.state = box.dataset.state;
    parts.progress.dataset.job = box.dataset.job;
    parts.progress.classList.toggle("at-unknown", job?.state === "running" && !job.num_steps);
    if (running) {
      parts.progress.setAttribute("aria-valuemax", job.num_steps || 1);
      if (job.num_steps || job.state === "queued") parts.progress.setAttribute("aria-valuenow", job.step);
      else parts.progress.removeAttribute("aria-valuenow"); // of unknown length
      parts.progress.setAttribute("aria-valuetext", statusText(job));
      parts.progress.firstChild.style.width = `${job.num_steps ? (100 * job.step) / job.num_steps : 0}%`;
    }
    parts.status.textContent = statusText(job);
    parts.error.hidden = !job?.error;
    if (job?.error) parts.error.replaceChildren(make("strong", {}, job.error.message), make("span", {}, job.error.hint));
    parts.notes.replaceChildren(...(job?.notes || []).map((note) => make("li", {}, note)));
    drawThumbs(panel);
    drawStage(panel);
  }
  function drawThumbs(panel) {
    const { parts, shown: job } = panel;
    const pictures = job?.pictures || [];
    parts.thumbs.hidden = pictures.length < 2;
    const known = parts.thumbs.dataset.job === job?.id ? parts.thumbs.children.length : 0;
    if (!known) parts.thumbs.replaceChildren();
    parts.thumbs.dataset.job = job?.id || "";
    for (const picture of pictures.slice(known)) {
      parts.thumbs.append(make("button", { type: "button", "aria-label": `Picture ${picture.index + 1}, seed ${picture.seed}`, "data-index": picture.index,
        onclick: () => { panel.index = picture.index; drawThumbs(panel); drawStage(panel); } },
        make("img", { src: pictureUrl(job.id, picture.index, "/thumb"), alt: "", loading: "lazy" }), badgesOf(picture)));
    }
    for (const thumb of parts.thumbs.children) thumb.setAttribute("aria-pressed", String(+thumb.dataset.index === panel.index));
  }
  /* What was said of a picture, over its corner; null if nothing was. */
  const badgesOf = (picture) => (picture.badges.length ? make("span", { class: "at-badges" }, ...picture.badges.map(({ text, tone, title }) =>
    make("span", { class: "at-badge", "data-tone": tone, title: title || text }, text))) : null);
  const shownPicture = (panel) => (panel?.shown?.pictures || []).find((picture) => picture.index === panel.index) || null;
  function drawStage(panel) {
    const { parts, shown: job } = panel;
    const picture = shownPicture(panel), running = job?.state === "running" || job?.state === "queued";
    panel.box.dataset.seed = picture ? picture.seed : "";
    panel.box.dataset.index = picture ? picture.index : "";
    parts.tools.hidden = parts.parameters.hidden = !picture;
    parts.info.textContent = picture ? infoText(job, picture) : "";
    parts.compare.hidden = !job?.before;
    parts.compare.setAttribute("aria-pressed", String(panel.compare));
    const want = job && running && (job.preview || !picture) ? (job.preview ? "preview" : "wait") : picture ? (panel.compare && job.before ? "compare" : "picture") : "empty";
    const key = want === "picture" || want === "compare" ? `${want}:${job.id}:${picture.index}` : want;
    if (want === "preview") {
      const image = parts.stage.querySelector("img.at-preview");
      if (image) image.src = job.preview;
      else parts.stage.replaceChildren(make("img", { class: "at-preview", src: job.preview, alt: "Live preview" }));
    } else if (panel.stageKey !== key) {
      parts.stage.replaceChildren(stageOf(panel, want, job, picture));
    }
    panel.stageKey = key;
    if (picture) {
      parts.download.href = pictureUrl(job.id, picture.index, "?download=1");
      loadParameters(panel);
    }
  }
  function stageOf(panel, want, job, picture) {
    if (want === "empty") {
      const text = job ? (job.state === "failed" ? "No picture this time." : "Nothing was finished.") : "Your pictures appear here.";
      return make("p", { class: "at-empty" }, text);
    }
    if (want === "wait") return make("p", { class: "at-empty" }, job.state === "queued" ? "Waiting for its turn" : "Starting");
    const url = pictureUrl(job.id, picture.index);
    const image = () => make("img", { src: url, alt: `Picture ${picture.index + 1}, seed ${picture.seed}`, width: picture.width, height: picture.height });
    if (want === "compare") return compareOf(job, picture, image());
    const open = make("button", { type: "button", class: "at-open", "aria-label": "View full size", onclick: () => lightbox(panel) }, image());
    return picture.badges.length ? make("div", { class: "at-badged", style: `--at-ratio:${picture.width / picture.height}` }, open, badgesOf(picture)) : open;
  }
  function compareOf(job, picture, after) {
    const fit = { stretch: "fill", crop: "cover", fill: "contain" }[job.before] || "fill";
    const box = make("div", { class: "at-compare" });
    const before = make("img", { class: "at-before", src: `pictures/${job.id}/before`, alt: "Input picture", style: `object-fit:${fit}`, onerror: () => box.classList.add("at-gone") });
    const range = make("input", { type: "range", min: 0, max: 100, value: 50, "aria-label": "Before and after", oninput: () => box.style.setProperty("--split", `${range.value}%`) });
    box.append(after, before, make("i", { class: "at-split" }), make("span", { class: "at-tag at-tag-before" }, "Before"), make("span", { class: "at-tag at-tag-after" }, "After"), range);
    return box;
  }
  function infoText(job, picture) {
    const parts = [`Seed ${picture.seed}`, `${picture.width} × ${picture.height}`];
    if (job.pictures.length > 1) parts.push(`${job.pictures.findIndex((other) => other.index === picture.index) + 1} of ${job.pictures.length}`);
    if (job.elapsed_s != null && job.state === "finished") parts.push(seconds(job.elapsed_s) + (job.pictures.length > 1 ? " in all" : ""));
    parts.push(...picture.badges.map(({ text, title }) => title || text));
    if (picture.layers) parts.push(...picture.layers.split(", ").map((text) => text.replace(/ (\d+)\/(\d+)$/, ": $1 of $2 layers")));
    return parts.join(" · ");
  }
  async function loadParameters(panel) {
    const { parameters } = panel.parts, picture = shownPicture(panel);
    if (!parameters.open || !picture) return;
    const key = pictureUrl(panel.shown.id, picture.index, "/parameters");
    if (parameters.dataset.key === key) return;
    parameters.dataset.key = key;
    const answer = await fetch(key);
    if (parameters.dataset.key === key) parameters.querySelector("pre").textContent = answer.ok ? await answer.text() : "";
  }
  function drawRecent(panel, recent) {
    const { recent: box } = panel.parts, others = recent.filter((job) => job.id !== panel.shown?.id);
    const key = others.map((job) => job.id).join();
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.hidden = !others.length;
    box.replaceChildren(make("h3", {}, "Earlier"), make("div", { role: "group", "aria-label": "Earlier results" }, ...others.map((job) =>
      make("button", { type: "button", "data-job": job.id, "aria-label": `Show ${plural(job.count, "picture")}: ${job.prompt || "no prompt"}`, title: job.prompt,
        onclick: () => { panel.picked = job.id; poll(); } }, make("img", { src: pictureUrl(job.id, job.index, "/thumb"), alt: "", loading: "lazy" })))));
  }

  /* ---- full size ----------------------------------------------------------------------------------------------- */
  function lightbox(panel) {
    const { shown: job } = panel, pictures = job.pictures;
    const image = make("img", { class: "at-fit", onclick: () => image.classList.toggle("at-fit") });
    const caption = make("span");
    const show = (step) => {
      const at = pictures.findIndex((picture) => picture.index === panel.index);
      const picture = pictures[(at + step + pictures.length) % pictures.length];
      panel.index = picture.index;
      image.src = pictureUrl(job.id, picture.index);
      image.alt = `Picture ${picture.index + 1}, seed ${picture.seed}`;
      caption.textContent = infoText(job, picture);
      drawThumbs(panel);
      drawStage(panel);
    };
    const button = (label, name, run, hidden = false) => make("button", { type: "button", "aria-label": name, title: name, onclick: run, hidden }, label);
    const dialog = make("dialog", { class: "at-lightbox", "aria-label": "Full size" },
      make("div", { class: "at-lightbox-picture" }, image),
      make("div", { class: "at-lightbox-bar" }, button("‹", "Previous picture", () => show(-1), pictures.length < 2), caption,
        button("›", "Next picture", () => show(1), pictures.length < 2), button("1:1", "Original pixels", () => image.classList.toggle("at-fit")), button("✕", "Close", () => dialog.close())));
    dialog.addEventListener("keydown", (event) => {
      if (event.key === "ArrowLeft" && pictures.length > 1) show(-1);
      if (event.key === "ArrowRight" && pictures.length > 1) show(1);
    });
    dialog.addEventListener("close", () => dialog.remove());
    document.querySelector(".gradio-container").append(dialog); // Gradio confines style sheets to it
    show(0);
    dialog.showModal();
  }

  /* ---- the form ------------------------------------------------------------------------------------------------ */
  function chips({ element, props, trigger, watch, event }) {
    const box = element.querySelector(".at-chips");
    const fill = () => {
      const samples = props.value?.samples || [];
      if (box.dataset.samples === JSON.stringify(samples)) return;
      box.dataset.samples = JSON.stringify(samples);
      box.replaceChildren(...samples.map((text) => make("button", { type: "button",
        onclick: () => { props.value = { ...props.value, chosen: text }; trigger(event); } }, text)));
    };
    watch("value", fill);
    fill();
  }
  function problems({ element, props, watch }) {
    const list = element.querySelector(".at-problems");
    const fill = () => {
      const lines = props.value?.problems || [];
      list.hidden = !lines.length;
      list.replaceChildren(...lines.map((line) => make("li", {}, line)));
    };
    watch("value", fill);
    fill();
  }
  function markProblem(task, control) {
    for (const node of document.querySelectorAll(".at-problem")) {
      node.classList.remove("at-problem");
      for (const input of node.querySelectorAll("[aria-invalid]")) input.removeAttribute("aria-invalid");
    }
    if (control) whenThere(() => byId(`${task}_${control.replaceAll(".", "-")}`) || byId(control), showProblem);
  }
  /* What lies in an accordion is not there before it is open. */
  function whenThere(find, act, tries = 100) {
    const node = find();
    if (visible(node)) act(node);
    else if (tries) setTimeout(whenThere, 50, find, act, tries - 1);
  }
  function showProblem(node) {
    node.classList.add("at-problem");
    const input = node.querySelector("textarea, input:not([type=range]):not([type=file])");
    input?.setAttribute("aria-invalid", "true");
    node.scrollIntoView({ block: "nearest", behavior: "smooth" });
    input?.focus({ preventScroll: true });
  }
  const shownSeed = (task) => {
    const picture = shownPicture(panels[task]);
    return picture ? picture.seed : -1;
  };
  const remember = (names) => (...values) => ({ v: 1, values: Object.fromEntries(names.map((name, at) => [name, values[at]])) });
  /* A size that was typed since the picture was chosen is the user's: the answer for the picture comes late. */
  const typed = new Set(); // tasks
  const partOf = (event, names) => event.target.closest?.(names.flatMap((name) => ["img2img", "inpaint"].map((task) => `#${task}_${name}`)).join(","));
  const taskOf = (node) => node.id.split("_")[0];
  const chosen = (event) => { const part = partOf(event, ["picture", "fit"]); if (part) typed.delete(taskOf(part)); };
  for (const kind of ["click", "change", "drop", "paste"]) addEventListener(kind, chosen, true);
  addEventListener("input", (event) => { const part = partOf(event, ["width", "height"]); if (part) typed.add(taskOf(part)); }, true);
  const fitted = (task) => (size, width, height) => (size && !typed.has(task) ? size : [width, height]);
  function openTab(name) {
    if (!document.body.dataset.ready) return []; // Gradio's own first choice, not the user's
    const url = new URL(location.href);
    url.searchParams.set("tab", name);
    history.replaceState(history.state, "", url);
    showTab();
    setTimeout(poll, 0);
    return [];
  }

  /* The row of tabs scrolls where it is too narrow. */
  const showTab = () => requestAnimationFrame(() => document.querySelector("#tabs [role=tab][aria-selected=true]")?.scrollIntoView({ block: "nearest", inline: "center" }));

  /* ---- the page ------------------------------------------------------------------------------------------------ */
  function ready() {
    requestAnimationFrame(() => requestAnimationFrame(() => {
      document.body.inert = false;
      document.body.dataset.ready = "1";
      showTab();
      poll();
    }));
    return [];
  }
  function setTheme(dark) {
    document.body.classList.toggle("dark", dark);
    document.documentElement.style.colorScheme = dark ? "dark" : "light";
  }
  function toggleTheme() {
    const dark = !document.body.classList.contains("dark");
    localStorage.setItem("atelier-theme", dark ? "dark" : "light");
    setTheme(dark);
    return [];
  }
  const system = matchMedia("(prefers-color-scheme: dark)");
  const followTheme = () => setTheme((localStorage.getItem("atelier-theme") || (system.matches ? "dark" : "light")) === "dark");
  system.addEventListener("change", followTheme);

  const openList = (target) => target.closest?.("[aria-expanded=true], dialog, [role=listbox]");
  addEventListener("keydown", (event) => {
    if (event.defaultPrevented || document.body.inert || document.querySelector("dialog[open]")) return;
    const task = currentTask();
    if (!task) return;
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); byId(`${task}_generate`)?.click(); }
    else if (event.key === "Enter" && event.altKey) { event.preventDefault(); act("skip"); }
    else if (event.key === "Escape" && !openList(event.target) && !document.fullscreenElement) act("interrupt");
  });
  /* A picture dropped on a prompt opens its settings. Caught before the text box, which would take the file's name. */
  const dropTarget = (event) => (event.dataTransfer?.types.includes("Files") ? event.target.closest?.(".at-prompt") : null);
  addEventListener("dragover", (event) => { if (dropTarget(event)) event.preventDefault(); }, true);
  addEventListener("drop", (event) => {
    const input = dropTarget(event) && byId(`${currentTask()}_restore`)?.parentElement.querySelector("input[type=file]");
    if (!input) return;
    event.preventDefault();
    event.stopPropagation();
    input.files = event.dataTransfer.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  }, true);
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => event.preventDefault());
  addEventListener("online", poll);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
  // Gradio adds this script when it starts the page, before the first component is there.
  followTheme();
  new MutationObserver(followTheme).observe(document.body, { attributeFilter: ["class"] }); // Gradio sets its own
  document.body.inert = true;
  setTimeout(ready, READY_FALLBACK_MS);
  const shownIn = (task) => {
    const picture = shownPicture(panels[task]);
    return picture && { job: panels[task].shown.id, index: picture.index };
  };
  return { results, queue, chips, problems, act, remember, shownSeed, fitted, openTab, ready, toggleTheme, poll, make, keepRows, byId, visible, currentTask, shownIn };
})();
window.atelier = atelier;
