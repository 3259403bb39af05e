// The search page. Everything from the index is shown as text and never becomes markup. The address holds the query, so
// that a link can be shared and Back works.
import { chinese, translate, words } from "./words.js";

const PAGE_SIZE = 60;      // hits of one request
const MAX_HITS = 2000;     // the largest offset that the API allows
const TYPING_PAUSE = 250;  // milliseconds without a key before the query is sent
const MAX_RETRIES = 5;     // of a request that a busy server has refused
const SCROLL_MARGIN = 400; // pixels below the window in which the next hits are loaded ahead

const OWN_ARROWS = "input[type=range], input[type=number], select"; // what arrow keys change
const find = (id) => document.getElementById(id);
const form = find("form"), text = find("text"), without = find("without"), threshold = find("threshold");
const hitList = find("hits"), status = find("status"), detail = find("detail");

let info = {};           // the answer of v1/info
let queryImage = null;   // the image of the query: { file, url, name } or { id, url, name }
let controller = null;   // aborts the current request
let hits = [];           // the visible hits: of equal images the best one, with the others as its copies
let numAnswered = 0;     // hits that the server has sent, with all copies
let hasMore = false;     // whether there may be more hits
let isTyping = false;    // whether the address holds a query that is still being typed
let typingTimer = 0;

const say = (message, isError = false) => {
  status.textContent = message;
  status.classList.toggle("error", isError);
};
const wait = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));
const fieldLabel = (name) => name.replaceAll("_", " ");
const isEmpty = () => !queryImage && !text.value.trim() && !without.value.trim();

// Set the text of an element, and its language if it is not that of the page.
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

const hitName = (hit) => caption(hit.fields) || hit.id;
// Return a path next to the page as an address. Name and password of the page's own address are left out, because
// browsers refuse to fetch addresses with them.
const resolve = (path) => new URL(path, location.origin + location.pathname).href;
const thumbnailUrl = (hit) => resolve(`thumbnail?${new URLSearchParams({ id: hit.id, version: hit.version || "" })}`);
const imageUrl = (hit) => resolve(`image?${new URLSearchParams({ id: hit.id })}`);

// Send a request to the API and return its answer. A request that a busy server refuses is sent again.
async function request(path, options = {}, retries = MAX_RETRIES) {
  let response;
  try {
    response = await fetch(resolve(path), options);
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error(words.offline);
  }
  if (response.status === 503 && response.headers.has("Retry-After") && retries) {
    say(words.busy);
    await wait(1000 * Number(response.headers.get("Retry-After")));
    return request(path, options, retries - 1);
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ? body.error.message : `${response.status}`);
  return body;
}

const requestTags = (id) => request(`v1/tags?${new URLSearchParams({ id })}`);

function readFilters() {
  const where = {};
  for (const select of document.querySelectorAll("#filters select")) {
    if (select.value) where[select.dataset.field] = JSON.parse(select.value);
  }
  for (const input of document.querySelectorAll("#filters input[type=number]")) {
    const { field, operator } = input.dataset;
    if (input.value) where[field] = { ...where[field], [operator]: Number(input.value) };
  }
  return where;
}

// Return the threshold, or null if the slider is at its lower end, and show it next to the slider.
function readThreshold() {
  const value = Number(threshold.value);
  find("threshold-value").textContent = value < 0 ? words.any : value.toFixed(2);
  return value < 0 ? null : value;
}

// Return the query as the address holds it.
function readQuery() {
  const query = new URLSearchParams(), where = readFilters(), cosine = readThreshold();
  if (queryImage && queryImage.id) query.set("like", queryImage.id);
  if (text.value.trim()) query.set("q", text.value.trim());
  if (without.value.trim()) query.set("without", without.value.trim());
  if (cosine !== null) query.set("threshold", cosine);
  if (!find("words").checked) query.set("words", 0);
  if (Object.keys(where).length) query.set("where", JSON.stringify(where));
  return query;
}

function updateAddress(shouldReplace) {
  const query = readQuery().toString(), url = query ? `?${query}` : location.pathname;
  if (location.search === (query ? url : "")) return;
  history[shouldReplace ? "replaceState" : "pushState"](null, "", url);
}

// Request the first hits of the query, or those after the visible ones.
async function search(isNextPage = false) {
  clearTimeout(typingTimer);
  if (controller) controller.abort();
  controller = new AbortController();
  const { signal } = controller, query = readQuery(), offset = isNextPage ? numAnswered : 0;
  find("examples").hidden = !isEmpty();
  if (isEmpty()) return showStart();

  const parameters = new URLSearchParams({ count: Math.min(PAGE_SIZE, MAX_HITS - offset), offset });
  for (const name of ["q", "without", "threshold", "where"]) {
    if (query.has(name)) parameters.set(name, query.get(name));
  }
  // In a sum of queries, an item that one of them names is not what was asked for.
  if (info.words && find("words").checked && !queryImage && !query.has("without")) parameters.set("words", 1);
  if (query.has("like")) parameters.set("id", query.get("like"));
  if (!isNextPage) {
    hasMore = false;  // the visible hits are those of another query: nothing may be appended to them
    say(words.searching);
  }
  try {
    let path = "search", options = { signal };
    if (queryImage && queryImage.id) path = "similar";
    if (queryImage && queryImage.file) {
      path = "search/image";
      options = { signal, method: "POST", body: queryImage.file };
    }
    const answer = await request(`v1/${path}?${parameters}`, options);
    hasMore = answer.hits.length === PAGE_SIZE && offset + PAGE_SIZE < MAX_HITS;
    showHits(answer.hits, isNextPage);
    if (hits.length) say(words.hitCount(numAnswered, hasMore, answer.milliseconds.toFixed(0)));
    else say(query.has("threshold") ? words.nothingClose : words.noHits);
    fillWindow();
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!isNextPage) showHits([]);
    say(error.message, true);
  }
}

function makeCard(hit) {
  const card = document.createElement("li"), button = document.createElement("button");
  const image = document.createElement("img");
  image.src = thumbnailUrl(hit);
  image.alt = "";
  image.loading = "lazy";
  button.append(image, write(document.createElement("b"), hitName(hit)));
  for (const name of info.show || []) {
    const line = `${fieldLabel(name)}: ${hit.fields[name]}`;
    if (name in hit.fields) button.append(write(document.createElement("small"), line));
  }
  if (hit.score !== undefined) button.append(write(document.createElement("small"), hit.score.toFixed(3)));
  if (hit.words) {
    const mark = write(document.createElement("small"), words.hasWords);
    mark.className = "has-words";
    button.append(mark);
  }
  const copies = document.createElement("small");
  copies.className = "copies";
  copies.hidden = true;
  button.append(copies);
  button.hit = hit;
  button.addEventListener("click", () => openDetail(hit));
  card.append(button);
  return card;
}

// Show hits, of equal images only the first one; the version tells whether images are equal.
function showHits(newHits, shouldAppend = false) {
  if (!shouldAppend) {
    [hits, numAnswered] = [[], 0];
    hitList.replaceChildren();
  }
  numAnswered += newHits.length;
  for (const hit of newHits) {
    const original = hit.version && hits.find((candidate) => candidate.version === hit.version);
    if (original) {
      original.copies.push(hit);
      const label = hitList.children[hits.indexOf(original)].querySelector(".copies");
      label.textContent = words.copies(original.copies.length);
      label.hidden = false;
    } else {
      hit.copies = [];
      hits.push(hit);
      hitList.append(makeCard(hit));
    }
  }
}

// Load the next hits while the end of the list is visible.
function fillWindow() {
  if (hasMore && find("end").getBoundingClientRect().top < innerHeight + SCROLL_MARGIN) search(true);
}
new IntersectionObserver(fillWindow, { rootMargin: `${SCROLL_MARGIN}px` }).observe(find("end"));

// Show some images and queries to try, while there is no query.
async function showStart() {
  hasMore = false;
  if (!info.images) {
    showHits([]);
    say(words.empty);
    return;
  }
  const examples = await request("v1/examples", { signal: controller.signal }).catch(() => null);
  if (!examples || !isEmpty()) return;  // the user has begun a query meanwhile
  showHits(examples.items);
  say(words.start);
  find("examples").replaceChildren(...examples.texts.map((query) => makeQueryButton(query, query)));
}

function makeQueryButton(label, query) {
  const button = write(document.createElement("button"), label);
  button.type = "button";
  button.addEventListener("click", () => {
    detail.close();
    removeImage();
    text.value = query;
    submitQuery();
  });
  return button;
}

function submitQuery() {
  isTyping = false;
  updateAddress(false);
  return search();
}

function makeFieldValue(content) {
  const element = document.createElement("dd");
  const value = Array.isArray(content) ? content.join(", ") : String(content);
  // Only these become links: an address such as javascript: would run a stranger's code.
  if (!/^https?:\/\/\S+$/.test(value)) return write(element, value);
  const link = document.createElement("a");
  link.href = value;
  link.rel = "noopener noreferrer";
  link.target = "_blank";
  element.append(write(link, value));
  return element;
}

function openDetail(hit) {
  detail.hit = hit;
  find("large").src = imageUrl(hit);
  find("large").alt = hitName(hit);
  find("download").href = imageUrl(hit);
  find("download").download = hit.id.split("/").pop();

  const rows = [["id", hit.id]];
  if (hit.score !== undefined) rows.push([words.similarity, hit.score.toFixed(4)]);
  rows.push(...Object.entries(hit.fields).filter(([name]) => name !== "id"));
  if (hit.copies.length) rows.push([words.sameImage, hit.copies.map((copy) => copy.id)]);
  find("fields").replaceChildren();
  for (const [name, content] of rows) {
    find("fields").append(write(document.createElement("dt"), fieldLabel(name)), makeFieldValue(content));
  }

  const position = hits.indexOf(hit);
  find("previous").disabled = position <= 0;
  find("next").disabled = position === hits.length - 1 && !hasMore;
  if (!detail.open) detail.showModal();
  showTags(find("tags"), () => requestTags(hit.id), () => detail.hit === hit);
}

async function openNeighbour(step) {
  const position = hits.indexOf(detail.hit) + step;
  if (position === hits.length && hasMore) await search(true);
  if (hits[position]) openDetail(hits[position]);
}

detail.addEventListener("close", () => {
  const button = [...hitList.querySelectorAll("button")].find((candidate) => candidate.hit === detail.hit);
  if (button) button.focus();
});

// Show the tags of an image in an element, unless another image is current when they arrive.
async function showTags(element, requestAnswer, isCurrent) {
  element.replaceChildren();
  const answer = info.texts ? await requestAnswer().catch(() => null) : null;
  if (!answer || !isCurrent()) return;
  element.replaceChildren(...answer.hits.map((tag) => makeQueryButton(`${tag.id} ${tag.score.toFixed(2)}`, tag.id)));
  if (!answer.hits.length) element.textContent = words.noTag;
}

function searchSimilar(hit) {
  detail.close();
  text.value = without.value = "";
  setImage({ id: hit.id, url: thumbnailUrl(hit), name: hitName(hit) });
  submitQuery();
}

function setImage(image) {
  queryImage = image;
  find("query-thumbnail").src = image.url;
  find("query-thumbnail").alt = words.queryImage;
  const description = image.id ? words.like(image.name) : words.likeWithWords(image.name);
  write(find("query-image").querySelector("span"), description);
  find("query-image").hidden = false;
  const requestAnswer = image.id ? () => requestTags(image.id)
    : () => request("v1/tags", { method: "POST", body: image.file });
  showTags(find("query-tags"), requestAnswer, () => queryImage === image);
}

function removeImage() {
  queryImage = null;
  find("query-image").hidden = true;
}

function takeFile(files) {
  const file = [...files].find((candidate) => candidate.type.startsWith("image/"));
  if (!file) return say(words.notImage, true);
  setImage({ file, url: URL.createObjectURL(file), name: file.name });
  return submitQuery();
}

// Set the page to the query in the address, after Back or from a shared link.
function restoreQuery() {
  const query = new URLSearchParams(location.search);
  text.value = query.get("q") || "";
  without.value = query.get("without") || "";
  threshold.value = query.get("threshold") || threshold.min;
  find("words").checked = query.get("words") !== "0";
  let where = {};
  try {
    where = Object(JSON.parse(query.get("where") || "{}"));
  } catch { /* an address that was cut off has no filter */ }
  for (const input of document.querySelectorAll("#filters select, #filters input[type=number]")) input.value = "";
  for (const [field, condition] of Object.entries(where)) selectFilter(field, condition);
  const id = query.get("like");
  if (id) setImage({ id, url: thumbnailUrl({ id }), name: id });
  else removeImage();
  isTyping = false;
  return search();
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (queryImage && queryImage.id) removeImage();
  submitQuery();
});
for (const input of [text, without]) {
  input.addEventListener("input", () => {
    clearTimeout(typingTimer);
    if (queryImage && queryImage.id) removeImage();
    typingTimer = setTimeout(() => {
      updateAddress(isTyping);  // one entry in the history for all that is typed
      isTyping = true;
      search();
    }, TYPING_PAUSE);
  });
  input.addEventListener("change", () => { isTyping = false; });
}
window.addEventListener("popstate", () => { detail.close(); restoreQuery(); });
find("remove-image").addEventListener("click", () => { removeImage(); submitQuery(); });
find("close").addEventListener("click", () => detail.close());
find("similar").addEventListener("click", () => searchSimilar(detail.hit));
find("previous").addEventListener("click", () => openNeighbour(-1));
find("next").addEventListener("click", () => openNeighbour(1));
find("choose-image").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", (event) => {
  takeFile(event.target.files);
  event.target.value = "";  // otherwise choosing the same file again would be no change
});
threshold.addEventListener("input", readThreshold);
threshold.addEventListener("change", submitQuery);
find("words").addEventListener("change", submitQuery);
find("calibration").addEventListener("click", () => {
  threshold.value = info.thresholds.images;
  readThreshold();
  submitQuery();
});
for (const type of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(type, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;  // a text may be dragged into a field
    event.preventDefault();
    document.body.classList.toggle("over", type === "dragenter" || type === "dragover");
    if (type === "drop") takeFile(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) takeFile(event.clipboardData.files);
});

const countColumns = () => getComputedStyle(hitList).gridTemplateColumns.split(" ").length;

document.addEventListener("keydown", (event) => {
  // Keys of the browser, such as Alt with an arrow, and those that choose among the words of a Chinese input method.
  if (event.altKey || event.ctrlKey || event.metaKey || event.isComposing) return;
  const isInField = event.target.matches("input, select");
  if (event.key === "/" && !isInField) { event.preventDefault(); text.focus(); text.select(); }
  const focused = document.activeElement, hit = detail.open ? detail.hit : focused && focused.hit;
  if (event.key === "s" && !isInField && hit) searchSimilar(hit);
  if (detail.open) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (step) { event.preventDefault(); openNeighbour(step); }
    return;
  }
  // Arrows move between the cards; out of a text field only the one that points to them does.
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: countColumns(), ArrowUp: -countColumns() }[event.key];
  if (!step || (isInField && event.key !== "ArrowDown") || event.target.matches(OWN_ARROWS)) return;
  const buttons = [...hitList.querySelectorAll("button")], position = buttons.indexOf(focused);
  const target = buttons[position < 0 ? 0 : position + step];
  if (target) { event.preventDefault(); target.focus(); }
});

function addFilter(field) {
  const select = document.createElement("select");
  select.dataset.field = field;
  select.setAttribute("aria-label", fieldLabel(field));
  select.append(new Option(words.anyValue(fieldLabel(field)), ""));
  select.addEventListener("change", submitQuery);
  find("filters").append(select);
  return select;
}

function addFilters({ facets, ranges }) {
  for (const [field, values] of Object.entries(facets)) {
    if (/^(caption|tags|id$)/.test(field)) continue;
    const options = values.map(([value, count]) => new Option(`${value} (${count})`, JSON.stringify(value)));
    addFilter(field).append(...options);
  }
  for (const [field, bounds] of Object.entries(ranges)) addRange(field, bounds);
}

// Add two fields for the smallest and the largest number of a field.
function addRange(field, bounds) {
  const label = document.createElement("label");
  label.append(fieldLabel(field));
  for (const [operator, bound, word] of [[">=", bounds[0], words.from], ["<=", bounds[1], words.to]]) {
    const input = document.createElement("input");
    input.type = "number";
    input.step = "any";
    input.placeholder = bound;
    input.setAttribute("aria-label", `${fieldLabel(field)} ${word}`);
    Object.assign(input.dataset, { field, operator });
    input.addEventListener("change", submitQuery);
    label.append(word, input);
  }
  find("filters").append(label);
}

// Fill in the numbers of a condition, and return whether there are fields for all of them.
function fillRange(field, condition) {
  const inputs = [...document.querySelectorAll("#filters input[type=number]")];
  const operators = typeof condition === "object" && !Array.isArray(condition) ? Object.keys(Object(condition)) : [];
  const chosen = operators.map((operator) => inputs.find(
    ({ dataset }) => dataset.field === field && dataset.operator === operator));
  if (!chosen.length || !chosen.every((input, number) => input && Number.isFinite(condition[operators[number]]))) return false;
  chosen.forEach((input, number) => { input.value = condition[operators[number]]; });
  return true;
}

// Select a condition from an address; one that is no facet, such as a bound, is added to the options.
function selectFilter(field, condition) {
  if (fillRange(field, condition)) return;
  const selects = [...document.querySelectorAll("#filters select")], value = JSON.stringify(condition);
  const select = selects.find((candidate) => candidate.dataset.field === field) || addFilter(field);
  if (![...select.options].some((option) => option.value === value)) {
    let label = condition;
    if (Array.isArray(condition)) label = condition.join(", ");
    else if (typeof condition === "object") label = Object.entries(Object(condition)).flat().join(" ");
    select.append(new Option(label, value));
  }
  select.value = value;
}

async function start() {
  translate();
  find("keys").textContent = words.keys;
  info = await request("v1/info");
  const kinds = ["images", "texts"].filter((kind) => info[kind]);
  const counts = kinds.map((kind) => words[kind](info[kind].toLocaleString()));
  document.title = find("title").textContent = info.title;
  find("summary").textContent = [...counts, info.model].join(" · ");
  const calibrated = info.thresholds.images;
  if (calibrated !== null) {
    find("calibrated").append(new Option("", calibrated));
    find("calibration").textContent = words.calibrated(calibrated.toFixed(2));
    find("calibration").title = words.calibratedTitle;
    find("calibration").hidden = false;
  }
  find("words-option").hidden = !info.words;
  find("words-option").title = words.exactWordsTitle;
  addFilters(await request("v1/facets"));
  await restoreQuery();
}

start().catch((error) => say(error.message, true));
