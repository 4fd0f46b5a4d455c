import { describe, expect, it } from 'vitest';
import type { JobColumns } from './api';
import { axisStep, bars, eachBar, inside, jobNear, level, mean, pan, rows, sameJob, selection, visible, zoom } from './timeline';

/** Rows of [start, took, kind, machine, lane]. */
function columns(list: number[][]): JobColumns {
  const of = (i: number) => list.map((row) => row[i] ?? 0);
  const zero = list.map(() => 0);
  return {
    machines: ['', 'a', 'b'], reasons: [''], start_ms: of(0), took_ms: of(1), kind: of(2), machine: of(3), lane: of(4),
    reason: zero, file: list.map((_, i) => `f${i}.c`), wait_ms: zero, understand_ms: zero, travel_ms: zero, compile_ms: zero, finish_ms: zero, repeats: zero,
  };
}
const none: ReadonlySet<number> = new Set();

describe('rows', () => {
  const b = bars(columns([[0, 10, 0, 2, 0], [0, 10, 1, 0, 0], [5, 10, 0, 2, 1], [20, 10, 0, 1, 0]]));
  it('this PC comes first, then whoever did most', () => {
    expect(b.order).toEqual([0, 2, 1]);
    expect(rows(b, none).map((r) => `${r.what} ${r.machine} ${r.lane}`)).toEqual(['head 0 0', 'lane 0 0', 'head 2 0', 'lane 2 0', 'lane 2 1', 'head 1 0', 'lane 1 0']);
  });
  it('a folded machine is one band with all of its jobs', () => {
    const band = rows(b, new Set([2])).find((r) => r.what === 'band');
    expect([...(band?.jobs ?? [])]).toEqual([0, 2]);
  });
  it('too many rows become bands', () => {
    expect(rows(b, none, 3).filter((r) => r.what === 'lane')).toEqual([]);
  });
  it('every job is in exactly one row', () => {
    const seen = rows(b, none).flatMap((r) => [...r.jobs]).sort();
    expect(seen).toEqual([0, 1, 2, 3]);
  });
});

describe('a build that grows', () => {
  it('a job is found again when one that began earlier ends later', () => {
    const [before, now] = [columns([[0, 10, 0, 1, 0], [20, 5, 0, 2, 0]]), columns([[0, 10, 0, 1, 0], [5, 90, 0, 2, 1], [20, 5, 0, 2, 0]])];
    now.file = ['f0.c', 'late.c', 'f1.c'];
    expect([0, 1].map((job) => sameJob(before, job, now))).toEqual([0, 2]);
    expect(sameJob(now, 1, before)).toBeNull();
    expect(sameJob(before, null, now)).toBeNull();
  });
});

describe('what is visible', () => {
  const b = bars(columns(Array.from({ length: 1000 }, (_, i) => [i * 10, 9, i % 3, 1, 0])));
  const lane = rows(b, none).find((r) => r.what === 'lane')!;
  it('is what a look at every bar finds', () => {
    for (const [from, to] of [[0, 10000], [0, 1], [95, 133], [9.5, 9.9], [9990, 10000], [-50, 5]] as const) {
      const [lo, hi] = visible(b, lane, { from, to });
      const slow = [...lane.jobs].filter((j) => b.end[j]! > from && b.start[j]! < to);
      expect([...lane.jobs.slice(lo, hi)]).toEqual(slow);
    }
  });
  it('bars below a pixel are merged: never more marks than pixels', () => {
    let marks = 0;
    eachBar(b, lane, { from: 0, to: 10000 }, 100, () => (marks += 1));
    expect(marks).toBeLessThanOrEqual(100);
    expect(marks).toBeGreaterThan(50);
  });
  it('bars that can be seen are drawn one by one with their job', () => {
    const jobs: number[] = [];
    eachBar(b, lane, { from: 0, to: 100 }, 1000, (_x, _w, _k, job) => jobs.push(job));
    expect(jobs).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  });
  it('a failed job is not hidden behind others of its pixel', () => {
    const f = bars(columns([[0, 1, 0, 1, 0], [1, 1, 3, 1, 0], [2, 1, 0, 1, 0], [9999, 1, 0, 1, 0]]));
    const kinds: number[] = [];
    eachBar(f, rows(f, none).find((r) => r.what === 'lane')!, { from: 0, to: 10000 }, 100, (_x, _w, k) => kinds.push(k));
    expect(kinds[0]).toBe(3);
  });
  it('the job at a moment is found, else the nearest', () => {
    expect(jobNear(b, lane, 52)).toBe(5);
    expect(jobNear(b, lane, 99.6)).toBe(10);
    expect(jobNear(b, lane, 1e9)).toBe(999);
  });
  it('the table has what is in view, and says how much there is', () => {
    const list = rows(b, none);
    expect(selection(b, list, { from: 0, to: 100 }, 0, list.length, 3)).toEqual({ jobs: [0, 1, 2], all: 10 });
  });
});

describe('moving', () => {
  it('zooming keeps the moment under the pointer where it is', () => {
    const v = zoom({ from: 0, to: 1000 }, 0.5, 250, 1000);
    expect(v).toEqual({ from: 125, to: 625 });
  });
  it('never leaves the build', () => {
    expect(zoom({ from: 0, to: 1000 }, 4, 900, 1000)).toEqual({ from: 0, to: 1000 });
    expect(pan({ from: 0, to: 100 }, -50, 1000)).toEqual({ from: 0, to: 100 });
    expect(pan({ from: 800, to: 900 }, 500, 1000)).toEqual({ from: 900, to: 1000 });
    expect(inside({ from: 0, to: 5000 }, 1000)).toEqual({ from: 0, to: 1000 });
  });
  it('zooming in ends', () => {
    let v = { from: 0, to: 1000 };
    for (let i = 0; i < 100; i++) v = zoom(v, 0.5, 500, 1000);
    expect(v.to - v.from).toBeGreaterThanOrEqual(20);
  });
  it('labels of the axis do not touch', () => {
    for (const span of [50, 3000, 60_000, 5_000_000]) {
      const step = axisStep({ from: 0, to: span }, 900);
      expect((step / span) * 900).toBeGreaterThanOrEqual(90);
    }
  });
});

describe('levels', () => {
  const l = level([0, 5], [10, 15], () => true);
  it('the mean is the area over the time', () => {
    expect(mean(l, 0, 5)).toBe(1);
    expect(mean(l, 5, 10)).toBe(2);
    expect(mean(l, 0, 15)).toBeCloseTo(20 / 15);
    expect(mean(l, 15, 100)).toBe(0);
    expect(l.max).toBe(2);
  });
  it('nothing is nothing', () => {
    expect(mean(level([], [], () => true), 0, 10)).toBe(0);
  });
});
