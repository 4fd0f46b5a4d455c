// One interface to a node, whatever carries it. Nothing above this file knows whether it runs in a browser or in the app.

import type { Call } from './api';

/** How well the page reaches its node. */
export type Status =
  /** First attempt. */
  | 'connecting'
  /** Calls are answered. */
  | 'open'
  /** It was lost, or never found; attempts go on by themselves. */
  | 'lost'
  /** The node does not accept this page any more: only a new address helps. */
  | 'denied';

/** The node said no: one sentence, and what to do on a line of its own. */
export class Refused extends Error {
  readonly hint: string;
  constructor(text: string) {
    const [first = '', ...rest] = text.split('\n');
    super(first);
    this.name = 'Refused';
    this.hint = rest.join(' ').replace(/^hint:\s*/, '');
  }
}

/** What a stream ends with: null if its last value came. */
export type End = (error: Error | null) => void;

export interface Client {
  /** `web`: a browser. `app`: the window of the tray app. */
  readonly kind: 'web' | 'app';
  readonly status: Status;
  /** Begins to connect and keeps at it. `changed` hears of every new status. */
  start(changed: (status: Status) => void): void;
  /** One answer. Rejects with [`Refused`] if the node says no. */
  call<T>(call: Call): Promise<T>;
  /** Values until the last one. The function that comes back stops listening. */
  stream<T>(call: Call, onValue: (value: T) => void, onEnd: End): () => void;
  /** Starts a node in the background, where the transport can. */
  startNode?(): Promise<void>;
  /** Views that something outside of the page opens. */
  onOpen(open: (view: string) => void): void;
}

/** Answers of the form `{"error": …}` are refusals. */
export function refusalOf(value: unknown): Refused | null {
  if (typeof value === 'object' && value !== null && 'error' in value) {
    const keys = Object.keys(value);
    const error = (value as { error: unknown }).error;
    if (keys.length === 1 && typeof error === 'string') return new Refused(error);
  }
  return null;
}

/** Waiting times between attempts, milliseconds: half a second at first, ten at most (UX 2.9, P1). */
export function backoff(attempt: number): number {
  return Math.min(10_000, Math.round(500 * 1.5 ** attempt));
}
