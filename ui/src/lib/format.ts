// Numbers, times and sizes as people read them. Pure: the present moment is an argument.

import type { BuildRow, Cores, Counts } from './api';

const whole = new Intl.NumberFormat('en');
const tenth = new Intl.NumberFormat('en', { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const clock = new Intl.DateTimeFormat('en', { hour: '2-digit', minute: '2-digit', hourCycle: 'h23' });
const day = new Intl.DateTimeFormat('en', { day: 'numeric', month: 'short' });

export const count = (n: number): string => whole.format(n);

/** "1 job", "2 jobs". */
export const plural = (n: number, one: string, many = one + 's'): string => `${count(n)} ${n === 1 ? one : many}`;

/** Of a build: "0:48", "9:07", "1:02:03". */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  const two = (n: number) => String(n).padStart(2, '0');
  const [h, m] = [Math.floor(s / 3600), Math.floor(s / 60) % 60];
  return h > 0 ? `${h}:${two(m)}:${two(s % 60)}` : `${m}:${two(s % 60)}`;
}

/** In a sentence: "0.4 s", "58 s", "4 min 48 s", "1 h 12 min". */
export function duration(ms: number): string {
  const s = ms / 1000;
  if (s < 9.95) return `${tenth.format(Math.max(0, s))} s`;
  if (s < 59.5) return `${Math.round(s)} s`;
  const min = Math.floor(Math.round(s) / 60);
  if (min < 60) {
    const rest = Math.round(s) % 60;
    return rest === 0 || min >= 10 ? `${min} min` : `${min} min ${rest} s`;
  }
  const rest = min % 60;
  return rest === 0 ? `${Math.floor(min / 60)} h` : `${Math.floor(min / 60)} h ${rest} min`;
}

/** "182 MB", "2.1 GB": powers of ten, as disks are sold. */
export function bytes(n: number): string {
  const units = ['B', 'kB', 'MB', 'GB', 'TB'];
  let at = 0;
  while (n >= 999.5 && at < units.length - 1) {
    n /= 1000;
    at += 1;
  }
  return `${at > 0 && n < 9.95 ? tenth.format(n) : Math.round(n)} ${units[at]}`;
}

/** "14:02" today, "20 Nov 14:02" before. */
export function at(ms: number, now: number): string {
  const then = new Date(ms);
  return then.toDateString() === new Date(now).toDateString() ? clock.format(then) : `${day.format(then)} ${clock.format(then)}`;
}

/** "just now", "3 min ago", "2 h ago", then the day. */
export function ago(ms: number, now: number): string {
  const s = (now - ms) / 1000;
  if (s < 90) return 'just now';
  if (s < 3600) return `${Math.round(s / 60)} min ago`;
  if (s < 86_400) return `${Math.round(s / 3600)} h ago`;
  return at(ms, now);
}

/** "in 12 min", "in 23 h". */
export function within(ms: number, now: number): string {
  const s = Math.max(0, (ms - now) / 1000);
  if (s < 90) return 'in a minute';
  return s < 5400 ? `in ${Math.round(s / 60)} min` : s < 129_600 ? `in ${Math.round(s / 3600)} h` : `in ${Math.round(s / 86_400)} days`;
}

export const total = (c: Counts): number => c.remote + c.here + c.only + c.failed;

/** Jobs on other machines, per cent; none yet: 0. */
export function elsewhere(c: Counts): number {
  const all = total(c);
  return all === 0 ? 0 : Math.round((c.remote * 100) / all);
}

/** How many cores a setting means on a PC with `all` of them. */
export function coresOf(c: Cores, all: number): number {
  return 'count' in c ? Math.min(c.count, all) : Math.max(1, all - c.all_but);
}

/** The setting for so many of `all` cores: "all but one" follows the PC when it gets more. */
export function coresFor(n: number, all: number): Cores {
  if (n >= all) return { all_but: 0 };
  return n === all - 1 && n > 0 ? { all_but: 1 } : { count: n };
}

/** The value below which `percent` of the values lie (nearest rank). */
export function percentile(values: number[], percent: number): number {
  if (values.length === 0) return 0;
  const sorted = [...values].sort((a, b) => a - b);
  const rank = Math.ceil((percent / 100) * sorted.length);
  return sorted[Math.min(sorted.length - 1, Math.max(0, rank - 1))] ?? 0;
}

/** Half and nine tenths of the last `most` builds of a name that ended well; null below three of them. */
export function usual(builds: BuildRow[], name: string, most = 20): { half: number; most: number; builds: number } | null {
  const took = builds.filter((b) => b.name === name && b.end === 'ok').slice(0, most).map((b) => b.took_ms);
  return took.length < 3 ? null : { half: percentile(took, 50), most: percentile(took, 90), builds: took.length };
}

/** A name from another computer: text without control and direction characters and without towers of accents, at most 64 characters. */
export function peer(name: string): string {
  const clean = name.replace(/[\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g, '').trim();
  const flat = [...clean.replace(/(\p{M}{2})\p{M}+/gu, '$1')];
  return flat.length > 64 ? flat.slice(0, 63).join('') + '…' : flat.join('') || '?';
}

/** A long path with its middle left out: the ends say most. */
export function shorten(path: string, most: number): string {
  if (path.length <= most) return path;
  const tail = Math.ceil((most - 1) * 0.7);
  return path.slice(0, most - 1 - tail) + '…' + path.slice(-tail);
}
