// What the pieces draw with: elements, controls, colours, and numbers that a seed decides.
(() => {
  "use strict";
  const SVG = "http://www.w3.org/2000/svg";
  const { methods, colormaps } = hylaPlay.facts;

  function fill(made, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
      else if (value === true) made.setAttribute(name, "");
      else if (value !== false && value !== undefined) made.setAttribute(name, value);
    }
    made.append(...children.filter((child) => child !== null));
    return made;
  }

  /** Return an HTML element; attributes that begin with "on" are listeners. */
  const html = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

  /** Return a number as a text with a real minus. */
  const number = (value, digits = 2) => {
    const text = value.toFixed(digits);
    return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
  };
  const percent = (share) => `${Math.round(100 * share)} %`;

  /** Return the colour of a value from 0 to 1, as [red, green, blue]. */
  function color(map, value) {
    const stops = colormaps[map], place = Math.min(Math.max(value, 0), 1) * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2), part = place - low;
    return stops[low].map((channel, i) => Math.round(channel + (stops[low + 1][i] - channel) * part));
  }
  const css = (map, value) => `rgb(${color(map, value).join(" ")})`;
  /** Return the colour of a value from -limit to limit. */
  const signed = (value, limit) => css("signed", 0.5 + (0.5 * value) / limit);

  /** Return random numbers, uniform on [0, 1), that a seed decides (mulberry32). */
  function random(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    };
  }

  /** Return a labelled slider with its value beside it; `set` moves it from outside and tells nobody. */
  function slider(label, { min, max, step, value }, changed) {
    const output = html("output", {}, number(value));
    const input = html("input", {
      type: "range", min, max, step, value, "aria-label": label,
      oninput: () => {
        output.textContent = number(Number(input.value));
        changed(Number(input.value));
      },
    });
    const root = html("label", { class: "play-slider" }, html("span", {}, label), input, output);
    const set = (to) => {
      input.value = to;
      output.textContent = number(Number(input.value));
    };
    return { root, set };
  }

  const button = (label, pressed, attributes = {}) =>
    html("button", { type: "button", class: "play-button", onclick: pressed, ...attributes }, label);

  let groups = 0;
  /** Return radio buttons in a row; `options` are [value, label] or, with a picture, [value, label, element]. */
  function choice(legend, options, value, changed, shown = true) {
    const name = `hyla-play-${groups++}`;
    const inputs = options.map(([option, label, picture]) => html("label", { class: "play-option" },
      html("input", {
        type: "radio", name, value: option, checked: option === value, "aria-label": label,
        onchange: () => changed(option),
      }), html("span", { "aria-hidden": "true" }, picture ?? label)));
    return html("fieldset", { class: "play-choice" },
      html("legend", shown ? {} : { class: "play-hidden" }, legend), html("div", {}, ...inputs));
  }

  /** Draw numbers (rows, columns) as cells of an SVG, coloured by sign and written into where there is room. */
  function matrix(rows, limit, label, size = 30, written = true) {
    const height = rows.length * size, width = rows[0].length * size;
    return svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label },
      ...rows.flatMap((row, i) => row.flatMap((value, j) => {
        const cell = { x: j * size + 1, y: i * size + 1, width: size - 2, height: size - 2, rx: 2 };
        const share = Math.min(Math.abs(value) / limit, 1);
        return [svg("rect", { ...cell, fill: signed(value, limit) }), written ? svg("text", {
          x: (j + 0.5) * size, y: (i + 0.5) * size, fill: share > 0.6 ? "#fff" : "#222", "font-size": 0.37 * size,
        }, number(value, 1)) : null].filter(Boolean);
      })));
  }

  /** Call `moved` with a place, 0 to 1 from left and from top, wherever a pointer is pressed or dragged on it. */
  function draggable(target, moved) {
    const tell = (event) => {
      const box = target.getBoundingClientRect(), clip = (x) => Math.min(Math.max(x, 0), 1);
      moved(clip((event.clientX - box.left) / box.width), clip((event.clientY - box.top) / box.height));
      event.preventDefault();
    };
    target.addEventListener("pointerdown", (event) => {
      target.setPointerCapture(event.pointerId);
      tell(event);
    });
    target.addEventListener("pointermove", (event) => target.hasPointerCapture(event.pointerId) && tell(event));
  }

  const method = (name) => methods.find((one) => one.name === name);
  /** Return a method's name with its colour before it. */
  const named = (name) => html("span", { class: "play-method", style: `--method: ${method(name).color}` },
    method(name).label);

  Object.assign(hylaPlay, {
    pieces: {}, html, svg, number, percent, color, css, random, slider, button, choice, matrix, draggable, method, named,
  });
})();
