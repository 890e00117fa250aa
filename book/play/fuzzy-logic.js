// Fuzzy logic: two terms, a point to drag, and what every method makes of the same 31 examples.
(() => {
  "use strict";
  const { html, svg, number, color, css, random, slider, button, draggable, method, named, load, forward, pieces } = hylaPlay;
  const { terms, functions } = hylaPlay.facts.fuzzyLogic;
  const METHODS = hylaPlay.facts.methods.map(({ name }) => name), EXAMPLES = 31, SIDE = 200;
  // The plane is computed in cells, every second one first, and for so many milliseconds before the page gets its turn.
  const CELLS = 16, SLICE = 12;
  // That of Figure 2A, which has something in every corner.
  const START = [5, 9];
  const POOLS = { train: "trained on", heldout: "held out", unknown_terms: "of unknown terms", none: "of no split" };
  const ORDER = [...Array(CELLS * CELLS).keys()].map((i) => [i % CELLS, Math.floor(i / CELLS)])
    .sort((a, b) => (a[0] % 2 || a[1] % 2 ? 1 : 0) - (b[0] % 2 || b[1] % 2 ? 1 : 0));

  /** The disjunction of two conjunctions: and = min, or = max. */
  const evaluate = (chosen, x) => Math.max(...chosen.map((term) =>
    Math.min(...terms[term].map((plain, i) => (plain ? x[i] : 1 - x[i])))));
  const written = (term) => terms[term].map((plain, i) => `x${plain ? "" : "\u0304"}${"₁₂₃₄"[i]}`).join(" ");
  const center = (cell) => (cell + 0.5) / CELLS;
  const pool = (chosen) => {
    const [low, high] = [...chosen].sort((a, b) => a - b);
    return Object.keys(functions).find((name) => functions[name].some(([a, b]) => a === low && b === high)) ?? "none";
  };

  /** A plane over x₁ and x₂: coloured cells, a cross-hair, and a line of text below. */
  function plane(label, moved) {
    const canvas = html("canvas", { width: CELLS, height: CELLS, "aria-hidden": "true" }), context = canvas.getContext("2d");
    const across = svg("line", { x1: 0, x2: SIDE }), down = svg("line", { y1: 0, y2: SIDE });
    const dot = svg("circle", { r: 8, class: "play-query" }), dots = svg("g", { class: "play-examples" });
    const overlay = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, "aria-hidden": "true" }, dots, across, down, dot);
    const frame = html("div", { class: "play-frame" }, canvas, overlay), text = html("p", { class: "play-says" });
    const error = html("p", { class: "play-note" }), code = html("canvas", { class: "play-code", role: "img" });
    draggable(frame, (x, y) => moved(x, 1 - y));
    return {
      root: html("section", { class: "play-panel" }, html("p", { class: "play-title" }, label), frame, text, error, code),
      dots, text, error, code,
      paint(x, y, value, size = 1) {
        context.fillStyle = css("values", value);
        context.fillRect(x, CELLS - y - size, size, size);
      },
      point([x, y], value) {
        across.setAttribute("y1", (1 - y) * SIDE);
        across.setAttribute("y2", (1 - y) * SIDE);
        down.setAttribute("x1", x * SIDE);
        down.setAttribute("x2", x * SIDE);
        dot.setAttribute("cx", x * SIDE);
        dot.setAttribute("cy", (1 - y) * SIDE);
        dot.setAttribute("fill", css("values", value));
      },
    };
  }

  /** Draw a code (h, k) of one query, a row for each head. */
  function drawCode(canvas, code, heads) {
    const keys = code.length / heads, limit = Math.max(...code.map(Math.abs)), image = new ImageData(keys, heads);
    code.forEach((value, i) => image.data.set([...color("signed", 0.5 + (0.5 * value) / limit), 255], 4 * i));
    [canvas.width, canvas.height] = [keys, heads];
    canvas.getContext("2d").putImageData(image, 0, 0);
    canvas.setAttribute("aria-label", `Latent code of the point: ${heads} heads, ${keys} examples, up to ±${number(limit, 1)}`);
  }

  pieces["fuzzy-logic"] = async (root) => {
    const loading = Promise.all(METHODS.map((name) => load(`${name}-fuzzy-logic`)));
    const draw = random(1);
    let chosen = START, point = [0.3, 0.7, 0.2, 0.7], examples = [], work = 0, models = [], waiting = false;

    const truth = plane("The function", drag), panels = METHODS.map((name) => plane(named(name), drag));
    const selects = chosen.map((_, i) => html("select", {
      "aria-label": `${i ? "second" : "first"} term`, onchange: (event) => {
        const other = chosen[1 - i], term = Number(event.target.value);
        choose(i ? [other, term] : [term, other]);
      },
    }, ...terms.map((_, term) => html("option", { value: term }, written(term)))));
    const badge = html("span", { class: "play-badge", role: "status" });
    const sliders = point.map((value, i) => slider(`x${"₁₂₃₄"[i]}`, { min: 0, max: 1, step: 0.01, value }, (to) => {
      point[i] = to;
      i < 2 ? soon() : renew();
    }));

    const input = (x) => Float64Array.from([...examples.flat(), ...x, 0]);
    function drag(x, y) {
      [point[0], point[1]] = [x, y];
      [x, y].forEach((to, i) => sliders[i].set(to));
      soon();
    }
    /** Show the point in the next frame, once however often it has moved. */
    function soon() {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => {
        waiting = false;
        show();
      });
    }
    function show() {
      const is = evaluate(chosen, point);
      truth.point(point, is);
      truth.text.replaceChildren("is ", html("b", {}, number(is)));
      models.forEach((model, i) => {
        const { outputs: [says], codes } = forward(model, input(point), 1), panel = panels[i];
        panel.point(point, says);
        panel.text.replaceChildren("says ", html("b", {}, number(says)), `, off by ${number(Math.abs(says - is))}`);
        panel.root.dataset.says = says;
        drawCode(panel.code, codes.at(-1), model.config.n_heads);
      });
    }
    /** Compute the planes again, bit by bit; a later call ends this one. */
    function renew() {
      const mine = ++work, sums = panels.map(() => 0);
      let done = 0;
      truth.dots.replaceChildren(...examples.map((x) =>
        svg("circle", { cx: x[0] * SIDE, cy: (1 - x[1]) * SIDE, r: 3.2, fill: css("values", x[4]) })));
      for (const [x, y] of ORDER) truth.paint(x, y, evaluate(chosen, [center(x), center(y), point[2], point[3]]));
      panels.forEach((panel) => { panel.error.textContent = "…"; });
      show();
      const step = () => {
        if (mine !== work) return;
        const until = performance.now() + SLICE;
        while (done < ORDER.length && performance.now() < until) {
          const [x, y] = ORDER[done++], at = [center(x), center(y), point[2], point[3]], is = evaluate(chosen, at);
          models.forEach((model, i) => {
            const says = forward(model, input(at), 1).outputs[0];
            sums[i] += Math.abs(says - is) / ORDER.length;
            panels[i].paint(x, y, says, x % 2 || y % 2 ? 1 : done <= ORDER.length / 4 ? 2 : 1);
          });
        }
        if (done < ORDER.length) requestAnimationFrame(step);
        else panels.forEach((panel, i) => { panel.error.textContent = `mean error ${number(sums[i], 3)}`; });
      };
      requestAnimationFrame(step);
    }
    function choose(pair) {
      chosen = pair;
      selects.forEach((select, i) => { select.value = chosen[i]; });
      const name = pool(chosen);
      badge.textContent = POOLS[name];
      badge.dataset.pool = name;
      resample();
    }
    function resample() {
      examples = Array.from({ length: EXAMPLES }, () => {
        const x = [draw(), draw(), draw(), draw()];
        return [...x, evaluate(chosen, x)];
      });
      renew();
    }
    const any = (name) => choose(functions[name][Math.floor(draw() * functions[name].length)]);

    root.setAttribute("aria-label", "Fuzzy logic, by every method");
    root.append(
      html("div", { class: "play-controls" },
        html("div", { class: "play-row play-function" }, selects[0], html("span", {}, "or"), selects[1], badge),
        html("div", { class: "play-row" }, button("A function trained on", () => any("train")),
          button("A function held out", () => any("heldout")), button("Other examples", resample)),
        html("div", { class: "play-sliders" }, ...sliders.map((one) => one.root))),
      html("div", { class: "play-panels" }, truth.root, ...panels.map((panel) => panel.root)),
      html("p", { class: "play-note" }, "Drag the point. Dots are the examples that every model sees, with their values, at whatever ",
        "x₃ and x₄ they have; the plane is cut at yours, and the mean error is that over the plane. The strip below each plane is the point's latent code in the final layer: a row ",
        "for each head, a column for each example."));
    truth.code.remove();
    truth.error.append(scale());
    models = await loading;
    choose(chosen);
  };

  /** The colours of values from 0 to 1. */
  function scale() {
    const stops = [...Array(9).keys()].map((i) => css("values", i / 8)).join(", ");
    return html("span", { class: "play-scale" }, "0", html("i", { style: `background: linear-gradient(90deg, ${stops})` }), "1");
  }
})();
