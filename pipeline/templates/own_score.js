"use strict";
(() => {
  const form = document.getElementById("own");
  const fields = [...form.querySelectorAll("input, textarea")];
  const said = document.getElementById("said");
  const place = "cofinal-" + form.dataset.key;

  // what the browser kept and what this copy of the page holds: the later one counts
  try {
    const kept = JSON.parse(localStorage.getItem(place) || "null");
    if (kept && kept.saved > Number(form.dataset.saved)) fields.forEach((field) => { field.value = kept[field.id] || ""; });
  } catch (error) { /* a browser may forbid storage to files; saving a copy works all the same */ }

  const entries = () => Object.fromEntries(fields.map((field) => [field.id, field.value]));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", () => {
    try {
      localStorage.setItem(place, JSON.stringify({ ...entries(), saved: Date.now() }));
      said.textContent = "Kept in this browser.";
    } catch (error) {
      said.textContent = "This browser keeps nothing: save a copy of the page.";
    }
  });

  document.getElementById("save").addEventListener("click", () => {
    form.dataset.saved = Date.now();
    fields.forEach((field) => {
      if (field.tagName === "TEXTAREA") field.textContent = field.value;
      else field.setAttribute("value", field.value);
    });
    said.textContent = "";
    const page = new Blob(["<!doctype html>\n" + document.documentElement.outerHTML], { type: "text/html" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(page);
    link.download = form.dataset.name.replace(/[^\w.-]+/g, "_") + ".judged.html";
    link.click();
    said.textContent = "Saved as " + link.download + ".";
  });
})();
