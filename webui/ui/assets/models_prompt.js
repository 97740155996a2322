/* Tags and words of models in and out of a prompt: text in, text out. */
"use strict";
const atelierTags = (() => {
  const TAGS = { adapter: "lora|lyco", hypernetwork: "hypernet" };
  const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  const anyOf = (names) => [...names].sort((one, other) => other.length - one.length).map(escaped).join("|");
  const tag = (card, flags) => new RegExp(`\\s*<(?:${TAGS[card.kind]})\\s*:\\s*(?:${anyOf(card.names)})\\s*(?::[^>]*)?>`, flags);
  const word = (card, flags) => new RegExp(`\\(\\s*(?:${anyOf(card.names)})\\s*(?::\\s*[\\d.]+\\s*)?\\)|(?<![\\w-])(?:${anyOf(card.names)})(?![\\w-])`, flags);
  const weightOf = (card) => String(Math.round(card.weight * 1000) / 1000);

  /* Lower-case names of the tags in a prompt, so that a thousand cards need no thousand searches. */
  const named = (text) => new Set([...text.matchAll(/<\w+\s*:\s*([^:>]+?)\s*(?::[^>]*)?>/g)].map((match) => match[1].toLowerCase()));

  function has(text, card, names = named(text)) {
    if (card.kind in TAGS) return card.names.some((name) => names.has(name.toLowerCase())) && tag(card, "i").test(text);
    const lower = text.toLowerCase();
    return card.names.some((name) => lower.includes(name.toLowerCase())) && word(card, "i").test(text);
  }
  const join = (text, more) => (!more ? text : !text.trim() ? more : `${text.replace(/[\s,]+$/, "")}, ${more}`);

  function add(text, card) {
    if (!(card.kind in TAGS)) return join(text, card.name);
    const words = card.words && !text.includes(card.words) ? card.words : "";
    const name = TAGS[card.kind].split("|")[0];
    return `${join(text, words)} <${name}:${card.name}:${weightOf(card)}>`.trim();
  }
  function remove(text, card) {
    if (!(card.kind in TAGS)) return without(text, word(card, "gi"));
    const rest = text.replace(tag(card, "gi"), "");
    return card.words ? withoutWords(rest, card.words) : rest.trim();
  }
  const withoutWords = (text, words) => without(text, new RegExp(`(?<![\\w-])${escaped(words)}(?![\\w-])`, "g"));
  /* What matches goes, and one of the commas around it. */
  function without(text, pattern) {
    return text.replace(new RegExp(`\\s*,\\s*(?:${pattern.source})|(?:${pattern.source})\\s*,?\\s*`, pattern.flags), "").trim();
  }
  return { has, add, remove, join, named, withoutWords };
})();
