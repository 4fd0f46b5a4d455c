// What settings of sharing mean together, as `model::share` takes them. Pure: the page only asks, the node decides.

import type { Hours, Preset, ShareSettings, ShareView } from './api';
import { coresFor, coresOf } from './format';

/** Cores that are lent while somebody is there: every preset but the own one fixes them. */
export function coresInUse(settings: ShareSettings, cores: number): number {
  const away = Math.max(1, coresOf(settings.cores_away, cores));
  switch (settings.preset) {
    case 'away':
      return 0;
    case 'a_little':
      return Math.min(Math.max(1, Math.floor(cores / 4)), away);
    case 'dedicated':
      return away;
    case 'custom':
      return coresOf(settings.cores_in_use, cores);
  }
}

/** The same with another preset. The own one begins with what held before, so that choosing it alone changes nothing. */
export function withPreset(settings: ShareSettings, preset: Preset, cores: number): ShareSettings {
  const seeded = preset === 'custom' ? { cores_in_use: coresFor(coresInUse(settings, cores), cores) } : {};
  return { ...settings, ...seeded, preset };
}

/** Whether the load of other programs holds all of it; else each core that they use is one that is not lent. */
export const hasGate = (preset: Preset): boolean => preset === 'away' || preset === 'custom';

/** Nothing is lent, because nothing tells whether somebody is present. */
export const isHeldUnseen = (share: ShareView): boolean =>
  share.presence_source === null && share.state.is === 'held' && share.state.reason === 'in_use';

/** The week but for Monday to Friday, 8 to 18. The night before Monday needs an entry of its own. */
export const OUTSIDE: Hours[] = [
  { days: 0b0011111, from_min: 18 * 60, to_min: 8 * 60 },
  { days: 0b1100000, from_min: 0, to_min: 24 * 60 },
  { days: 0b0000001, from_min: 0, to_min: 8 * 60 },
];
