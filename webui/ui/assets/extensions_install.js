/* Installing an extension: where from, what would run, and what pip says. */
"use strict";
const atelierInstalls = (() => {
  const { make } = atelier;
  const WARNING = "An extension is a program: it can do on this machine whatever you can. Install only what you trust.";
  let helpers = null, parts = null, asked = "", watched = 0;

  function build(given) {
    helpers = given;
    const { tool } = helpers;
    const input = (name, label, more = {}) => make("input", { type: "text", name, "aria-label": label, placeholder: label, spellcheck: "false", autocomplete: "off", ...more });
    const path = input("path", "Full path of its folder"), url = input("url", "https address of the repository"), ref = input("ref", "Branch, tag or commit (if not its own)"), file = make("input", { type: "file", name: "zip", accept: ".zip,application/zip", "aria-label": "Zip file" });
    const forms = {
      folder: form([path], () => propose("extension-installs/folder", { path: path.value }, parts.forms.folder)),
      zip: form([file], () => { const chosen = file.files[0]; if (!chosen) { file.focus(); return; } propose(`extension-installs/zip?name=${encodeURIComponent(chosen.name)}`, null, parts.forms.zip, { headers: { "Content-Type": "application/zip" }, body: chosen }); }),
      git: form([url, ref], () => propose("extension-installs/git", { url: url.value, ref: ref.value }, parts.forms.git)),
    };
    const words = { folder: "From a folder", zip: "From a zip file", git: "From a git address" };
    const buttons = Object.fromEntries(Object.entries(words).map(([kind, word]) => [kind, tool(word, () => choose(kind), { "data-from": kind })]));
    parts = {
      forms, buttons,
      why: make("p", { class: "at-ext-reason", hidden: true }),
      working: make("p", { class: "at-ext-note", role: "status", hidden: true }),
      waiting: make("p", { class: "at-ext-reason", hidden: true }),
      output: make("pre", { class: "at-ext-output", hidden: true, tabindex: 0, "aria-label": "What the installation says" }),
      result: make("p", { role: "alert", hidden: true }),
      inside: make("div", { class: "at-ext-inside" }),
    };
    parts.inside.append(make("p", { class: "at-ext-note" }, WARNING), make("div", { class: "at-ext-tools", role: "group", "aria-label": "Where from" }, ...Object.values(buttons)), ...Object.values(forms).map((one) => one.node));
    choose("folder");
    return make("section", { class: "at-ext-install", "aria-label": "Install an extension" }, make("h3", {}, "Install an extension"), parts.why, parts.inside, parts.working, parts.waiting, parts.result, parts.output);
  }
  function form(inputs, run) {
    const go = make("button", { type: "submit", class: "at-tool" }, "Show what would run");
    return { go, node: make("form", { class: "at-ext-from", novalidate: true, onsubmit: (event) => { event.preventDefault(); run(); } }, ...inputs, go) };
  }
  function choose(kind) {
    for (const [name, one] of Object.entries(parts.forms)) one.node.hidden = name !== kind;
    for (const [name, button] of Object.entries(parts.buttons)) button.setAttribute("aria-pressed", String(name === kind));
  }

  /* ---- first step: fetch and show -------------------------------------------------------------------------------- */
  async function propose(path, body, from, options = {}) {
    const { post, complain, join, setText, poll } = helpers, button = from.go || from;
    complain("");
    setText(parts.result, "");
    setText(parts.working, "Fetching it");
    button.disabled = true;
    const told = await post(path, body, options);
    button.disabled = false;
    setText(parts.working, "");
    if (told.failed) return result(join(told), true);
    askAbout(told);
    poll();
  }
  function result(text, isError) {
    helpers.setText(parts.result, text);
    parts.result.className = isError ? "at-ext-error" : "at-ext-done";
    if (text) parts.result.scrollIntoView({ block: "nearest" });
  }
  function askAbout(proposal) {
    const { post, complain, join, poll } = helpers;
    asked = proposal.token;
    helpers.setText(parts.waiting, "");
    const title = proposal.replaces ? `Update ${proposal.title} ${proposal.replaces} to ${proposal.version}?` : `Install ${proposal.title} ${proposal.version}?`;
    atelierExtensions.ask(title, contents(proposal), proposal.replaces ? "Update" : "Install", async () => {
      const told = await post(`extension-installs/${proposal.token}/confirm`);
      asked = "";
      if (told.failed) result(join(told), true);
      poll();
    }, async () => {
      const told = await post(`extension-installs/${proposal.token}/discard`);
      asked = "";
      if (told.failed) complain(join(told));
      poll();
    });
  }
  function contents(proposal) {
    const rows = [["Id", proposal.id], ["From", proposal.source], ["Commit", proposal.commit], ["Licence", proposal.licence || "It has no licence file."]];
    const list = (items) => make("ul", {}, ...items.map((item) => make("li", {}, item)));
    const part = (name, ...nodes) => make("section", {}, make("h3", {}, name), ...nodes);
    const none = (text) => make("p", { class: "at-ext-note" }, text);
    const { does, packages, models, files, commands } = proposal;
    const modelText = (model) => [model.file, model.amount, model.licence, model.non_commercial ? "non-commercial" : "", model.shipped ? "comes with it" : "got when you ask for it"].filter(Boolean).join(" · ");
    return [
      proposal.description ? make("p", {}, proposal.description) : null,
      make("p", { class: "at-ext-strong" }, "It runs on this machine with all your rights: it can read and change your files and use the network."),
      make("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
      part("What it does", does.length ? list([...does, ...Object.entries(commands).map(([name, summary]) => `launch.py ${name}: ${summary}`)]) : none("It marks no hooks of the program.")),
      part("Python packages that pip would install", packages.length ? list(packages.map(({ name, there }) => `${name} (${there})`)) : none("None.")),
      models.length ? part("Models", list(models.map(modelText))) : null,
      make("details", {}, make("summary", {}, `Files (${files.length}, ${proposal.amount})`), list(files.map(({ name, amount }) => `${name} · ${amount}`))),
    ].filter(Boolean);
  }

  /* ---- second step: watch ---------------------------------------------------------------------------------------- */
  /* Returns whether something is going on. */
  function show({ no_installs, proposal, installation }) {
    const { setText, tool } = helpers;
    setText(parts.why, no_installs);
    parts.inside.hidden = !!no_installs;
    const open = proposal && asked !== proposal.token && !document.querySelector(".at-ext-dialog");
    if (open && parts.waiting.dataset.token !== proposal.token) {
      parts.waiting.dataset.token = proposal.token;
      parts.waiting.replaceChildren(`${proposal.title} waits for your answer. `, tool("Look at it", () => askAbout(proposal)));
    }
    parts.waiting.hidden = !open;
    if (!open) parts.waiting.dataset.token = "";
    if (!installation) return false;
    setText(parts.output, installation.lines.join("\n"));
    if (!installation.ended) {
      watched = installation.number;
      setText(parts.working, `Installing ${installation.title}`);
      setText(parts.result, "");
      parts.output.scrollTop = parts.output.scrollHeight;
    } else if (watched !== -installation.number) {
      watched = -installation.number;
      setText(parts.working, "");
      result(installation.error || installation.done, !!installation.error);
    }
    return !installation.ended;
  }
  return { build, show, propose };
})();
