// The API as its OpenAPI description has it, with requests to try, without a viewer from elsewhere.
const EXAMPLES = {
  "get /api/v1/search": { query: "q=a red apple&count=3" },
  "post /api/v1/search/batch": { body: { queries: [{ text: "a red apple" }, { text: "apple", without: "red" }], count: 3 } },
  "post /api/v1/embeddings": { body: { input: ["a red apple", "红苹果"], model: "any" } },
  "get /api/v1/similar": { query: "count=3&id=" },
  "get /api/v1/tags": { query: "count=3&id=" },
};
const TRIED = ["facets", "info", "examples", "models", "health", "healthz", "readyz", "metrics"];

const make = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};

// A request that can be changed and sent, and what comes back.
function attempt(method, path, example) {
  const form = make("form"), shown = make("pre"), send = make("button", "Try it");
  const query = make("input"), body = make("textarea");
  query.value = `${path.slice(1)}${example.query ? `?${example.query}` : ""}`;
  query.setAttribute("aria-label", `address of ${method} ${path}`);
  body.value = example.body ? JSON.stringify(example.body, null, 1) : "";
  body.setAttribute("aria-label", `body of ${method} ${path}`);
  body.rows = 6;
  send.className = "go";
  shown.hidden = true;
  form.append(query, ...(example.body ? [body] : []), send);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const options = { method: method.toUpperCase() };
    if (example.body) Object.assign(options, { body: body.value, headers: { "Content-Type": "application/json" } });
    const response = await fetch(encodeURI(query.value), options);
    const content = await response.text();
    let pretty = content;
    try { pretty = JSON.stringify(JSON.parse(content), null, 1); } catch { /* it is not JSON */ }
    shown.textContent = `${response.status}\n${pretty.slice(0, 5000)}`;
    shown.hidden = false;
  });
  return [form, shown];
}

async function begin() {
  const api = await (await fetch("openapi.json")).json();
  const some = await fetch("api/v1/examples").then((response) => response.json()).catch(() => ({ items: [] }));
  const id = some.items.length ? some.items[0].id : "";
  document.getElementById("about").textContent = api.info.description;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const rows = (about.parameters || []).map(({ name, required, schema, description }) => make("tr",
        make("td", make("code", name)),
        make("td", required ? "required" : `default: ${JSON.stringify(schema.default ?? null)}`),
        make("td", description || schema.description || "")));
      const key = `${method} ${path}`, plain = method === "get" && TRIED.includes(path.split("/").pop());
      const example = EXAMPLES[key] || (plain ? {} : null);
      if (example && example.query && example.query.endsWith("id=")) example.query += encodeURIComponent(id);
      const types = Object.keys((about.requestBody || { content: {} }).content);
      document.getElementById("paths").append(
        make("h2", make("code", `${method.toUpperCase()} ${path}`)), make("p", about.summary),
        ...(types.length ? [make("p", "body: ", make("code", types.join(", ")))] : []),
        make("table", ...rows), ...(example ? attempt(method, path, example) : []));
    }
  }
}

begin();
