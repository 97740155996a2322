/* Models that write captions or make masks for a whole set: which there are, one at work, and what came of it. */
"use strict";
const atelierTrainingAssist = (() => {
  const T = atelierTraining, { make } = atelier;
  const ACTIVE = ["queued", "running"];
  const KINDS = {
    captions: { from: "captioners", text: "Write captions", over: "Also where there is one", keep: "Else photos with a caption keep it.", one: "caption" },
    masks: { from: "maskers", text: "Make masks", over: "Also where there is one", keep: "Else photos with a mask keep it.", one: "mask" },
  };
  /* name in the request, label, tooltip, attributes; `makes`: only for assistants that make this. */
  const OPTIONS = {
    captions: [
      ["prefix", "Put in front", "Stands in front of every caption, such as the trigger word.", { type: "text", maxlength: 500 }],
      ["threshold", "Sure of a tag", "Tags are written that the model is at least so sure of: 0 to 1. Empty: its own.", { type: "number", min: 0, max: 1, step: 0.05 }, "tags"],
      ["without", "Never write", "Tags that are left away, with commas between them.", { type: "text" }, "tags"],
    ],
    masks: [
      ["grow", "Wider, %", "By so much of the photo's longer side the mask reaches beyond what was found.", { type: "number", min: -10, max: 10, step: 0.5, value: 1 }],
      ["feather", "Soft edge, %", "Width of the soft edge, of the photo's longer side.", { type: "number", min: 0, max: 10, step: 0.5, value: 1 }],
    ],
  };
  const READ = { without: (text) => text.split(",").map((one) => one.trim()).filter(Boolean), prefix: (text) => text.trim() };

  function panel(studio) {
    let offered = null, set = "", now = null, watched = "", key = "";
    const error = T.error(), said = T.note("", { role: "status", hidden: true }), how = T.note("", { hidden: true }), rows = make("div", { class: "at-photo-assist" });
    const refused = make("ul", { class: "at-photo-problems", hidden: true });
    const bar = make("i"), progress = make("div", { class: "at-progress", role: "progressbar", "aria-label": "Model at work", "aria-valuemin": 0, hidden: true }, bar);
    const stop = T.tool("Stop", async () => { await fetch(`jobs/${now.job}/interrupt`, { method: "POST" }); studio.look(); }, { hidden: true, "aria-label": "Stop the model" });
    const node = make("section", { class: "at-train-card", "aria-label": "Captions and masks by a model", hidden: true }, make("h3", {}, "Captions and masks by a model"), rows, progress, make("div", { class: "at-train-bar" }, said, stop), error, refused, how);

    async function load() {
      const told = await T.get("assistants");
      if (told.failed || key === JSON.stringify(told)) return;
      key = JSON.stringify(told);
      offered = told;
      node.hidden = false;
      const missing = Object.values(KINDS).some(({ from }) => !told[from].some((one) => !one.problem));
      T.setText(how, missing ? told.how_to_get : "");
      how.title = missing ? "" : told.how_to_get;
      rows.replaceChildren(...Object.keys(KINDS).filter((kind) => told[KINDS[kind].from].length).map(rowOf));
      draw();
    }
    function rowOf(kind) {
      const { from, text, over, keep } = KINDS[kind], found = offered[from];
      const who = make("select", { "aria-label": `${text}: which model`, onchange: () => fit() }, ...found.map((one) => make("option", { value: one.id, disabled: !!one.problem, title: one.problem || one.about }, one.problem ? `${one.name} (cannot be used)` : one.name)));
      const overwrite = make("input", { type: "checkbox" }), problems = found.map((one) => one.problem).filter(Boolean);
      const options = OPTIONS[kind].map(([name, label, hint, attributes, makes]) => ({ name, makes, input: make("input", { name, autocomplete: "off", ...attributes }), label, hint }));
      for (const option of options) option.node = T.labelled(option.label, option.input, option.hint);
      const fit = () => { const makes = found.find((one) => one.id === who.value)?.makes; for (const option of options) option.node.hidden = !!option.makes && option.makes !== makes; };
      const usable = found.find((one) => !one.problem);
      who.value = usable?.id || "";
      fit();
      const run = T.tool(text, () => start(kind, who.value, overwrite.checked, options), { "data-usable": !!usable });
      return make("div", { class: "at-photo-assistant" }, make("div", { class: "at-train-bar" }, who, run), make("label", { class: "at-train-tick", title: keep }, overwrite, over),
        make("details", {}, make("summary", {}, "Options"), make("div", { class: "at-photo-pair" }, ...options.map((option) => option.node))), problems.length ? T.note(problems.join(" ")) : null);
    }
    async function start(kind, assistant, overwrite, options) {
      const body = { assistant, kind, overwrite };
      for (const { name, node: field, input } of options) if (!field.hidden && input.value !== "") body[name] = READ[name]?.(input.value) ?? Number(input.value);
      if (studio.chosen().length) body.names = studio.chosen();
      const told = await studio.act("assist", body);
      if (!T.report(error, told)) return;
      watched = told.job;
      refused.hidden = true;
      atelier.poll();
      studio.look();
    }
    /* Asks how far it is, if there is something to ask; returns whether it works. */
    async function look(id) {
      if (id === set && !watched) return false;
      if (id !== set) { watched = ""; now = null; T.setText(said, ""); T.setText(error, ""); refused.hidden = true; }
      set = id;
      const told = await T.get(`sets/${encodeURIComponent(id)}/assist`);
      if (told.failed || !told.assist || id !== set) return !!watched;
      now = told.assist;
      const active = ACTIVE.includes(now.state);
      if (active) watched = now.job;
      else if (watched === now.job) { watched = ""; ended(); }
      draw();
      return active;
    }
    function draw() {
      const active = !!now && ACTIVE.includes(now.state);
      progress.hidden = stop.hidden = !active;
      for (const button of rows.querySelectorAll("button")) button.disabled = active || !("usable" in button.dataset);
      if (!active) return;
      bar.style.width = `${now.total ? (100 * now.done) / now.total : 0}%`;
      progress.setAttribute("aria-valuenow", now.done);
      progress.setAttribute("aria-valuemax", now.total || 1);
      T.setText(said, now.state === "queued" ? "Waiting for its turn" : now.total ? `${now.done} of ${T.plural(now.total, "photo")}` : "Opening the model");
    }
    function ended() {
      const { one } = KINDS[now.kind], { changed, kept, problems } = now;
      T.setText(error, now.error ? [now.error.message, now.error.hint].filter(Boolean).join(" ") : "");
      T.setText(said, now.error ? "" : [now.state === "cancelled" ? "Stopped." : "", `${T.plural(changed, one)} made.`, kept ? `${T.plural(kept, "photo")} kept ${kept === 1 ? "its" : "their"} own.` : ""].filter(Boolean).join(" "));
      refused.hidden = !problems.length;
      refused.replaceChildren(...problems.map(({ name, sentence }) => make("li", {}, sentence.includes(name) ? sentence : `${name}: ${sentence}`)));
    }
    return { node, load, look };
  }
  return { panel };
})();
