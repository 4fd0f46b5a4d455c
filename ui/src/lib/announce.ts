// What the one live region says: at most one sentence in five seconds, and of each matter only the newest.

/** Least time between two sentences, milliseconds (UX 2.10). */
export const QUIET_MS = 5000;

export class Announcer {
  private queue = new Map<string, string>();
  private last = -Infinity;
  private said = '';
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly out: (text: string) => void,
    private readonly clock: () => number = () => performance.now(),
  ) {}

  /** `matter` is what it is about: a newer sentence about the same takes the older one's place. */
  say(matter: string, text: string): void {
    // The same words again would not be heard: nothing on the page changes.
    if (text === '' || [...this.queue.values()].includes(text)) return;
    if (text === this.said && this.queue.size === 0) return;
    this.queue.set(matter, text);
    this.next();
  }

  /** What was not said yet is not true any more. */
  forget(matter: string): void {
    this.queue.delete(matter);
  }

  private next(): void {
    if (this.timer !== undefined) return;
    const first = this.queue.entries().next().value;
    if (!first) return;
    const wait = this.last + QUIET_MS - this.clock();
    if (wait > 0) {
      this.timer = setTimeout(() => {
        this.timer = undefined;
        this.next();
      }, wait);
      return;
    }
    this.queue.delete(first[0]);
    this.last = this.clock();
    this.said = first[1];
    this.out(first[1]);
    this.next();
  }
}
