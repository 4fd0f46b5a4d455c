import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { TauriClient } from './tauri';

type Raw = { index: number; message?: string; end?: boolean };

/** The app's side: what the page asked, and a way to answer in any order. */
let run: (raw: Raw) => void;
let answer: { ok: () => void; error: (text: string) => void };

beforeEach(() => {
  vi.useFakeTimers();
  const callbacks = new Map<number, (raw: Raw) => void>();
  let next = 1;
  vi.stubGlobal('window', {
    __TAURI_INTERNALS__: {
      transformCallback: (callback: (raw: Raw) => void) => (callbacks.set(next, callback), next++),
      unregisterCallback: (id: number) => callbacks.delete(id),
      invoke: (command: string, args: { channel: { id: number } }) => {
        if (command !== 'watch') return Promise.reject('gone');
        run = (raw) => callbacks.get(args.channel.id)?.(raw);
        return new Promise<void>((ok, error) => (answer = { ok, error }));
      },
    },
  });
});
afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

const follow = (call: 'watch' | 'doctor') => {
  const client = new TauriClient();
  const heard: unknown[] = [];
  client.stream(call === 'watch' ? { call, every_ms: 100 } : { call }, (v) => heard.push(v), (e) => heard.push(e?.message ?? 'end'));
  return { client, heard };
};

describe('a stream through the app', () => {
  it('gives a large last value before its end, however late it comes', async () => {
    const { heard } = follow('doctor');
    run({ index: 0, message: '1' });
    answer.ok();
    run({ index: 2, end: true });
    await vi.advanceTimersByTimeAsync(1500);
    expect(heard).toEqual([1]);
    run({ index: 1, message: '2' });
    await vi.advanceTimersByTimeAsync(0);
    expect(heard).toEqual([1, 2, 'end']);
  });

  it('notices at once that a watch ended, after its last value', async () => {
    const { client, heard } = follow('watch');
    answer.ok();
    run({ index: 1, end: true });
    await vi.advanceTimersByTimeAsync(0);
    expect([heard, client.status]).toEqual([[], 'connecting']);
    run({ index: 0, message: '1' });
    await vi.advanceTimersByTimeAsync(0);
    expect(heard).toEqual([1, "Potluck isn't running in the background."]);
    expect(client.status).toBe('lost');
  });

  it('ends also when a value was lost on its way, and with what the app said', async () => {
    const { heard } = follow('doctor');
    answer.error('no such call');
    run({ index: 1, end: true });
    await vi.advanceTimersByTimeAsync(2000);
    expect(heard).toEqual(['no such call']);
  });
});
