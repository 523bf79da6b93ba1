// Tabs, filters, panels and the address; what is shown is drawn anew after each change.

const tabsOf = (list, names, chosen, choose) => {
  const made = names.map((name) => {
    const tab = element("button", {
      type: "button", role: "tab", "aria-selected": name === chosen, "aria-controls": "shown", tabindex: name === chosen ? 0 : -1,
    }, name);
    tab.addEventListener("click", () => choose(name));
    return tab;
  });
  const held = list.contains(document.activeElement);
  list.replaceChildren(...made);
  if (held) made[names.indexOf(chosen)]?.focus();
  list.onkeydown = (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, Home: -names.indexOf(chosen), End: names.length - 1 - names.indexOf(chosen) }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(names[(names.indexOf(chosen) + step + names.length) % names.length]);
  };
};

// An option that stays is not replaced: it may be the one that is being chosen.
const fill = (select, names, words = (name) => name) => {
  if (select.options.length === names.length && names.every((name, index) => select.options[index].value === name)) return;
  select.replaceChildren(...names.map((name) => element("option", { value: name }, words(name))));
};

const drawControls = () => {
  const view = viewOf(state.data);
  if (!view) return;
  const to = (data, norm) => change({ ...usual(data, norm), find: state.find, attack: state.attack, settings: state.settings,
    flag: state.flag, hide: state.hide, sort: state.sort, order: state.order }, { push: true });
  tabsOf(byId("tabs-data"), data.views.map((each) => each.data), state.data, (name) => to(name));
  tabsOf(byId("tabs-norm"), view.norms.map((each) => each.norm), state.norm, (name) => to(state.data, name));
  fill(filters.epsilon, normOf(view, state.norm).epsilons.map((each) => each.text));
  const here = figures.filter((figure) => figure.data === state.data && figure.norm === state.norm);
  const horizons = inOrder(here.map((figure) => figure.horizon).filter((horizon) => horizon !== null)).map(nameOf);
  const none = here.some((figure) => figure.horizon === null) ? ["no horizon"] : [];
  fill(filters.horizon, ["", ...horizons, ...none], (name) => name || "any");
  const first = usual(state.data, state.norm);
  for (const [name, control] of Object.entries(filters)) {
    const known = control.tagName === "INPUT" || [...control.options].some((option) => option.value === state[name]);
    if (!known) state[name] = first[name];
    if (control.value !== state[name]) control.value = state[name];
  }
};

const draw = () => {
  drawControls();
  drawTable();
  drawCharts();
  openPanel();
};

// `push`: Back returns to what was shown before.
const change = (changes, { push = false } = {}) => {
  state = { ...state, ...changes };
  drawControls();
  history[push ? "pushState" : "replaceState"](push ? { opened: Boolean(changes.model) } : history.state, "", address());
  draw();
};

// --- filters ------------------------------------------------------------------------------------------------------------

const form = byId("filters");
const filter = () => change(Object.fromEntries(FILTERS.map((name) => [name, filters[name].value])));
form.addEventListener("input", filter);
form.addEventListener("change", () => {
  filter();
  const top = table.getBoundingClientRect().top;
  if (top < 0 || top > innerHeight * 0.6) byId("figures").scrollIntoView();
});
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", (event) => {
  event.preventDefault();
  change({ ...usual(state.data, state.norm) });
});

// --- panels: a dialog with what is known of one model -------------------------------------------------------------------

const dialog = byId("panel");
const articles = [...dialog.querySelectorAll("article")];

const openPanel = () => {
  const found = articles.find((article) => article.dataset.model === state.model);
  if (!found) {
    state.model = "";
    if (dialog.open) dialog.close();
    return;
  }
  if (dialog.open && !found.hidden) return;
  for (const article of articles) article.hidden = article !== found;
  const cards = [...found.querySelectorAll("details.card")];
  const first = cards.find((card) => card.dataset.data === state.data) ?? cards[0];
  for (const card of cards) card.open = card === first;
  found.querySelector("h2").after(first);
  dialog.setAttribute("aria-labelledby", found.querySelector("h2").id);
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
};

document.addEventListener("click", (event) => {
  const link = event.target.closest?.("a");
  const href = link?.getAttribute("href") ?? "";
  if (!href.startsWith("#model=") || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  hideTip();
  change({ model: decoded(href.slice(7)) }, { push: true });
});
byId("close").addEventListener("click", () => dialog.close());
dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
dialog.addEventListener("close", () => {
  if (!state.model) return; // Back closed it
  if (history.state?.opened) history.back();
  else change({ model: "" });
});

// --- the address ---------------------------------------------------------------------------------------------------------

const recall = () => {
  const own = location.hash.includes("=");
  state = own || !location.hash ? read(location.hash) : { ...state, model: "" };
  draw();
};
addEventListener("popstate", recall);

recall();
if (byId("chart-robust")) {
  let width = byId("chart-robust").clientWidth;
  new ResizeObserver(([entry]) => {
    if (Math.abs(entry.contentRect.width - width) < 1) return;
    width = entry.contentRect.width;
    drawCharts();
  }).observe(byId("chart-robust"));
}
document.documentElement.dataset.drawn = "yes";
