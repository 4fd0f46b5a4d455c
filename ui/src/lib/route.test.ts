import { describe, expect, it } from 'vitest';
import { href, invitationOf, landing, parseRoute } from './route';

const LINK = 'pool:join?a=1&b=/../x#y';

describe('an invitation in the address', () => {
  it('is read as the app writes it, and leads nowhere else', () => {
    const route = parseRoute('#/welcome/team/pool%3Ajoin%3Fa%3D1%26b%3D%2F..%2Fx%23y');
    expect(invitationOf(route)).toBe(LINK);
    expect(parseRoute(href('welcome', 'team', LINK))).toEqual(route);
  });
  it('goes to the settings once the welcome is over', () => {
    const route = parseRoute(href('welcome', 'team', LINK));
    expect(landing(route, false)).toEqual(route);
    expect(landing(route, true)).toEqual({ view: 'settings', part: 'team', tab: LINK });
    expect(landing(parseRoute('#/welcome/team'), true).view).toBe('welcome');
  });
  it('is of no other view, and no longer than a link can be', () => {
    expect(invitationOf(parseRoute(href('builds', 'team', LINK)))).toBe('');
    expect(invitationOf(parseRoute(href('welcome', 'team', 'x'.repeat(9000))))).toHaveLength(4096);
  });
});
