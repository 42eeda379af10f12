// The map: points move between views, a click on a class dims the others, a pointer shows what a point is.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const points = [...document.querySelectorAll(".pt")];
  const tip = document.getElementById("tip");
  if (!data || !points.length) return;

  const pressed = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  const map = document.getElementById("map-points");
  const [width, height] = [map.viewBox.baseVal.width, map.viewBox.baseVal.height];
  let places = Object.values(data.places)[0];
  let zoom = 1, left = 0, top = 0;
  // Points keep their size on the screen, so that zooming separates those that overlap.
  const draw = () => points.forEach((point, i) => {
    point.classList.toggle("gone", places[i] === null);
    if (places[i]) point.style.transform = `translate(${places[i][0]}px,${places[i][1]}px) scale(${1 / zoom})`;
  });
  const view = (factor, x, y) => {
    const next = Math.max(1, Math.min(40, zoom * factor));
    const [a, b] = [left + x * width / zoom, top + y * height / zoom];
    left = Math.max(0, Math.min(width - width / next, a - x * width / next));
    top = Math.max(0, Math.min(height - height / next, b - y * height / next));
    const same = next === zoom;
    zoom = next;
    map.setAttribute("viewBox", `${left} ${top} ${width / zoom} ${height / zoom}`);
    map.classList.toggle("near", zoom > 1);
    if (!same) draw();
  };
  const controls = document.createElement("div");
  controls.className = "controls";
  controls.id = "map-zoom";
  [["+", "zoom in", 2], ["−", "zoom out", 0.5], ["whole map", "show the whole map", 0]].forEach(([text, label, factor]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", label);
    button.addEventListener("click", () => view(factor, 0.5, 0.5));
    controls.append(button);
  });
  map.before(controls);
  map.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return; // the page scrolls
    event.preventDefault();
    const box = map.getBoundingClientRect();
    view(2 ** (-event.deltaY / 100), (event.clientX - box.x) / box.width, (event.clientY - box.y) / box.height);
  }, { passive: false });
  let grip = null, dragged = false;
  map.addEventListener("pointerdown", (event) => { grip = zoom > 1 ? [event.clientX, event.clientY] : null; dragged = false; });
  map.addEventListener("pointermove", (event) => {
    if (!grip || !event.buttons) return;
    const box = map.getBoundingClientRect();
    const [dx, dy] = [event.clientX - grip[0], event.clientY - grip[1]];
    if (!dragged && Math.hypot(dx, dy) < 4) return;
    dragged = true;
    left -= dx / box.width * width / zoom;
    top -= dy / box.height * height / zoom;
    grip = [event.clientX, event.clientY];
    view(1, 0, 0);
  });
  map.addEventListener("click", (event) => { if (dragged) event.preventDefault(); }, true);
  map.addEventListener("dragstart", (event) => event.preventDefault());

  const views = [...document.querySelectorAll("#map-views button")];
  views.forEach((button) => button.addEventListener("click", () => {
    pressed(views, button);
    places = data.places[button.dataset.view];
    draw();
    document.getElementById("map-axes").textContent = data.axes[button.dataset.view];
  }));

  const legend = [...document.querySelectorAll("#map-legend button")];
  const chosen = new Set();
  const dim = () => points.forEach((p) => p.classList.toggle("off", chosen.size > 0 && !chosen.has(p.dataset.k)));
  legend.forEach((button) => button.addEventListener("click", () => {
    const k = button.dataset.k;
    if (!chosen.delete(k)) chosen.add(k);
    button.setAttribute("aria-pressed", String(chosen.has(k)));
    dim();
  }));

  const show = (event) => {
    const i = event.target.dataset.i;
    if (i === undefined) { tip.hidden = true; return; }
    tip.replaceChildren();
    if (data.thumbnails[i]) {
      const picture = document.createElement("img");
      picture.src = data.thumbnails[i];
      tip.append(picture);
    }
    const name = document.createElement("b");
    name.textContent = data.labels[i] || "no label";
    const id = document.createElement("code");
    id.textContent = data.ids[i];
    tip.append(name, ` · ${data.splits[i]}`, document.createElement("br"), id);
    if (data.named[i] && data.named[i] !== data.labels[i]) {
      const wrong = document.createElement("div");
      wrong.className = "bad";
      wrong.textContent = `named ${data.named[i]}`;
      tip.append(wrong);
    }
    tip.hidden = false;
    const box = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
    tip.style.top = `${Math.max(8, event.clientY + 14 + box.height > innerHeight ? event.clientY - box.height - 14 : event.clientY + 14)}px`;
  };
  ["pointermove", "pointerdown"].forEach((kind) => map.addEventListener(kind, show));
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
