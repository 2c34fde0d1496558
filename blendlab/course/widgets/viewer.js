// What a run shows: its progress, the picture as it comes, a swipe to the one before, the film of steps.

function render({ model, el }) {
  // Progress, and what is to be said. An error is read out at once, the rest when the reader is free.
  const bar = make("progress", { max: 1, "aria-label": "Progress" });
  const status = make("span", { class: "bl-status", role: "status" });
  const error = make("p", { class: "bl-error", role: "alert", hidden: "" });

  // The picture after lies over the one before and is cut off at the left, as far as the swipe has come.
  const before = make("img", { class: "bl-before", draggable: "false" });
  const after = make("img", { class: "bl-after", draggable: "false" });
  const edge = make("div", { class: "bl-edge", "aria-hidden": "true" });
  const stage = make("div", { class: "bl-view" }, before, after, edge);
  const table = make("div", { class: "bl-table" });
  const swipe = make("input", { type: "range", class: "bl-swipe", min: 0, max: 100, value: 0 });
  const swiping = make("label", {}, "Show before", swipe);

  // The film's last frame is the result itself.
  const frame = make("input", { type: "range", class: "bl-frame", min: 1, step: 1 });
  const count = make("output", { class: "bl-status" });
  const play = make("button", { type: "button", class: "bl-play" }, "Play");
  const film = make("div", { class: "bl-row" }, make("label", {}, "Step", frame), count, play);
  const progress = make("div", { class: "bl-row bl-progress" }, bar, status);
  root(el, "viewer", progress, error, stage, table, swiping, film);

  const previewing = () => model.get("preview").byteLength > 0;
  const frames = () => [...model.get("film"), model.get("picture")];
  let shown = null, timer = null;

  /** Small pictures are enlarged by a whole factor, so that pixels stay square. */
  function fit() {
    const width = after.naturalWidth;
    const factor = width && width <= 192 ? Math.floor(model.get("shown") / width) : 1;
    stage.style.width = width * factor + "px";
    stage.classList.toggle("bl-sharp", factor > 1);
    el.style.flexBasis = width * factor > 600 ? "100%" : ""; // several pictures: below the controls
  }
  after.addEventListener("load", fit);

  function turn() {
    const bytes = previewing() ? model.get("preview") : frames()[frame.value - 1];
    if (bytes !== shown) show(after, (shown = bytes));
    stage.hidden = !bytes?.byteLength;
    count.textContent = frame.value === frame.max ? "result" : `${frame.value} of ${frame.max - 1}`;
    frame.setAttribute("aria-valuetext", count.textContent);
  }

  function wipe() {
    const share = swiping.hidden ? 0 : +swipe.value;
    after.style.clipPath = share ? `inset(0 0 0 ${share}%)` : "";
    edge.style.left = share + "%";
    edge.hidden = share === 0 || share === 100;
    swipe.setAttribute("aria-valuetext", `${share}% before, ${100 - share}% after`);
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  swipe.addEventListener("input", wipe);
  frame.addEventListener("input", () => { stop(); turn(); });
  play.addEventListener("click", () => {
    if (timer) return stop();
    if (frame.value === frame.max) frame.value = 1;
    play.textContent = "Pause";
    timer = setInterval(() => {
      frame.value = +frame.value + 1;
      turn();
      if (frame.value === frame.max) stop();
    }, 120);
  });
  stage.addEventListener("pointermove", (event) => {
    if (swiping.hidden || !(event.buttons & 1)) return;
    const { left, width } = stage.getBoundingClientRect();
    swipe.value = clamp((100 * (event.clientX - left)) / width, 0, 100);
    wipe();
  });

  const ends = [
    follow(model, ["film", "picture"], () => {
      stop();
      frame.max = frames().length;
      frame.value = frame.max;
      turn();
    }),
    follow(model, ["preview"], turn),
    follow(model, ["film", "preview"], () => (film.hidden = !model.get("film").length || previewing())),
    follow(model, ["before", "preview"], () => {
      show(before, model.get("before"));
      swiping.hidden = before.hidden || previewing();
      stage.classList.toggle("bl-swiping", !swiping.hidden);
      wipe();
    }),
    follow(model, ["busy", "done"], () => {
      bar.hidden = !model.get("busy");
      if (model.get("done") === null) bar.removeAttribute("value");
      else bar.value = model.get("done");
    }),
    follow(model, ["status"], () => (status.textContent = model.get("status"))),
    follow(model, ["error"], () => {
      error.textContent = model.get("error");
      error.hidden = !error.textContent;
    }),
    follow(model, ["table"], () => {
      table.innerHTML = model.get("table");
      table.hidden = !table.innerHTML;
    }),
    follow(model, ["label"], () => {
      after.alt = model.get("label");
      before.alt = "The picture before";
    }),
  ];
  return () => { stop(); ends.forEach((end) => end()); };
}
export default { render };
