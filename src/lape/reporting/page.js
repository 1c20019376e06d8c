"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (name, attributes = {}, ...inside) => {
    const element = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "style") element.style.cssText = value;
      else element.setAttribute(key, value);
    }
    element.append(...inside);
    return element;
  };
  const minus = (text) => text.replace("-", "−");
  const fixed = (value, digits) => (value === null || value === undefined ? "–" : minus(value.toFixed(digits).replace(/^-(0\.?0*)$/, "$1")));

  // Heat maps: cells are coloured by size, the sign by the hue.
  const paint = (table, values, digits) => {
    const largest = Math.max(1e-9, ...values.flat().filter((v) => v !== null).map(Math.abs));
    [...table.tBodies[0].rows].forEach((row, r) => {
      [...row.querySelectorAll("td")].forEach((cell, c) => {
        const value = values[r][c];
        cell.textContent = fixed(value, digits);
        const share = value === null ? 0 : Math.min(1, Math.abs(value) / largest);
        cell.style.backgroundColor = share < 0.002 ? "" : `rgba(var(${value < 0 ? "--cool" : "--heat"}), ${(0.06 + 0.5 * share).toFixed(3)})`;
      });
    });
  };
  const switched = (name, show) => {
    const inputs = document.querySelectorAll(`[data-switch=${name}] input`);
    inputs.forEach((input) => input.addEventListener("change", () => show(input.value)));
    const first = [...inputs].find((input) => input.checked);
    if (first) show(first.value);
  };
  for (const [grid, views] of Object.entries(data.grids)) {
    switched(grid, (name) => paint($(`${grid}-table`), views[name].values, views[name].digits));
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));

  // The neuron browser. All text goes in as text, never as HTML.
  const browser = data.browser;
  if (!browser) return;
  const { languages, neurons, texts, contexts } = browser;
  const place = (n) => (n.x === undefined ? `${n.l}.${n.i}` : `${n.l}.${n.x}.${n.i}`);
  const byPlace = new Map(neurons.map((n) => [place(n), n]));
  const textOf = (n) => (contexts[n.f] || []).map(([t]) => texts[t][1].join("")).join("\n");
  const haystacks = new Map();
  const haystack = (n) => {
    if (!haystacks.has(n.f)) haystacks.set(n.f, [place(n), ...(n.w ? n.w.flat() : []), textOf(n)].join("\n").toLowerCase());
    return haystacks.get(n.f);
  };
  const orders = {
    entropy: (a, b) => (a.e ?? 99) - (b.e ?? 99),
    probability: (a, b) => Math.max(...(b.p || [0])) - Math.max(...(a.p || [0])),
    effect: (a, b) => Math.max(-9, ...(b.d || []).map((d) => d[1])) - Math.max(-9, ...(a.d || []).map((d) => d[1])),
    layer: (a, b) => a.l - b.l || (a.x ?? 0) - (b.x ?? 0) || a.i - b.i,
  };
  const STEP = 50;
  let limit = STEP;
  const found = () => {
    const q = $("q").value.trim().toLowerCase();
    const language = languages.indexOf($("f-language").value);
    const layer = $("f-layer").value;
    return neurons
      .filter((n) => (language < 0 || n.g.includes(language)) && (layer === "" || String(n.l) === layer) && (!q || (/^\d+(\.\d+)*$/.test(q) ? place(n).startsWith(q) : haystack(n).includes(q))))
      .sort(orders[$("f-sort").value]);
  };
  const mini = (n) => {
    if (!n.p) return "";
    const words = n.p.map((p, k) => `${languages[k]} ${p.toFixed(2)}`).join(", ");
    return make("span", { class: "mini", role: "img", "aria-label": words, title: words }, ...n.p.map((p) => make("i", { style: `height:${Math.round(p * 100)}%` })));
  };
  const list = () => {
    const all = found();
    const rows = all.slice(0, limit).map((n) => {
      const link = make("a", { href: `#neuron=${place(n)}` }, place(n));
      const promotes = make("td");
      if (n.w) n.w[0].slice(0, 5).forEach((word) => promotes.append(make("code", {}, make("bdi", {}, word)), " "));
      return make("tr", {}, make("th", { scope: "row" }, link), make("td", {}, n.g.map((k) => languages[k]).join(", ")), make("td", {}, fixed(n.e, 3)), make("td", {}, mini(n)), promotes);
    });
    $("found").tBodies[0].replaceChildren(...rows);
    $("count").textContent = `${all.length.toLocaleString("en")} of ${neurons.length.toLocaleString("en")} neurons${all.length > limit ? `, the first ${limit} shown` : ""}`;
    $("more").hidden = all.length <= limit;
  };
  const probabilities = (n) => {
    const grid = make("div", { class: "probs" }, ...["language", "probability", "", n.m ? "mean activation" : ""].map((t) => make("span", { class: "head" }, t)));
    n.p.forEach((p, k) => grid.append(make("span", {}, languages[k] + (n.g.includes(k) ? " •" : "")), make("i", { style: `width:${(100 * p).toFixed(1)}%` }), make("span", {}, p.toFixed(4)), make("span", {}, n.m ? minus(String(n.m[k])) : "")));
    return grid;
  };
  const context = ([t, value, digits]) => {
    const [language, pieces] = texts[t];
    const text = make("bdi", { dir: "auto" });
    pieces.forEach((piece, k) => text.append(make("mark", { style: `--a:${(0.65 * Number(digits[k])) / 9}` }, piece)));
    return make("div", { class: "context" }, make("span", { class: "of" }, `${language}, up to ${value}: `), text);
  };
  const words = (title, list) => make("div", {}, make("h4", {}, title), ...list.map((word) => make("code", {}, make("bdi", {}, word))));
  const effects = (n) => n.d.map(([language, delta, low, high]) => {
    const others = browser.controls[language];
    const control = others ? ` Single matched neurons: ${fixed(others.reduce((a, b) => a + b, 0) / others.length, 4)} on average, at most ${fixed(Math.max(...others), 4)} (${others.length} of them).` : "";
    const between = low === null ? "no interval: under 20 units" : `${fixed(low, 4)} to ${fixed(high, 4)}`;
    return make("p", {}, `Switched off alone, it changes the loss of ${language} by ${fixed(delta, 4)} nats per token (${between}).${control}`);
  });
  const open = (n) => {
    const parts = [make("h3", {}, `Neuron ${place(n)}`)];
    const address = n.x === undefined ? `layer ${n.l}, index ${n.i}` : `layer ${n.l}, expert ${n.x}, index ${n.i}`;
    parts.push(make("p", { class: "note" }, `${address}; of ${n.g.map((k) => languages[k] + (n.s && n.s[k] !== undefined ? ` (in ${Math.round(100 * n.s[k])} % of halves)` : "")).join(", ")}${n.e === undefined ? "" : `; entropy ${fixed(n.e, 4)} nats`}`));
    if (n.p) parts.push(probabilities(n));
    if (n.d) parts.push(...effects(n));
    if (n.w) parts.push(make("div", { class: "words" }, words("Its output promotes", n.w[0]), words("and suppresses", n.w[1])), make("p", { class: "note" }, "By the product of its column of the down projection with the unembedding: what it would add if nothing came after. In a gated MLP the sign of the other branch decides which of the two it does."));
    const mine = contexts[n.f] || [];
    if (mine.length) parts.push(make("h4", {}, "Where it fires most"), ...mine.map(context));
    const close = make("button", { type: "button" }, "Close");
    close.addEventListener("click", () => { history.pushState(null, "", "#neurons"); route(); });
    $("neuron").replaceChildren(...parts, close);
    $("neuron").hidden = false;
    $("neuron").scrollIntoView({ block: "start" });
    $("neuron").focus({ preventScroll: true });
  };
  const route = () => {
    const hash = decodeURIComponent(location.hash);
    const one = hash.startsWith("#neuron=") ? byPlace.get(hash.slice(8)) : undefined;
    if (one) return open(one);
    $("neuron").hidden = true;
    if (hash.startsWith("#neurons?language=")) {
      $("f-language").value = hash.slice(18);
      limit = STEP;
      list();
      $("neurons").scrollIntoView();
    }
  };
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filters").addEventListener("input", () => { limit = STEP; list(); });
  $("more").addEventListener("click", () => { limit += STEP; list(); });
  addEventListener("hashchange", route);
  list();
  route();
})();
