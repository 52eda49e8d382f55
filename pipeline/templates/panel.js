"use strict";
(() => {
  const form = document.getElementById("own");
  const [judge, note] = ["own-judge", "own-note"].map((id) => document.getElementById(id));
  const points = [...form.querySelectorAll("[data-target]")];
  const said = document.getElementById("said");
  let unsaved = false;

  const show = (panel) => {
    points.forEach((field) => { field.value = panel.scores[field.dataset.target] ?? ""; });
    judge.value = panel.judge;
    note.value = panel.note;
  };
  const ask = async (options) => {
    let answer;
    try {
      answer = await fetch(form.dataset.place, options);
    } catch (error) {
      throw new Error("The server does not answer.");
    }
    if (!answer.ok) throw new Error(answer.status === 401 ? "Reload the page and give the token." : await answer.text());
    return answer.json();
  };

  form.inert = true;  // until what is kept is shown
  ask().then((panel) => { show(panel); form.inert = false; }).catch((error) => { said.textContent = error.message; });

  form.addEventListener("input", () => { unsaved = true; said.textContent = "Not saved yet."; });
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const filled = points.filter((field) => field.value !== "");
    const scores = Object.fromEntries(filled.map((field) => [field.dataset.target, Number(field.value)]));
    const body = JSON.stringify({ scores, judge: judge.value, note: note.value });
    try {
      await ask({ method: "PUT", body });
      unsaved = false;
      said.textContent = "Saved.";
    } catch (error) {
      said.textContent = error.message;
    }
  });
  window.addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
})();
