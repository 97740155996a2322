/* One model in full: facts, words, tags, notes to edit, metadata. A dialog at the side. */
"use strict";
const atelierDetails = (() => {
  const { make, shownIn } = atelier;
  const PREDICTIONS = [["", "As the file says"], ["epsilon", "Noise (epsilon)"], ["v_prediction", "Velocity (v)"]];

  async function open(card) {
    const answer = await fetch(`models/${card.id}`, { cache: "no-store" });
    if (!answer.ok) return atelierModels.say(`${card.name} is not there any more.`);
    show(await answer.json());
  }
  function show(model) {
    const status = make("p", { class: "at-models-note", role: "status" });
    const dialog = make("dialog", { class: "at-details", "aria-label": `Details of ${model.name}` },
      make("header", {}, make("h2", {}, model.name), make("button", { type: "button", class: "at-tool", "aria-label": "Close", title: "Close", onclick: () => dialog.close() }, "✕")),
      model.preview ? make("img", { class: "at-details-preview", src: atelierModels.previewUrl(model), alt: `Preview of ${model.name}` }) : null,
      model.problem ? make("p", { class: "at-error" }, `Cannot be used: ${model.problem}.`) : null,
      factsOf(model),
      model.description ? section("Description", make("p", { class: "at-details-text" }, plainText(model.description))) : null,
      model.trigger_words.length ? section("Trigger words", words(model.trigger_words.map((word) => [word]), status)) : null,
      model.tags.length ? section("Tags in its training pictures", words(model.tags, status)) : null,
      section("Your notes", form(model, status)), previewButton(model, status), status, metadata(model));
    dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
    dialog.addEventListener("close", () => { dialog.remove(); atelierModels.load(); });
    document.querySelector(".at-page").append(dialog); // inside the box that Gradio confines style sheets to
    dialog.showModal();
  }
  const section = (title, ...children) => make("section", {}, make("h3", {}, title), ...children);
  /* Descriptions from sites are HTML; only their text is shown. */
  const plainText = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent.trim();
  function factsOf(model) {
    const lines = [["File", model.file], ["Size", atelierModels.bytes(model.size)], ["Changed", new Date(model.time).toLocaleString()], ...model.facts,
      ["SHA-256", model.sha256 || "not known yet"], ...(model.data_sha256 ? [["Hash of the weights", model.data_sha256.slice(0, 12)]] : [])];
    return make("dl", {}, ...lines.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
  }
  function words(list, status) {
    return make("div", { class: "at-words" }, ...list.map(([word, count]) => make("button", { type: "button", class: "at-tool", "aria-label": `Add to the prompt: ${word}`,
      onclick: () => { atelierModels.addWords(word); status.textContent = `"${word}" is in the prompt.`; } }, word, count ? make("small", {}, ` ${count}`) : null)));
  }
  function form(model, status) {
    const field = (name, text, node) => make("label", {}, make("span", {}, text), Object.assign(node, { name }));
    const area = (name, text, rows) => field(name, text, make("textarea", { rows }, model.notes[name] || ""));
    const weight = make("input", { type: "number", step: 0.05, min: -10, max: 10, placeholder: "1", value: model.notes.preferred_weight ?? "" });
    const prediction = make("select", {}, ...PREDICTIONS.map(([value, text]) => make("option", { value, selected: value === model.notes.prediction_type }, text)));
    const isTag = model.kind === "adapter" || model.kind === "hypernetwork";
    const node = make("form", { class: "at-notes-form" },
      isTag ? field("preferred_weight", "Preferred weight", weight) : null,
      isTag ? area("activation_text", "Words that come with its tag", 2) : null,
      isTag ? area("negative_text", "Words for the negative prompt", 1) : null,
      isTag ? field("recommended_settings", "Recommended settings", make("input", { type: "text", placeholder: "Steps: 4-8, Sampler: LCM, CFG scale: 1", value: model.notes.recommended_settings })) : null,
      isTag && model.settings_problem ? make("p", { class: "at-models-note" }, `These settings are not offered: ${model.settings_problem}`) : null,
      model.may_override_prediction ? field("prediction_type", "What it predicts", prediction) : null,
      area("notes", "Notes", 3), make("button", { type: "submit", class: "at-tool" }, "Save notes"));
    node.addEventListener("submit", (event) => {
      event.preventDefault();
      send(`models/${model.id}/notes`, Object.fromEntries(new FormData(node)), status, "Saved.");
    });
    return node;
  }
  function previewButton(model, status) {
    return make("button", { type: "button", class: "at-tool", onclick: () => {
      const picture = shownIn(atelierModels.task());
      if (!picture) { status.textContent = "There is no picture in the results."; return; }
      send(`models/${model.id}/preview`, picture, status, "This picture is its preview now.");
    } }, "Use the shown picture as preview");
  }
  async function send(url, body, status, done) {
    try {
      const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
      const { message } = answer.ok ? { message: done } : await answer.json();
      status.textContent = message;
    } catch { status.textContent = "The connection is lost; nothing was saved."; }
    atelierModels.load();
  }
  function metadata(model) {
    if (!model.metadata.length) return null;
    const pretty = (value) => { try { return JSON.stringify(JSON.parse(value), null, 1); } catch { return value; } };
    return make("details", { class: "at-metadata" }, make("summary", {}, `Metadata (${model.metadata.length})`),
      make("dl", {}, ...model.metadata.flatMap(([key, value]) => [make("dt", {}, key), make("dd", {}, make("pre", {}, /^[[{]/.test(value) ? pretty(value) : value))])));
  }
  return { open };
})();
window.atelierDetails = atelierDetails;
