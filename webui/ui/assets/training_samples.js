/* The samples of a run: for one prompt a table of steps and weights, with the base's own picture on top, each of them to be
   looked at in full and to be taken instead of the one that the measures found. */
"use strict";
const atelierSamples = (() => {
  const { make } = atelier, { integer } = atelierCharts, { weightText, candidateText, same, foundIn, capital } = atelierCurves, T = atelierTraining;
  const share = (value) => `${Math.round(100 * value)}%`;
  const shotOf = (sample) => `${sample.seed} ${sample.prompt}`;

  /* Shares as the charts have them, where the run's scale is known. */
  function figuresOf(sample, scale) {
    if (!sample.step) return { likeness: null, following: null };
    const likeness = sample.likeness == null || !scale ? null : (sample.likeness - scale.base_likeness) / Math.max(scale.photo_likeness - scale.base_likeness, 1e-6);
    const following = sample.prompt_following == null || !scale?.base_following ? null : sample.prompt_following / Math.max(scale.base_following, 1e-6);
    return { likeness, following };
  }
  const remarkOf = (sample) => (sample.broken ? "Shows nothing" : sample.copied ? "Repeats a photo" : "");
  /* [[key, prompt and, where there are several, seed]] of all samples. */
  function shotsOf(samples) {
    const shots = new Map(samples.map((sample) => [shotOf(sample), sample])), prompts = [...shots.values()].map((sample) => sample.prompt);
    return [...shots].map(([key, { prompt, seed }]) => [key, prompts.filter((other) => other === prompt).length > 1 ? `${prompt} (seed ${seed})` : prompt || "(no prompt)"]);
  }
  const titleOf = (sample) => (sample.step ? capital(candidateText(sample)) : "The base alone");

  /* ---- the table ------------------------------------------------------------------------------------------------- */
  /* `use(candidate)` is called with the step and weight that the user wants. */
  function build({ use }) {
    const view = { run: null, shot: "", key: "", pictures: [], stop: null };
    const choose = make("select", { "aria-label": "Prompt", onchange: () => { view.shot = choose.value; draw(); } });
    const step = (by) => () => { choose.selectedIndex = (choose.selectedIndex + by + choose.options.length) % choose.options.length; view.shot = choose.value; draw(); };
    const before = T.tool("‹", step(-1), { "aria-label": "Previous prompt", title: "Previous prompt" }), after = T.tool("›", step(1), { "aria-label": "Next prompt", title: "Next prompt" });
    const bar = make("div", { class: "at-train-bar at-samples-bar" }, before, choose, after);
    const note = T.note("", { role: "status" });
    const table = make("table", { class: "at-samples-table", onkeydown: onKey });
    const node = make("section", { class: "at-train-card at-samples", "aria-label": "Samples" }, make("h3", {}, "Samples"), bar, note, make("div", { class: "at-samples-scroll" }, table));

    function show(run) {
      view.run = run;
      const shots = shotsOf(run.samples), key = JSON.stringify(shots);
      if (!shots.some(([shot]) => shot === view.shot)) view.shot = shots[0]?.[0] || "";
      if (choose.dataset.key !== key) choose.replaceChildren(...shots.map(([value, text]) => make("option", { value }, text)));
      choose.dataset.key = key;
      choose.value = view.shot;
      bar.hidden = !shots.length;
      before.hidden = after.hidden = shots.length < 2;
      const off = run.config?.validation?.samples === false;
      T.setText(note, shots.length ? (run.picking ? `Writing ${candidateText(run.picking)} as the result.` : "") : off ? "This run draws no samples." : "Appear with the first candidate.");
      draw();
    }
    function draw() {
      const { run, shot } = view, samples = run.samples.filter((sample) => shotOf(sample) === shot);
      const key = JSON.stringify([run.run, shot, samples, run.in_use, foundIn(run), run.candidates, run.picking, run.scale, run.state]);
      if (key === view.key) return;
      view.key = key;
      const focused = table.contains(document.activeElement) ? document.activeElement.closest("td")?.dataset.at : null;
      const weights = [...new Set(samples.filter((one) => one.step).map((one) => one.weight))].sort((one, other) => one - other);
      const steps = [...new Set(samples.filter((one) => one.step).map((one) => one.step))].sort((one, other) => one - other);
      const base = samples.find((one) => !one.step);
      const rows = [...(base ? [["Base", [base]]] : []), ...steps.map((step) => [`Step ${integer(step)}`, weights.map((weight) => samples.find((one) => same(one, { step, weight })) || null)])];
      view.pictures = rows.map(([, cells]) => cells);
      table.replaceChildren(...(rows.length ? [make("thead", {}, make("tr", {}, make("td"), ...weights.map((weight) => make("th", { scope: "col" }, `Weight ${weightText(weight)}`)))),
        make("tbody", {}, ...rows.map(([name, cells], row) => make("tr", {}, make("th", { scope: "row" }, name), ...cells.map((sample, column) => cellOf(sample, row, column)))))] : []));
      const stop = (focused && table.querySelector(`[data-at="${focused}"] .at-sample-open`)) || table.querySelector("[data-used] .at-sample-open") || table.querySelector(".at-sample-open");
      rove(stop, false);
      if (focused) stop?.focus({ preventScroll: true });
    }
    /* Only of a candidate that was kept, and while nothing else works in the run's folder. */
    function canUse(sample) {
      const { run } = view;
      return sample.step > 0 && !same(sample, run.in_use) && !atelierTrainingRun.isActive(run) && !run.picking && (!run.candidates || run.candidates.includes(sample.step));
    }
    function cellOf(sample, row, column) {
      const at = `${row},${column}`;
      if (!sample) return make("td", { "data-at": at });
      const { run } = view, used = sample.step && same(sample, run.in_use), found = sample.step && same(sample, foundIn(run)), { likeness, following } = figuresOf(sample, run.scale);
      const open = make("button", { type: "button", class: "at-sample-open", tabindex: -1, "aria-label": `${titleOf(sample)}: view full size`, onclick: () => lightbox(row, column) },
        make("img", { src: sample.url, alt: "", loading: "lazy", decoding: "async" }));
      const figures = [likeness == null ? null : make("span", { title: "Likeness: 0% is the base's, 100% that of the photos to each other" }, `Like ${share(likeness)}`),
        following == null ? null : make("span", { title: "Prompt-following: 100% is the base's" }, `Prompt ${share(following)}`)];
      const mark = used ? make("span", { class: "at-sample-used" }, run.in_use.by_hand ? "In use, by hand" : "In use") : found ? make("span", { class: "at-sample-found" }, run.choice.preliminary ? "Best so far" : "Found") : null;
      const take = canUse(sample) ? T.tool("Use this one", () => use(sample), { class: "at-sample-use", "aria-label": `Use ${candidateText(sample)}` }) : null;
      return make("td", { "data-at": at, "data-used": used ? true : null, "data-step": sample.step, "data-weight": sample.weight }, open,
        make("div", { class: "at-sample-about" }, ...figures, remarkOf(sample) ? make("span", { class: "at-sample-remark" }, remarkOf(sample)) : null, mark, take));
    }

    /* ---- keys: the pictures are one stop for Tab, arrows go from one to the next ---------------------------------- */
    function rove(to, focus) {
      if (view.stop) view.stop.tabIndex = -1;
      view.stop = to;
      if (!to) return;
      to.tabIndex = 0;
      if (focus) { to.focus({ preventScroll: true }); to.scrollIntoView({ block: "nearest", inline: "nearest" }); }
    }
    /* The picture at or next to that place; null outside. */
    function near(row, column) {
      const cells = view.pictures[row];
      if (!cells || column < 0) return null;
      const at = Math.min(column, cells.length - 1);
      return cells[at] && (column === at || cells.length === 1) ? [row, at] : null;
    }
    function onKey(event) {
      const cell = event.target.closest(".at-sample-open") && event.target.closest("td");
      const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
      if (!cell || !move || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const [row, column] = cell.dataset.at.split(",").map(Number), to = near(row + move[0], column + move[1]);
      if (to) rove(table.querySelector(`[data-at="${to}"] .at-sample-open`), true);
    }

    /* ---- full size ------------------------------------------------------------------------------------------------ */
    function lightbox(row, column) {
      let at = [row, column];
      const image = make("img", { class: "at-fit", onclick: () => image.classList.toggle("at-fit") }), caption = make("span", { role: "status" });
      const button = (label, name, run) => make("button", { type: "button", "aria-label": name, title: name, onclick: run }, label);
      const take = T.tool("Use this one", () => { dialog.close(); use(current()); }, { class: "at-samples-take" });
      const current = () => view.pictures[at[0]][at[1]];
      const go = (rows, columns) => () => { const to = near(at[0] + rows, at[1] + columns); if (to) { at = to; draw(); } };
      function draw() {
        const sample = current(), { likeness, following } = figuresOf(sample, view.run.scale), used = sample.step && same(sample, view.run.in_use);
        image.src = sample.url;
        image.alt = `${titleOf(sample)}: ${sample.prompt}`;
        caption.textContent = [titleOf(sample), used ? "in use" : "", likeness == null ? "" : `likeness ${share(likeness)}`, following == null ? "" : `prompt-following ${share(following)}`, remarkOf(sample), sample.prompt, `seed ${sample.seed}`].filter(Boolean).join(" · ");
        take.hidden = !canUse(sample);
      }
      const dialog = make("dialog", { class: "at-lightbox at-samples-full", "aria-label": "Sample in full size" }, make("div", { class: "at-lightbox-picture" }, image), make("div", { class: "at-lightbox-bar" }, caption),
        make("div", { class: "at-lightbox-bar" }, button("‹", "Smaller weight", go(0, -1)), button("›", "Larger weight", go(0, 1)), button("↑", "Earlier step", go(-1, 0)), button("↓", "Later step", go(1, 0)), take, button("✕", "Close", () => dialog.close())));
      dialog.addEventListener("keydown", (event) => {
        const move = { ArrowRight: go(0, 1), ArrowLeft: go(0, -1), ArrowDown: go(1, 0), ArrowUp: go(-1, 0) }[event.key];
        if (move) { event.preventDefault(); move(); }
      });
      dialog.addEventListener("close", () => {
        dialog.remove();
        rove(table.querySelector(`[data-at="${at}"] .at-sample-open`), true);
      });
      document.querySelector(".at-page").append(dialog);
      draw();
      dialog.showModal();
    }
    return { node, show };
  }
  return { build, shotsOf, shotOf, figuresOf, titleOf };
})();
window.atelierSamples = atelierSamples;
