// The map: points move between views, a click on a class dims the others, a pointer shows what a point is.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const points = [...document.querySelectorAll(".pt")];
  const tip = document.getElementById("tip");
  if (!data || !points.length) return;

  const pressed = (buttons, chosen) => buttons.forEach((b) => b.setAttribute("aria-pressed", String(b === chosen)));

  const views = [...document.querySelectorAll("#map-views button")];
  views.forEach((button) => button.addEventListener("click", () => {
    pressed(views, button);
    const places = data.places[button.dataset.view];
    points.forEach((point, i) => {
      point.classList.toggle("gone", places[i] === null);
      if (places[i]) point.style.transform = `translate(${places[i][0]}px,${places[i][1]}px)`;
    });
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
  const map = document.getElementById("map-points");
  ["pointermove", "pointerdown"].forEach((kind) => map.addEventListener(kind, show));
  map.addEventListener("pointerleave", () => { tip.hidden = true; });
  addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
})();
