import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Refresh, REFRESH_MS } from './refresh';

describe('a report that grows', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());
  /** Each load is answered when the test says so; `shown` are the answers that were taken over. */
  function pool() {
    const answers: (() => void)[] = [];
    const shown: number[] = [];
    const refresh = new Refresh(async (isNewest) => {
      const number = answers.length;
      await new Promise<void>((resolve) => answers.push(resolve));
      if (isNewest()) shown.push(number);
    });
    const answer = async (number: number) => {
      answers[number]?.();
      await vi.advanceTimersByTimeAsync(0);
    };
    return { refresh, answer, shown, asked: () => answers.length };
  }

  it('is asked for about every three seconds while updates come', async () => {
    const { refresh, answer, shown, asked } = pool();
    refresh.now();
    await answer(0);
    for (let ms = 0; ms < 10_000; ms += 100) {
      refresh.soon();
      await vi.advanceTimersByTimeAsync(100);
      await answer(asked() - 1);
    }
    expect(shown).toEqual([0, 1, 2, 3]);
  });
  it('is not asked for while nothing changes, nor twice at a time', async () => {
    const { refresh, answer, asked } = pool();
    refresh.now();
    refresh.soon();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked()).toBe(1);
    await answer(0);
    await vi.advanceTimersByTimeAsync(REFRESH_MS - 1);
    expect(asked()).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(asked()).toBe(2);
    await answer(1);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(asked()).toBe(2);
  });
  it('drops an answer that comes after a newer question', async () => {
    const { refresh, answer, shown } = pool();
    refresh.now();
    refresh.now();
    await answer(1);
    await answer(0);
    expect(shown).toEqual([1]);
  });
  it('ends with whoever looked', async () => {
    const { refresh, answer, shown, asked } = pool();
    refresh.now();
    refresh.soon();
    refresh.stop();
    await answer(0);
    await vi.advanceTimersByTimeAsync(60_000);
    expect([shown, asked()]).toEqual([[], 1]);
  });
});
