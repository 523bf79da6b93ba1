(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const table = byId("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const filters = Object.fromEntries(
    ["model", "data", "threat", "attack", "flag"].map((name) => [name, byId(`filter-${name}`)]),
  );
  const usual = Object.fromEntries(Object.entries(filters).map(([name, control]) => [name, control.value]));
  let sorted = null; // [key, direction]

  // --- sorting -------------------------------------------------------------------------------------------------

  const compare = (a, b, sign) => {
    if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last, either way
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
    return sign * order;
  };

  const sort = (key, direction) => {
    const column = heads.findIndex((head) => head.dataset.key === key);
    sorted = column < 0 ? null : [key, direction];
    heads.forEach((head, index) => head.setAttribute("aria-sort", sorted && index === column ? direction : "none"));
    const sign = direction === "descending" ? -1 : 1;
    const value = (row) => row.cells[column].dataset.value;
    const order = sorted ? [...rows].sort((a, b) => compare(value(a), value(b), sign)) : rows;
    body.append(...order);
  };

  heads.forEach((head) => {
    head.querySelector("button").addEventListener("click", () => {
      const first = head.dataset.first ?? "ascending";
      const other = first === "ascending" ? "descending" : "ascending";
      sort(head.dataset.key, head.getAttribute("aria-sort") === first ? other : first);
      remember();
    });
  });

  // --- filters -------------------------------------------------------------------------------------------------

  const passes = (row, wanted) => {
    const { data, threat, attack, model } = row.dataset;
    const flags = JSON.parse(row.dataset.flags);
    if (wanted.data && data !== wanted.data) return false;
    if (wanted.threat && threat !== wanted.threat) return false;
    if (wanted.attack && attack !== wanted.attack) return false;
    if (wanted.flag === "none" && flags.length) return false;
    if (wanted.flag.startsWith("flag ") && !flags.includes(wanted.flag.slice(5))) return false;
    return model.toLowerCase().includes(wanted.model.trim().toLowerCase());
  };

  const filter = () => {
    const wanted = Object.fromEntries(Object.entries(filters).map(([name, control]) => [name, control.value]));
    let shown = 0;
    for (const row of rows) {
      row.hidden = !passes(row, wanted);
      shown += !row.hidden;
    }
    byId("count").textContent = `${shown} of ${rows.length} figures shown`;
  };

  // --- the address keeps filters and order: #?data=digits&sort=robust&order=descending --------------------------

  const remember = () => {
    const parameters = new URLSearchParams();
    for (const [name, control] of Object.entries(filters)) {
      if (control.value !== usual[name]) parameters.set(name, control.value);
    }
    if (sorted) {
      parameters.set("sort", sorted[0]);
      parameters.set("order", sorted[1]);
    }
    const text = parameters.toString();
    history.replaceState(null, "", text ? `#?${text}` : location.pathname + location.search);
  };

  const recall = () => {
    if (!location.hash.startsWith("#?")) return;
    const parameters = new URLSearchParams(location.hash.slice(2));
    for (const [name, control] of Object.entries(filters)) {
      const value = parameters.get(name) ?? usual[name];
      const known = control.tagName === "INPUT" || [...control.options].some((option) => option.value === value);
      control.value = known ? value : usual[name];
    }
    sort(parameters.get("sort"), parameters.get("order") === "descending" ? "descending" : "ascending");
    filter();
  };

  const form = byId("filters");
  for (const event of ["input", "change"]) form.addEventListener(event, () => { filter(); remember(); });
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => { sort(null, ""); filter(); remember(); }));

  // --- a link to a model opens its panel ------------------------------------------------------------------------

  const reveal = () => {
    const target = location.hash.length > 1 && byId(location.hash.slice(1));
    if (target instanceof HTMLDetailsElement) {
      target.open = true;
      target.scrollIntoView();
    }
  };
  addEventListener("hashchange", () => { recall(); reveal(); });

  // --- charts ---------------------------------------------------------------------------------------------------

  const DARK = { "#000000": "#f2f2f2", "#0072b2": "#3d9be9", "#8c564b": "#c08a7e" };
  const scheme = matchMedia("(prefers-color-scheme: dark)");

  const configuration = () => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      labelColor: colour("--ink"), titleColor: colour("--ink"), gridColor: colour("--grid"),
      domainColor: colour("--soft"), tickColor: colour("--soft"),
      labelFontSize: 12, titleFontSize: 12, titleFontWeight: "normal",
    };
    return {
      background: "transparent", font: "system-ui, sans-serif", axis,
      view: { stroke: colour("--line") },
      title: { color: colour("--ink"), fontSize: 13, fontWeight: "normal", anchor: "start" },
    };
  };

  const seen = (colour) => (scheme.matches ? DARK[colour] ?? colour : colour);

  const draw = async () => {
    const specifications = JSON.parse(byId("specifications").textContent);
    for (const swatch of document.querySelectorAll(".swatch")) {
      swatch.style.setProperty("--colour", seen(swatch.dataset.colour));
    }
    for (const place of document.querySelectorAll("[data-chart]")) {
      const specification = specifications[place.dataset.chart];
      for (const layer of specification.layer) {
        const scale = layer.encoding.color.scale;
        if (scale) scale.range = scale.range.map(seen);
      }
      // ast: expressions are interpreted, so that nothing is evaluated as code
      await vegaEmbed(place, specification, {
        mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, ast: true, config: configuration(),
        tooltip: { theme: scheme.matches ? "dark" : "light" },
      });
    }
    document.documentElement.dataset.drawn = scheme.matches ? "dark" : "light";
  };

  recall();
  filter();
  reveal();
  if (document.querySelector("[data-chart]")) {
    draw();
    scheme.addEventListener("change", draw);
  }
})();
