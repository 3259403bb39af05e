"""The report's style sheet and its two marks. Light and dark follow the reader's system."""

_MARK = '<svg class="mark" viewBox="0 0 16 16" aria-hidden="true"><path d="{}"/></svg>'
TICK = _MARK.format("M3 8.5L6.5 12L13 4.5")
CROSS = _MARK.format("M4 4L12 12M12 4L4 12")

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fbfaf8; --card: #fff; --ink: #1f2328; --soft: #626a73; --rule: #dfdcd6;
  --right: #1a7f4b; --wrong: #c62f2f;
  --c1: #0b6cb3; --c2: #c8570c; --c3: #16865c; --c4: #8a4fb0;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181b; --card: #1f2226; --ink: #e6e4e0; --soft: #a0a6ad; --rule: #363a40;
    --right: #4cc38a; --wrong: #ff7b72;
    --c1: #62b0ee; --c2: #f2994a; --c3: #4cc38a; --c4: #c08be6;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "PingFang SC", "Microsoft YaHei",
    "Noto Sans CJK SC", sans-serif;
}
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 1rem; text-wrap: balance; }
h2 {
  font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-bottom: .3rem; border-bottom: 1px solid var(--rule);
}
dl {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 17rem), 1fr)); gap: .6rem 2rem;
  margin: 0;
}
dl .wide { grid-column: 1 / -1; }
dt, .note, figcaption span, .caption { color: var(--soft); font-size: .85rem; }
dd { margin: 0; overflow-wrap: anywhere; }

.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-size: .85rem; }
thead th[colspan] { text-align: center; color: var(--ink); border-bottom: 1px solid var(--rule); }
tbody tr { border-top: 1px solid var(--rule); }
th.group { padding-top: 1.1rem; font-weight: 600; }
td:nth-child(5) { padding-left: 1.4rem; }
td:last-child { font-weight: 600; }
th.names, td.names { text-align: left; white-space: normal; overflow-wrap: anywhere; font-weight: 400; }

.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem; }
figure { margin: 0; }
figcaption b { display: block; font-weight: 600; }
figure > svg { display: block; width: 100%; max-width: 34rem; margin-top: .5rem; }
svg text { font-size: 11px; fill: var(--soft); }
.grid { stroke: var(--rule); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
.dashed { stroke-dasharray: 5 4; }
.s1 { stroke: var(--c1); } .s2 { stroke: var(--c2); } .s3 { stroke: var(--c3); } .s4 { stroke: var(--c4); }
circle { fill: var(--paper); stroke-width: 1.4; }
.legend {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: .1rem .5rem;
  list-style: none; margin: .4rem 0 0; padding: 0;
  font-size: .8rem; font-variant-numeric: tabular-nums; white-space: nowrap;
}
.legend b { font-weight: 600; }
.swatch { width: 26px; height: 8px; margin-right: .45rem; vertical-align: middle; }

.queries { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 2rem; }
article { min-width: 0; }
h3 { display: flex; align-items: center; gap: .6rem; margin: 0 0 .6rem; font-size: 1.1rem; }
h3 img { width: 4rem; }
.language {
  color: var(--soft); font-size: .75rem; font-weight: 400;
  border: 1px solid var(--rule); border-radius: .25rem; padding: 0 .35rem;
}
ol {
  list-style: none; margin: 0; padding: 0;
  display: grid; grid-template-columns: repeat(5, minmax(0, 1fr)); gap: .5rem;
}
li.right, li.wrong {
  border: 2px solid; border-radius: .5rem; padding: .4rem .3rem; text-align: center; background: var(--card);
}
li.right { border-color: var(--right); }
li.wrong { border-color: var(--wrong); border-style: dashed; }
img { background: #fff; border-radius: .3rem; object-fit: contain; aspect-ratio: 1; }
li img { display: block; width: 100%; max-width: 5rem; margin: 0 auto .2rem; }
.score { font-size: .85rem; font-variant-numeric: tabular-nums; white-space: nowrap; }
.right .score { color: var(--right); } .wrong .score { color: var(--wrong); }
.mark { width: 1em; height: 1em; vertical-align: -.12em; margin-right: .25em; }
.mark path { fill: none; stroke: currentColor; stroke-width: 2.4; stroke-linecap: round; }
.word { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.caption { line-height: 1.3; overflow-wrap: anywhere; hyphens: auto; }
.views { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 28rem), 1fr)); gap: 1.5rem 2rem; }
.views article { display: flex; flex-wrap: wrap; gap: .8rem; align-items: flex-start; }
.views img { width: 7rem; flex: none; }
.views dl { grid-template-columns: 1fr; gap: .3rem; flex: 1 1 10rem; min-width: 0; }
pre { overflow-x: auto; font-size: .8rem; line-height: 1.35; }

@media (max-width: 36rem) {
  body { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.4rem; }
  table { font-size: .85rem; }
  th, td { padding: .3rem .4rem; }
  tbody th:not(.group) {
    position: sticky; left: 0; min-width: 7rem; background: var(--paper); white-space: normal;
  }
  ol { gap: .3rem; }
  li.right, li.wrong { padding: .3rem .15rem; }
  li .score, li .caption { font-size: .75rem; }
}
@media print { article { break-inside: avoid; } }
"""
