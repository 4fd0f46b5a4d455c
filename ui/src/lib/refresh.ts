// When something that grows is asked for again: at once where the person asks, else at most every few seconds; and of two
// answers only the newer one counts.

/** Least time from the end of a load to the next one by itself, milliseconds. */
export const REFRESH_MS = 3000;

export class Refresh {
  private newest = 0;
  private loading = false;
  private due = false;
  private last = -Infinity;
  private timer: ReturnType<typeof setTimeout> | undefined;

  /** `load` never rejects, and takes nothing over once `isNewest` says no. */
  constructor(
    private readonly load: (isNewest: () => boolean) => Promise<void>,
    private readonly clock: () => number = () => performance.now(),
  ) {}

  /** What was asked for before does not matter any more. */
  now(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.due = false;
    this.loading = true;
    const mine = ++this.newest;
    void this.load(() => mine === this.newest).then(() => {
      if (mine !== this.newest) return;
      this.loading = false;
      this.last = this.clock();
      if (this.due) this.soon();
    });
  }

  /** There may be something new. */
  soon(): void {
    if (this.loading) this.due = true;
    else this.timer ??= setTimeout(() => this.now(), Math.max(0, this.last + REFRESH_MS - this.clock()));
  }

  /** Nobody looks any more. */
  stop(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    this.newest += 1;
    this.loading = this.due = false;
  }
}
