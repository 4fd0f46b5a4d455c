// Updates into one snapshot. Pure: the same updates give the same snapshot, and a gap is found, never guessed over.

import type { Snapshot, Update } from './api';

/** What is known, and up to which update. */
export interface Known {
  seq: number;
  snap: Snapshot;
}

/** `gap`: something was missed, so the node must be asked for everything again. */
export type Applied = { known: Known } | { gap: true };

/** Sections without which nothing can be drawn. */
const NEEDED = ['this', 'share', 'machines', 'pool'] as const;

/** Sections that an older node may not send: an empty one is drawn then. */
const EMPTY: Pick<
  Snapshot,
  'team' | 'nearby' | 'joining' | 'building' | 'builds' | 'toolchains' | 'received' | 'problems' | 'recent' | 'checks' | 'addresses' | 'scenes'
> = {
  team: null,
  nearby: [],
  joining: null,
  building: [],
  builds: [],
  toolchains: [],
  received: [],
  problems: [],
  recent: [],
  checks: [],
  addresses: [],
  scenes: [],
};

/** Takes one update in. Sections that did not change keep their identity, so that only what changed is drawn. */
export function apply(known: Known | null, update: Update): Applied {
  const sections = update.sections as Partial<Snapshot>;
  const whole = NEEDED.every((name) => sections[name] !== undefined && sections[name] !== null);
  if (known === null || (whole && update.seq !== known.seq + 1)) {
    return whole ? { known: { seq: update.seq, snap: { ...EMPTY, ...sections } as Snapshot } } : { gap: true };
  }
  if (update.seq !== known.seq + 1) return { gap: true };
  return { known: { seq: update.seq, snap: { ...known.snap, ...sections } } };
}
