// The app's way: two commands of the tray app carry calls and streams as JSON text; it decides nothing.

import { Channel, invoke } from '@tauri-apps/api/core';
import { listen } from '@tauri-apps/api/event';
import type { Call } from './api';
import { backoff, refusalOf, type Client, type End, type Status } from './client';
import { w } from './words';

/** True in a window of the tray app. */
export const inApp = (): boolean => '__TAURI_INTERNALS__' in window;

export class TauriClient implements Client {
  readonly kind = 'app';
  status: Status = 'connecting';
  private changed: (status: Status) => void = () => {};
  private attempt = 0;

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

  private lost(): void {
    if (this.status === 'lost' && this.attempt === 0) return;
    this.set('lost');
    setTimeout(() => void this.look(), backoff(this.attempt++));
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
    const channel = new Channel<string>();
    channel.onmessage = (text) => {
      if (over) return;
      const value: unknown = typeof text === 'string' ? JSON.parse(text) : text;
      const refusal = refusalOf(value);
      if (refusal) end(refusal);
      else onValue(value as T);
    };
    invoke('watch', { json: JSON.stringify(call), channel })
      .then(() => {
        // The command may answer as soon as the stream runs, or when it is over; only the watch never ends by itself.
        if (call.call !== 'watch') queueMicrotask(() => end(null));
      })
      .catch((error: unknown) => {
        end(new Error(typeof error === 'string' && error ? error : w.app.lost));
        if (call.call === 'watch') this.lost();
      });
    return () => (over = true);
  }

  async startNode(): Promise<void> {
    await invoke('start_node');
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
