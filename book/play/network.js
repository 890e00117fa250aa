// Watch the code write a network: sliders for the code, the matrices that it makes, and what they make of a circle.
(() => {
  "use strict";
  const { html, svg, number, random, slider, button, matrix, draggable, method, named, pieces } = hylaPlay;
  const HEADS = 3, HIDDEN = 4, WIDTH = 2, SIDE = 260;

  const range = (n) => [...Array(n).keys()];
  const apply = (weights, x) => weights.map((row) => row.reduce((sum, weight, i) => sum + weight * x[i], 0));
  const product = (a, b) => a.map((row) => b[0].map((_, j) => row.reduce((sum, weight, i) => sum + weight * b[i][j], 0)));
  const mix = (code, matrices) => matrices[0].map((row, i) =>
    row.map((_, j) => code.reduce((sum, weight, h) => sum + weight * matrices[h][i][j], 0)));
  const circle = (angle) => [Math.cos(angle), Math.sin(angle)];

  /** Return every head's two matrices, with random weights. */
  function heads(seed) {
    const next = random(seed);
    const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
    const draw = (rows, columns, scale) => range(rows).map(() => range(columns).map(() => scale * normal()));
    return { value: range(HEADS).map(() => draw(HIDDEN, WIDTH, 0.8)), out: range(HEADS).map(() => draw(WIDTH, HIDDEN, 0.6)) };
  }

  /** A plane with the circle of inputs, the curve of outputs, and one input with its output. */
  function plane(name, turned) {
    const parts = {
      axes: svg("path", { class: "play-axes" }), inputs: svg("circle", { class: "play-inputs" }),
      curve: svg("path", { class: "play-curve", stroke: method(name).color }), arrow: svg("line", { class: "play-arrow" }),
      input: svg("circle", { class: "play-handle", r: 7 }),
      output: svg("circle", { class: "play-point", r: 6, fill: method(name).color }),
    };
    const root = svg("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, class: "play-plane", role: "img" }, ...Object.values(parts));
    draggable(root, (x, y) => turned(Math.atan2(0.5 - y, x - 0.5)));
    function draw(network, angle) {
      const outputs = range(361).map((degree) => network(circle((degree * Math.PI) / 180)));
      const reach = Math.max(1.15, ...outputs.map(([x, y]) => 1.1 * Math.max(Math.abs(x), Math.abs(y))));
      const place = ([x, y]) => [SIDE / 2 + (x / reach) * (SIDE / 2), SIDE / 2 - (y / reach) * (SIDE / 2)];
      const from = place(circle(angle)), output = network(circle(angle)), to = place(output);
      parts.axes.setAttribute("d", `M0 ${SIDE / 2}H${SIDE}M${SIDE / 2} 0V${SIDE}`);
      for (const [key, value] of [["cx", SIDE / 2], ["cy", SIDE / 2], ["r", SIDE / 2 / reach]]) parts.inputs.setAttribute(key, value);
      parts.curve.setAttribute("d", `M${outputs.map((point) => place(point).map((x) => x.toFixed(1)).join(" ")).join("L")}Z`);
      [["x1", from[0]], ["y1", from[1]], ["x2", to[0]], ["y2", to[1]]].forEach(([key, x]) => parts.arrow.setAttribute(key, x));
      for (const [part, at] of [[parts.input, from], [parts.output, to]]) at.forEach((x, i) => part.setAttribute(i ? "cy" : "cx", x));
      root.setAttribute("aria-label", `${method(name).label}: the input (${circle(angle).map((x) => number(x)).join(", ")}) `
        + `becomes (${output.map((x) => number(x)).join(", ")})`);
    }
    return { root, draw };
  }

  pieces.network = (root) => {
    const START = [1, -0.6, 0.8];
    let seed = 7, basis = heads(seed), scores = [...START], angle = 0.7, normalized = false;
    const planes = { linear: plane("linear", turn), hyla: plane("hyla", turn) };
    const thumbs = range(HEADS).map(() => html("span", { class: "play-thumbs" }));
    const sliders = scores.map((value, h) => slider(`head ${h + 1}: a${"₁₂₃"[h]}`, { min: -2, max: 2, step: 0.05, value }, (to) => {
      scores[h] = to;
      draw();
    }));
    const turner = slider("input's angle", { min: -3.14, max: 3.14, step: 0.02, value: angle }, (to) => turn(to, false));
    const code = html("p", { class: "play-line" });
    const written = { linear: html("div", { class: "play-matrices" }), hyla: html("div", { class: "play-matrices" }) };

    function turn(to, move = true) {
      angle = to;
      if (move) turner.set(to);
      draw();
    }
    function set(to) {
      scores = to;
      sliders.forEach((one, h) => one.set(to[h]));
      draw();
    }
    function renew() {
      basis = heads(seed++);
      thumbs.forEach((thumb, h) => thumb.replaceChildren(
        matrix(basis.value[h], 2, `head ${h + 1}: value matrix`, 11, false), matrix(basis.out[h], 2, `head ${h + 1}: output matrix`, 11, false)));
      draw();
    }
    function draw() {
      const rms = Math.sqrt(scores.reduce((sum, score) => sum + score ** 2, 0) / HEADS + 1e-6);
      const a = normalized ? scores.map((score) => score / rms) : scores;
      const value = mix(a, basis.value), out = mix(a, basis.out);
      const once = mix(a, range(HEADS).map((h) => product(basis.out[h], basis.value[h])));
      const hidden = apply(value, circle(angle)), open = hidden.map((x) => Math.max(x, 0));
      planes.linear.draw((x) => apply(once, x), angle);
      planes.hyla.draw((x) => apply(out, apply(value, x).map((y) => Math.max(y, 0))), angle);
      const shut = hidden.filter((x) => x <= 0).length;
      code.replaceChildren("The code is ", html("b", {}, `(${a.map((x) => number(x)).join(", ")})`),
        `. For this input the ReLU shuts ${shut} of ${HIDDEN} hidden units.`);
      const labelled = (label, picture) => html("figure", {}, picture, html("figcaption", {}, label));
      const column = (values) => values.map((x) => [x]);
      written.linear.replaceChildren(labelled("W", matrix(once, 3, "generated matrix W")));
      written.hyla.replaceChildren(labelled("first layer", matrix(value, 3, "generated first layer")),
        labelled("ReLU", matrix(column(open), 3, "hidden units after the ReLU")),
        labelled("second layer", matrix(out, 3, "generated second layer")));
    }

    const card = (name, title, text) => html("section", { class: "play-card", style: `--method: ${method(name).color}` },
      html("p", { class: "play-title" }, title), html("p", {}, text), planes[name].root, written[name]);
    root.setAttribute("aria-label", "The code writes a network");
    root.append(
      html("div", { class: "play-controls" },
        ...sliders.map((one, h) => html("div", { class: "play-head" }, one.root, thumbs[h])), turner.root,
        html("div", { class: "play-row" },
          button("One head alone", () => set([1, 0, 0])), button("All heads", () => set([...START])),
          button("Other weights", renew),
          html("label", { class: "play-check" }, html("input", {
            type: "checkbox", onchange: (event) => {
              normalized = event.target.checked;
              draw();
            },
          }), "RMSHead: divide the code by its root mean square"))),
      code,
      html("div", { class: "play-cards" },
        card("linear", "Applied once: linear", "W = a₁W₁ + a₂W₂ + a₃W₃, as in standard and in linear attention. The circle always becomes an ellipse."),
        card("hyla", "Applied twice, ReLU between: HYLA", "The same code mixes both layers. Each hidden unit bends the ellipse where it opens or shuts.")));
    renew();
  };
})();
