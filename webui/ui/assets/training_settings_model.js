/* The settings of a training as values by dotted name: those of the preset, and what the user has put in their place. */
"use strict";
const atelierTrainingModel = (() => {
  const IDENTITY = ["name", "base", "subject", "data.photos", "data.trigger", "network.method"];
  const isPart = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

  /* {data: {flip: true}} as {"data.flip": true}. */
  function flat(config) {
    const values = {};
    for (const [section, part] of Object.entries(config)) {
      if (!isPart(part)) values[section] = part;
      else for (const [name, value] of Object.entries(part)) values[`${section}.${name}`] = value;
    }
    return values;
  }
  function nested(values) {
    const config = {};
    for (const [name, value] of Object.entries(values)) {
      const [section, field] = name.split(".");
      if (field === undefined) config[section] = value;
      else (config[section] ||= {})[field] = value;
    }
    return config;
  }
  /* What `values` have otherwise than `origin`; what a run is and is called counts apart. */
  const changesOf = (values, origin) =>
    Object.fromEntries(Object.entries(values).filter(([name, value]) => !IDENTITY.includes(name) && name in origin && !same(value, origin[name])));
  /* The user's changes over another preset: {own, taken}. With `yields`, what the new one has otherwise than the old one is
     `taken` from it; all else the user keeps. */
  function carried(own, old, origin, yields) {
    const taken = yields ? Object.keys(own).filter((name) => old && name in origin && !same(old[name], origin[name])) : [];
    const kept = Object.fromEntries(Object.entries(own).filter(([name]) => !taken.includes(name)));
    return { own: changesOf(kept, origin), taken };
  }
  /* What goes into captions and prompts, as the server fills it in. */
  function filled(text, trigger, word) {
    const words = text.replaceAll("{trigger}", trigger).replaceAll("{class}", word);
    return words.replace(/\s+/g, " ").replace(/ ([,.])/g, "$1").replace(/^[ ,]+|[ ,]+$/g, "");
  }
  /* A name that a file may have, or "". */
  const fileName = (text) => text.replace(/[^\p{L}\p{N}_ .-]+/gu, "-").replace(/^[^\p{L}\p{N}_]+/u, "").trim().slice(0, 64);
  const amount = (bytes) => (bytes < 1e6 ? `${Math.max(1, Math.round(bytes / 1e3))} kB` : bytes < 1e9 ? `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB` : `${(bytes / 1e9).toFixed(1)} GB`);
  const number = (value) => (Math.abs(value) >= 1000 ? value.toLocaleString("en") : String(value));
  return { IDENTITY, flat, nested, changesOf, carried, same, filled, fileName, amount, number };
})();
