import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Call, Snapshot } from './api';
import { QUIET_MS } from './announce';
import { app } from './app.svelte';
import { Refused, type Client } from './client';
import { w } from './words';

describe('the switch', () => {
  it('and its sentence say the same, also before the node has confirmed', () => {
    const node = (on: boolean, sentence: string) => (app.snap = { share: { on, sentence } } as Snapshot);
    const shown = () => [app.on, app.sentence];
    node(false, 'Sharing is off.');
    expect(shown()).toEqual([false, 'Sharing is off.']);
    app.wanted = true;
    expect(shown()).toEqual([true, w.share.turningOn]);
    node(true, 'Ready to help with 7 of 8 cores.');
    expect(shown()).toEqual([true, 'Ready to help with 7 of 8 cores.']);
    app.wanted = false;
    expect(shown()).toEqual([false, w.share.turningOff]);
    // A refusal moves the switch back.
    app.wanted = null;
    expect(shown()).toEqual([true, 'Ready to help with 7 of 8 cores.']);
  });
});

describe('a message', () => {
  // One clock for all of them, as there is one live region.
  beforeAll(() => void vi.useFakeTimers());
  afterAll(() => void vi.useRealTimers());
  const answering = (answer: () => unknown) => (app.client = { call: async () => answer() } as unknown as Client);
  const call: Call = { call: 'share', on: true };
  /** Until it went by itself, and the region may speak again. */
  const over = () => vi.advanceTimersByTimeAsync(10_000 + QUIET_MS);

  it('is heard, with where it can be taken back, each time that it comes', async () => {
    answering(() => ({ ok: true }));
    for (let times = 0; times < 2; times++) {
      await app.change(call, call, w.app.saved);
      expect(app.said).toBe('Saved. Undo is at the end of the page.');
      await over();
      expect([app.toast, app.said]).toEqual([null, '']);
    }
    app.say(w.app.copied);
    expect(app.said).toBe('Copied.');
    await over();
  });
  it('says with its hint that something was refused, and once', async () => {
    answering(() => {
      throw new Refused('not today\nhint: ask tomorrow');
    });
    await app.ask(call);
    const heard = [app.said];
    for (let s = 0; s < 30; s++) {
      await vi.advanceTimersByTimeAsync(1000);
      if (app.said !== heard[heard.length - 1]) heard.push(app.said);
    }
    expect(heard).toEqual(['not today. ask tomorrow.', '']);
  });
  it('says that the browser does not copy', async () => {
    vi.stubGlobal('navigator', {});
    await app.copy('potluck ui');
    vi.unstubAllGlobals();
    expect(app.said).toBe(w.app.notCopied);
    await over();
  });
});
