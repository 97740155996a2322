/* What is said of all photos of a set: find and replace, a text in front, how often each tag stands there. */
"use strict";
const atelierTrainingCaptions = (() => {
  const T = atelierTraining, { make } = atelier;
  const SHOWN_TAGS = 60;

  function panel(studio) {
    let tagsKey = "", all = false;
    const said = T.note("", { role: "status", hidden: true }), error = T.error();
    const field = (name, label, more = {}) => make("input", { type: "text", name, "aria-label": label, placeholder: label, autocomplete: "off", spellcheck: "false", ...more });
    const find = field("find", "Find"), replace = field("replace", "Replace by"), prefix = field("prefix", "Put in front");
    const whole = make("input", { type: "checkbox", name: "whole_tag" });
    const tags = make("div", { class: "at-photo-tags", role: "list", "aria-label": "Tags" });
    const more = T.tool("All tags", () => { all = true; draw(); }, { hidden: true });
    const form = (run, ...nodes) => make("form", { class: "at-train-bar", novalidate: true, onsubmit: (event) => { event.preventDefault(); run(); } }, ...nodes);
    const go = (text) => make("button", { type: "submit", class: "at-tool" }, text);

    async function act(path, body) {
      const told = await studio.act(path, body);
      T.setText(said, "");
      if (T.report(error, told)) T.setText(said, told.changed ? `${T.plural(told.changed, "caption")} changed.` : "No caption has it.");
      return !told.failed;
    }
    const some = () => (studio.chosen().length ? { names: studio.chosen() } : {});
    async function replaceAll() {
      if (!find.value) return find.focus();
      await act("captions/replace", { find: find.value, replace: replace.value, whole_tag: whole.checked, ...some() });
    }
    async function putInFront() {
      if (!prefix.value.trim()) return prefix.focus();
      if (await act("captions/prefix", { text: prefix.value.trim(), ...some() })) prefix.value = "";
    }
    function tagOf([tag, count]) {
      return make("span", { role: "listitem", class: "at-photo-tag" },
        make("button", { type: "button", title: `Show the photos with "${tag}"`, "aria-pressed": String(studio.tag() === tag), onclick: () => studio.filterTag(tag) }, tag, " ", make("small", {}, String(count))),
        make("button", { type: "button", "aria-label": `Remove "${tag}" from all captions`, title: "Remove from all captions", onclick: () => act("captions/remove-tag", { tag }) }, "✕"));
    }
    function draw() {
      const data = studio.data(), chosen = studio.chosen().length, other = studio.defaultCaption();
      T.setText(without, other ? `Photos without a caption are called "${other}", after the trigger word in the settings.` : "Photos without a caption need a trigger word, in the settings.");
      T.setText(scope, chosen ? `Only in the ${T.plural(chosen, "chosen photo")}.` : "");
      const key = JSON.stringify([data?.tags, studio.tag(), all]);
      if (key === tagsKey) return;
      tagsKey = key;
      const found = data?.tags || [];
      tags.replaceChildren(...found.slice(0, all ? found.length : SHOWN_TAGS).map(tagOf));
      more.hidden = all || found.length <= SHOWN_TAGS;
      none.hidden = found.length > 0;
    }
    const scope = T.note("", { hidden: true }), none = T.note("No photo has a caption yet."), without = T.note();
    const node = make("section", { class: "at-train-card", "aria-label": "Captions" }, make("h3", {}, "Captions"),
      without,
      form(replaceAll, find, replace, make("label", { class: "at-train-tick", title: "Only tags that are exactly this; else words anywhere." }, whole, "Whole tags"), go("Replace")),
      form(putInFront, prefix, go("Add")), scope, said, error, none, tags, more);
    return { node, draw };
  }
  return { panel };
})();
