// The documentation of the API, made from its OpenAPI description, with requests to try. No viewer of another site is
// loaded.
const EXAMPLES = {
  "get /v1/search": { query: "q=a red apple&count=3" },
  "post /v1/search/batch": { body: { queries: [{ text: "a red apple" }, { text: "apple", without: "red" }], count: 3 } },
  "post /v1/embeddings": { body: { input: ["a red apple", "红苹果"] } },
  "post /v1/rerank": { body: { query: "fruit", documents: ["a red apple", "一只狗"] } },
  "post /v1/classify": { body: { input: ["a red apple"], labels: ["fruit", "animal"] } },
  "get /v1/similar": { query: "count=3&id=" },
  "get /v1/tags": { query: "count=3&id=" },
};
const PLAIN_PATHS = ["facets", "info", "examples", "models", "health", "healthz", "readyz", "metrics"]; // no parameters
const MAX_ANSWER_LENGTH = 5000; // characters that are shown

// Name and password of the page's own address are left out, because browsers refuse to fetch addresses with them.
const resolve = (path) => new URL(path, location.origin + location.pathname).href;
const make = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};

// Return a form that sends an example request, which can be changed, and an element for the answer.
function makeTrial(method, path, example) {
  const form = make("form"), answer = make("pre"), button = make("button", "Try it");
  const address = make("input"), body = make("textarea");
  address.value = `${path.slice(1)}${example.query ? `?${example.query}` : ""}`;
  address.setAttribute("aria-label", `address of ${method} ${path}`);
  body.value = example.body ? JSON.stringify(example.body, null, 1) : "";
  body.setAttribute("aria-label", `body of ${method} ${path}`);
  body.rows = 6;
  button.className = "go";
  answer.hidden = true;
  form.append(address, ...(example.body ? [body] : []), button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const options = { method: method.toUpperCase() };
    if (example.body) Object.assign(options, { body: body.value, headers: { "Content-Type": "application/json" } });
    const response = await fetch(resolve(address.value), options);
    let content = await response.text();
    try { content = JSON.stringify(JSON.parse(content), null, 1); } catch { /* it is not JSON */ }
    answer.textContent = `${response.status}\n${content.slice(0, MAX_ANSWER_LENGTH)}`;
    answer.hidden = false;
  });
  return [form, answer];
}

function makeParameterRow({ name, required, schema, description }) {
  const value = required ? "required" : `default: ${JSON.stringify(schema.default ?? null)}`;
  return make("tr", make("td", make("code", name)), make("td", value), make("td", description || schema.description || ""));
}

async function start() {
  const api = await (await fetch(resolve("openapi.json"))).json();
  const examples = await fetch(resolve("v1/examples")).then((response) => response.json()).catch(() => ({}));
  const id = examples.items?.length ? examples.items[0].id : ""; // a server of models has no items
  document.getElementById("summary").textContent = api.info.description;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const section = [make("h2", make("code", `${method.toUpperCase()} ${path}`)), make("p", operation.summary)];
      const types = Object.keys((operation.requestBody || { content: {} }).content);
      if (types.length) section.push(make("p", "body: ", make("code", types.join(", "))));
      section.push(make("table", ...(operation.parameters || []).map(makeParameterRow)));

      let example = EXAMPLES[`${method} ${path}`];
      if (!example && method === "get" && PLAIN_PATHS.includes(path.split("/").pop())) example = {};
      if (example && example.query && example.query.endsWith("id=")) example.query += encodeURIComponent(id);
      if (example) section.push(...makeTrial(method, path, example));
      document.getElementById("paths").append(...section);
    }
  }
}

start();
