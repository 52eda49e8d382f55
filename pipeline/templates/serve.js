"use strict";
(() => {
  const files = document.getElementById("files");
  const drop = document.getElementById("drop");
  const uploads = document.getElementById("uploads");
  const rows = document.getElementById("rows");
  const offline = document.getElementById("offline");
  const waiting = [];  // uploads that have not begun
  let current = null;  // the request that is under way
  let toOpen = null;   // the one video that was dropped, whose report opens when it is done

  // --- uploads: one after another ---

  const addFiles = (list) => {
    const chosen = [...list];
    toOpen = chosen.length === 1 && !current && waiting.length === 0 ? { id: null } : null;
    chosen.forEach((file) => {
      const item = document.createElement("li");
      const label = document.createElement("span");
      const bar = document.createElement("progress");
      const cancel = document.createElement("button");
      label.textContent = file.name + ": waits";
      bar.max = 1;
      bar.value = 0;
      bar.setAttribute("aria-label", "Upload of " + file.name);
      cancel.type = "button";
      cancel.textContent = "Cancel";
      item.append(label, bar, cancel);
      uploads.append(item);
      const upload = { file, item, label, bar, cancel };
      cancel.addEventListener("click", () => {
        const place = waiting.indexOf(upload);
        if (place >= 0) waiting.splice(place, 1);
        if (current && current.upload === upload) current.request.abort();
        item.remove();
      });
      if (file.size > Number(drop.dataset.most)) {
        fail(upload, "larger than the " + Number(drop.dataset.most) / 1e9 + " GB that this server takes (--max-upload)");
      } else {
        waiting.push(upload);
      }
    });
    sendNext();
  };

  const fail = ({ file, item, label, bar, cancel }, reason) => {
    item.className = "reason";
    item.setAttribute("role", "alert");
    label.textContent = file.name + ": " + reason;
    bar.remove();
    cancel.textContent = "Dismiss";
  };

  const sendNext = () => {
    if (current || waiting.length === 0) return;
    const upload = waiting.shift();
    const { file, item, label, bar } = upload;
    const request = new XMLHttpRequest();
    current = { upload, request };
    const action = document.getElementById("action");
    request.open("POST", "/upload?" + new URLSearchParams({ name: file.name, action: action ? action.value : "" }));
    request.upload.addEventListener("progress", (event) => {
      bar.value = event.loaded / file.size;
      const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
      label.textContent = `${file.name}: ${megabytes(event.loaded)} of ${megabytes(file.size)} MB sent`;
    });
    request.addEventListener("loadend", () => {
      current = null;
      if (request.status === 201) {
        item.remove();
        if (toOpen) toOpen.id = JSON.parse(request.responseText).id;
        refresh();
      } else if (item.isConnected) {
        fail(upload, request.responseText.startsWith("<") ? "reload the page and give the token"
          : request.responseText || "the upload broke off; the server may have stopped, or the file has changed");
      }
      sendNext();
    });
    request.send(file);
  };

  files.addEventListener("change", () => { addFiles(files.files); files.value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    addFiles(event.dataTransfer.files);
  });
  window.addEventListener("beforeunload", (event) => { if (current) event.preventDefault(); });

  // --- the list ---

  let column = 1;
  let direction = -1;  // the latest first
  const sort = () => {
    const headings = document.querySelectorAll(".results th");
    headings.forEach((heading, i) => {
      heading.setAttribute("aria-sort", i !== column ? "none" : direction > 0 ? "ascending" : "descending");
    });
    const isText = column !== 1 && headings[column].classList.contains("text");
    const key = (row) => row.children[column].dataset.sort;
    const compare = (a, b) => {
      if (key(a) === "" || key(b) === "") return (key(a) === "") - (key(b) === "");  // what is missing comes last
      return direction * (isText ? key(a).localeCompare(key(b)) : Number(key(a)) - Number(key(b)));
    };
    rows.append(...[...rows.children].sort(compare));
  };
  document.querySelectorAll(".results .sort").forEach((button, i) => button.addEventListener("click", () => {
    direction = i === column ? -direction : button.parentElement.classList.contains("text") ? 1 : -1;
    column = i;
    sort();
  }));

  let progress = {};
  const showProgress = () => Object.entries(progress).forEach(([id, { text, share }]) => {
    const row = rows.querySelector(`[data-id="${id}"][data-state="scoring"]`);
    if (!row) return;
    row.querySelector("[role=status]").textContent = text;
    const bar = row.querySelector("progress");
    if (share === null) bar.removeAttribute("value");
    else bar.value = share;
  });

  let asked = 0;
  const refresh = async () => {
    const number = ++asked;
    const answer = await fetch("/list").catch(() => null);
    if (!answer || !answer.ok) return;
    const list = await answer.text();
    if (number !== asked) return;  // a later list is on its way
    rows.innerHTML = list;  // the server's template has escaped it
    document.getElementById("none").hidden = rows.children.length > 0;
    sort();
    showProgress();
    if (toOpen && rows.querySelector(`[data-id="${toOpen.id}"][data-state="done"]`)) location.href = "/results/" + toOpen.id;
  };
  rows.addEventListener("click", async (event) => {
    const button = event.target.closest(".delete");
    if (!button || !confirm(`Delete ${button.dataset.name}, its video, its report and the panel's score?`)) return;
    const answer = await fetch("/results/" + button.closest("tr").dataset.id, { method: "DELETE" }).catch(() => null);
    if (!answer) alert("The server does not answer.");
    else if (!answer.ok) alert(await answer.text());
    refresh();
  });

  // --- what the server says ---

  let version = null;
  const events = new EventSource("/events");
  events.addEventListener("open", () => { offline.hidden = true; });
  events.addEventListener("error", () => { offline.hidden = false; });
  events.addEventListener("message", (event) => {
    const state = JSON.parse(event.data);
    progress = state.progress;
    if (state.version !== version) refresh();
    else showProgress();
    version = state.version;
  });
  sort();
})();
