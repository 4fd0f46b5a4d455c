// The timeline's sums: rows, what is visible, zooming, levels over time. Pure: no canvas, no page.

import type { JobColumns } from './api';

/** More rows than this and every machine becomes one band of density (UX 5.3). */
export const ROWS_MAX = 400;

/** Part of the build that is looked at, milliseconds after its start. */
export interface View {
  from: number;
  to: number;
}

export interface Row {
  /** `head`: a machine's name. `lane`: one row of its bars. `band`: all of its bars as a level. */
  what: 'head' | 'lane' | 'band';
  machine: number;
  lane: number;
  /** Job numbers in the order of their start; empty for a head. */
  jobs: Uint32Array;
}

/** Columns as typed arrays, and what is asked of them again and again. */
export interface Bars {
  count: number;
  start: Float64Array;
  end: Float64Array;
  kind: Uint8Array;
  machine: Uint16Array;
  lane: Uint16Array;
  /** End of the last job. */
  length: number;
  /** Machines that have jobs: this PC first, then by number of jobs. */
  order: number[];
  /** Jobs of each machine. */
  jobsOf: Map<number, number>;
}

export function bars(jobs: JobColumns): Bars {
  const count = Math.min(
    jobs.start_ms.length,
    jobs.took_ms.length,
    jobs.kind.length,
    jobs.machine.length,
    jobs.lane.length,
  );
  const start = Float64Array.from(jobs.start_ms.slice(0, count));
  const end = new Float64Array(count);
  const jobsOf = new Map<number, number>();
  let length = 1;
  for (let i = 0; i < count; i++) {
    end[i] = start[i]! + jobs.took_ms[i]!;
    if (end[i]! > length) length = end[i]!;
    const machine = jobs.machine[i]!;
    jobsOf.set(machine, (jobsOf.get(machine) ?? 0) + 1);
  }
  const order = [...jobsOf.keys()].sort((a, b) => {
    if (a === 0 || b === 0) return a === b ? 0 : a === 0 ? -1 : 1;
    return jobsOf.get(b)! - jobsOf.get(a)! || a - b;
  });
  return {
    count,
    start,
    end,
    kind: Uint8Array.from(jobs.kind.slice(0, count)),
    machine: Uint16Array.from(jobs.machine.slice(0, count)),
    lane: Uint16Array.from(jobs.lane.slice(0, count)),
    length,
    order,
    jobsOf,
  };
}

/** Rows in drawing order. `folded` machines show a band instead of lanes. */
export function rows(b: Bars, folded: ReadonlySet<number>, most = ROWS_MAX): Row[] {
  const lanes = new Map<number, number[][]>();
  for (let i = 0; i < b.count; i++) {
    const of = lanes.get(b.machine[i]!) ?? [];
    lanes.set(b.machine[i]!, of);
    (of[b.lane[i]!] ??= []).push(i);
  }
  let all = 0;
  for (const of of lanes.values()) all += 1 + of.length;
  const dense = all > most;
  const out: Row[] = [];
  for (const machine of b.order) {
    const of = lanes.get(machine) ?? [];
    out.push({ what: 'head', machine, lane: 0, jobs: new Uint32Array() });
    if (dense || folded.has(machine)) {
      const jobs = Uint32Array.from(of.flat()).sort((x, y) => b.start[x]! - b.start[y]! || x - y);
      out.push({ what: 'band', machine, lane: 0, jobs });
    } else {
      of.forEach((list, lane) => {
        if (list) out.push({ what: 'lane', machine, lane, jobs: Uint32Array.from(list).sort((x, y) => b.start[x]! - b.start[y]! || x - y) });
      });
    }
  }
  return out;
}

/** First place in `list` for which `over` holds; `list.length` if none. `over` must be false, then true. */
export function firstWhere(list: Uint32Array, over: (job: number) => boolean): number {
  let [lo, hi] = [0, list.length];
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (over(list[mid]!)) hi = mid;
    else lo = mid + 1;
  }
  return lo;
}

/** Jobs of a lane that touch the view, as places in its list: `[lo, hi)`. */
export function visible(b: Bars, row: Row, view: View): [number, number] {
  const lo = firstWhere(row.jobs, (job) => b.end[job]! > view.from);
  const hi = firstWhere(row.jobs, (job) => b.start[job]! >= view.to);
  return [lo, Math.max(lo, hi)];
}

/** Draws the visible bars of a lane: bars below a pixel that touch each other are one. `job` is -1 for those. */
export function eachBar(
  b: Bars,
  row: Row,
  view: View,
  width: number,
  emit: (x: number, w: number, kind: number, job: number) => void,
): void {
  const [lo, hi] = visible(b, row, view);
  const scale = width / (view.to - view.from);
  let at = lo;
  while (at < hi) {
    const job = row.jobs[at]!;
    const x = (b.start[job]! - view.from) * scale;
    let right = (b.end[job]! - view.from) * scale;
    if (right - x >= 1) {
      emit(Math.max(0, x), Math.min(width, right) - Math.max(0, x), b.kind[job]!, job);
      at += 1;
      continue;
    }
    // Sub-pixel: everything that begins in the same pixel goes into one mark of the kind that most of it is.
    const pixel = Math.floor(x);
    const tally = [0, 0, 0, 0];
    let merged = 0;
    while (at < hi) {
      const next = row.jobs[at]!;
      const nx = (b.start[next]! - view.from) * scale;
      const nr = (b.end[next]! - view.from) * scale;
      if (Math.floor(nx) !== pixel || nr - nx >= 1) break;
      right = Math.max(right, nr);
      tally[b.kind[next]! & 3]! += 1;
      merged += 1;
      at += 1;
    }
    // A failed one is never hidden behind others.
    const kind = tally[3]! > 0 ? 3 : tally.indexOf(Math.max(...tally));
    emit(Math.max(0, pixel), 1, kind, merged === 1 ? job : -1);
  }
}

/** The job at a moment in a lane, else the nearest one. */
export function jobNear(b: Bars, row: Row, ms: number): number | null {
  if (row.jobs.length === 0) return null;
  const after = firstWhere(row.jobs, (job) => b.start[job]! > ms);
  const before = row.jobs[after - 1];
  const next = row.jobs[after];
  if (before === undefined) return next ?? null;
  if (b.end[before]! >= ms || next === undefined) return before;
  return ms - b.end[before]! <= b.start[next]! - ms ? before : next;
}

/** Jobs that touch the view in the rows `[top, bottom)`, in the order of start, at most `most`; and how many there are. */
export function selection(b: Bars, list: Row[], view: View, top: number, bottom: number, most: number): { jobs: number[]; all: number } {
  const found: number[] = [];
  let all = 0;
  for (const row of list.slice(Math.max(0, top), Math.max(0, bottom))) {
    if (row.what === 'head') continue;
    if (row.what === 'lane') {
      const [lo, hi] = visible(b, row, view);
      all += hi - lo;
      for (let i = lo; i < hi && i < lo + most; i++) found.push(row.jobs[i]!);
    } else {
      for (const job of row.jobs) {
        if (b.start[job]! >= view.to) break;
        if (b.end[job]! > view.from) {
          all += 1;
          if (found.length < most * 4) found.push(job);
        }
      }
    }
  }
  found.sort((x, y) => b.start[x]! - b.start[y]! || x - y);
  return { jobs: found.slice(0, most), all };
}

/** Shortest time that fills the width, milliseconds. */
const SPAN_MIN = 20;

/** Zooms around a moment that stays where it is. */
export function zoom(view: View, factor: number, around: number, length: number): View {
  const span = Math.min(length, Math.max(SPAN_MIN, (view.to - view.from) * factor));
  const share = view.to > view.from ? (around - view.from) / (view.to - view.from) : 0.5;
  return inside({ from: around - share * span, to: around - share * span + span }, length);
}

export function pan(view: View, by: number, length: number): View {
  return inside({ from: view.from + by, to: view.to + by }, length);
}

/** Moves a view into the build without changing its span, unless it is longer than the build. */
export function inside(view: View, length: number): View {
  const span = Math.min(length, view.to - view.from);
  const from = Math.min(Math.max(0, view.from), length - span);
  return { from, to: from + span };
}

/** A level over time, made so that its mean over any stretch costs two binary searches. */
export interface Level {
  times: Float64Array;
  /** Level from `times[i]` on. */
  value: Float64Array;
  /** Level times milliseconds up to `times[i]`. */
  area: Float64Array;
  max: number;
}

/** Where a job of one answer stands in a later one, which may have jobs before it that began earlier; null: nowhere. */
export function sameJob(before: JobColumns, job: number | null, now: JobColumns): number | null {
  if (job === null) return null;
  const same = (i: number) =>
    now.file[i] === before.file[job] && now.start_ms[i] === before.start_ms[job] && now.machine[i] === before.machine[job] && now.took_ms[i] === before.took_ms[job];
  if (same(job)) return job;
  const found = now.file.findIndex((_, i) => same(i));
  return found < 0 ? null : found;
}

/** How many of the stretches `[from[i], to[i])` are open at each moment. */
export function level(from: ArrayLike<number>, to: ArrayLike<number>, take: (i: number) => boolean): Level {
  const marks: number[] = [];
  const begin: number[] = [];
  const end: number[] = [];
  for (let i = 0; i < from.length; i++) {
    if (take(i) && to[i]! > from[i]!) {
      begin.push(from[i]!);
      end.push(to[i]!);
    }
  }
  const begins = Float64Array.from(begin).sort();
  const ends = Float64Array.from(end).sort();
  const values: number[] = [];
  let [i, j, open, max] = [0, 0, 0, 0];
  while (i < begins.length || j < ends.length) {
    const t = Math.min(begins[i] ?? Infinity, ends[j] ?? Infinity);
    while (i < begins.length && begins[i] === t) (open++, i++);
    while (j < ends.length && ends[j] === t) (open--, j++);
    marks.push(t);
    values.push(open);
    if (open > max) max = open;
  }
  const times = Float64Array.from(marks);
  const value = Float64Array.from(values);
  const area = new Float64Array(times.length);
  for (let k = 1; k < times.length; k++) area[k] = area[k - 1]! + value[k - 1]! * (times[k]! - times[k - 1]!);
  return { times, value, area, max };
}

function areaUntil(l: Level, t: number): number {
  let [lo, hi] = [0, l.times.length];
  while (lo < hi) {
    const mid = (lo + hi) >> 1;
    if (l.times[mid]! > t) hi = mid;
    else lo = mid + 1;
  }
  if (lo === 0) return 0;
  return l.area[lo - 1]! + l.value[lo - 1]! * (t - l.times[lo - 1]!);
}

/** Mean level between two moments. */
export function mean(l: Level, from: number, to: number): number {
  return to > from ? (areaUntil(l, to) - areaUntil(l, from)) / (to - from) : 0;
}

/** A round step for the time axis, so that labels are at least `apart` pixels from each other. */
export function axisStep(view: View, width: number, apart = 90): number {
  const least = ((view.to - view.from) / Math.max(1, width)) * apart;
  const steps = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 30_000, 60_000, 120_000, 300_000, 600_000, 1_200_000, 3_600_000];
  return steps.find((s) => s >= least) ?? 7_200_000;
}

/** "1:20" in steps of seconds, "1:20.5" below. */
export function axisLabel(ms: number, step: number): string {
  const s = Math.floor(ms / 1000);
  const base = `${Math.floor(s / 60)}:${String(s % 60).padStart(2, '0')}`;
  return step >= 1000 ? base : `${base}.${String(Math.round(ms % 1000)).padStart(3, '0').slice(0, step >= 100 ? 1 : 2)}`;
}
