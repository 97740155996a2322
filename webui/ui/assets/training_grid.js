/* A grid of thousands of photos: only the rows in sight are in the page. One stop for Tab; arrows go from photo to photo. */
"use strict";
const atelierTrainingGrid = (() => {
  const { make } = atelier;
  const SMALLEST_PX = 132, GAP_PX = 8, BEYOND_ROWS = 3, SETTLED_MS = 120;

  /* `makeTile(photo)` gives {node, draw(photo), load(), drop()}; `node` holds the button first. Pictures are loaded once the
     scrolling has come to rest, and those on their way are given up when their tile goes. */
  function grid({ label, makeTile }) {
    const list = make("ul", { class: "at-photo-grid", role: "list", "aria-label": label });
    const box = make("div", { class: "at-photo-scroll" }, list);
    let photos = [], tiles = new Map(), columns = 1, side = SMALLEST_PX, active = 0, waiting = 0, settling = 0;

    function measure() {
      const width = list.clientWidth;
      columns = Math.max(1, Math.floor((width + GAP_PX) / (SMALLEST_PX * (width < 480 ? 0.75 : 1) + GAP_PX)));
      side = Math.max(40, (width - GAP_PX * (columns - 1)) / columns);
      const rows = Math.ceil(photos.length / columns);
      list.style.height = `${Math.max(0, rows * (side + GAP_PX) - GAP_PX)}px`;
    }
    function render() {
      waiting = 0;
      if (!box.clientWidth && photos.length) return;
      const pitch = side + GAP_PX, first = Math.floor(box.scrollTop / pitch) - BEYOND_ROWS, last = Math.ceil((box.scrollTop + box.clientHeight) / pitch) + BEYOND_ROWS;
      const from = Math.max(0, first * columns), to = Math.min(photos.length, last * columns);
      const wanted = new Set(Array.from({ length: Math.max(0, to - from) }, (_, at) => from + at));
      if (list.contains(document.activeElement) && active < photos.length) wanted.add(active); // the focus stays where it is
      const kept = new Map();
      for (const at of [...wanted].sort((one, other) => one - other)) {
        const photo = photos[at], tile = tiles.get(photo.name) || makeTile(photo);
        tile.draw(photo);
        const { style } = tile.node;
        style.width = style.height = `${side}px`;
        style.transform = `translate(${(at % columns) * pitch}px, ${Math.floor(at / columns) * pitch}px)`;
        tile.node.setAttribute("aria-posinset", at + 1);
        tile.node.setAttribute("aria-setsize", photos.length);
        for (const control of tile.node.children) if ("tabIndex" in control) control.tabIndex = at === active ? 0 : -1;
        kept.set(photo.name, tile);
      }
      for (const [name, tile] of tiles) if (!kept.has(name)) { tile.node.remove(); tile.drop(); }
      let next = list.firstChild;
      for (const tile of kept.values()) {
        if (tile.node === next) next = next.nextSibling;
        else list.insertBefore(tile.node, next);
      }
      tiles = kept;
      clearTimeout(settling);
      settling = setTimeout(() => { for (const tile of tiles.values()) tile.load(); }, SETTLED_MS);
    }
    const later = () => { waiting ||= requestAnimationFrame(render); };
    function reach(at) {
      active = Math.max(0, Math.min(photos.length - 1, at));
      const pitch = side + GAP_PX, top = Math.floor(active / columns) * pitch;
      if (top < box.scrollTop) box.scrollTop = top;
      else if (top + side > box.scrollTop + box.clientHeight) box.scrollTop = top + side - box.clientHeight;
      render();
      tiles.get(photos[active]?.name)?.node.firstChild.focus({ preventScroll: true });
    }
    list.addEventListener("focusin", (event) => {
      const at = photos.findIndex((photo) => tiles.get(photo.name)?.node.contains(event.target));
      if (at >= 0 && at !== active) { active = at; render(); }
    });
    list.addEventListener("keydown", (event) => {
      const page = columns * Math.max(1, Math.floor(box.clientHeight / (side + GAP_PX)));
      const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -active, End: photos.length - 1 - active }[event.key];
      if (by === undefined || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const target = active + by;
      if (target >= 0 && target < photos.length) reach(target);
      else if (event.key.startsWith("Page")) reach(target);
    });
    box.addEventListener("scroll", later, { passive: true });
    new ResizeObserver(() => { measure(); render(); }).observe(box);
    function show(next) {
      photos = next;
      active = Math.max(0, Math.min(active, photos.length - 1));
      list.dataset.count = photos.length;
      measure();
      render();
    }
    const focus = (name) => { const at = photos.findIndex((photo) => photo.name === name); if (at >= 0) reach(at); };
    return { node: box, show, focus, redraw: render };
  }
  return { grid };
})();
