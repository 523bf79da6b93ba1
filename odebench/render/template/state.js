// What is shown: data set, norm, radius, filters, order and model. The address holds all of it that is not usual.

const byId = (id) => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
const figures = data.rows.map((row) => Object.fromEntries(data.columns.map((name, index) => [name, row[index]])));
const FILTERS = ["epsilon", "horizon", "find", "attack", "settings", "flag"];
const filters = Object.fromEntries(FILTERS.map((name) => [name, byId(`filter-${name}`)]));

const viewOf = (name) => data.views.find((view) => view.data === name) ?? data.views[0];
const normOf = (view, name) => view.norms.find((each) => each.norm === name) ?? view.norms[0];
const nameOf = (horizon) => (horizon === null ? "no horizon" : `T=${horizon}`);
const radiusOf = (found) => found.epsilons.find((each) => each.value === found.middle).text;

// What holds where the address says nothing, which hangs on the data set.
const usual = (name, norm) => {
  const view = viewOf(name);
  const found = view && normOf(view, norm);
  return {
    data: view?.data, norm: found?.norm, epsilon: found && radiusOf(found),
    horizon: "", find: "", attack: data.union, settings: "", flag: "", sort: "", order: "", hide: "", model: "",
  };
};
let state = usual();

// A part of the address as it was meant; as it stands where its percent signs mean nothing.
const decoded = (text) => {
  try { return decodeURIComponent(text); } catch { return text; }
};

const read = (text) => {
  const given = new URLSearchParams(text.replace(/^#\??/, ""));
  const first = usual(given.get("data"), given.get("norm"));
  const found = { ...first };
  for (const name of Object.keys(first)) found[name] = given.get(name) ?? first[name];
  Object.assign(found, { data: first.data, norm: first.norm });
  return found;
};

const address = () => {
  const parameters = new URLSearchParams();
  const [first, here] = [usual(), usual(state.data, state.norm)];
  if (state.model) parameters.set("model", state.model);
  if (state.data !== first.data) parameters.set("data", state.data);
  if (state.norm !== usual(state.data).norm) parameters.set("norm", state.norm);
  for (const name of [...FILTERS, "sort", "order", "hide"]) {
    if (state[name] !== here[name]) parameters.set(name, state[name]);
  }
  const text = parameters.toString();
  return text ? `#${text}` : location.pathname + location.search;
};

// --- which figures pass --------------------------------------------------------------------------------------------

const epsilonOf = (figure) => {
  const found = normOf(viewOf(figure.data), figure.norm).epsilons;
  return found.find((each) => each.value === figure.epsilon)?.text;
};

// `but` names the filters that are not asked.
const passes = (figure, but = []) => {
  const asks = (name) => state[name] && !but.includes(name);
  if (figure.data !== state.data || figure.norm !== state.norm) return false;
  if (asks("epsilon") && epsilonOf(figure) !== state.epsilon) return false;
  if (asks("attack") && figure.attack !== state.attack) return false;
  if (asks("horizon") && nameOf(figure.horizon) !== state.horizon) return false;
  if (!asks("settings") && figure.line === null) return false;
  if (asks("flag")) {
    if (state.flag === "none" ? figure.flags.length : !figure.flags.includes(state.flag.slice(5))) return false;
  }
  return figure.label.toLowerCase().includes(state.find.trim().toLowerCase());
};
