// The table of the figures that pass the filters, and its download.

const table = byId("table");
const heads = [...table.tHead.rows[0].cells];

const element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};
const percent = (share) => (100 * share).toFixed(1);
const interval = (figure, name) => `[${percent(figure[`${name}_low`])}, ${percent(figure[`${name}_high`])}]`;
const round = (number) => (number === null ? "" : String(Math.round(number * 10) / 10));
const nfeOf = (figure) =>
  figure.nfe_clean === null ? "" : `${round(figure.nfe_clean)} / ${round(figure.nfe_adversarial) || "–"}`;
const isWeaker = (attack) => !attack.startsWith("worst-case"); // the strongest come first
const attacksOf = (figure) =>
  figure.attack === data.union
    ? [...figure.tried].sort((a, b) => isWeaker(a) - isWeaker(b)).join(", ")
    : `${figure.attack} alone`;
const styles = new Map(data.lines.map((style) => [style.line, style]));
// The model alone where the table holds the usual rows alone; two rows of one line differ in their solver or training.
const named = (figure) => (state.settings ? figure.label : styles.get(figure.line)?.name ?? figure.label);
const modelAddress = (model) => `#model=${encodeURIComponent(model)}`;

const VALUES = {
  rank: (figure) => figure.rank ?? "",
  model: named,
  horizon: (figure) => figure.horizon ?? "",
  robust: (figure) => figure.robust_accuracy,
  clean: (figure) => figure.clean_accuracy,
  nfe: (figure) => figure.nfe_clean ?? "",
  seeds: (figure) => figure.seeds,
  n: (figure) => figure.n,
  attacks: attacksOf,
  flags: (figure) => figure.flags.join(" "),
};

const compare = (a, b, sign) => {
  if (a === "" || b === "") return (a === "") - (b === ""); // what has no value comes last, either way
  return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(b, "en"));
};

const shownFigures = () => {
  const found = figures.filter((figure) => passes(figure));
  const value = VALUES[state.sort];
  if (!value) return found;
  const sign = state.order === "descending" ? -1 : 1;
  return found.sort((a, b) => compare(value(a), value(b), sign));
};

const bar = (figure) => {
  const places = { low: figure.robust_accuracy_low, high: figure.robust_accuracy_high, at: figure.robust_accuracy };
  const made = element("span", { class: "bar", "aria-hidden": "true" }, element("i"), element("b"));
  for (const [name, share] of Object.entries(places)) made.style.setProperty(`--${name}`, share);
  return made;
};

const rowOf = (figure) => {
  const number = (...children) => element("td", { class: "number" }, ...children);
  const small = (text) => element("small", {}, text);
  const head = element("th", { scope: "row" }, element("a", { href: modelAddress(figure.model) }, named(figure)));
  if (!figure.ranked && figure.attack === data.union) head.append(" ", element("span", { class: "badge" }, "unranked"));
  const attacks = element("td", { class: "attacks" }, element("span", { title: attacksOf(figure) }, attacksOf(figure)));
  for (const text of figure.credited) attacks.append(element("br"), small(text));
  const flags = element("td");
  for (const flag of figure.flags) flags.append(element("a", { class: "badge flag", href: "#notes" }, flag), " ");
  const robust = element("a", { href: figure.file }, percent(figure.robust_accuracy));
  return element(
    "tr", figure.attack === data.union ? {} : { class: "alone" },
    number(String(figure.rank ?? "")),
    head,
    number(nameOf(figure.horizon)),
    element("td", { class: "number robust" }, robust, " ", bar(figure), " ", small(interval(figure, "robust_accuracy"))),
    number(percent(figure.clean_accuracy), " ", small(interval(figure, "clean_accuracy"))),
    number(nfeOf(figure)), number(String(figure.seeds)), number(String(figure.n)), attacks, flags,
  );
};

const drawTable = () => {
  const shown = shownFigures();
  table.tBodies[0].replaceChildren(...shown.map(rowOf));
  for (const head of heads) {
    head.setAttribute("aria-sort", head.dataset.key === state.sort ? state.order || "ascending" : "none");
  }
  byId("caption").textContent = state.data ? `${state.data}, ${state.norm}, epsilon ${state.epsilon}` : "";
  const ranked = shown.some((figure) => figure.rank !== null);
  const view = viewOf(state.data);
  const at = view && normOf(view, state.norm).epsilons.find((each) => each.text === state.epsilon);
  byId("decided").textContent = (ranked && at?.decided) || "";
  byId("count").textContent = `${shown.length} of ${figures.length} figures shown`;
};

for (const head of heads) {
  head.querySelector("button").addEventListener("click", () => {
    const first = head.dataset.first ?? "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = state.sort === head.dataset.key && state.order === first ? other : first;
    change({ sort: head.dataset.key, order });
  });
}

// --- what is shown, as a file with the fields of leaderboard.json ---------------------------------------------------

const asJson = (shown) => {
  const found = shown.map((figure) => Object.fromEntries(data.exported.map((name) => [name, figure[name]])));
  return `${JSON.stringify({ schema_version: data.schema_version, figures: found }, null, 1)}\n`;
};
const asCsv = (shown) => {
  const plain = (value) => {
    if (Array.isArray(value)) return value.map(plain).join(" ");
    return value === null ? "" : typeof value === "object" ? JSON.stringify(value) : String(value);
  };
  const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const lines = shown.map((figure) => data.exported.map((name) => quoted(plain(figure[name]))).join(","));
  return `${[data.exported.join(","), ...lines].join("\n")}\n`;
};

for (const [kind, type, text] of [["json", "application/json", asJson], ["csv", "text/csv", asCsv]]) {
  byId(`save-${kind}`).addEventListener("click", () => {
    const file = URL.createObjectURL(new Blob([text(shownFigures())], { type }));
    element("a", { href: file, download: `leaderboard-${state.data}-${state.norm}.${kind}` }).click();
    setTimeout(() => URL.revokeObjectURL(file), 1000);
  });
}
