/* The browser of models: one panel, shown in the tab in front. Cards come as JSON and their texts go in by textContent. */
"use strict";
const atelierModels = (() => {
  const { make, byId, visible, currentTask } = atelier;
  const REFRESH_MS = 4000, LOOK_MS = 400, CHUNK = 200, MEMORY = "atelier-models", AUTOMATIC = "Automatic";
  const KINDS = { checkpoint: "Checkpoints", adapter: "LoRAs", embedding: "Embeddings", vae: "VAEs", hypernetwork: "Hypernetworks" };
  const byName = new Intl.Collator(undefined, { numeric: true });
  const SORTS = {
    name: ["Name", (one, other) => byName.compare(one.name, other.name)],
    time: ["Newest", (one, other) => other.time - one.time],
    size: ["Largest", (one, other) => other.size - one.size],
  };
  const view = { open: false, kind: "adapter", query: "", folder: "", sort: "name", fit: "fits", ...recall() };
  const cards = new Map(); // id -> { card, text to search in, node, state that the node shows }
  const vaes = {}; // by task
  let stamp = "", loaded = false, chosen = "", task = "txt2img", box = "prompt", shown = [], drawing = 0, active = null, bridge = null, lastTexts = "";

  function recall() {
    try { return JSON.parse(localStorage.getItem(MEMORY)) || {}; } catch { return {}; }
  }
  function remember() {
    const { open, kind, sort, fit } = view;
    localStorage.setItem(MEMORY, JSON.stringify({ open, kind, sort, fit }));
  }

  /* ---- where the panel is ---------------------------------------------------------------------------------------- */
  const slots = new Set();
  function slot({ element, always }) {
    const place = { node: element.querySelector(".at-models-slot"), toggle: element.querySelector(".at-models-toggle"), always };
    for (const old of slots) if (!old.node.isConnected) slots.delete(old);
    slots.add(place);
    place.toggle?.addEventListener("click", () => { view.open = !view.open; remember(); settle(); if (view.open) parts.search.focus(); });
    settle();
  }
  /* Puts the panel where the user is looking. */
  function settle() {
    for (const { toggle } of slots) toggle?.setAttribute("aria-expanded", String(view.open));
    const inFront = [...slots].find(({ node }) => visible(node.parentElement));
    if (!inFront) return;
    task = currentTask() || task;
    const wanted = inFront.always || view.open;
    if (!wanted) return parts.panel.remove();
    fill(parts.target, inFront.always ? `Clicks change the prompts of ${task === "inpaint" ? "Inpaint" : task}.` : "");
    if (parts.panel.parentElement === inFront.node) return;
    parts.panel.classList.toggle("at-models-full", inFront.always);
    inFront.node.append(parts.panel);
    load();
  }

  /* ---- the list -------------------------------------------------------------------------------------------------- */
  async function load() {
    let answer;
    try {
      answer = await fetch(`models?seen=${encodeURIComponent(stamp)}`, { cache: "no-store" });
    } catch { return; } // the page itself says that the connection is lost
    if (!answer.ok) return;
    const list = await answer.json();
    loaded = true;
    if (list.stamp === stamp) return;
    stamp = list.stamp;
    const known = new Set(list.cards.map((card) => card.id));
    for (const id of cards.keys()) if (!known.has(id)) cards.delete(id);
    for (const card of list.cards) {
      const old = cards.get(card.id);
      if (old && JSON.stringify(old.card) === JSON.stringify(card)) continue;
      cards.set(card.id, { card, text: `${card.names.join(" ")} ${card.label} ${card.words}`.toLowerCase(), node: null, state: "" });
    }
    draw();
  }
  const all = () => [...cards.values()].map((entry) => entry.card);
  const current = () => all().find((card) => card.kind === "checkpoint" && card.name === chosen) || null;
  /* Why a model does not go with the chosen checkpoint; "" if it does, or nobody can tell. */
  function misfit(card, checkpoint = current()) {
    if (card.kind === "checkpoint" || !card.base || !checkpoint?.base || card.base === checkpoint.base) return "";
    if (card.kind === "vae" && card.base !== "sdxl" && checkpoint.base !== "sdxl") return ""; // SD 1 and 2 share theirs
    return `Made for ${card.label || "another model"}; ${checkpoint.name} is ${checkpoint.label || "another"}`;
  }
  const reasonOf = (card, checkpoint = current()) => (card.problem ? `Cannot be used: ${card.problem}` : misfit(card, checkpoint));
  function matching() {
    const words = view.query.toLowerCase().split(/\s+/).filter(Boolean);
    const checkpoint = current();
    const fits = (card) => view.fit === "all" || card.kind === "checkpoint" || (view.fit === "fits" ? !misfit(card, checkpoint) : card.base === view.fit);
    const mine = all().filter((card) => card.kind === view.kind);
    const found = mine.filter((card) => words.every((word) => cards.get(card.id).text.includes(word)) && (!view.folder || `${card.folder}/`.startsWith(`${view.folder}/`)));
    const order = (one, other) => !!one.problem - !!other.problem || SORTS[view.sort][1](one, other);
    return { total: mine.length, found, kept: found.filter(fits).sort(order) };
  }
  function draw() {
    drawChoices();
    const { total, found, kept } = matching();
    shown = kept;
    parts.grid.setAttribute("aria-label", KINDS[view.kind]);
    parts.grid.dataset.count = kept.length;
    const hidden = found.length - kept.length;
    const what = KINDS[view.kind], folder = { checkpoint: "checkpoints", adapter: "loras", embedding: "embeddings", vae: "vae", hypernetwork: "hypernetworks" }[view.kind];
    fill(parts.note, !loaded ? "Looking into the folders" : !total ? `No ${what} yet. Put files into models/${folder}.`
      : hidden && view.fit === "fits" ? `${hidden} made for other checkpoints ${hidden === 1 ? "is" : "are"} not shown.` : !kept.length ? "Nothing matches." : "");
    parts.grid.replaceChildren();
    clearTimeout(drawing);
    append(0);
  }
  /* A thousand cards in steps, so that typing stays quick. */
  function append(start) {
    parts.grid.append(...shown.slice(start, start + CHUNK).map(nodeOf));
    parts.grid.dataset.drawn = Math.min(start + CHUNK, shown.length);
    if (start + CHUNK < shown.length) drawing = setTimeout(append, 0, start + CHUNK);
    else { lastTexts = ""; mark(); rove(); }
  }
  function drawChoices() {
    const count = (kind) => all().filter((card) => card.kind === kind).length;
    for (const [kind, button] of Object.entries(parts.kinds)) {
      button.setAttribute("aria-pressed", String(kind === view.kind));
      button.lastChild.textContent = count(kind);
    }
    const mine = all().filter((card) => card.kind === view.kind);
    const folders = [...new Set(mine.flatMap((card) => card.folder.split("/").map((_, at, all) => all.slice(0, at + 1).join("/"))))].filter(Boolean).sort();
    if (!folders.includes(view.folder)) view.folder = "";
    options(parts.folder, [["", "All folders"], ...folders.map((folder) => [folder, folder])], view.folder);
    parts.folder.hidden = !folders.length;
    const bases = new Map(mine.filter((card) => card.base).map((card) => [card.base, card.label]));
    if (view.fit !== "fits" && view.fit !== "all" && !bases.has(view.fit)) view.fit = "fits";
    options(parts.fit, [["fits", "For this checkpoint"], ["all", "For any checkpoint"], ...[...bases].sort()], view.fit);
    parts.fit.hidden = view.kind === "checkpoint";
  }
  function options(select, pairs, value) {
    const key = JSON.stringify(pairs);
    if (select.dataset.key !== key) select.replaceChildren(...pairs.map(([name, text]) => make("option", { value: name }, text)));
    select.dataset.key = key;
    select.value = value;
  }

  /* ---- one card -------------------------------------------------------------------------------------------------- */
  const bytes = (count) => (count < 1e6 ? `${Math.max(1, Math.round(count / 1e3))}\u00a0kB` : count < 1e9 ? `${Math.round(count / 1e6)}\u00a0MB` : `${(count / 1e9).toFixed(1)}\u00a0GB`);
  const about = (card) => [card.label, card.rank ? `rank\u00a0${card.rank}` : "", bytes(card.size)].filter(Boolean).join(" · ");
  const previewUrl = (card) => `models/${card.id}/preview?v=${card.preview}`;
  function nodeOf({ id }) {
    const entry = cards.get(id);
    return (entry.node ||= buildNode(entry.card));
  }
  function buildNode(card) {
    const picture = card.preview ? make("img", { src: previewUrl(card), alt: "", loading: "lazy", decoding: "async" }) : make("span", { class: "at-card-letter" }, card.name.slice(0, 2));
    const more = make("button", { type: "button", class: "at-card-more", tabindex: -1, "aria-label": `Details of ${card.name}`, title: "Details", onclick: () => atelierDetails.open(card) }, "⋯");
    const use = make("button", { type: "button", class: "at-card-use", tabindex: -1, title: card.folder ? `${card.folder}/${card.name}` : card.name, onclick: () => act(card) },
      make("span", { class: "at-card-picture" }, picture), make("span", { class: "at-card-name" }, card.name), make("span", { class: "at-card-about" }, about(card)));
    return make("li", { class: "at-card", "data-id": card.id, "data-name": card.name }, use, more);
  }
  function act(card) {
    const reason = reasonOf(card), text = textOf("prompt") + textOf("negative_prompt");
    if (reason && !atelierTags.has(text, card)) return say(`${reason}.`);
    if (card.kind === "checkpoint") return choose({ checkpoint: card.name }, `${card.name} is the checkpoint now.`);
    if (card.kind === "vae") {
      const name = vaes[task] === card.name ? AUTOMATIC : card.name;
      choseVae(task, name);
      return choose({ vae: name, task }, name === AUTOMATIC ? "The VAE is chosen automatically." : `${card.name} is the VAE now.`);
    }
    const place = card.kind === "embedding" ? box : "prompt";
    const where = ["prompt", "negative_prompt"].find((name) => atelierTags.has(textOf(name), card));
    if (where) {
      write(where, atelierTags.remove(textOf(where), card));
      if (card.negative) write("negative_prompt", atelierTags.withoutWords(textOf("negative_prompt"), card.negative));
      say(`${card.name} is out of the ${label(where)}.`);
    } else {
      write(place, atelierTags.add(textOf(place), card));
      if (card.negative && !textOf("negative_prompt").includes(card.negative)) write("negative_prompt", atelierTags.join(textOf("negative_prompt"), card.negative));
      say(`${card.name} is in the ${label(place)}.${atelierOffers.sentence(card)}`);
    }
    mark();
  }
  /* Cards that a prompt's tags name and that are made for certain settings. */
  const madeFor = (text, names = atelierTags.named(text)) => (names.size ? all().filter((card) => Object.keys(card.settings).length && atelierTags.has(text, card, names)) : []);
  const isKnown = (name) => all().some((card) => card.names.some((other) => other.toLowerCase() === name));
  /* Chooses a checkpoint by its name, unless it is the chosen one. */
  function useCheckpoint(name) {
    if (name && name !== chosen) choose({ checkpoint: name }, `${name} is the checkpoint now.`);
  }
  const label = (name) => (name === "prompt" ? "prompt" : "negative prompt");
  function choose(value, message) {
    bridge.props.value = { ...value, at: Date.now() };
    bridge.trigger(bridge.event);
    say(message);
  }
  const say = (message) => fill(parts.note, message);
  const fill = (node, text) => { if (node.textContent !== text) node.textContent = text; };

  /* ---- the prompts ----------------------------------------------------------------------------------------------- */
  const area = (name) => byId(`${task}_${name}`)?.querySelector("textarea");
  const textOf = (name) => area(name)?.value || "";
  function write(name, text) {
    const node = area(name);
    if (!node) return;
    node.value = text;
    node.dispatchEvent(new Event("input", { bubbles: true }));
  }
  function addWords(words, name = "prompt") {
    if (!textOf(name).includes(words)) write(name, atelierTags.join(textOf(name), words));
    say(`"${words}" is in the ${label(name)}.`);
  }
  /* Shows which cards are in the prompts, which is chosen, and which don't fit. */
  function mark() {
    const texts = JSON.stringify([textOf("prompt"), textOf("negative_prompt"), chosen, task, vaes[task]]);
    if (texts === lastTexts || !parts.panel.isConnected) return;
    lastTexts = texts;
    const text = `${textOf("prompt")}\n${textOf("negative_prompt")}`, names = atelierTags.named(text), checkpoint = current();
    for (const card of shown) {
      const entry = cards.get(card.id), node = entry?.node;
      if (!node) continue;
      const reason = reasonOf(card, checkpoint), pressed = card.kind === "checkpoint" ? card.name === chosen : card.kind === "vae" ? card.name === vaes[task] : atelierTags.has(text, card, names);
      const state = `${pressed} ${reason}`;
      if (entry.state === state) continue;
      entry.state = state;
      node.firstChild.setAttribute("aria-pressed", String(pressed));
      node.classList.toggle("at-unfit", !!reason);
      fill(node.querySelector(".at-card-about"), reason || about(card));
    }
  }
  document.addEventListener("focusin", (event) => {
    for (const name of ["prompt", "negative_prompt"]) if (event.target.closest?.(`#${task}_${name}`)) box = name;
  });

  /* ---- keys: the cards are one stop for Tab, arrows go from card to card ------------------------------------------- */
  function rove(to = null) {
    const stop = (node, index) => { for (const button of node?.children || []) button.tabIndex = index; };
    stop(active, -1);
    active = to || (active?.parentElement === parts.grid ? active : parts.grid.firstElementChild);
    stop(active, 0);
    if (to) { to.firstChild.focus({ preventScroll: true }); to.scrollIntoView({ block: "nearest" }); }
  }
  function onKey(event) {
    const nodes = [...parts.grid.children], at = nodes.indexOf(event.target.closest(".at-card"));
    if (at < 0) return;
    const columns = getComputedStyle(parts.grid).gridTemplateColumns.split(" ").length;
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, ArrowDown: at + columns, ArrowUp: at - columns, Home: 0, End: nodes.length - 1 }[event.key];
    if (to === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    if (nodes[to]) rove(nodes[to]);
  }

  /* ---- the panel ------------------------------------------------------------------------------------------------- */
  function build() {
    const set = (name) => (event) => { view[name] = event.target.value; remember(); draw(); };
    const kinds = Object.fromEntries(Object.entries(KINDS).map(([kind, text]) => [kind, make("button", { type: "button", class: "at-tool", "data-kind": kind,
      onclick: () => { view.kind = kind; remember(); draw(); } }, text, " ", make("small"))]));
    const search = make("input", { type: "search", placeholder: "Search", "aria-label": "Search models", oninput: set("query") });
    const folder = make("select", { "aria-label": "Folder", onchange: set("folder") });
    const sort = make("select", { "aria-label": "Sort by", onchange: set("sort") }, ...Object.entries(SORTS).map(([name, [text]]) => make("option", { value: name }, text)));
    const fit = make("select", { "aria-label": "Made for", onchange: set("fit") });
    const note = make("p", { class: "at-models-note", role: "status" }), target = make("p", { class: "at-models-note at-models-target" });
    const grid = make("ul", { class: "at-cards", role: "list", onkeydown: onKey });
    sort.value = view.sort in SORTS ? view.sort : (view.sort = "name");
    if (!(view.kind in KINDS)) view.kind = "adapter";
    const panel = make("section", { class: "at-models", "aria-label": "Models" },
      make("div", { class: "at-models-kinds", role: "group", "aria-label": "Kind of model" }, ...Object.values(kinds)),
      make("div", { class: "at-models-bar" }, search, folder, sort, fit), target, note, grid);
    return { panel, kinds, search, folder, sort, fit, note, target, grid };
  }
  const parts = build();
  function connect({ props, trigger, watch, event }) {
    bridge = { props, trigger, event };
    const follow = () => chose(props.value?.chosen);
    watch("value", follow);
    follow();
  }
  function chose(name) {
    if (name && name !== chosen) { chosen = name; draw(); }
    return name;
  }
  function choseVae(where, name) {
    vaes[where] = name;
    mark();
    return [];
  }
  document.addEventListener("click", (event) => { if (event.target.closest?.("[role=tab]")) setTimeout(settle, 30); });
  setInterval(() => { settle(); mark(); }, LOOK_MS);
  setInterval(() => { if (parts.panel.isConnected && visible(parts.panel) && !document.hidden) load(); }, REFRESH_MS);
  return { slot, connect, chose, choseVae, useCheckpoint, madeFor, isKnown, load, say, addWords, previewUrl, bytes, task: () => task };
})();
window.atelierModels = atelierModels;
