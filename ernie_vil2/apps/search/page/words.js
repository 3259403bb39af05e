// The texts of the page in English and Chinese, and which of both the browser prefers.
const ENGLISH = {
  ask: "What to search for", askExample: "a red apple · 红苹果", withoutLabel: "What to leave out", without: "without",
  search: "Search", image: "Image", atLeast: "at least", thresholdLabel: "Smallest similarity", any: "any",
  calibrated: (value) => `calibrated: ${value}`,
  calibratedTitle: "the similarity below which nothing matches, by the model's calibration",
  remove: "Remove", tagsLabel: "Tags of the query image", examplesLabel: "Queries to try",
  viewLabel: "An image", previous: "Previous image", next: "Next image", similar: "Similar images",
  download: "Download", close: "Close", noTag: "No tag is close enough.",
  keys: "/ search · arrows move · Enter opens · s similar · Esc closes",
  start: "Ask in English or Chinese, drop an image anywhere, or paste one. Some images of this index:",
  searching: "searching", empty: "There are no images in this index yet. Add some: ernie-vil2 search add --index … --data …",
  nothingClose: "Nothing is close enough. Lower the smallest similarity, or remove a filter.",
  noHits: "Nothing was found. Remove a filter, or search for something else.",
  notImage: "That file is not an image.", busy: "The server is busy; trying again.",
  offline: "The server does not answer.",
  hitCount: (count, more, ms) => `${count}${more ? "+" : ""} image${count === 1 ? "" : "s"} in ${ms} ms`,
  like: (name) => `like ${name}`, likeWithWords: (name) => `${name}; you can add words`,
  anyValue: (field) => `any ${field}`, images: (n) => `${n} images`, texts: (n) => `${n} texts`,
  similarity: "similarity", queryImage: "The query image", sameImage: "same image",
  copies: (count) => `+ ${count} equal`, from: "from", to: "to",
  exactWords: "exact words, too", exactWordsTitle: "a query of text alone also finds the images whose fields contain all of its words",
  hasWords: "has the words",
};
const CHINESE = {
  ask: "要找什么", askExample: "红苹果 · a red apple", withoutLabel: "不要什么", without: "不含",
  search: "搜索", image: "图片", atLeast: "至少", thresholdLabel: "最低相似度", any: "不限",
  calibrated: (value) => `校准值：${value}`, calibratedTitle: "由模型校准得到：低于此相似度即视为不匹配",
  remove: "移除", tagsLabel: "所给图片的标签", examplesLabel: "可以试试的查询",
  viewLabel: "图片", previous: "上一张", next: "下一张", similar: "相似图片", download: "下载", close: "关闭",
  noTag: "没有足够接近的标签。", keys: "/ 搜索 · 方向键移动 · Enter 打开 · s 相似 · Esc 关闭",
  start: "用中文或英文提问，把图片拖到页面上，或粘贴图片。本索引中的部分图片：",
  searching: "正在搜索", empty: "索引中还没有图片。添加：ernie-vil2 search add --index … --data …",
  nothingClose: "没有足够接近的结果。请降低最低相似度，或去掉一个筛选条件。",
  noHits: "没有结果。请去掉一个筛选条件，或换一个问法。",
  notImage: "该文件不是图片。", busy: "服务器繁忙，正在重试。", offline: "服务器没有回应。",
  hitCount: (count, more, ms) => `${count}${more ? "+" : ""} 张图片，用时 ${ms} 毫秒`,
  like: (name) => `与“${name}”相似`, likeWithWords: (name) => `${name}；可再加文字`,
  anyValue: (field) => `${field}：不限`, images: (n) => `${n} 张图片`, texts: (n) => `${n} 条文本`,
  similarity: "相似度", queryImage: "所给的图片", sameImage: "相同的图片", copies: (count) => `另有 ${count} 张相同`,
  from: "从", to: "到", exactWords: "同时查找原词", exactWordsTitle: "只用文字查询时，字段里含有全部查询词的图片也会列出",
  hasWords: "含查询词",
};

export const chinese = navigator.language.toLowerCase().startsWith("zh");
export const words = chinese ? CHINESE : ENGLISH;

// Fill in the texts of index.html in the language of the browser.
export function translate() {
  document.documentElement.lang = chinese ? "zh" : "en";
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = words[element.dataset.text];
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", words[element.dataset.label]);
  }
  for (const element of document.querySelectorAll("[data-placeholder]")) {
    element.placeholder = words[element.dataset.placeholder];
  }
}
