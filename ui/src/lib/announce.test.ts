import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Announcer, QUIET_MS, STANDS_MS } from './announce';

describe('the live region', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  /** What the region was changed to, with the second of each. */
  function region() {
    const heard: [number, string][] = [];
    const begun = performance.now();
    const announcer = new Announcer((text) => heard.push([(performance.now() - begun) / 1000, text]));
    return { announcer, heard };
  }

  it('says one sentence in five seconds, and of each matter the newest', async () => {
    const { announcer, heard } = region();
    announcer.say('share', 'Ready.');
    announcer.say('share', 'Held.');
    announcer.say('build', 'wine finished.');
    announcer.say('share', 'Ready again.');
    await vi.advanceTimersByTimeAsync(60_000);
    const said = heard.filter(([, text]) => text !== '');
    expect(said).toEqual([[0, 'Ready.'], [5, 'Ready again.'], [10, 'wine finished.']]);
  });
  it('is empty between two sentences, so that equal words are a change', async () => {
    expect(STANDS_MS).toBeLessThan(QUIET_MS);
    const { announcer, heard } = region();
    announcer.say('build', 'wine finished.');
    await vi.advanceTimersByTimeAsync(QUIET_MS);
    announcer.say('build', 'wine finished.');
    expect(heard).toEqual([[0, 'wine finished.'], [4, ''], [5, 'wine finished.']]);
  });
  it('says one event once, also if it is told as two matters', async () => {
    const { announcer, heard } = region();
    announcer.say('problem S1', 'No safe box.');
    announcer.say('share', 'No safe box.');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(heard).toEqual([[0, 'No safe box.'], [4, '']]);
  });
  it('takes back what is over, and says it when it happens again', async () => {
    const { announcer, heard } = region();
    announcer.say('toast', 'Copied.');
    await vi.advanceTimersByTimeAsync(1000);
    announcer.forget('toast');
    announcer.say('toast', 'Copied.');
    announcer.say('problem', 'Gone before it is said.');
    announcer.forget('problem');
    await vi.advanceTimersByTimeAsync(60_000);
    expect(heard).toEqual([[0, 'Copied.'], [1, ''], [5, 'Copied.'], [9, '']]);
  });
});
