import { describe, expect, it } from 'vitest';
import type { Problem, ToolchainView } from './api';
import { keyed, problemChanges, problemKey } from './keyed';

const problem = (code: string, headline: string, detail = ''): Problem =>
  ({ code, headline, detail, fix: { label: 'Details', action: { is: 'view', name: 'toolchains' } }, attention: true, since_ms: 0 });
const gcc = problem('T1', "gcc 14.2 can't be used on other machines yet.", 'On lab-01: no');
const clang = problem('T1', "clang 19 can't be used on other machines yet.");

describe('keys of lists', () => {
  const keys = <T>(items: T[], of: (item: T) => string) => keyed(items, of).map((k) => k.key);

  it('no two are equal, whatever comes twice', () => {
    const problems = [gcc, clang, { ...gcc, detail: 'On lab-02: no' }, gcc];
    expect(new Set(keys(problems, problemKey)).size).toBe(4);
    const failed = { path: '/usr/bin/gcc', id: '' } as ToolchainView;
    expect(new Set(keys([failed, failed, { ...failed, id: 'a' }], (t) => `${t.path} ${t.id}`)).size).toBe(3);
    // A text that looks like another one's key.
    expect(new Set(keys(['a', 'a', '1 a', '0 a', '1 a'], (a) => a)).size).toBe(5);
  });

  it('an item keeps its key when others come and go around it', () => {
    const key = (items: Problem[]) => keyed(items, problemKey).find((k) => k.item === clang)?.key;
    expect(key([gcc, gcc, clang])).toBe(key([clang, problem('V1', 'old-nuc has another Potluck')]));
  });
});

describe('problems that are said', () => {
  it('a second one of the same code is said too', () => {
    expect([...problemChanges([gcc], [gcc, clang]).came.values()]).toEqual([clang]);
  });
  it('one of two that goes is forgotten, and the other is not said again', () => {
    const { came, went } = problemChanges([gcc, clang], [clang]);
    expect([came.size, went]).toEqual([0, [problemKey(gcc)]]);
  });
  it('the same words twice are one', () => {
    const twice = [gcc, { ...gcc, detail: 'On lab-02: no' }];
    expect(problemChanges([], twice).came.size).toBe(1);
    expect(problemChanges(twice, [gcc])).toEqual({ came: new Map(), went: [] });
  });
});
