"use strict";
// Everything that comes from the index is shown as text: nothing of it becomes markup.
const find = (id) => document.getElementById(id);
const [form, text, without, hits, status, detail] =
  ["form", "text", "without", "hits", "status", "detail"].map(find);
let picture = null;   // a dropped file, or the id of an item
let asked = 0;        // number of the last question: answers to earlier ones are late
let tagged = false;   // whether the index has tags

function say(message, isError = false) {
  status.textContent = message;
  status.classList.toggle("error", isError);
}

function options() {
  const where = {};
  for (const select of document.querySelectorAll("#filters select")) {
    if (select.value) where[select.dataset.field] = JSON.parse(select.value);
  }
  const chosen = new URLSearchParams({ count: 60, where: JSON.stringify(where) });
  const least = Number(find("threshold").value);
  find("least").textContent = least < 0 ? "any" : least.toFixed(2);
  if (least >= 0) chosen.set("threshold", least);
  return chosen;
}

async function answer(response) {
  const body = await response.json().catch(() => ({}));
  if (!response.ok) {
    throw new Error(typeof body.detail === "string" ? body.detail : `the server answered ${response.status}`);
  }
  return body;
}

async function search() {
  const number = ++asked, chosen = options();
  if (!picture && !text.value.trim() && !without.value.trim()) return;
  say("searching");
  try {
    let response;
    if (picture && picture.id) {
      chosen.set("id", picture.id);
      response = await fetch(`api/similar?${chosen}`);
    } else {
      if (text.value.trim()) chosen.set("q", text.value);
      if (without.value.trim()) chosen.set("without", without.value);
      const post = picture && { method: "POST", body: picture.file };
      response = await fetch(`api/search?${chosen}`, post || undefined);
    }
    const found = await answer(response);
    if (number === asked) show(found);
  } catch (error) {
    if (number === asked) { hits.replaceChildren(); say(error.message, true); }
  }
}

function caption(fields) {
  const names = Object.keys(fields).filter((name) => name.startsWith("caption")).sort();
  return names.map((name) => fields[name]).join(" · ");
}

const isChinese = (value) => /[\u3400-\u9fff]/.test(value);

function write(element, value) {
  element.textContent = value;
  if (isChinese(value)) element.lang = "zh";
  return element;
}

function show(found) {
  hits.replaceChildren(...found.hits.map((hit) => {
    const item = document.createElement("li"), button = document.createElement("button");
    const image = document.createElement("img");
    image.src = `thumbnail?id=${encodeURIComponent(hit.id)}`;
    image.alt = "";
    image.loading = "lazy";
    const name = write(document.createElement("b"), caption(hit.fields) || hit.id);
    const score = write(document.createElement("small"), hit.score.toFixed(3));
    button.append(image, name, score);
    button.hit = hit;
    button.addEventListener("click", () => open(hit));
    item.append(button);
    return item;
  }));
  const many = found.hits.length;
  say(many ? `${many} picture${many > 1 ? "s" : ""} in ${found.milliseconds.toFixed(0)} ms`
    : "Nothing that is close enough.");
}

async function open(hit) {
  find("large").src = `picture?id=${encodeURIComponent(hit.id)}`;
  find("large").alt = caption(hit.fields) || hit.id;
  find("similar").onclick = () => like(hit);
  detail.hit = hit;
  const rows = Object.entries({ id: hit.id, similarity: hit.score.toFixed(4), ...hit.fields });
  find("fields").replaceChildren(...rows.flatMap(([name, value]) => [
    write(document.createElement("dt"), name.replaceAll("_", " ")),
    write(document.createElement("dd"), Array.isArray(value) ? value.join(", ") : String(value)),
  ]));
  if (!detail.open) detail.showModal();
  showTags(find("tags"), fetch(`api/tags?id=${encodeURIComponent(hit.id)}`), () => detail.hit === hit);
}

// Shows the tags of a picture in a place, as long as it is the picture that is looked at.
async function showTags(place, response, current) {
  place.replaceChildren();
  const found = tagged ? await response.then(answer).catch(() => null) : null;
  if (!found || !current()) return;
  place.replaceChildren(...found.hits.map((tag) => {
    const button = write(document.createElement("button"), `${tag.id} ${tag.score.toFixed(2)}`);
    button.type = "button";
    button.addEventListener("click", () => { detail.close(); forget(); text.value = tag.id; search(); });
    return button;
  }));
  if (!found.hits.length) place.textContent = "No tag is close enough.";
}

function like(hit) {
  detail.close();
  use({ id: hit.id, url: `thumbnail?id=${encodeURIComponent(hit.id)}`, name: caption(hit.fields) || hit.id });
}

function use(chosen) {
  picture = chosen;
  if (chosen.id) text.value = without.value = "";
  find("seen").src = chosen.url;
  write(find("asked").querySelector("span"), chosen.id ? `like ${chosen.name}` : `${chosen.name}; words may be added`);
  find("asked").hidden = false;
  const tags = chosen.id ? `api/tags?id=${encodeURIComponent(chosen.id)}` : "api/tags";
  showTags(find("names"), fetch(tags, chosen.id ? undefined : { method: "POST", body: chosen.file }),
    () => picture === chosen);
  search();
}

function forget() {
  picture = null;
  find("asked").hidden = true;
}

function take(files) {
  const file = [...files].find((one) => one.type.startsWith("image/"));
  if (file) use({ file, url: URL.createObjectURL(file), name: file.name });
  else say("That is no picture.", true);
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (picture && picture.id) forget();
  search();
});
find("forget").addEventListener("click", () => { forget(); search(); });
find("close").addEventListener("click", () => detail.close());
find("choose").addEventListener("click", () => find("file").click());
find("file").addEventListener("change", (event) => take(event.target.files));
find("threshold").addEventListener("input", () => { options(); });
find("threshold").addEventListener("change", search);
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
  const typing = event.target.matches("input, select");
  if (event.key === "/" && !typing) { event.preventDefault(); text.focus(); text.select(); }
  const focused = document.activeElement;
  if (event.key === "s" && !typing) {
    const hit = detail.open ? detail.hit : focused && focused.hit;
    if (hit) like(hit);
  }
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns(), ArrowUp: -columns() }[event.key];
  if (!step || detail.open || (typing && event.key !== "ArrowDown")) return;
  const buttons = [...hits.querySelectorAll("button")], place = buttons.indexOf(focused);
  const next = buttons[place < 0 ? 0 : place + step];
  if (next) { event.preventDefault(); next.focus(); }
});

function columns() {
  return getComputedStyle(hits).gridTemplateColumns.split(" ").length;
}

async function start() {
  const about = await answer(await fetch("health"));
  const counts = ["images", "texts"].filter((kind) => about[kind]).map((kind) =>
    `${about[kind].toLocaleString("en")} ${kind}`);
  tagged = Boolean(about.texts);
  find("about").textContent = `${counts.join(", ")} · ${about.model}`;
  const facets = await answer(await fetch("api/facets"));
  for (const [field, values] of Object.entries(facets)) {
    if (/^(caption|tags|id$)/.test(field)) continue;
    const select = document.createElement("select"), all = new Option(`any ${field.replaceAll("_", " ")}`, "");
    select.dataset.field = field;
    select.setAttribute("aria-label", field);
    select.append(all, ...values.map(([value, count]) => new Option(`${value} (${count})`, JSON.stringify(value))));
    select.addEventListener("change", search);
    find("filters").append(select);
  }
  const asked = new URLSearchParams(location.search).get("q");
  if (asked) { text.value = asked; search(); }
}

start().catch((error) => say(error.message, true));
