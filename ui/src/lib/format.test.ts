import { describe, expect, it } from 'vitest';
import type { BuildRow, JobColumns, Report } from './api';
import { backoff, refusalOf } from './client';
import { rows, toCsv, toTrace, toJson } from './export';
import { ago, bytes, coresFor, coresOf, duration, elsewhere, peer, percentile, plural, shorten, span, usual } from './format';
import { href, parseRoute } from './route';
import { w } from './words';

describe('numbers as people read them', () => {
  it('durations', () => {
    expect([0, 400, 9940, 14_200, 58_000, 59_700, 288_000, 720_000, 4_320_000].map(duration)).toEqual(['0.0 s', '0.4 s', '9.9 s', '14 s', '58 s', '1 min', '4 min 48 s', '12 min', '1 h 12 min']);
    expect([48_000, 112_000, 3_723_000].map(span)).toEqual(['0:48', '1:52', '1:02:03']);
  });
  it('sizes', () => {
    expect([0, 999, 182_000_000, 2_100_000_000].map(bytes)).toEqual(['0 B', '999 B', '182 MB', '2.1 GB']);
  });
  it('one is not many', () => {
    expect([plural(1, 'job'), plural(2, 'job'), plural(1830, 'job')]).toEqual(['1 job', '2 jobs', '1,830 jobs']);
  });
  it('moments', () => {
    expect([ago(0, 10_000), ago(0, 180_000), ago(0, 7_200_000)]).toEqual(['just now', '3 min ago', '2 h ago']);
  });
  it('a share of nothing is nothing', () => {
    expect(elsewhere({ remote: 0, here: 0, only: 0, failed: 0 })).toBe(0);
    expect(elsewhere({ remote: 9, here: 1, only: 0, failed: 0 })).toBe(90);
  });
});

describe('cores', () => {
  it('a setting and its number are the same on every size of PC', () => {
    for (const all of [1, 2, 8, 64]) for (let n = 1; n <= all; n++) expect(coresOf(coresFor(n, all), all)).toBe(n);
  });
  it('all but one follows the PC', () => {
    expect(coresFor(7, 8)).toEqual({ all_but: 1 });
  });
});

describe('usual durations', () => {
  const build = (name: string, took_ms: number, end: BuildRow['end'] = 'ok') => ({ name, took_ms, end }) as BuildRow;
  it('half and nine tenths by nearest rank, of builds that ended well', () => {
    const list = [...Array.from({ length: 10 }, (_, i) => build('a', (i + 1) * 1000)), build('a', 99_000, 'failed'), build('b', 5)];
    expect(usual(list, 'a')).toEqual({ half: 5000, most: 9000, builds: 10 });
    expect(usual(list, 'b')).toBeNull();
    expect(percentile([], 50)).toBe(0);
  });
});

describe('names of others', () => {
  it('are text of at most 64 characters without direction marks', () => {
    expect(peer('a\u202eb\u0000c')).toBe('abc');
    expect(peer('<b>x</b>')).toBe('<b>x</b>');
    expect(peer('x'.repeat(100))).toHaveLength(64);
    expect([...peer('\u{1f41f}'.repeat(100))]).toHaveLength(64);
    expect(peer('\u{1f41f}'.repeat(100)).isWellFormed()).toBe(true);
    expect(peer('a' + '\u0301'.repeat(50))).toBe('a\u0301\u0301');
    expect(peer(' \u200b ')).toBe('?');
  });
  it('long paths keep their end', () => {
    expect(shorten('drivers/gpu/drm/amd/dc_link.c', 16)).toMatch(/dc_link\.c$/);
    expect(shorten('drivers/gpu/drm/amd/dc_link.c', 16)).toHaveLength(16);
  });
});

describe('addresses', () => {
  it('what the node calls a view opens it', () => {
    expect(parseRoute('builds/b 1/timeline')).toEqual({ view: 'builds', part: 'b 1', tab: 'timeline' });
    expect(parseRoute(href('builds', 'a/b', 'here'))).toEqual({ view: 'builds', part: 'a/b', tab: 'here' });
    expect(parseRoute('settings/team').view).toBe('settings');
  });
  it('what nobody knows is the overview', () => {
    expect(parseRoute('#/nonsense/%zz').view).toBe('overview');
  });
});

describe('refusals', () => {
  it('a sentence and its hint', () => {
    const refused = refusalOf({ error: 'No.\nhint: try it later' });
    expect([refused?.message, refused?.hint]).toEqual(['No.', 'try it later']);
  });
  it('a failed joining is a value, not a refusal', () => {
    expect(refusalOf({ is: 'failed', error: 'x' })).toBeNull();
  });
  it('attempts get rarer, but never rarer than ten seconds', () => {
    expect(backoff(0)).toBe(500);
    expect(backoff(50)).toBe(10_000);
    let sum = 0;
    for (let i = 0; sum < 10_000; i++) sum += backoff(i);
    expect(sum).toBeLessThan(22_000);
  });
});

describe('exports', () => {
  const jobs: JobColumns = {
    machines: ['here', 'lab'], reasons: ['', 'link'], start_ms: [0, 5], took_ms: [4, 6], kind: [1, 0], machine: [0, 1], lane: [0, 2],
    reason: [1, 0], file: ['=cmd,"x".c', 'b.c'], wait_ms: [0, 1], understand_ms: [0, 1], travel_ms: [0, 1], compile_ms: [4, 2], finish_ms: [0, 1], repeats: [0, 1],
  };
  it('contain each job once, in the order of start', () => {
    expect(rows(jobs).map((r) => r.start_ms)).toEqual([0, 5]);
    expect(toCsv(jobs).trim().split('\r\n')).toHaveLength(3);
    expect(JSON.parse(toTrace(jobs)).traceEvents.filter((e: { ph: string }) => e.ph === 'X')).toHaveLength(2);
    expect(JSON.parse(toJson({} as Report, jobs)).jobs).toHaveLength(2);
  });
  it('a file name is never a formula in a spreadsheet', () => {
    expect(toCsv(jobs)).toContain(`"'=cmd,""x"".c"`);
  });
});

describe('words', () => {
  it('nothing that a donor can meet is jargon', () => {
    const jargon = /scheduler|daemon|slot|mDNS|toolchain|jobserver|node\b/i;
    const forDonors = [w.app, w.share, w.overview, w.welcome, w.team, w.settings.presets, w.machines.states, w.help.states, w.help.symptoms.filter((s) => s.both)];
    const texts = (value: unknown): string[] =>
      typeof value === 'string' ? [value] : typeof value === 'object' && value !== null ? Object.values(value).flatMap(texts) : [];
    for (const text of forDonors.flatMap(texts)) expect(text).not.toMatch(jargon);
  });
});
