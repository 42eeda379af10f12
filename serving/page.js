"use strict";
// Without this script the form works too: it then shows the result on a new page.
(() => {
  const byId = (id) => document.getElementById(id);
  const form = byId("upload"), input = byId("file");
  const show = (id, shown) => { byId(id).hidden = !shown; };
  const problem = (text) => { byId("problem").textContent = text; };

  form.addEventListener("submit", (event) => {
    if (!input.files.length) return;
    event.preventDefault();
    judge(input.files[0]);
  });
  for (const kind of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      form.classList.toggle("over", kind === "dragover");
      if (kind === "drop" && event.dataTransfer.files.length) judge(event.dataTransfer.files[0]);
    });
  }

  async function judge(file) {
    problem("");
    show("result", false);
    show("streams", true);
    for (const item of document.querySelectorAll("[data-stream] span")) item.textContent = "waiting";
    try {
      const answer = await fetch("v1/jobs", { method: "POST", body: file, headers: { "content-type": "application/octet-stream" } });
      const body = await answer.json();
      if (!answer.ok) throw new Error(body.detail);
      await follow(body.id);
    } catch (error) {
      problem(error.message || "the service was not reached");
      show("streams", false);
    }
  }

  function follow(id) {
    return new Promise((done, fail) => {
      const events = new EventSource(`v1/jobs/${encodeURIComponent(id)}/events`);
      events.addEventListener("stream", (event) => {
        const told = JSON.parse(event.data);
        const item = document.querySelector(`[data-stream="${CSS.escape(told.stream)}"] span`);
        if (item) item.textContent = told.present ? `done after ${told.seconds} s` : `missing (${told.reason})`;
      });
      events.addEventListener("result", (event) => { events.close(); result(JSON.parse(event.data)); done(); });
      events.addEventListener("failed", (event) => { events.close(); fail(new Error(JSON.parse(event.data).detail)); });
    });
  }

  function result(found) {
    byId("label").textContent = found.label || "not sure";
    byId("top").replaceChildren(...found.top.map((choice) => {
      const row = document.createElement("tr"), name = document.createElement("td"), value = document.createElement("td");
      name.textContent = choice.label;
      const bar = document.createElement("meter");
      bar.max = 1;
      bar.value = choice.probability || 0;
      value.append(bar, ` ${(choice.probability === undefined ? choice.score : choice.probability).toFixed(2)}`);
      row.append(name, value);
      return row;
    }));
    const words = Object.entries(found.masked).map(([name, reason]) => `Without ${name} (${reason}).`);
    if (!found.complete) words.push("Incomplete: a service was not reached.");
    if (found.calibrated_for) words.push(`Probabilities are calibrated for ${found.calibrated_for}.`);
    byId("masks").textContent = words.join(" ");
    show("result", true);
  }
})();
