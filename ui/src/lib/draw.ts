// Puts the timeline on a canvas that is never larger than what is seen. Draws when it is told to and never by itself.

import { axisLabel, axisStep, eachBar, mean, type Bars, type Level, type Row, type View } from './timeline';
import { shorten } from './format';
import { w } from './words';

export const LANE = 18;
export const HEAD = 24;
/** Axis and the two strips above the rows. */
export const TOP = 22 + 36 + 26;

/** Letters of the kinds, in the order of the column. */
export const LETTERS = ['R', 'L', 'O', 'F'] as const;

export interface Tokens {
  text: string;
  muted: string;
  surface: string;
  sunken: string;
  border: string;
  accent: string;
  bar: string;
  kinds: [string, string, string, string];
  waiting: string;
  phases: [string, string, string, string, string];
  font: string;
}

export function readTokens(): Tokens {
  const style = getComputedStyle(document.documentElement);
  const of = (name: string) => style.getPropertyValue('--' + name).trim() || '#808080';
  return {
    text: of('text'),
    muted: of('muted'),
    surface: of('surface'),
    sunken: of('sunken'),
    border: of('border'),
    accent: of('accent'),
    bar: of('bar-text'),
    kinds: [of('remote'), of('here'), of('only'), of('failed')],
    waiting: of('waiting'),
    phases: [of('waiting'), of('here'), of('only'), of('remote'), of('ok')],
    font: style.getPropertyValue('--font').trim() || 'sans-serif',
  };
}

export interface Scene {
  bars: Bars;
  rows: Row[];
  /** Offset of each row from the first, pixels; one more than rows: the height of all. */
  tops: number[];
  names: string[];
  files: string[];
  repeats: number[];
  remote: Level;
  local: Level;
  waiting: Level;
  /** By machine, where a band is drawn. */
  bands: Map<number, Level>;
  colour: 'kind' | 'duration' | 'phase';
  /** Phases of a job, milliseconds, in the order that they are drawn. */
  phases: (job: number) => number[];
  view: View;
  scroll: number;
  gutter: number;
  width: number;
  height: number;
  cursor: number | null;
  cursorRow: number;
  focused: boolean;
  folded: ReadonlySet<number>;
}

export const rowHeight = (row: Row): number => (row.what === 'lane' ? LANE : row.what === 'band' ? LANE * 2 : HEAD);

type Patterns = (CanvasPattern | string)[];

/** Solid, diagonal, vertical, cross: the same as in the legend. */
function patterns(ctx: CanvasRenderingContext2D, tokens: Tokens): Patterns {
  return tokens.kinds.map((colour, kind) => {
    if (kind === 0) return colour;
    const tile = document.createElement('canvas');
    tile.width = tile.height = 8;
    const t = tile.getContext('2d');
    if (!t) return colour;
    t.fillStyle = colour;
    t.fillRect(0, 0, 8, 8);
    t.strokeStyle = kind === 2 ? 'rgb(128 128 128 / 0.6)' : 'rgb(0 0 0 / 0.3)';
    t.lineWidth = 2;
    t.beginPath();
    if (kind === 1 || kind === 3) {
      t.moveTo(-2, 10);
      t.lineTo(10, -2);
      t.moveTo(-2, 2);
      t.lineTo(2, -2);
      t.moveTo(6, 10);
      t.lineTo(10, 6);
    }
    if (kind === 3) {
      t.moveTo(-2, -2);
      t.lineTo(10, 10);
      t.moveTo(6, -2);
      t.lineTo(10, 2);
      t.moveTo(-2, 6);
      t.lineTo(2, 10);
    }
    if (kind === 2) {
      t.moveTo(3, 0);
      t.lineTo(3, 8);
    }
    t.stroke();
    return ctx.createPattern(tile, 'repeat') ?? colour;
  });
}

export function draw(canvas: HTMLCanvasElement, s: Scene, tokens: Tokens): void {
  const ratio = Math.min(3, window.devicePixelRatio || 1);
  const [wide, tall] = [Math.round(s.width * ratio), Math.round(s.height * ratio)];
  if (canvas.width !== wide || canvas.height !== tall) {
    canvas.width = wide;
    canvas.height = tall;
  }
  const ctx = canvas.getContext('2d');
  if (!ctx) return;
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  ctx.fillStyle = tokens.surface;
  ctx.fillRect(0, 0, s.width, s.height);
  ctx.textBaseline = 'middle';
  const fills = patterns(ctx, tokens);
  const plot = Math.max(10, s.width - s.gutter);

  ctx.save();
  ctx.beginPath();
  ctx.rect(0, TOP, s.width, s.height - TOP);
  ctx.clip();
  drawRows(ctx, s, tokens, fills, plot);
  ctx.restore();
  drawTop(ctx, s, tokens, plot);
}

function drawTop(ctx: CanvasRenderingContext2D, s: Scene, tokens: Tokens, plot: number): void {
  const span = s.view.to - s.view.from;
  const step = axisStep(s.view, plot);
  ctx.font = `12px ${tokens.font}`;
  ctx.fillStyle = tokens.muted;
  ctx.textAlign = 'left';
  for (let t = Math.ceil(s.view.from / step) * step; t <= s.view.to; t += step) {
    const x = Math.round(s.gutter + ((t - s.view.from) / span) * plot);
    if (x < s.width - 30) ctx.fillText(axisLabel(t, step), x + 3, 11);
    ctx.fillStyle = tokens.border;
    ctx.fillRect(x, 0, 1, 22);
    ctx.fillStyle = tokens.muted;
  }
  ctx.fillText(w.timeline.cores, 8, 22 + 18);
  ctx.fillText(w.kinds.waiting, 8, 22 + 36 + 13);
  const most = Math.max(1, s.remote.max + s.local.max);
  const queue = Math.max(1, s.waiting.max);
  for (let x = 0; x < plot; x += 2) {
    const from = s.view.from + (x / plot) * span;
    const to = s.view.from + ((x + 2) / plot) * span;
    const here = (mean(s.local, from, to) / most) * 32;
    const there = (mean(s.remote, from, to) / most) * 32;
    const base = 22 + 34;
    ctx.fillStyle = tokens.kinds[0];
    if (there > 0) ctx.fillRect(s.gutter + x, base - here - there, 2, there);
    ctx.fillStyle = tokens.kinds[1];
    if (here > 0) ctx.fillRect(s.gutter + x, base - here, 2, here);
    const waits = (mean(s.waiting, from, to) / queue) * 20;
    ctx.fillStyle = tokens.waiting;
    if (waits > 0) ctx.fillRect(s.gutter + x, 22 + 36 + 23 - waits, 2, waits);
  }
  ctx.fillStyle = tokens.border;
  ctx.fillRect(0, 22, s.width, 1);
  ctx.fillRect(0, TOP - 1, s.width, 1);
}

function drawRows(ctx: CanvasRenderingContext2D, s: Scene, tokens: Tokens, fills: Patterns, plot: number): void {
  const bottom = s.scroll + s.height - TOP;
  for (let at = 0; at < s.rows.length; at++) {
    const row = s.rows[at]!;
    const top = s.tops[at]!;
    if (top > bottom) break;
    if (s.tops[at + 1]! < s.scroll) continue;
    const y = TOP + top - s.scroll;
    if (row.what === 'head') drawHead(ctx, s, tokens, row, y);
    else if (row.what === 'band') drawBand(ctx, s, tokens, row, y, plot);
    else drawLane(ctx, s, tokens, fills, row, y, plot);
    if (s.focused && at === s.cursorRow) {
      ctx.fillStyle = tokens.accent;
      ctx.fillRect(0, y + 1, 3, rowHeight(row) - 2);
    }
  }
}

function drawHead(ctx: CanvasRenderingContext2D, s: Scene, tokens: Tokens, row: Row, y: number): void {
  ctx.fillStyle = tokens.sunken;
  ctx.fillRect(0, y, s.width, HEAD);
  ctx.fillStyle = tokens.text;
  ctx.font = `600 12px ${tokens.font}`;
  ctx.textAlign = 'left';
  ctx.fillText(`${s.folded.has(row.machine) ? '▸' : '▾'} ${shorten(s.names[row.machine] ?? '', 40)}`, 8, y + HEAD / 2);
}

function drawBand(ctx: CanvasRenderingContext2D, s: Scene, tokens: Tokens, row: Row, y: number, plot: number): void {
  const of = s.bands.get(row.machine);
  if (!of) return;
  const span = s.view.to - s.view.from;
  const most = Math.max(1, of.max);
  ctx.fillStyle = tokens.kinds[row.machine === 0 ? 1 : 0];
  for (let x = 0; x < plot; x += 2) {
    const from = s.view.from + (x / plot) * span;
    const tall = (mean(of, from, s.view.from + ((x + 2) / plot) * span) / most) * (LANE * 2 - 6);
    if (tall > 0) ctx.fillRect(s.gutter + x, y + LANE * 2 - 3 - tall, 2, tall);
  }
  ctx.fillStyle = tokens.muted;
  ctx.font = `12px ${tokens.font}`;
  ctx.textAlign = 'left';
  ctx.fillText(w.timeline.upTo(of.max), 20, y + LANE);
}

function drawLane(
  ctx: CanvasRenderingContext2D,
  s: Scene,
  tokens: Tokens,
  fills: Patterns,
  row: Row,
  y: number,
  plot: number,
): void {
  ctx.fillStyle = tokens.muted;
  ctx.font = `12px ${tokens.font}`;
  ctx.textAlign = 'right';
  ctx.fillText(String(row.lane + 1), s.gutter - 8, y + LANE / 2);
  ctx.textAlign = 'left';
  const tall = LANE - 4;
  eachBar(s.bars, row, s.view, plot, (x, w, kind, job) => {
    const left = s.gutter + x;
    if (s.colour === 'kind' || job < 0) {
      ctx.fillStyle = fills[kind] ?? tokens.waiting;
      ctx.fillRect(left, y + 2, Math.max(1, w - (w > 4 ? 1 : 0)), tall);
    } else if (s.colour === 'duration') {
      // Ten seconds and more are the full colour: what is slow stands out.
      const took = s.bars.end[job]! - s.bars.start[job]!;
      ctx.globalAlpha = 0.25 + 0.75 * Math.min(1, took / 10_000);
      ctx.fillStyle = tokens.kinds[0];
      ctx.fillRect(left, y + 2, Math.max(1, w - (w > 4 ? 1 : 0)), tall);
      ctx.globalAlpha = 1;
    } else {
      const parts = s.phases(job);
      const sum = parts.reduce((a, b) => a + b, 0) || 1;
      let at = left;
      parts.forEach((part, phase) => {
        const wide = ((w - 1) * part) / sum;
        ctx.fillStyle = tokens.phases[phase] ?? tokens.waiting;
        ctx.fillRect(at, y + 2, wide, tall);
        at += wide;
      });
    }
    if (job < 0) return;
    if ((s.repeats[job] ?? 0) > 0 && w > 6) drawCut(ctx, tokens, left, y);
    if (job === s.cursor) {
      ctx.strokeStyle = tokens.text;
      ctx.lineWidth = 2;
      ctx.strokeRect(left, y + 1, Math.max(3, w - 1), LANE - 2);
    }
    if (w >= 14 && s.colour === 'kind') {
      ctx.fillStyle = tokens.bar;
      ctx.font = `600 12px ${tokens.font}`;
      const label = w >= 90 ? `${LETTERS[kind]}  ${shorten(s.files[job]?.split('/').pop() ?? '', Math.floor((w - 28) / 7))}` : LETTERS[kind]!;
      // A plain ground under the letters: patterns must not disturb them.
      const wide = Math.min(w - 4, ctx.measureText(label).width + 4);
      ctx.save();
      ctx.beginPath();
      ctx.rect(left + 2, y + 2, wide, tall);
      ctx.clip();
      ctx.fillStyle = tokens.kinds[kind as 0 | 1 | 2 | 3] ?? tokens.waiting;
      ctx.fillRect(left + 2, y + 2, wide, tall);
      ctx.fillStyle = tokens.bar;
      ctx.fillText(label, left + 4, y + LANE / 2 + 0.5);
      ctx.restore();
    }
  });
}

/** A torn left edge: this job had been taken back or lost before. */
function drawCut(ctx: CanvasRenderingContext2D, tokens: Tokens, x: number, y: number): void {
  ctx.fillStyle = tokens.surface;
  ctx.beginPath();
  ctx.moveTo(x - 1, y + 2);
  for (let i = 0; i < 3; i++) {
    const top = y + 2 + (i * (LANE - 4)) / 3;
    ctx.lineTo(x + 4, top + (LANE - 4) / 6);
    ctx.lineTo(x - 1, top + (LANE - 4) / 3);
  }
  ctx.closePath();
  ctx.fill();
}
