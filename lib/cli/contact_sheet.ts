import { loadSharp } from "../image/sharp.js";
import { percent } from "./output.js";

/** A grey image and what was said about it. */
export interface Tile {
  pixels: Uint8Array;
  prediction: string;
  /** In 0..1. */
  confidence: number;
  truth: string;
}

export interface ContactSheet {
  tiles: readonly Tile[];
  /** Height and width of every image. */
  height: number;
  width: number;
  title: string;
  subtitle: string;
}

const columns = 8;
const margin = 32;
const gap = 14;
const header = 92;
const side = 128;
const padding = 12;
const card = { width: side + 2 * padding, height: side + 2 * padding + 70 };
const right = { text: "#1a7f4b", bar: "#34a56f", fill: "#ffffff", edge: "#dcdfe4", edgeWidth: 1 };
const wrong = { text: "#c22b2b", bar: "#e05252", fill: "#fdeeee", edge: "#d63b3b", edgeWidth: 3 };

/** Draws images in a grid, each with prediction, confidence and truth under it and the wrong ones in red: a PNG. */
export async function drawContactSheet(sheet: ContactSheet): Promise<Buffer> {
  const { tiles, height, width, title, subtitle } = sheet;
  const sharp = loadSharp();
  const across = Math.min(columns, Math.max(tiles.length, 4));
  const rows = Math.ceil(tiles.length / across);
  const place = (i: number) => ({
    left: margin + (i % across) * (card.width + gap),
    top: header + Math.floor(i / across) * (card.height + gap),
  });
  const pageWidth = 2 * margin + across * (card.width + gap) - gap;
  const pageHeight = header + rows * (card.height + gap) - gap + margin;
  const cards = tiles.map((tile, i) => drawCard(tile, place(i)));
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="${pageWidth}" height="${pageHeight}" font-family="DejaVu Sans, Liberation Sans, Arial, sans-serif">
<rect width="100%" height="100%" fill="#f3f4f6"/>
${text(margin, 46, title, 'font-size="25" font-weight="bold" fill="#1d2430"')}
${text(margin, 72, subtitle, 'font-size="15" fill="#5b6472"')}
${cards.join("\n")}
</svg>`;
  const pictures = await Promise.all(
    tiles.map(async ({ pixels }, i) => {
      const input = await sharp(pixels, { raw: { width, height, channels: 1 } })
        .resize(side, side, { kernel: "mitchell" })
        .png()
        .toBuffer();
      const { left, top } = place(i);
      return { input, left: left + padding, top: top + padding };
    }),
  );
  return sharp(Buffer.from(svg)).composite(pictures).png().toBuffer();
}

function drawCard({ prediction, confidence, truth }: Tile, { left, top }: { left: number; top: number }): string {
  const style = prediction === truth ? right : wrong;
  const x = left + padding;
  const y = top + padding + side;
  return [
    `<rect x="${left}" y="${top}" width="${card.width}" height="${card.height}" rx="8" fill="${style.fill}" stroke="${style.edge}" stroke-width="${style.edgeWidth}"/>`,
    text(x, y + 22, prediction, `font-size="15" font-weight="bold" fill="${style.text}"`),
    `<rect x="${x}" y="${y + 31}" width="${side}" height="5" rx="2.5" fill="#e4e7ec"/>`,
    `<rect x="${x}" y="${y + 31}" width="${(side * confidence).toFixed(1)}" height="5" rx="2.5" fill="${style.bar}"/>`,
    text(x, y + 54, percent(confidence), 'font-size="12" fill="#1d2430"'),
    text(x, y + 70, `truth: ${truth}`, 'font-size="12" fill="#5b6472"'),
  ].join("");
}

function text(x: number, y: number, content: string, attributes: string): string {
  const escaped = content.replace(/[&<>]/g, (character) => `&#${character.charCodeAt(0)};`);
  return `<text x="${x}" y="${y}" ${attributes}>${escaped}</text>`;
}

/** Whether text shows up at all: without a single font installed it is silently left out of drawings. */
export async function hasFonts(): Promise<boolean> {
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" width="40" height="40"><text x="4" y="32" font-size="32">M</text></svg>`;
  const { channels } = await loadSharp()(Buffer.from(svg)).stats();
  return channels.some(({ max }) => max > 0);
}
