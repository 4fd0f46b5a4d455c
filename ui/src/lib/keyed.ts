// Keys for lists that come from the node. Svelte ends the whole page over two equal keys, so none of them is taken on trust.

import type { Problem } from './api';

/** Each item with a key of its own: what `of` says, and the how-manyth it is of those that say the same. */
export function keyed<T>(items: readonly T[], of: (item: T) => string): { key: string; item: T }[] {
  const seen = new Map<string, number>();
  return items.map((item) => {
    const base = of(item);
    const before = seen.get(base) ?? 0;
    seen.set(base, before + 1);
    return { key: `${before} ${base}`, item };
  });
}

/** One code can be about several things: a compiler each, a computer each. */
export const problemKey = (problem: Problem): string => `${problem.code} ${problem.headline}`;

/** Problems that came and that went between two snapshots; those that say the same count as one. */
export function problemChanges(before: readonly Problem[], now: readonly Problem[]): { came: Map<string, Problem>; went: string[] } {
  const [old, present] = [before, now].map((list) => new Map(list.map((p) => [problemKey(p), p])));
  return {
    came: new Map([...present!].filter(([key]) => !old!.has(key))),
    went: [...old!.keys()].filter((key) => !present!.has(key)),
  };
}
