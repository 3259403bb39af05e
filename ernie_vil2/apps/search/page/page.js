// Everything that comes from the index is shown as text: nothing of it becomes markup. The address holds what is asked.
import { chinese, translate, words } from "./words.js";

const PAGE = 60, MOST = 2000, PAUSE = 250, RETRIES = 5;
const find = (id) => document.getElementById(id);
const [form, text, without, hits, status, detail, threshold] =
  ["form", "text", "without", "hits", "status", "detail", "threshold"].map(find);
let info = {};          // of the index
let queryImage = null;  // a file, or the id of an item
let controller = null;  // of the question that is under way
let found = [];         // hits that are shown
let more = false;       // whether there may be others
let typing = false;     // whether the address is that of a query that is being typed
let pause = 0;

const say = (message, isError = false) => {
  status.textContent = message;
  status.classList.toggle("error", isError);
};
const wait = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));
const label = (name) => name.replaceAll("_", " ");
const isEmpty = () => !queryImage && !text.value.trim() && !without.value.trim();

function write(element, value) {
  element.textContent = value;
  if (/[\u3400-\u9fff]/.test(value) !== chinese) element.lang = chinese ? "en" : "zh";
  return element;
}

function caption(fields) {
  const names = Object.keys(fields).filter((name) => name.startsWith("caption")).sort();
  if (chinese) names.reverse();
  return names.map((name) => fields[name]).join(" · ");
}

const named = (hit) => caption(hit.fields) || hit.id;
const thumbnail = (hit) => `thumbnail?${new URLSearchParams({ id: hit.id, version: hit.version || "" })}`;
const original = (hit) => `image?${new URLSearchParams({ id: hit.id })}`;

// An answer of the API; one that is refused because many ask is asked for again.
async function ask(path, options = {}, retries = RETRIES) {
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(words.offline);
  }
  if (response.status === 503 && response.headers.has("Retry-After") && retries) {
    say(words.busy);
    await wait(1000 * Number(response.headers.get("Retry-After")));
    return ask(path, options, retries - 1);
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(typeof body.detail === "string" ? body.detail : `${response.status}`);
  return body;
}

function filters() {
  const where = {};
  for (const select of document.querySelectorAll("#filters select")) {
    if (select.value) where[select.dataset.field] = JSON.parse(select.value);
  }
  return where;
}

function least() {
  const value = Number(threshold.value);
  find("least").textContent = value < 0 ? words.any : value.toFixed(2);
  return value < 0 ? null : value;
}

// The question as the address holds it.
function address() {
  const asked = new URLSearchParams(), where = filters();
  if (queryImage && queryImage.id) asked.set("like", queryImage.id);
  if (text.value.trim()) asked.set("q", text.value.trim());
  if (without.value.trim()) asked.set("without", without.value.trim());
  if (least() !== null) asked.set("least", least());
  if (Object.keys(where).length) asked.set("where", JSON.stringify(where));
  return asked;
}

function note(replace) {
  const asked = address().toString(), url = asked ? `?${asked}` : location.pathname;
  if (location.search === (asked ? url : "")) return;
  history[replace ? "replaceState" : "pushState"](null, "", url);
}

// Asks for the first answers, or for those after what is shown.
async function search(next = false) {
  clearTimeout(pause);
  if (controller) controller.abort();
  controller = new AbortController();
  const { signal } = controller, asked = address(), offset = next ? found.length : 0;
  find("examples").hidden = !isEmpty();
  if (isEmpty()) return start();
  const chosen = new URLSearchParams({ count: Math.min(PAGE, MOST - offset), offset });
  for (const [name, to] of [["q", "q"], ["without", "without"], ["least", "threshold"], ["where", "where"], ["like", "id"]]) {
    if (asked.has(name)) chosen.set(to, asked.get(name));
  }
  if (!next) say(words.searching);
  try {
    const path = queryImage && queryImage.id ? "similar" : queryImage ? "search/image" : "search";
    const body = queryImage && queryImage.file && { method: "POST", body: queryImage.file };
    const answer = await ask(`api/v1/${path}?${chosen}`, { ...body, signal });
    more = answer.hits.length === PAGE && offset + PAGE < MOST;
    show(answer.hits, next);
    const nothing = asked.has("least") ? words.nothing : words.nothingAtAll;
    say(found.length ? words.found(found.length, more, answer.milliseconds.toFixed(0)) : nothing);
    fill();
  } catch (error) {
    if (error.name === "AbortError") return;
    more = false;
    show([]);
    say(error.message, true);
  }
}

function show(answers, next = false) {
  found = next ? found.concat(answers) : answers;
  const cards = answers.map((hit) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const image = document.createElement("img");
    image.src = thumbnail(hit);
    image.alt = "";
    image.loading = "lazy";
    button.append(image, write(document.createElement("b"), named(hit)));
    for (const name of info.show || []) {
      if (name in hit.fields) button.append(write(document.createElement("small"), `${label(name)}: ${hit.fields[name]}`));
    }
    if (hit.score !== undefined) button.append(write(document.createElement("small"), hit.score.toFixed(3)));
    button.hit = hit;
    button.addEventListener("click", () => open(hit));
    item.append(button);
    return item;
  });
  if (next) hits.append(...cards);
  else hits.replaceChildren(...cards);
}

// As long as the end of the list can be seen, the next answers are fetched.
const fill = () => more && find("end").getBoundingClientRect().top < innerHeight + 400 && search(true);
new IntersectionObserver(fill, { rootMargin: "400px" }).observe(find("end"));

// What there is before anything is asked.
async function start() {
  more = false;
  if (!info.images) {
    show([]);
    say(words.empty);
    return;
  }
  const examples = await ask("api/v1/examples", { signal: controller.signal }).catch(() => null);
  if (!examples || !isEmpty()) return;
  show(examples.items);
  say(words.start);
  find("examples").replaceChildren(...examples.texts.map((query) => chip(query, query)));
}

function chip(shown, query) {
  const button = write(document.createElement("button"), shown);
  button.type = "button";
  button.addEventListener("click", () => {
    detail.close();
    forget();
    text.value = query;
    question();
  });
  return button;
}

function question() {
  typing = false;
  note(false);
  return search();
}

function value(content) {
  const shown = document.createElement("dd"), plain = Array.isArray(content) ? content.join(", ") : String(content);
  if (!/^https?:\/\/\S+$/.test(plain)) return write(shown, plain);
  const link = document.createElement("a");
  link.href = plain;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  shown.append(write(link, plain));
  return shown;
}

function open(hit) {
  find("large").src = original(hit);
  find("large").alt = named(hit);
  find("download").href = original(hit);
  find("download").download = hit.id.split("/").pop();
  detail.hit = hit;
  const rows = [["id", hit.id], ...Object.entries(hit.fields).filter(([name]) => name !== "id")];
  if (hit.score !== undefined) rows.splice(1, 0, [words.similarity, hit.score.toFixed(4)]);
  find("fields").replaceChildren(...rows.flatMap(([name, content]) => [
    write(document.createElement("dt"), label(name)), value(content),
  ]));
  const number = found.indexOf(hit);
  find("previous").disabled = number <= 0;
  find("next").disabled = number === found.length - 1 && !more;
  if (!detail.open) detail.showModal();
  showTags(find("tags"), () => ask(`api/v1/tags?${new URLSearchParams({ id: hit.id })}`), () => detail.hit === hit);
}

async function step(by) {
  const number = found.indexOf(detail.hit) + by;
  if (number === found.length && more) await search(true);
  if (found[number]) open(found[number]);
}

detail.addEventListener("close", () => {
  const button = [...hits.querySelectorAll("button")].find((one) => one.hit === detail.hit);
  if (button) button.focus();
});

// Shows the tags of an image, as long as it is the one that is looked at.
async function showTags(where, asking, current) {
  where.replaceChildren();
  const answer = info.texts ? await asking().catch(() => null) : null;
  if (!answer || !current()) return;
  where.replaceChildren(...answer.hits.map((tag) => chip(`${tag.id} ${tag.score.toFixed(2)}`, tag.id)));
  if (!answer.hits.length) where.textContent = words.noTag;
}

function like(hit) {
  detail.close();
  text.value = without.value = "";
  use({ id: hit.id, url: thumbnail(hit), name: named(hit) });
  question();
}

function use(chosen) {
  queryImage = chosen;
  find("seen").src = chosen.url;
  find("seen").alt = words.seen;
  write(find("asked").querySelector("span"), (chosen.id ? words.like : words.words)(chosen.name));
  find("asked").hidden = false;
  const asking = chosen.id ? () => ask(`api/v1/tags?${new URLSearchParams({ id: chosen.id })}`)
    : () => ask("api/v1/tags", { method: "POST", body: chosen.file });
  showTags(find("names"), asking, () => queryImage === chosen);
}

function forget() {
  queryImage = null;
  find("asked").hidden = true;
}

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (!file) return say(words.notImage, true);
  use({ file, url: URL.createObjectURL(file), name: file.name });
  return question();
}

// Makes the page what the address says, as after Back or by a link that was shared.
function restore() {
  const asked = new URLSearchParams(location.search);
  text.value = asked.get("q") || "";
  without.value = asked.get("without") || "";
  threshold.value = asked.get("least") || threshold.min;
  let where = {};
  try {
    where = Object(JSON.parse(asked.get("where") || "{}"));
  } catch { /* an address that was cut off asks for everything */ }
  for (const select of document.querySelectorAll("#filters select")) select.value = "";
  for (const [field, condition] of Object.entries(where)) admit(field, condition);
  const id = asked.get("like");
  if (id) use({ id, url: thumbnail({ id }), name: id });
  else forget();
  typing = false;
  return search();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (queryImage && queryImage.id) forget();
  question();
});
for (const input of [text, without]) {
  input.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(() => {
      if (queryImage && queryImage.id) forget();
      note(typing);
      typing = true;
      search();
    }, PAUSE);
  });
  input.addEventListener("change", () => { typing = false; });
}
window.addEventListener("popstate", () => { detail.close(); restore(); });
find("forget").addEventListener("click", () => { forget(); question(); });
find("close").addEventListener("click", () => detail.close());
find("similar").addEventListener("click", () => like(detail.hit));
find("previous").addEventListener("click", () => step(-1));
find("next").addEventListener("click", () => step(1));
find("choose").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", (event) => take(event.target.files));
threshold.addEventListener("input", least);
threshold.addEventListener("change", question);
find("calibration").addEventListener("click", () => { threshold.value = info.thresholds.images; least(); question(); });
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) take(event.clipboardData.files);
});
document.addEventListener("keydown", (event) => {
  const inField = event.target.matches("input, select");
  if (event.key === "/" && !inField) { event.preventDefault(); text.focus(); text.select(); }
  const focused = document.activeElement, hit = detail.open ? detail.hit : focused && focused.hit;
  if (event.key === "s" && !inField && hit) like(hit);
  if (detail.open) {
    const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
    return;
  }
  const by = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
  if (!by || (inField && event.key !== "ArrowDown") || event.target.matches("input[type=range], select")) return;
  const buttons = [...hits.querySelectorAll("button")], number = buttons.indexOf(focused);
  const next = buttons[number < 0 ? 0 : number + by];
  if (next) { event.preventDefault(); next.focus(); }
});

const columns = () => getComputedStyle(hits).gridTemplateColumns.split(" ").length;

function filter(field) {
  const select = document.createElement("select");
  select.dataset.field = field;
  select.setAttribute("aria-label", label(field));
  select.append(new Option(words.anyValue(label(field)), ""));
  select.addEventListener("change", question);
  find("filters").append(select);
  return select;
}

function offer(facets) {
  for (const [field, values] of Object.entries(facets)) {
    if (/^(caption|tags|id$)/.test(field)) continue;
    filter(field).append(...values.map(([one, count]) => new Option(`${one} (${count})`, JSON.stringify(one))));
  }
}

// Filters by a condition of an address; one that is not offered, such as a bound, becomes an option.
function admit(field, condition) {
  const selects = [...document.querySelectorAll("#filters select")], value = JSON.stringify(condition);
  const select = selects.find((one) => one.dataset.field === field) || filter(field);
  if (![...select.options].some((one) => one.value === value)) {
    const parts = Array.isArray(condition) ? condition.join(", ") : Object.entries(Object(condition)).flat().join(" ");
    select.append(new Option(typeof condition === "object" ? parts : condition, value));
  }
  select.value = value;
}

async function begin() {
  translate();
  find("keys").textContent = words.keys;
  info = await ask("api/v1/info");
  const counts = ["images", "texts"].filter((kind) => info[kind]).map((kind) => words[kind](info[kind].toLocaleString()));
  find("about").textContent = [...counts, info.model].join(" · ");
  const calibrated = info.thresholds.images;
  if (calibrated !== null) {
    find("calibrated").append(new Option("", calibrated));
    find("calibration").textContent = words.calibrated(calibrated.toFixed(2));
    find("calibration").title = words.calibratedTitle;
    find("calibration").hidden = false;
  }
  offer(await ask("api/v1/facets"));
  await restore();
}

begin().catch((error) => say(error.message, true));
