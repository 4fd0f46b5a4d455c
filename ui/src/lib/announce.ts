// What the one live region says: at most one sentence in five seconds, and of each matter only the newest.

/** Least time between two sentences, milliseconds (UX 2.10). */
export const QUIET_MS = 5000;

/** How long a sentence stands in the region, milliseconds. Less than QUIET_MS: only after an empty region are equal words a change. */
export const STANDS_MS = 4000;

export class Announcer {
  private queue = new Map<string, string>();
  private last = -Infinity;
  /** What stands in the region, and what it is about. */
  private said = '';
  private about = '';
  private timer: ReturnType<typeof setTimeout> | undefined;
  private standing: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly out: (text: string) => void,
    private readonly clock: () => number = () => performance.now(),
  ) {}

  /** `matter` is what it is about: a newer sentence about the same takes the older one's place. */
  say(matter: string, text: string): void {
    // What stands there or waits already: one event can be told as two matters, and is heard once.
    if (text === '' || [...this.queue.values()].includes(text)) return;
    if (text === this.said && this.queue.size === 0) return;
    this.queue.set(matter, text);
    this.next();
  }

  /** What was said of it, or waits to be, is not true any more: the same words later are news. */
  forget(matter: string): void {
    this.queue.delete(matter);
    if (this.about === matter) this.clear();
  }

  private clear(): void {
    if (this.said === '') return;
    this.said = this.about = '';
    this.out('');
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
    [this.about, this.said] = first;
    this.out(this.said);
    clearTimeout(this.standing);
    this.standing = setTimeout(() => this.clear(), STANDS_MS);
    this.next();
  }
}
