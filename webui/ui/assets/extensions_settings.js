/* The form of an extension's settings, from the fields that the server read from its settings model. */
"use strict";
const atelierSettings = (() => {
  const { make } = atelier;

  function form(row, { fields, values, defaults }, { post, join, tool, setText }) {
    const controls = new Map(fields.map((field) => [field.name, controlOf(`ext-${row.id}-${field.name}`, field, values[field.name])]));
    const error = make("p", { class: "at-ext-error", id: `ext-${row.id}-error`, role: "alert", hidden: true });
    const told = make("p", { class: "at-ext-note", role: "status", hidden: true });
    const mark = (name) => {
      for (const control of controls.values()) { control.input?.removeAttribute("aria-invalid"); control.input?.removeAttribute("aria-errormessage"); }
      const wrong = controls.get(name)?.input;
      if (!wrong) return;
      wrong.setAttribute("aria-invalid", "true");
      wrong.setAttribute("aria-errormessage", error.id);
      wrong.focus();
    };
    const save = async () => {
      const filled = Object.fromEntries([...controls].map(([name, control]) => [name, control.value()]));
      const answer = await post(`${row.path}/settings`, { values: filled });
      setText(error, answer.failed ? join(answer) : "");
      setText(told, answer.failed ? "" : "Saved.");
      mark(answer.failed ? answer.field : "");
    };
    const reset = () => { for (const [name, control] of controls) control.set(defaults[name]); setText(told, "These are the defaults. Save them to use them."); };
    return make("form", { class: "at-ext-form", novalidate: true, autocomplete: "off", onsubmit: (event) => { event.preventDefault(); save(); }, oninput: () => setText(told, "") },
      ...grouped(fields, controls), error, make("div", { class: "at-ext-tools" }, make("button", { type: "submit", class: "at-tool" }, "Save"), tool("Defaults", reset), told));
  }
  /* Fields without a group in one grid, each group in a box with its title. */
  function grouped(fields, controls) {
    const groups = new Map();
    for (const field of fields) {
      const title = field.groups.join(" · ");
      if (!groups.has(title)) groups.set(title, []);
      groups.get(title).push(controls.get(field.name).node);
    }
    return [...groups].map(([title, nodes]) => (title ? make("fieldset", {}, make("legend", {}, title), make("div", { class: "at-ext-fields" }, ...nodes)) : make("div", { class: "at-ext-fields" }, ...nodes)));
  }
  function controlOf(id, field, value) {
    const note = field.info ? make("small", { id: `${id}-info` }, field.info) : null;
    const attributes = { id, "aria-describedby": note?.id };
    const row = KINDS[field.kind] || KINDS.text;
    const control = row(field, attributes);
    control.set(value);
    const label = control.whole ? null : make("label", { for: id }, field.label);
    const order = control.tick ? [make("span", { class: "at-ext-tick" }, control.node, label)] : [label, control.node];
    return { ...control, node: make("div", { class: control.wide ? "at-ext-field at-ext-wide" : "at-ext-field" }, ...order, note) };
  }
  const simple = (input, more = {}) => ({ input, node: input, value: () => input.value, set: (value) => { input.value = value ?? ""; }, ...more });
  const area = (field, attributes) => simple(make("textarea", { ...attributes, rows: Math.max(field.lines, 2), spellcheck: "false" }), { wide: true });
  function number(field, attributes) {
    const input = make("input", { ...attributes, type: "number", min: field.low, max: field.high, step: field.step ?? "any", inputmode: field.whole ? "numeric" : "decimal" });
    return simple(input, { value: () => (input.value === "" ? null : Number(input.value)) });
  }
  function text(field, attributes) {
    if (field.lines > 1) return area(field, attributes);
    return simple(make("input", { ...attributes, type: "text", placeholder: field.placeholder, spellcheck: "false", autocomplete: "off" }));
  }
  function tick(field, attributes) {
    const input = make("input", { ...attributes, type: "checkbox" });
    return { input, node: input, tick: true, value: () => input.checked, set: (value) => { input.checked = !!value; } };
  }
  const choice = (field, attributes) => simple(make("select", attributes, ...field.choices.map(([label, key]) => make("option", { value: key }, label))));
  function several(field, attributes) {
    const ticks = field.choices.map(([label, key]) => ({ key, input: make("input", { type: "checkbox" }), label }));
    const node = make("fieldset", attributes, make("legend", {}, field.label), ...ticks.map(({ input, label }) => make("label", { class: "at-ext-tick" }, input, make("span", {}, label))));
    return { input: node, node, whole: true, wide: true, value: () => ticks.filter(({ input }) => input.checked).map(({ key }) => key), set: (keys) => { for (const one of ticks) one.input.checked = (keys || []).includes(one.key); } };
  }
  /* Pictures are chosen with a picture, not here; the value stays as it is. */
  function kept() {
    let held = null;
    return { input: null, node: make("span", {}, "cannot be changed here"), value: () => held, set: (value) => { held = value; } };
  }
  const KINDS = { switch: tick, choice, several, slider: number, number, text, numbers: text, lines: area, json: area, picture: kept, pictures: kept };
  return { form };
})();
