/* "Try it": what a run has made goes into the form of another tab, as if its card among the models had been clicked. What the
   user has written there stays; an example, which shows something else, gives way. */
"use strict";
const atelierTrial = (() => {
  const { make, byId, visible } = atelier, T = atelierTraining;
  const LOOK_MS = 50, MAX_LOOKS = 200;

  const tabOf = (name) => [...document.querySelectorAll("#tabs [role=tab]")].find((tab) => tab.textContent.trim() === name && visible(tab));
  /* What `find` finds once it is on the page; null if it does not come. */
  async function whenThere(find) {
    for (let look = 0; look < MAX_LOOKS; look += 1) {
      const node = find();
      if (visible(node)) return node;
      await new Promise((done) => setTimeout(done, LOOK_MS));
    }
    return null;
  }
  const stemOf = (path) => path.split(/[\\/]/).at(-1).replace(/\.(safetensors|pt|ckpt|bin)$/, "");
  /* The card that the models' browser would show for it; null for a whole model, which is no part of a prompt. */
  function cardOf(run) {
    if (run.kind === "checkpoint") return null;
    if (run.kind === "embedding") return { kind: "embedding", name: run.tag, names: [run.tag], words: "" };
    const [, name, weight] = run.tag.match(/^<lora:(.+):([^:>]+)>$/) || [null, stemOf(run.adapter), run.best_weight];
    return { kind: "adapter", name, names: [name], words: run.trigger || "", weight: Number(weight) };
  }
  /* `text` with the tag and the trigger in it; an older tag of the same file gives way. */
  function filled(text, card) {
    const once = atelierTags.add("", card);
    if (atelierTags.has(text, card)) {
      if (card.kind === "embedding" || (text.includes(`:${card.name}:${card.weight}>`) && text.includes(card.words))) return text;
      return atelierTags.add(atelierTags.remove(text, card), card);
    }
    return text.trim() ? atelierTags.add(text, card) : once;
  }
  const isExample = (text) => [...document.querySelectorAll(".at-chips button")].some((chip) => chip.textContent === text.trim());
  /* Opens `task` and fills it in. Returns a sentence where that did not work. */
  async function tryIt(run, task) {
    tabOf(task)?.click();
    const area = await whenThere(() => byId(`${task}_prompt`)?.querySelector("textarea"));
    if (!area) return `The tab ${task} did not open.`;
    const card = cardOf(run);
    if (card) {
      area.value = filled(isExample(area.value) ? "" : area.value, card);
      area.dispatchEvent(new Event("input", { bubbles: true }));
    }
    atelierModels.useCheckpoint(card ? run.base : stemOf(run.adapter));
    atelierModels.load();
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
    return "";
  }
  return { tryIt, filled, cardOf, stemOf };
})();
window.atelierTrial = atelierTrial;
