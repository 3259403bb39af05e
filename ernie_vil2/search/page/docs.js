"use strict";
// The API as its OpenAPI description has it, without a viewer from elsewhere.
const make = (tag, ...children) => {
  const element = document.createElement(tag);
  element.append(...children);
  return element;
};

fetch("openapi.json").then((response) => response.json()).then((api) => {
  document.getElementById("about").textContent = api.info.description;
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, about] of Object.entries(methods)) {
      const rows = (about.parameters || []).map(({ name, required, schema, description }) => make("tr",
        make("td", make("code", name)),
        make("td", required ? "required" : `default: ${JSON.stringify(schema.default ?? null)}`),
        make("td", description || schema.description || schema.title || "")));
      document.getElementById("paths").append(
        make("h2", make("code", `${method.toUpperCase()} ${path}`)), make("p", about.summary), make("table", ...rows));
    }
  }
});
