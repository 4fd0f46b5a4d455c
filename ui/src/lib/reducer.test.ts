import { describe, expect, it } from 'vitest';
import type { Snapshot, Update } from './api';
import { apply, type Known } from './reducer';

const whole = (over: Partial<Snapshot> = {}): Partial<Snapshot> =>
  ({ schema: 1, this: { name: 'a' }, share: { on: false }, machines: [], pool: { machines: 1 }, ...over }) as Partial<Snapshot>;
const update = (seq: number, sections: Partial<Snapshot>): Update => ({ seq, sections });
const taken = (known: Known | null, u: Update): Known => {
  const applied = apply(known, u);
  if ('gap' in applied) throw new Error('a gap was seen');
  return applied.known;
};

describe('updates', () => {
  it('the first one is the snapshot, whatever its number', () => {
    const known = taken(null, update(7, whole()));
    expect(known.seq).toBe(7);
    expect(known.snap.this.name).toBe('a');
  });

  it('a section replaces the one before and leaves the others as they are', () => {
    const one = taken(null, update(1, whole()));
    const two = taken(one, update(2, { share: { on: true } } as Partial<Snapshot>));
    expect(two.snap.share.on).toBe(true);
    expect(two.snap.machines).toBe(one.snap.machines);
    expect(one.snap.share.on).toBe(false);
  });

  it('a section may become nothing', () => {
    const one = taken(null, update(1, whole({ team: { name: 'x' } as Snapshot['team'] })));
    expect(taken(one, update(2, { team: null })).snap.team).toBeNull();
  });

  it('a number left out is a gap', () => {
    const one = taken(null, update(1, whole()));
    expect(apply(one, update(3, {}))).toEqual({ gap: true });
  });

  it('a number that came twice is a gap', () => {
    const one = taken(null, update(1, whole()));
    expect(apply(one, update(1, {}))).toEqual({ gap: true });
  });

  it('everything again begins anew instead of being a gap', () => {
    const one = taken(null, update(9, whole()));
    expect(taken(one, update(1, whole({ machines: [{ id: 'x' } as Snapshot['machines'][number]] }))).snap.machines).toHaveLength(1);
  });

  it('changes without a snapshot are a gap', () => {
    expect(apply(null, update(1, { recent: [] }))).toEqual({ gap: true });
  });

  it('sections that an older node does not know are empty', () => {
    expect(taken(null, update(1, whole())).snap.builds).toEqual([]);
  });
});
