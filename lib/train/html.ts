/** Pieces of a report: one HTML file that needs nothing else: no scripts, no fonts, no network. */

export interface Page {
  readonly title: string;
  readonly heading: string;
  readonly facts: readonly string[];
  readonly sections: readonly string[];
}

export function page({ title, heading, facts, sections }: Page): string {
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>${escapeHtml(title)}</title>
<style>${style}</style>
</head>
<body>
<h1>${escapeHtml(heading)}</h1>
<p class="facts">${facts.map(escapeHtml).join(" · ")}</p>
${sections.join("\n")}
</body>
</html>
`;
}

const style = `body{font:15px/1.5 system-ui,sans-serif;color:#1d2430;max-width:960px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}h2{margin:2.2rem 0 .4rem;font-size:1.15rem}.facts,.legend,figcaption{color:#5b6472}.legend{font-size:13px;margin:0}
svg{max-width:100%;height:auto}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:right;font-variant-numeric:tabular-nums}
td:first-child,th:first-child{text-align:left}th{border-bottom:1px solid #c9ced6;font-weight:600}
.images{display:flex;flex-wrap:wrap;gap:14px}figure{margin:0;width:132px}figure img{width:132px;height:132px;object-fit:contain;image-rendering:pixelated;background:#eef0f3}
figcaption{font-size:12px;line-height:1.35;overflow-wrap:anywhere}.wrong{color:#c22b2b}`;

export function section(title: string, content: string, before = ""): string {
  return `<section><h2>${escapeHtml(title)}</h2>${before}${content}</section>`;
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const row = (cells: readonly string[], tag: string) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeHtml(cell)}</${tag}>`).join("")}</tr>`;
  return `<table><thead>${row(head, "th")}</thead><tbody>${rows.map((cells) => row(cells, "td")).join("")}</tbody></table>`;
}

export function percent(share: number, digits = 2): string {
  return `${(share * 100).toFixed(digits)} %`;
}

export function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
  return text.replace(/[&<>"]/g, (character) => entities[character]);
}
