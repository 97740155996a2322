/* Two runs beside each other: their curves in one chart, the settings in which they differ, and samples of the same prompt. */
"use strict";
const atelierCompare = (() => {
  const { make } = atelier, { chart, smooth, percent, integer } = atelierCharts, { lossOf, errorsOf, candidatesOf, tableOf, weightText, same } = atelierCurves;
  const { shotsOf, shotOf, figuresOf, titleOf } = atelierSamples, { settingsOf } = atelierTrainingRun, T = atelierTraining;
  const TONES = [1, 2];

  /* A run's highest value of each step, whatever the weight. */
  function bestOf(run, measure) {
    const best = new Map();
    for (const [, points] of candidatesOf(run, measure)) for (const [step, value] of points) best.set(step, Math.max(value, best.get(step) ?? -Infinity));
    return [...best].sort(([one], [other]) => one - other);
  }
  const nameOf = (run) => run.run;
  function build(...runs) {
    const last = Math.max(...runs.map((run) => run.num_steps));
    const charts = [
      [chart({ title: "Loss, smoothed", about: "Only alike where photos, base and loss are." }), (run) => smooth(lossOf(run)), false],
      [chart({ title: "Error on photos kept back", empty: "No photos were kept back." }), (run) => errorsOf(run).held, true],
      [chart({ title: "Likeness, best weight", write: percent, tick: percent, floor: 0, empty: "No samples were drawn." }), (run) => bestOf(run, "likeness"), true],
      [chart({ title: "Prompt-following, best weight", write: percent, tick: percent, empty: "No samples were drawn." }), (run) => bestOf(run, "following"), true],
    ];
    for (const [one, pointsOf, dots] of charts) one.show({ last, series: runs.map((run, at) => ({ name: nameOf(run), points: pointsOf(run), tone: TONES[at], dots })) });
    return make("div", { class: "at-run at-compare-runs" },
      make("section", { class: "at-train-card", "aria-label": "Curves" }, make("h3", {}, runs.map(nameOf).join(" and ")), make("div", { class: "at-charts" }, ...charts.map(([one]) => one.node))),
      differences(runs), samplesOf(runs));
  }
  function differences(runs) {
    const [one, other] = runs.map((run) => new Map(settingsOf(run.config))), names = [...new Set([...one.keys(), ...other.keys()])];
    const rows = names.filter((name) => one.get(name) !== other.get(name)).map((name) => [name, one.get(name) ?? "–", other.get(name) ?? "–"]);
    return make("section", { class: "at-train-card", "aria-label": "Settings that differ" }, make("h3", {}, "Settings that differ"),
      rows.length ? make("div", { class: "at-run-table" }, tableOf(["Setting", ...runs.map(nameOf)], rows)) : T.note("None: all settings are the same."));
  }

  /* ---- samples of the same prompt, each run's own step and weight -------------------------------------------------- */
  function samplesOf(runs) {
    const shared = shotsOf(runs[0].samples).filter(([key]) => runs[1].samples.some((sample) => shotOf(sample) === key));
    const node = make("section", { class: "at-train-card at-samples", "aria-label": "Samples of the same prompt" }, make("h3", {}, "Samples of the same prompt"));
    if (!shared.length) {
      node.append(T.note("No prompt with the same seed was drawn by both."));
      return node;
    }
    const choose = make("select", { "aria-label": "Prompt", onchange: () => sides.forEach((side) => side.draw()) }, ...shared.map(([value, text]) => make("option", { value }, text)));
    const sides = runs.map((run) => sideOf(run, choose));
    node.append(make("div", { class: "at-train-bar at-samples-bar" }, choose), make("div", { class: "at-compare-sides" }, ...sides.map((side) => side.node)));
    return node;
  }
  function sideOf(run, choose) {
    const mine = () => run.samples.filter((sample) => shotOf(sample) === choose.value);
    const keyOf = (sample) => `${sample.step} ${sample.weight}`;
    const candidate = make("select", { "aria-label": `Step and weight of ${nameOf(run)}`, onchange: draw });
    const image = make("img", { alt: "" }), about = T.note();
    function draw() {
      const samples = mine(), wanted = samples.find((one) => keyOf(one) === candidate.value) || samples.find((one) => same(one, run.in_use || run.choice)) || samples.at(-1);
      candidate.replaceChildren(...samples.map((one) => make("option", { value: keyOf(one) }, one.step ? `Step ${integer(one.step)}, weight ${weightText(one.weight)}` : "The base alone")));
      candidate.value = keyOf(wanted);
      const { likeness, following } = figuresOf(wanted, run.scale);
      image.src = wanted.url;
      image.alt = `${nameOf(run)}, ${titleOf(wanted)}`;
      T.setText(about, [likeness == null ? "" : `Likeness ${percent(likeness)}`, following == null ? "" : `prompt-following ${percent(following)}`].filter(Boolean).join(" · "));
    }
    draw();
    return { node: make("figure", { class: "at-compare-side" }, make("figcaption", {}, make("strong", {}, nameOf(run)), candidate), image, about), draw };
  }
  return { build };
})();
window.atelierCompare = atelierCompare;
