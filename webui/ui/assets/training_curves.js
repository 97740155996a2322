/* What a run has measured, as charts and tables: how it learns, and which step is the best. */
"use strict";
const atelierCurves = (() => {
  const { make } = atelier, { chart, smooth, figure, percent, integer } = atelierCharts, T = atelierTraining;
  const PARTS = { unet: "U-Net", text_encoder: "Text encoder", embedding: "Embedding" };
  const ALL = "", SIDES = { trained: "Trained on", "held out": "Kept back" };
  const percentTick = (value) => `${+(100 * value).toFixed(1)}%`;
  const weightText = (weight) => String(+weight.toFixed(3));
  const candidateText = ({ step, weight }) => `step ${integer(step)} at weight ${weightText(weight)}`;
  const same = (one, other) => !!one && !!other && one.step === other.step && one.weight === other.weight;
  /* What the measures found, whether or not the user has overruled it; null where nothing was measured. */
  const foundIn = (run) => (run.choice?.by_hand ? run.choice.overruled : run.choice) || null;
  const capital = (text) => text && text[0].toUpperCase() + text.slice(1);

  const lossOf = (run) => run.losses.map(([step, loss]) => [step, loss]);
  /* Trained on and kept back; `band` is a range of noise levels as the run names it. */
  function errorsOf(run, band = ALL) {
    const points = (value) => run.validation.map((one) => [one.step, value(one)]).filter(([, y]) => y != null);
    if (band) return { trained: points((one) => one.bands?.[`trained ${band}`]), held: points((one) => one.bands?.[`held out ${band}`]), baseTrained: [], baseHeld: [] };
    return { trained: points((one) => one.train), held: points((one) => one.held_out), baseTrained: fromStart(points((one) => one.base_train)), baseHeld: fromStart(points((one) => one.base_held_out)) };
  }
  const fromStart = (points) => (points.length ? [[0, points[0][1]], ...points] : []); // the base is what step 0 is
  const bandsOf = (run) => [...new Set(run.validation.flatMap((one) => Object.keys(one.bands || {})).map((name) => name.replace(/^(trained|held out) /, "")))];
  /* The candidates' lines, one per weight; `measure` is "likeness" or "following". */
  function candidatesOf(run, measure) {
    const rows = (run.choice?.rows || []).filter((row) => row[measure] != null), lines = new Map();
    for (const row of [...rows].sort((one, other) => one.step - other.step)) lines.set(row.weight, [...(lines.get(row.weight) || []), [row.step, row[measure]]]);
    return [...lines].sort(([one], [other]) => one - other);
  }
  /* Which candidate is used, and which ones were found instead or next. */
  function marksOf(run, measure) {
    const { choice, in_use: used } = run;
    if (!choice) return [];
    const yOf = (one) => choice.rows.find((row) => same(row, one))?.[measure];
    const mark = (one, kind, name) => ({ x: one.step, y: yOf(one), kind, name });
    const chosen = used?.by_hand ? [mark(used, "chosen", "In use, chosen by hand"), ...(choice.overruled ? [mark(choice.overruled, "found", "Found by the measures")] : [])] : [mark(choice, "chosen", choice.preliminary ? "Best so far" : "Chosen")];
    return [...chosen, ...choice.runners_up.map((one) => mark(one, "next", "Runner-up"))].filter((one) => one.y != null);
  }

  /* ---- the charts of one run ------------------------------------------------------------------------------------- */
  function build() {
    let run = null;
    const bands = make("select", { "aria-label": "Noise levels", title: "Errors at all noise levels, or at some: low ones are of details, high ones of the composition", onchange: () => drawErrors() });
    const charts = {
      loss: chart({ title: "Loss", about: "Of the photos and noise levels that the steps drew. It jumps with the levels; what counts is the smoothed line.", empty: "Appears with the first steps." }),
      norm: chart({ title: "Gradient norm", about: "Length of the gradient before it is cut to the limit. Peaks that grow are a sign of a learning rate that is too high.", floor: 0, empty: "Appears with the first steps." }),
      rates: chart({ title: "Learning rate", about: "Of each part that is trained.", floor: 0, empty: "Appears with the first steps." }),
      errors: chart({ title: "Error on photos", about: "Always the same noise levels and noise. Where the line of the photos kept back rises while the other falls, the photos are learned by heart.",
        tools: bands, empty: "Appears with the first candidate." }),
      likeness: chart({ title: "Likeness", about: "Of the samples to the photos: 0% is what the base draws, 100% what photos have among each other. A line per weight.", write: percent, tick: percentTick, floor: 0,
        empty: "Appears with the first candidate, if samples are drawn." }),
      following: chart({ title: "Prompt-following", about: "Whether the samples show what their prompts ask for: 100% is as well as the base's own. A line per weight.", write: percent, tick: percentTick,
        empty: "Appears with the first candidate, if samples are drawn." }),
    };
    const why = make("div", { class: "at-run-why" });
    const candidates = make("div", { class: "at-run-table" });
    const all = make("details", { class: "at-chart-table", hidden: true }, make("summary", {}, "All candidates"), candidates);
    all.addEventListener("toggle", () => { if (all.open) drawCandidates(); });
    const learning = make("section", { class: "at-train-card", "aria-label": "How it learns" }, make("h3", {}, "How it learns"), make("div", { class: "at-charts" }, charts.loss.node, charts.norm.node, charts.rates.node));
    const choosing = make("section", { class: "at-train-card", "aria-label": "Which step" }, make("h3", {}, "Which step"),
      make("div", { class: "at-charts" }, charts.errors.node, charts.likeness.node, charts.following.node), why, all);

    function drawErrors() {
      const { trained, held, baseTrained, baseHeld } = errorsOf(run, bands.value);
      const last = held.at(-1) || trained.at(-1);
      charts.errors.show({ last: run.num_steps, now: last ? figure(last[1]) : "", series: [
        { name: SIDES.trained, points: trained, tone: 2, dots: true }, { name: SIDES["held out"], points: held, tone: 1, dots: true },
        { name: "Base on these", points: baseTrained, tone: 2, line: "dashed" }, { name: "Base on those kept back", points: baseHeld, tone: 1, line: "dashed" }] });
    }
    function drawBands() {
      const found = bandsOf(run), key = found.join();
      bands.hidden = found.length < 2;
      if (bands.dataset.key === key) return;
      const chosen = bands.value;
      bands.dataset.key = key;
      bands.replaceChildren(make("option", { value: ALL }, "All noise levels"), ...found.map((band, at) => make("option", { value: band }, `${band}${at === 0 ? " (details)" : at === found.length - 1 ? " (composition)" : ""}`)));
      bands.value = found.includes(chosen) ? chosen : ALL;
    }
    function drawMeasure(name) {
      const lines = candidatesOf(run, name), best = run.choice?.rows.find((row) => same(row, run.in_use || run.choice));
      charts[name].show({ last: run.num_steps, now: best?.[name] != null ? percent(best[name]) : "", marks: marksOf(run, name),
        series: lines.map(([weight, points], at) => ({ name: `Weight ${weightText(weight)}`, points, tone: (at % 6) + 1, dots: true })) });
    }
    function drawWhy() {
      const { choice, in_use: used } = run, found = foundIn(run), key = JSON.stringify([choice, used]);
      if (why.dataset.key === key) return;
      why.dataset.key = key;
      why.hidden = !choice;
      all.hidden = !choice?.rows.length;
      if (!choice) return why.replaceChildren();
      const byHand = used?.by_hand ? make("p", {}, make("strong", {}, "In use: "), `${candidateText(used)}, chosen by hand.`) : null;
      const head = choice.preliminary ? "Best so far: " : used?.by_hand ? "Found by the measures: " : "Chosen: ";
      const told = found || choice, next = choice.runners_up.map((one) => make("li", {}, make("b", {}, `${capital(candidateText(one))}: `), one.reason));
      why.replaceChildren(...[byHand, found ? make("p", {}, make("strong", {}, head), found.reason) : null, told.warning ? make("p", { class: "at-run-warning" }, told.warning) : null,
        next.length ? make("h4", {}, "Runners-up") : null, next.length ? make("ul", {}, ...next) : null].filter(Boolean));
      if (all.open) drawCandidates();
    }
    function drawCandidates() {
      const share = (value) => (value == null ? "" : percent(value)), rows = [...run.choice.rows].sort((one, other) => one.step - other.step || one.weight - other.weight);
      const compared = (gain) => (gain == null ? "" : `${Math.abs(100 * gain).toFixed(1)}% ${gain >= 0 ? "below" : "above"} the base's`);
      const note = (row) => [same(row, run.in_use) ? "in use" : "", same(row, foundIn(run)) ? "found" : "", row.out].filter(Boolean).join("; ");
      candidates.replaceChildren(tableOf(["Step", "Weight", "Score", "Likeness", "Prompt-following", "Error, kept back", "Copies of photos", "Remark"],
        rows.map((row) => [integer(row.step), weightText(row.weight), row.score == null ? "" : row.score.toFixed(3), share(row.likeness), share(row.following), compared(row.gain), share(row.copied), capital(note(row))])));
    }
    function show(news) {
      run = news;
      const raw = lossOf(run), smoothed = smooth(raw);
      charts.loss.show({ last: run.num_steps, now: smoothed.length ? figure(smoothed.at(-1)[1]) : "", series: [{ name: "Each report", points: raw, tone: 1, line: "faint" }, { name: "Smoothed", points: smoothed, tone: 1 }] });
      const norms = run.losses.map(([step, , norm]) => [step, norm]);
      charts.norm.show({ last: run.num_steps, now: norms.length ? figure(norms.at(-1)[1]) : "", series: [{ name: "Each report", points: norms, tone: 3, line: "faint" }, { name: "Smoothed", points: smooth(norms), tone: 3 }] });
      const rates = Object.entries(run.rates || {});
      charts.rates.show({ last: run.num_steps, now: rates.length && rates[0][1].length ? figure(rates[0][1].at(-1)[1]) : "", series: rates.map(([part, points], at) => ({ name: PARTS[part] || part, points, tone: at + 1 })) });
      drawBands();
      drawErrors();
      drawMeasure("likeness");
      drawMeasure("following");
      drawWhy();
    }
    return { learning, choosing, show };
  }

  const tableOf = (heads, rows) => make("table", { class: "at-run-figures" }, make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map((text, at) => make(at ? "td" : "th", at ? {} : { scope: "row" }, text))))));
  return { build, lossOf, errorsOf, candidatesOf, tableOf, weightText, candidateText, same, foundIn, capital };
})();
window.atelierCurves = atelierCurves;
