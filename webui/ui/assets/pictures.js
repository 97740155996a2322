/* Upload fields for pictures: previews with a button to take each out, and where to open, drop or paste more. */
"use strict";
const atelierPictures = (() => {
  const { make } = atelier;
  const fields = new Set();

  function mount({ element, props, trigger, upload, watch, label, info, multiple }) {
    const box = element.querySelector(".at-pictures");
    const opens = multiple ? "Open pictures, or drop or paste them" : "Open a picture, or drop or paste one";
    const list = make("ul", { class: "at-pictures-list" }), note = make("p", { class: "at-pictures-note", role: "status" });
    const input = make("input", { type: "file", accept: "image/*", multiple, "aria-label": `${label}: ${opens}`, onchange: () => { add(input.files); input.value = ""; } });
    const open = make("label", { class: "at-pictures-open", tabindex: 0 }, input, make("span", {}, opens));
    const field = { box, coming: Promise.resolve() };
    const files = () => props.value?.files || [];
    const set = (next) => { props.value = { files: next }; draw(); trigger("change"); };

    box.setAttribute("aria-label", label);
    box.replaceChildren(make("div", { class: "at-pictures-head" }, make("span", {}, label), info ? make("small", {}, info) : null), list, open, note);
    function draw() {
      box.dataset.count = files().length;
      list.hidden = !files().length;
      list.replaceChildren(...files().map((file, at) => {
        const name = file.orig_name || "picture";
        const image = make("img", { src: file.url || "", alt: name, title: name, onerror: () => item.classList.add("at-unshown") });
        const item = make("li", {}, image, make("span", {}, name),
          make("button", { type: "button", "aria-label": `Remove ${name}`, title: "Remove", onclick: () => set(files().filter((_, other) => other !== at)) }, "✕"));
        return item;
      }));
    }
    function add(chosen) {
      const wanted = [...chosen].filter((file) => file.type.startsWith("image/") || !file.type);
      if (!wanted.length) { note.textContent = chosen.length ? "This is not a picture." : ""; return; }
      const kept = multiple ? wanted : wanted.slice(0, 1);
      note.textContent = "Uploading";
      box.dataset.busy = "1";
      // One after the other, so that two drops in a row do not overwrite one another.
      field.coming = field.coming.catch(() => {}).then(async () => {
        try {
          const sent = [];
          for (const file of kept) {
            const { path, url } = await upload(file);
            sent.push({ path, url, orig_name: file.name, meta: { _type: "gradio.FileData" } });
          }
          set(multiple ? [...files(), ...sent] : sent);
          note.textContent = "";
        } catch (error) {
          note.textContent = `It could not be uploaded: ${error.message || error}`;
          throw error;
        } finally {
          delete box.dataset.busy;
        }
      });
      field.coming.catch(() => {});
    }
    box.addEventListener("dragover", (event) => { if (event.dataTransfer?.types.includes("Files")) { event.preventDefault(); box.classList.add("at-over"); } });
    box.addEventListener("dragleave", () => box.classList.remove("at-over"));
    box.addEventListener("drop", (event) => {
      event.preventDefault();
      event.stopPropagation();
      box.classList.remove("at-over");
      add(event.dataTransfer.files);
    });
    box.addEventListener("paste", (event) => { if (event.clipboardData?.files.length) { event.preventDefault(); add(event.clipboardData.files); } });
    open.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); input.click(); } });
    watch("value", draw);
    draw();
    for (const old of fields) if (!old.box.isConnected) fields.delete(old);
    fields.add(field);
  }
  /* Until all pictures on the page have arrived; fails if one did not. */
  async function flush() {
    for (const field of fields) {
      if (!field.box.isConnected) continue;
      try {
        await field.coming;
      } catch (error) {
        field.coming = Promise.resolve(); // it has been said; the next press goes on without the picture
        field.box.scrollIntoView({ block: "nearest" });
        throw error;
      }
    }
    return [];
  }
  return { mount, flush };
})();
window.atelierPictures = atelierPictures;
