// The charts: four panels with one y axis. Each is one stop of the Tab key; arrows go from mark to mark.

const HEIGHT = 200;
const MARGIN = { top: 8, right: 8, bottom: 44, left: 34 };
const hidden = () => new Set(state.hide.split(",").filter(Boolean).map(decoded));

const drawn = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const written = (x, y, text, more = {}) => drawn("text", { x, y, ...more }, text);

// Marks of a place, `most` pixels apart at most, so that their intervals do not cover each other.
const spread = (points, width, most) => {
  const places = Map.groupBy ? Map.groupBy(points, (point) => point.x) : new Map();
  if (!Map.groupBy) for (const point of points) places.set(point.x, [...(places.get(point.x) ?? []), point]);
  for (const same of places.values()) {
    const gap = Math.min(most, (0.75 * width) / same.length);
    same.forEach((point, index) => { point.shift = (index - (same.length - 1) / 2) * gap; });
  }
};

const said = (point) => {
  const { figure, name } = point;
  const at = point.epsilon === undefined ? "" : `, epsilon ${point.epsilon}`;
  return [
    ["model", named(figure)], ["at", nameOf(figure.horizon) + at], [name.replace("_", " "), `${percent(point.y)}%`],
    ["95% interval", `${percent(point.low)} to ${percent(point.high)}%`], ["NFE", nfeOf(figure) || "no field"],
    ["train seeds", figure.seeds], ["images", figure.n], ["attacks", attacksOf(figure)],
    ...(figure.ranked || figure.attack !== data.union ? [] : [["", "unranked"]]),
  ];
};

const pointOf = (figure, name, x, more = {}) => ({
  figure, name, x, line: figure.line, y: figure[name], low: figure[`${name}_low`], high: figure[`${name}_high`], ...more,
});

const tip = byId("tip");
const showTip = (mark, point) => {
  tip.replaceChildren(
    ...said(point).flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, String(text))]),
  );
  tip.hidden = false;
  const [box, own] = [mark.getBoundingClientRect(), tip.getBoundingClientRect()];
  const left = Math.min(Math.max(8, box.left + box.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.left = `${left + scrollX}px`;
  tip.style.top = `${(above > 0 ? above : box.bottom + 8) + scrollY}px`;
};
const hideTip = () => { tip.hidden = true; };

const markOf = (point, place) => {
  const style = styles.get(point.line);
  const [x, y] = [place(point.x) + point.shift, point.at(point.y)];
  const empty = point.figure.attack === data.union && !point.figure.ranked;
  const mark = drawn(
    "a", {
      href: modelAddress(point.figure.model), class: `mark s${style.colour}${empty ? " empty" : ""}`, tabindex: -1,
      "aria-label": said(point).map(([name, text]) => `${name} ${text}`).join(", "),
    },
    drawn("path", { class: "interval", d: `M${x} ${point.at(point.low)}V${point.at(point.high)}` }),
    drawn("path", { class: "shape", d: style.shape, transform: `translate(${x} ${y})` }),
  );
  mark.addEventListener("pointerenter", () => showTip(mark, point));
  mark.addEventListener("pointerleave", hideTip);
  mark.addEventListener("focus", () => showTip(mark, point));
  mark.addEventListener("blur", hideTip);
  return mark;
};

// Arrows: left and right along a line, up and down to the next line.
const walk = (svg, marks, points) => {
  const go = (from, key) => {
    const lines = [...new Set(points.map((point) => point.line))];
    const of = (line) => points.filter((point) => point.line === line).sort((a, b) => a.x - b.x);
    const [here, step] = [of(from.line), key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1];
    if (key === "Home") return points[0];
    if (key === "End") return points.at(-1);
    if (key === "ArrowLeft" || key === "ArrowRight") return here[here.indexOf(from) + step];
    const other = lines[lines.indexOf(from.line) + step];
    return other === undefined ? undefined : of(other).sort((a, b) => Math.abs(a.x - from.x) - Math.abs(b.x - from.x))[0];
  };
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hideTip();
    const from = points[marks.indexOf(document.activeElement)];
    if (!from || !/^(Arrow|Home|End)/.test(event.key)) return;
    event.preventDefault();
    const next = marks[points.indexOf(go(from, event.key))];
    if (!next) return;
    marks.forEach((mark) => mark.setAttribute("tabindex", mark === next ? 0 : -1));
    next.focus();
  });
};

// `ticks` are pairs of a place from 0 to 1 and a label; `name` is that of the x axis.
const drawPanel = (key, { points, ticks, name, level = false, front = null, most = 8 }) => {
  const figure = byId(`chart-${key}`);
  const width = Math.max(220, figure.clientWidth);
  const inner = { width: width - MARGIN.left - MARGIN.right, height: HEIGHT - MARGIN.top - MARGIN.bottom };
  const place = (x) => MARGIN.left + x * inner.width;
  const at = (share) => MARGIN.top + (1 - share) * inner.height;
  const svg = drawn("svg", { width, height: HEIGHT, viewBox: `0 0 ${width} ${HEIGHT}`, role: "group" });
  svg.setAttribute("aria-labelledby", `title-${key}`);
  const [left, right, bottom] = [MARGIN.left, width - MARGIN.right, at(0)];
  for (const share of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
    svg.append(drawn("path", { class: "grid", d: `M${left} ${at(share)}H${right}` }));
    svg.append(written(left - 6, at(share) + 4, String(Math.round(100 * share)), { "text-anchor": "end" }));
  }
  for (const [x, label] of ticks) {
    svg.append(drawn("path", { class: "tick", d: `M${place(x)} ${bottom}v5` }));
    svg.append(written(place(x), bottom + 18, label, { "text-anchor": "middle" }));
  }
  svg.append(written((left + right) / 2, HEIGHT - 6, name, { "text-anchor": "middle", class: "axis" }));
  points.forEach((point) => { point.at = at; });
  const places = ticks.map(([x]) => x).sort((a, b) => a - b);
  const steps = places.slice(1).map((x, index) => x - places[index]);
  spread(points, inner.width * Math.min(0.25, ...steps), most);
  const byLine = new Map();
  for (const point of points) byLine.set(point.line, [...(byLine.get(point.line) ?? []), point]);
  for (const [line, own] of byLine) {
    const sorted = [...own].sort((a, b) => a.x - b.x);
    const path = level && sorted.length === 1 && sorted[0].figure.horizon === null
      ? `M${left} ${at(sorted[0].y)}H${right}`
      : sorted.map((point, index) => `${index ? "L" : "M"}${place(point.x) + point.shift} ${at(point.y)}`).join("");
    const dashed = level && sorted[0].figure.horizon === null;
    svg.append(drawn("path", { class: `line s${styles.get(line).colour}${dashed ? " dashed" : ""}`, d: path }));
  }
  if (front) svg.append(drawn("path", { class: "front", d: front(place, at, right) }));
  const marks = points.map((point) => markOf(point, place));
  marks[0]?.setAttribute("tabindex", 0);
  svg.append(...marks);
  walk(svg, marks, points);
  if (!points.length) svg.append(written((left + right) / 2, HEIGHT / 2, "no figure", { "text-anchor": "middle" }));
  figure.replaceChildren(svg);
};

// --- the panels -------------------------------------------------------------------------------------------------------

const inOrder = (values) => [...new Set(values)].sort((a, b) => a - b);

// Places by doubling, with one aside for what has no value; `aside` names it.
const scale = (values, aside, last) => {
  const logs = inOrder(values.filter((value) => value !== null)).map((value) => [value, Math.log2(value)]);
  const missing = values.includes(null);
  const [low, high] = logs.length ? [logs[0][1], logs.at(-1)[1]] : [0, 0];
  const from = missing && !last ? 0.3 : 0.1;
  const to = missing && last ? 0.7 : 0.92;
  const across = high > low ? (to - from) / (high - low) : 0;
  const place = (value) => {
    if (value === null) return last ? 0.88 : 0.1;
    return high > low ? from + (Math.log2(value) - low) * across : (from + to) / 2;
  };
  return { place, ticks: [...logs.map(([value]) => [place(value), value]), ...(missing ? [[place(null), aside]] : [])] };
};

const chartFigures = (but) => {
  const [off, attack] = [hidden(), state.attack || data.union];
  return figures.filter((figure) =>
    figure.line !== null && !off.has(figure.line) && figure.attack === attack && passes(figure, [...but, "settings", "attack"]));
};

const againstHorizon = (name) => {
  const found = chartFigures(["epsilon"].slice(name === "robust_accuracy" ? 1 : 0)).filter(
    (figure) => epsilonOf(figure) === state.epsilon,
  );
  const { place, ticks } = scale(found.map((figure) => figure.horizon), "no horizon", true);
  return {
    points: found.map((figure) => pointOf(figure, name, place(figure.horizon))), level: true,
    ticks: ticks.map(([x, label]) => [x, String(label)]), name: "time horizon T",
  };
};

const apart = (ticks) => ticks.reduce((kept, tick) => (kept.some(([x]) => Math.abs(x - tick[0]) < 0.11) ? kept : [...kept, tick]), []);

const againstNfe = () => {
  const found = chartFigures([]);
  const { place, ticks } = scale(found.map((figure) => figure.nfe_clean), "no field", false);
  const points = found.map((figure) => pointOf(figure, "robust_accuracy", place(figure.nfe_clean)));
  const front = (across, at, right) => {
    let [best, path] = [-1, ""];
    for (const point of [...points].sort((a, b) => a.x - b.x || b.y - a.y)) {
      if (point.y <= best) continue;
      path += path ? `H${across(point.x)}V${at(point.y)}` : `M${across(point.x)} ${at(point.y)}`;
      best = point.y;
    }
    return path && `${path}H${right}`;
  };
  const labels = apart([...ticks].sort((a, b) => a[0] - b[0])).map(([x, label]) => [x, typeof label === "number" ? round(label) : label]);
  return { points, front, ticks: labels, name: "NFE per image, clean" };
};

// The horizon that security curves are of: the one chosen, else that nearest to 1.
const curveHorizon = () => {
  const known = inOrder(figures.filter((f) => f.data === state.data && f.horizon !== null && f.line !== null).map((f) => f.horizon));
  const chosen = known.find((horizon) => nameOf(horizon) === state.horizon);
  return chosen ?? known.sort((a, b) => Math.abs(Math.log2(a)) - Math.abs(Math.log2(b)))[0] ?? null;
};

const againstEpsilon = () => {
  const found = chartFigures(["epsilon", "horizon"]).filter((f) => f.horizon === null || f.horizon === curveHorizon());
  const most = Math.max(0, ...found.map((figure) => figure.epsilon));
  const place = (epsilon) => 0.12 + 0.78 * (most ? epsilon / most : 0);
  const points = found.map((f) => pointOf(f, "robust_accuracy", place(f.epsilon), { epsilon: epsilonOf(f) }));
  for (const line of new Set(found.map((figure) => figure.line))) {
    const figure = found.find((each) => each.line === line);
    points.push(pointOf(figure, "clean_accuracy", place(0), { epsilon: "0" }));
  }
  const ticks = inOrder([0, ...found.map((figure) => figure.epsilon)]);
  const labels = apart([0, ...ticks.slice(1).reverse()].map((epsilon) => [place(epsilon), epsilon]));
  const text = (epsilon) => found.map((f) => (f.epsilon === epsilon ? epsilonOf(f) : null)).find(Boolean) ?? "0";
  return { points, ticks: labels.map(([x, epsilon]) => [x, text(epsilon)]), name: `epsilon (${state.norm})`, most: 2 };
};

const drawLegend = () => {
  const off = hidden();
  const here = new Set(figures.filter((figure) => figure.data === state.data && figure.norm === state.norm).map((f) => f.line));
  const made = [...here].map((line) => styles.get(line)).filter(Boolean).map((style) => {
    const swatch = drawn("svg", { class: `swatch s${style.colour}`, viewBox: "-8 -8 16 16", "aria-hidden": "true" });
    swatch.append(drawn("path", { class: "shape", d: style.shape }));
    const shown = !off.has(style.line);
    const button = element("button", { type: "button", "aria-pressed": shown, "data-line": style.line }, swatch, style.name);
    button.addEventListener("click", () => {
      shown ? off.add(style.line) : off.delete(style.line);
      change({ hide: [...off].map(encodeURIComponent).join(",") });
      [...byId("legend").querySelectorAll("button")].find((each) => each.dataset.line === style.line)?.focus();
    });
    return element("li", {}, button);
  });
  byId("legend").replaceChildren(...made);
};

const drawCharts = () => {
  if (!byId("legend")) return;
  hideTip();
  drawLegend();
  const horizon = curveHorizon();
  byId("title-curve").textContent = `Robust accuracy against epsilon${horizon === null ? "" : `, ${nameOf(horizon)}`}`;
  drawPanel("clean", againstHorizon("clean_accuracy"));
  drawPanel("robust", againstHorizon("robust_accuracy"));
  drawPanel("nfe", againstNfe());
  drawPanel("curve", againstEpsilon());
};
