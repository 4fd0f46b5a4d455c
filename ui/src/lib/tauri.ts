// The app's way: two commands of the tray app carry calls and streams as JSON text; it decides nothing.

import { Channel, invoke } from '@tauri-apps/api/core';
import { listen } from '@tauri-apps/api/event';
import type { Call } from './api';
import { backoff, refusalOf, type Client, type End, type Status } from './client';
import { w } from './words';

/**
 * How long a channel's end may be later than the answer of its command, milliseconds. It comes right after the last value;
 * only where a value got lost on its way, or the command was refused before it had a channel, it never comes.
 */
const END_MS = 2000;

/** A channel that tells when all its values are delivered: those over 8 KiB take a way of their own, and longer. */
class EndingChannel extends Channel<string> {
  readonly ended: Promise<void>;
  constructor() {
    super();
    let over = () => {};
    this.ended = new Promise((resolve) => (over = resolve));
    // The library calls it at the end, in the order of the values.
    const channel = this as unknown as { cleanupCallback: () => void };
    const cleanup = channel.cleanupCallback;
    channel.cleanupCallback = () => {
      cleanup.call(this);
      over();
    };
  }
}

/** True in a window of the tray app. */
export const inApp = (): boolean => '__TAURI_INTERNALS__' in window;

export class TauriClient implements Client {
  readonly kind = 'app';
  status: Status = 'connecting';
  private changed: (status: Status) => void = () => {};
  private attempt = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;

  start(changed: (status: Status) => void): void {
    this.changed = changed;
    void this.look();
  }

  /** Asks for something small until somebody answers. */
  private async look(): Promise<void> {
    try {
      await invoke<string>('call', { json: JSON.stringify({ call: 'suggest' } satisfies Call) });
      this.attempt = 0;
      this.set('open');
    } catch {
      this.lost();
    }
  }

  /** The node does not answer: one attempt after the other, never two at a time. */
  private lost(): void {
    if (this.timer !== undefined) return;
    if (this.status !== 'lost') this.set('lost');
    this.timer = setTimeout(() => {
      this.timer = undefined;
      void this.look();
    }, backoff(this.attempt++));
  }

  async call<T>(call: Call): Promise<T> {
    let text: string;
    try {
      text = await invoke<string>('call', { json: JSON.stringify(call) });
    } catch (error) {
      throw new Error(typeof error === 'string' && error ? error : w.app.lost);
    }
    const value: unknown = JSON.parse(text);
    const refusal = refusalOf(value);
    if (refusal) throw refusal;
    return value as T;
  }

  stream<T>(call: Call, onValue: (value: T) => void, onEnd: End): () => void {
    let over = false;
    const end = (error: Error | null) => {
      if (over) return;
      over = true;
      onEnd(error);
    };
    const channel = new EndingChannel();
    channel.onmessage = (text) => {
      if (over) return;
      const value: unknown = typeof text === 'string' ? JSON.parse(text) : text;
      const refusal = refusalOf(value);
      if (refusal) end(refusal);
      else onValue(value as T);
    };
    // The command answers when the stream is over, and values may still be on their way.
    const answered = invoke('watch', { json: JSON.stringify(call), channel }).then(
      () => null,
      (error: unknown) => new Error(typeof error === 'string' && error ? error : w.app.lost),
    );
    void answered.then(async (error) => {
      await Promise.race([channel.ended, new Promise((resolve) => setTimeout(resolve, END_MS))]);
      if (over) return;
      // A watch is never over by itself: then the node is gone.
      if (call.call !== 'watch') return end(error);
      end(new Error(w.app.lost));
      this.lost();
    });
    return () => (over = true);
  }

  async startNode(): Promise<void> {
    await invoke('start_node');
    clearTimeout(this.timer);
    this.timer = undefined;
    this.attempt = 0;
    await this.look();
  }

  onOpen(open: (view: string) => void): void {
    void listen<string>('open', (event) => {
      if (typeof event.payload === 'string') open(event.payload);
    });
  }

  private set(status: Status): void {
    this.status = status;
    this.changed(status);
  }
}
