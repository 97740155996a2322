/* Every setting of a training by section, as the server lists them: with its range, its meaning and the preset's value. */
"use strict";
const atelierTrainingFields = (() => {
  const { make } = atelier;
  const T = atelierTraining, M = atelierTrainingModel;
  const ABOVE = ["name", "base", "subject", "network.method", "data.photos", "data.trigger", "data.class_word"];
  const PHOTO_SET = "data.prior_photos", PROMPTS = "validation.prompts";
  const MISSING = "A value is missing here.";

  /* `edit(name, value)` is told of changes, `back(name)` that the preset's value is wanted, `above(name)` that the user looks for
     what stands above. */
  function build(form, { edit, back, above }) {
    const rows = new Map(), sections = [];
    for (const section of form.sections) {
      const fields = [...section.fields].sort((a, b) => a.advanced - b.advanced).map((field) => rowOf(field, { edit, back, above }));
      for (const row of fields) rows.set(row.name, row);
      sections.push(sectionOf(section, fields));
    }
    sections.push(...sections.splice(0, sections.findIndex((section) => section.name))); // what stands above comes last
    const search = make("input", { type: "search", placeholder: "Search the settings", "aria-label": "Search the settings", oninput: () => filter() });
    const changed = make("input", { type: "checkbox", onchange: () => filter() });
    const none = T.note("", { role: "status", hidden: true });
    const tools = make("div", { class: "at-train-bar at-tset-find" }, search, make("label", { class: "at-tset-tick" }, changed, "Changed ones only"));
    const node = make("div", { class: "at-tset-all" }, tools, none, ...sections.map((section) => section.node));

    /* Shows the sections as the user left them, or opened where something is looked for. */
    function filter() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean), looking = words.length > 0 || changed.checked;
      let hits = 0;
      for (const section of sections) {
        for (const row of section.rows) {
          row.node.hidden = !words.every((word) => row.words.includes(word)) || (changed.checked && !row.isChanged);
          if (!row.node.hidden) hits += 1;
        }
        const found = section.rows.some((row) => !row.node.hidden);
        section.node.hidden = !found;
        if (looking && section.before === null) section.before = section.node.open;
        if (looking) section.node.open = found;
        else if (section.before !== null) { section.node.open = section.before; section.before = null; }
      }
      T.setText(none, hits ? "" : changed.checked && !words.length ? "All is as the preset has it." : "No setting is called that.");
    }
    function draw(shown) {
      for (const row of rows.values()) row.draw(shown);
      for (const section of sections) section.draw();
      if (changed.checked) filter();
    }
    /* Brings a setting to the user. */
    function show(name) {
      const row = rows.get(name);
      if (!row) return;
      if (row.node.hidden) { search.value = ""; changed.checked = false; filter(); }
      row.node.closest("details").open = true;
      (row.input || row.node).focus();
      row.node.scrollIntoView({ block: "center" });
    }
    return { node, draw, show, has: (name) => rows.has(name), labelOf: (name) => rows.get(name)?.label || name };
  }
  function sectionOf({ name, label }, rows) {
    const count = make("span", { class: "at-train-note" });
    const node = make("details", { class: "at-train-card at-tset-section", "data-section": name || "run" }, make("summary", {}, make("h3", {}, label), count), make("div", { class: "at-tset-grid" }, ...rows.map((row) => row.node)));
    const draw = () => {
      const changed = rows.filter((row) => row.isChanged).length, wrong = rows.filter((row) => row.isWrong).length;
      node.classList.toggle("at-tset-wrong", wrong > 0);
      count.textContent = [T.plural(rows.length, "setting"), changed && `${changed} changed`, wrong && T.plural(wrong, "problem")].filter(Boolean).join(" · ");
    };
    return { name, node, rows, draw, before: null };
  }

  /* ---- one setting ----------------------------------------------------------------------------------------------- */
  function rowOf(field, { edit, back, above }) {
    const id = `tset-${field.name.replace(".", "-")}`, isAbove = ABOVE.includes(field.name);
    const control = isAbove ? elsewhere(field, above) : controlOf(field, { id, "aria-describedby": `${id}-about` }, (value) => edit(field.name, value));
    const label = make(isAbove ? "span" : "label", { for: isAbove ? null : id, title: field.name }, field.label);
    const revert = make("button", { type: "button", class: "at-tset-back", hidden: true, onclick: () => { back(field.name); control.input?.focus(); } });
    const range = make("span", { class: "at-tset-range" });
    const about = make("small", { id: `${id}-about`, class: "at-train-note" }, make("span", {}, field.about), range);
    const problem = make("small", { id: `${id}-problem`, class: "at-tset-problem", role: "alert", hidden: true });
    const head = make("div", { class: "at-tset-head" }, ...(control.tick ? [make("span", { class: "at-tset-tick" }, control.node, label)] : [label]), revert);
    const row = { name: field.name, label: field.label, input: control.input, isChanged: false, isWrong: false };
    row.words = `${field.label} ${field.name} ${field.about}`.toLowerCase();
    row.node = make("div", { class: control.wide ? "at-tset-row at-tset-wide" : "at-tset-row", "data-name": field.name, tabindex: control.input ? null : "-1" },
      ...[head, control.tick ? null : control.node, about, problem].filter(Boolean));
    row.draw = ({ values, origin, own, unused, problems, sets }) => {
      const value = values[field.name], preset = origin[field.name], reason = unused[field.name];
      control.set(value, { values, sets });
      row.isChanged = field.name in own;
      row.isWrong = !isAbove && field.name in problems;
      row.node.classList.toggle("at-tset-changed", row.isChanged);
      row.node.classList.toggle("at-tset-unused", !!reason);
      row.node.title = reason ? `Not used. ${reason}` : "";
      revert.hidden = !row.isChanged;
      revert.textContent = `↺ ${short(told(preset, field))}`;
      revert.setAttribute("aria-label", `${field.label} back to the preset's: ${told(preset, field)}`);
      revert.title = `Back to the preset's: ${told(preset, field)}`;
      range.textContent = reason ? `Not used: ${reason}` : isAbove ? "" : [rangeOf(field), `preset ${short(told(preset, field))}`].filter(Boolean).join(" · ");
      T.setText(problem, !row.isWrong ? "" : value === null && !field.optional ? MISSING : problems[field.name]);
      if (row.isWrong) control.input?.setAttribute("aria-invalid", "true");
      else control.input?.removeAttribute("aria-invalid");
      control.input?.setAttribute("aria-describedby", row.isWrong ? `${id}-problem ${id}-about` : `${id}-about`);
    };
    return row;
  }
  const short = (text) => (text.length > 24 ? `${text.slice(0, 23)}…` : text);
  function told(value, field) {
    if (value === null || value === undefined || value === "") return field.optional ? "automatic" : "empty";
    if (value === true || value === false) return value ? "on" : "off";
    if (Array.isArray(value)) return field.items === "text" ? T.plural(value.length, "line") : value.join(", ");
    return String(value);
  }
  function rangeOf({ kind, min, max, above, below }) {
    if (kind !== "int" && kind !== "number") return "";
    const low = min ?? null, high = max ?? null;
    if (low !== null && high !== null) return `${M.number(low)} to ${M.number(high)}`;
    const words = [low !== null && `at least ${M.number(low)}`, above != null && `more than ${M.number(above)}`, high !== null && `at most ${M.number(high)}`, below != null && `less than ${M.number(below)}`];
    return words.filter(Boolean).join(", ");
  }

  /* ---- controls: {node, input, set(value, shown)} ---------------------------------------------------------------- */
  function controlOf(field, attributes, edit) {
    if (field.name === PHOTO_SET) return setOf(attributes, edit);
    if (field.name === PROMPTS) return prompts(attributes, edit);
    return (KINDS[field.kind] || text)(field, attributes, edit);
  }
  /* Nobody's typing is written over. */
  const put = (input, value) => { if (document.activeElement !== input && input.value !== value) input.value = value; };
  function number(field, attributes, edit) {
    const read = () => (input.value === "" ? null : Number(input.value));
    const input = make("input", { ...attributes, type: "number", min: field.min, max: field.max, step: field.kind === "int" ? field.step ?? 1 : "any", inputmode: field.kind === "int" ? "numeric" : "decimal",
      placeholder: field.optional ? "automatic" : null, oninput: () => edit(read()) });
    return { node: input, input, set: (value) => { if (read() !== value) put(input, value ?? ""); } };
  }
  function text(field, attributes, edit) {
    const input = make("input", { ...attributes, type: "text", spellcheck: "false", autocomplete: "off", oninput: () => edit(input.value) });
    return { node: input, input, set: (value) => put(input, value ?? "") };
  }
  function choice(field, attributes, edit) {
    const input = make("select", { ...attributes, onchange: () => edit(input.value) }, ...field.choices.map((value) => make("option", { value }, value)));
    return { node: input, input, set: (value) => { input.value = value; } };
  }
  function tick(field, attributes, edit) {
    const input = make("input", { ...attributes, type: "checkbox", onchange: () => edit(input.checked) });
    return { node: input, input, tick: true, set: (value) => { input.checked = !!value; } };
  }
  /* Numbers between commas; what is none goes to the server as it is, which says so. */
  function list(field, attributes, edit) {
    const read = () => input.value.split(/[,;\s]+/).filter(Boolean).map((part) => (Number.isNaN(Number(part)) ? part : Number(part)));
    const input = make("input", { ...attributes, type: "text", spellcheck: "false", autocomplete: "off", oninput: () => edit(read()) });
    return { node: input, input, set: (value) => { if (!M.same(read(), value)) put(input, (value || []).join(", ")); } };
  }
  function prompts(attributes, edit) {
    const read = () => input.value.split("\n").map((line) => line.trim()).filter(Boolean);
    const input = make("textarea", { ...attributes, rows: 6, spellcheck: "false", oninput: () => edit(read()) });
    const insert = (word) => T.tool(word, () => { input.focus(); input.setRangeText(word, input.selectionStart, input.selectionEnd, "end"); edit(read()); }, { title: "Puts it where the cursor is" });
    const drawn = make("ul", { class: "at-tset-drawn", "aria-label": "What is drawn" });
    const node = make("div", { class: "at-tset-prompts" }, make("div", {}, input, make("div", { class: "at-train-bar" }, insert("{trigger}"), insert("{class}"), T.note("One prompt a line. Best are some that no photo shows."))), drawn);
    const set = (value, { values }) => {
      if (!M.same(read(), value)) put(input, (value || []).join("\n"));
      drawn.replaceChildren(...(value || []).map((line) => make("li", {}, M.filled(line, values["data.trigger"], values["data.class_word"]))));
    };
    return { node, input, wide: true, set };
  }
  function setOf(attributes, edit) {
    const input = make("select", { ...attributes, onchange: () => edit(input.value || null) });
    const set = (value, { sets }) => {
      const known = sets.map((one) => [one.id, one.name]);
      const options = [["", "none"], ...known, ...(value && !known.some(([id]) => id === value) ? [[value, value]] : [])];
      const key = JSON.stringify(options);
      if (input.dataset.key !== key) input.replaceChildren(...options.map(([id, name]) => make("option", { value: id }, name)));
      input.dataset.key = key;
      input.value = value || "";
    };
    return { node: input, input, set };
  }
  function elsewhere(field, above) {
    const photos = field.name === "data.photos";
    const button = T.tool(photos ? "In the step Photos" : "Chosen above", () => above(field.name), { "aria-label": `${field.label}: ${photos ? "in the step Photos" : "chosen above"}` });
    return { node: make("div", {}, button), input: button, set: () => {} };
  }
  const KINDS = { int: number, number, text, choice, bool: tick, list };
  return { build, ABOVE };
})();
