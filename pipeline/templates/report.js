"use strict";
(() => {
  document.getElementById("print").addEventListener("click", () => window.print());

  const pause = document.getElementById("pause");
  if (pause) pause.addEventListener("click", () => {
    const paused = pause.getAttribute("aria-pressed") !== "true";
    pause.setAttribute("aria-pressed", paused);
    document.querySelectorAll("img[data-still]").forEach((image) => {
      const other = image.dataset.still;
      image.dataset.still = image.src;
      image.src = other;
    });
  });

  const video = document.querySelector("video");
  if (video) {
    document.querySelector("main").addEventListener("click", (event) => {
      const moment = event.target.closest("[data-time]");
      if (!moment) return;
      video.currentTime = Number(moment.dataset.time);
      video.scrollIntoView({ block: "nearest" });
    });
    video.addEventListener("error", () => { document.getElementById("unplayable").hidden = false; });
  }
})();
