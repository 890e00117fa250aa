// SRAVEN: problems to solve, your answer beside the models' and the solver's set of right ones.
(() => {
  "use strict";
  const { html, svg, percent, random, button, choice, method, named, load, forward, pieces } = hylaPlay;
  const { facts } = hylaPlay;
  const { rules: RULES, levels, colors } = facts.sraven;
  const METHODS = facts.methods.map(({ name }) => name), VALUES = 8, PLAYED_BY_MODELS = 2, GAME = 10;
  const modelName = (name) => `${name}-sraven-k${PLAYED_BY_MODELS}`;
  const range = (n) => [...Array(n).keys()];
  const equal = (a, b) => a.every((x, i) => x === b[i]);
  const painted = (feature) => (feature === null ? undefined : `--feature: ${colors[feature]}`);
  const letter = (feature) => "ABCD"[feature];
  const ruled = (rule) => RULES[rule].replace("_", " ");

  /** A symbol as the book draws it: a hand that points to its number; `feature` colours it and gives it a letter. */
  function dial(symbol, feature = null) {
    const [x, y] = [Math.sin((symbol / VALUES) * 2 * Math.PI), -Math.cos((symbol / VALUES) * 2 * Math.PI)];
    return html("span", { class: "play-dial", style: painted(feature) },
      html("i", {}, feature === null ? "" : letter(feature)),
      svg("svg", { viewBox: "-13 -13 26 26", "aria-hidden": "true" }, svg("circle", { r: 11 }),
        ...(symbol === null ? [] : [svg("line", { x2: 11 * x, y2: 11 * y })])),
      html("b", {}, symbol === null ? "?" : symbol));
  }
  const dials = (symbols) => html("span", { class: "play-dials" }, ...symbols.map((symbol) => dial(symbol)));

  /** The symbols as a model reads them: one-hot, and zeros where they are asked for. */
  function tokens(problem, k) {
    const inputs = new Float64Array(9 * k * VALUES);
    problem.symbols.slice(0, 8 * k).forEach((symbol, t) => { inputs[t * VALUES + symbol] = 1; });
    return inputs;
  }
  function guess(model, problem, k) {
    const { outputs } = forward(model, tokens(problem, k), k);
    return range(k).map((i) => {
      const row = outputs.subarray(i * VALUES, (i + 1) * VALUES);
      return row.indexOf(Math.max(...row));
    });
  }

  pieces.sraven = (root) => {
    let level = 2, pool = "train", problem, place, answer, scores, order, seed = Date.now(), open, game = 0;
    const heading = html("p", { class: "play-title" }), grid = html("div", { class: "play-grid" });
    const form = html("form", { class: "play-answer" }), verdict = html("div", { class: "play-verdict", role: "status" });
    const board = html("div", { class: "play-board" }), warning = html("p", { class: "play-note" });
    const tasks = choice("Tasks", [["train", "trained on"], ["heldout", "held out"]], pool, (to) => {
      pool = to;
      start();
    });

    function start() {
      const draw = random(seed++), count = levels[level][pool]?.length ?? 0;
      if (!count) pool = "train";
      game++;
      const keys = levels[level][pool].map(() => draw());
      order = keys.map((_, i) => i).sort((a, b) => keys[a] - keys[b]).slice(0, GAME);
      scores = { you: 0, ...Object.fromEntries(METHODS.map((name) => [name, 0])) };
      place = -1;
      tasks.hidden = level !== PLAYED_BY_MODELS;
      tell();
      next();
    }
    /** Say how good the models are, before anybody trusts them. */
    function tell() {
      const shown = METHODS.map((name) => facts.models[modelName(name)]);
      warning.replaceChildren(...(level === PLAYED_BY_MODELS
        ? ["These models are weak. They were trained for a small part of the paper's steps, and solve ",
          html("b", {}, METHODS.map((name, i) => `${percent(shown[i].test)} (${method(name).label})`).join(", ")),
          " of new problems of tasks that they were trained on, and ",
          html("b", {}, shown.map((model) => percent(model.heldout)).join(", ")), " of those held out."]
        : [`No trained model comes with this book for ${level === 1 ? "one feature" : `${level} features`}: here it is you and the solver.`]));
    }
    function next() {
      place++;
      if (place === order.length) return finish();
      problem = levels[level][pool][order[place]];
      answer = range(level).map(() => null);
      open = true;
      heading.textContent = `Problem ${place + 1} of ${order.length}`;
      verdict.replaceChildren();
      drawGrid(false);
      drawForm();
      drawBoard();
    }
    function drawGrid(solved) {
      const panels = range(9).map((panel) => {
        const column = panel % 3, given = panel < 8 || solved;
        return html("div", { class: panel < 8 ? "play-cell" : "play-cell play-asked" }, ...range(level).map((i) =>
          dial(panel === 8 && !solved ? answer[i] : problem.symbols[panel * level + i],
            given && solved ? problem.permutations[column][i] : null)));
      });
      grid.style.setProperty("--features", level);
      grid.setAttribute("aria-label", range(9).map((panel) => panel < 8
        ? problem.symbols.slice(panel * level, (panel + 1) * level).join(" ") : "?").join(", "));
      grid.replaceChildren(...panels);
    }
    function pick(i, symbol) {
      // Weights arrive while the answer is thought of.
      if (level === PLAYED_BY_MODELS) METHODS.forEach((name) => load(modelName(name)));
      answer[i] = symbol;
      drawGrid(false);
      submit.disabled = answer.includes(null);
    }
    const submit = html("button", { type: "submit", class: "play-button play-main" }, "Answer");
    function drawForm() {
      submit.disabled = true;
      form.hidden = false;
      form.replaceChildren(...answer.map((_, i) => choice(level === 1 ? "The missing symbol" : `Symbol ${i + 1}`,
        range(VALUES).map((symbol) => [symbol, String(symbol), dial(symbol)]), null, (to) => pick(i, to))), submit);
    }
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (open && !answer.includes(null)) solve().catch((error) => console.error(error));
    });
    // Digits fill the answer from left to right, wherever the focus is in the piece.
    root.addEventListener("keydown", (event) => {
      const i = answer.indexOf(null);
      if (!open || i < 0 || !/^[0-7]$/.test(event.key)) return;
      form.querySelectorAll("fieldset")[i].querySelectorAll("input")[event.key].checked = true;
      pick(i, Number(event.key));
      event.preventDefault();
    });

    async function solve() {
      open = false;
      const mine = game, names = level === PLAYED_BY_MODELS ? METHODS : [];
      const models = await Promise.all(names.map((name) => load(modelName(name))));
      if (mine !== game) return;
      const given = [["you", answer], ...names.map((name, i) => [name, guess(models[i], problem, level)])];
      const rows = given.map(([name, symbols]) => {
        const right = problem.answers.some((one) => equal(one, symbols));
        scores[name] += right;
        return html("li", { "data-who": name, "data-answer": symbols.join(" "), "data-right": right },
          name === "you" ? html("span", { class: "play-method play-you" }, "you") : named(name), dials(symbols),
          html("span", { class: right ? "play-right" : "play-wrong" }, right ? "✓ right" : "✗ wrong"));
      });
      const several = problem.answers.length > 1;
      verdict.replaceChildren(
        html("p", {}, several ? `${problem.answers.length} answers are right, as more than one rule fits: ` : "The right answer: ",
          ...problem.answers.map(dials)),
        html("p", {}, `${several ? "The problem was made with" : "The rules:"} `, ...problem.rules.map((rule, feature) =>
          html("span", { class: "play-rule", style: painted(feature) }, `${letter(feature)} ${ruled(rule)}`))),
        html("ul", {}, ...rows), button(place + 1 < order.length ? "Next problem" : "See the score", next, { class: "play-button play-main" }));
      form.hidden = true;
      drawGrid(true);
      drawBoard(1);
      verdict.querySelector("button").focus({ preventScroll: true });
    }
    function drawBoard(more = 0) {
      const names = ["you", ...(level === PLAYED_BY_MODELS ? METHODS : [])], played = place + more;
      board.replaceChildren(html("table", {}, html("caption", {}, played === 0 ? "Score" : `Score after ${played}`),
        html("tbody", {}, ...names.map((name) => html("tr", {},
          html("th", { scope: "row" }, name === "you" ? html("span", { class: "play-method play-you" }, "you") : named(name)),
          html("td", {}, html("b", {}, scores[name]), ` of ${played}`))))));
    }
    function finish() {
      open = false;
      heading.textContent = "The end of this game";
      drawBoard();
      const best = Math.max(...METHODS.map((name) => scores[name]));
      const said = `You solved ${scores.you} of ${order.length}.`;
      verdict.replaceChildren(
        html("p", { class: "play-end" }, level === PLAYED_BY_MODELS ? `${said} The best of the models solved ${best}.` : said),
        button("Play again", start, { class: "play-button play-main" }));
      verdict.querySelector("button").focus({ preventScroll: true });
    }

    root.setAttribute("aria-label", "A game of SRAVEN");
    grid.setAttribute("role", "img");
    root.append(
      html("div", { class: "play-controls play-row" },
        choice("Features", Object.keys(levels).map((k) => [Number(k), k]), level, (to) => {
          level = to;
          start();
        }), tasks),
      warning,
      html("div", { class: "play-game" }, html("div", {}, heading, grid), html("div", {}, form, verdict, board)));
    start();
  };
})();
