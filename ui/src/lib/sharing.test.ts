import { describe, expect, it } from 'vitest';
import type { Hours, Preset, ShareSettings, ShareView } from './api';
import { coresInUse, isHeldUnseen, OUTSIDE, withPreset } from './sharing';

const settings = (preset: Preset, over: Partial<ShareSettings> = {}): ShareSettings => ({
  preset, away_after_s: 180, away_when_locked: true, cores_away: { all_but: 1 }, cores_in_use: { count: 0 }, battery: 'never',
  load_gate_percent: 20, keep_free_mib: 0, keep_free_disk_mib: 0, hours: [], start_at_login: true, ...over,
});

describe('cores while somebody is there', () => {
  it('are those of the preset', () => {
    const of = (preset: Preset, over: Partial<ShareSettings> = {}) => coresInUse(settings(preset, { cores_in_use: { count: 5 }, ...over }), 8);
    expect([of('away'), of('a_little'), of('dedicated'), of('custom')]).toEqual([0, 2, 7, 5]);
    // A quarter, but no more than when nobody is there.
    expect(of('a_little', { cores_away: { count: 1 } })).toBe(1);
    expect([1, 2, 3, 64].map((cores) => coresInUse(settings('a_little'), cores))).toEqual([1, 1, 1, 16]);
  });
  it('choosing the own limits changes nothing by itself', () => {
    for (const preset of ['away', 'a_little', 'dedicated', 'custom'] as const) {
      for (const cores of [1, 2, 8, 64]) {
        const before = settings(preset, { cores_in_use: { count: 1 } });
        const own = withPreset(before, 'custom', cores);
        expect(own.preset).toBe('custom');
        expect(coresInUse(own, cores), `${preset} ${cores}`).toBe(coresInUse(before, cores));
      }
    }
  });
  it('another preset leaves the own limits as they are', () => {
    const before = settings('custom', { cores_in_use: { count: 3 } });
    expect(withPreset(before, 'away', 8)).toEqual({ ...before, preset: 'away' });
  });
});

describe('outside working hours', () => {
  /** As `model::share` reads them: `to` not after `from` ends on the next day. */
  const holds = (hours: Hours, day: number, minute: number) => {
    const lasts = hours.to_min > hours.from_min ? hours.to_min - hours.from_min : hours.to_min + 1440 - hours.from_min;
    const begins = (d: number) => (hours.days & (1 << (d % 7))) !== 0;
    const within = (m: number) => m >= hours.from_min && m < hours.from_min + lasts;
    return (begins(day) && within(minute)) || (begins(day + 6) && within(minute + 1440));
  };
  it('is the whole week but for Monday to Friday from 8 to 18', () => {
    for (let day = 0; day < 7; day++) {
      for (let minute = 0; minute < 1440; minute++) {
        const works = day < 5 && minute >= 480 && minute < 1080;
        if (OUTSIDE.some((hours) => holds(hours, day, minute)) === works) throw new Error(`day ${day}, minute ${minute}`);
      }
    }
  });
  it('is taken by a node', () => {
    for (const hours of OUTSIDE) expect([hours.from_min, hours.to_min].every((min) => min <= 1440)).toBe(true);
  });
});

describe('an unseen person', () => {
  const share = (presence_source: string | null, state: ShareView['state']) => ({ presence_source, state }) as ShareView;
  it('is only spoken of where that is what holds', () => {
    const held = { is: 'held', reason: 'in_use', resumes_ms: null } as const;
    expect(isHeldUnseen(share(null, held))).toBe(true);
    expect(isHeldUnseen(share('logind', held))).toBe(false);
    expect(isHeldUnseen(share(null, { is: 'off' }))).toBe(false);
    expect(isHeldUnseen(share(null, { is: 'paused', until_ms: null }))).toBe(false);
    expect(isHeldUnseen(share(null, { is: 'ready', slots: 7 }))).toBe(false);
    expect(isHeldUnseen(share(null, { ...held, reason: 'battery' }))).toBe(false);
  });
});
