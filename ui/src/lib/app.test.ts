import { describe, expect, it } from 'vitest';
import type { Snapshot } from './api';
import { app } from './app.svelte';
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
