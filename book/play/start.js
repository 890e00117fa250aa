// Puts the pieces into the page when they come near the screen. What stood there goes only once a piece is drawn.
(() => {
  "use strict";
  async function start(place) {
    const root = hylaPlay.html("div", { class: "play-live", role: "group" });
    await hylaPlay.pieces[place.dataset.play](root);
    place.append(root);
    place.classList.add("play-started");
  }

  const watcher = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) {
      if (!isIntersecting) continue;
      watcher.unobserve(target);
      start(target).catch((error) => console.error(error));
    }
  }, { rootMargin: "400px" });
  for (const place of document.querySelectorAll("[data-play]")) watcher.observe(place);
})();
