// The browser's way: a session bought with the one-time token of the address, and a WebSocket that is opened again when it is lost.

import type { Call } from './api';
import { backoff, refusalOf, type Client, type End, type Status } from './client';
import { w } from './words';

const SESSION = 'potluck.session';
/** Close code of a node that does not know the session. */
const UNKNOWN_SESSION = 4401;

interface Waiting {
  value: (value: unknown) => void;
  end: End;
}

export class WsClient implements Client {
  readonly kind = 'web';
  status: Status = 'connecting';
  private changed: (status: Status) => void = () => {};
  private socket: WebSocket | null = null;
  private waiting = new Map<number, Waiting>();
  private next = 1;
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  start(changed: (status: Status) => void): void {
    this.changed = changed;
    const now = () => {
      if (this.status === 'lost' && document.visibilityState === 'visible') this.again(0);
    };
    window.addEventListener('online', now);
    document.addEventListener('visibilitychange', now);
    void this.enter();
  }

  /** Changes the one-time token into a session, and takes it out of the address and the history. */
  private async enter(): Promise<void> {
    const token = /^#token=([\w.~-]+)$/.exec(location.hash)?.[1];
    if (token) {
      history.replaceState(null, '', location.pathname + location.search);
      try {
        const answer = await fetch('/session', {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ token }),
        });
        const body: unknown = answer.ok ? await answer.json() : null;
        const session = (body as { session?: unknown } | null)?.session;
        if (typeof session === 'string') sessionStorage.setItem(SESSION, session);
      } catch {
        // The node went away in between. The session of before may still be good.
      }
    }
    if (sessionStorage.getItem(SESSION)) this.dial();
    else this.set('denied');
  }

  private dial(): void {
    clearTimeout(this.timer);
    const session = sessionStorage.getItem(SESSION);
    if (!session) return this.set('denied');
    const socket = new WebSocket(`${location.protocol === 'https:' ? 'wss' : 'ws'}://${location.host}/ws`);
    this.socket = socket;
    socket.onopen = () => {
      socket.send(JSON.stringify({ token: session }));
      this.attempt = 0;
      this.set('open');
    };
    socket.onmessage = (event) => this.frame(String(event.data));
    socket.onclose = (event) => {
      if (this.socket !== socket) return;
      this.socket = null;
      const lost = [...this.waiting.values()];
      this.waiting.clear();
      if (event.code === UNKNOWN_SESSION) {
        sessionStorage.removeItem(SESSION);
        this.set('denied');
      } else {
        this.set('lost');
        this.again(backoff(this.attempt++));
      }
      for (const one of lost) one.end(new Error(w.app.lost));
    };
  }

  private again(after: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      if (this.socket === null && this.status === 'lost') this.dial();
    }, after);
  }

  private frame(text: string): void {
    let frame: { id?: unknown; last?: unknown; value?: unknown };
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    if (typeof frame.id !== 'number') return;
    const one = this.waiting.get(frame.id);
    if (!one) return;
    if (frame.last) this.waiting.delete(frame.id);
    const refusal = refusalOf(frame.value);
    if (refusal) {
      this.waiting.delete(frame.id);
      return one.end(refusal);
    }
    if (frame.value !== undefined && frame.value !== null) one.value(frame.value);
    if (frame.last) one.end(null);
  }

  private send(call: Call, waiting: Waiting): number {
    const id = this.next++;
    if (this.status !== 'open' || !this.socket) {
      queueMicrotask(() => waiting.end(new Error(w.app.lost)));
      return id;
    }
    this.waiting.set(id, waiting);
    this.socket.send(JSON.stringify({ id, call }));
    return id;
  }

  call<T>(call: Call): Promise<T> {
    return new Promise((resolve, reject) => {
      let value: unknown;
      this.send(call, {
        value: (v) => (value = v),
        end: (error) => (error ? reject(error) : resolve(value as T)),
      });
    });
  }

  stream<T>(call: Call, onValue: (value: T) => void, onEnd: End): () => void {
    const id = this.send(call, { value: (v) => onValue(v as T), end: onEnd });
    return () => {
      if (this.waiting.delete(id) && this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ id, cancel: true }));
    };
  }

  onOpen(): void {
    // A browser's address bar is enough.
  }

  private set(status: Status): void {
    if (this.status === status && status !== 'open') return;
    this.status = status;
    this.changed(status);
  }
}
