// Which view the address names. Pure: text in, view out, and back.

export const VIEWS = ['overview', 'builds', 'machines', 'toolchains', 'settings', 'help', 'welcome'] as const;
export type ViewName = (typeof VIEWS)[number];

export interface Route {
  view: ViewName;
  /** What of it: a build, a machine, a page of the settings, a step of the welcome. */
  part: string;
  /** What of that: a tab of the report. */
  tab: string;
}

/** Parses `#/builds/ID/timeline`, or a view's name as the node writes it: `settings/team`. */
export function parseRoute(text: string): Route {
  const parts = text.replace(/^#?\/?/, '').split('/').map(decode);
  const view = VIEWS.find((name) => name === parts[0]) ?? 'overview';
  return { view, part: parts[1] ?? '', tab: parts[2] ?? '' };
}

/** The address of a view. */
export function href(view: ViewName, part = '', tab = ''): string {
  const parts = [view, part, tab].filter((p) => p !== '').map(encodeURIComponent);
  return '#/' + parts.join('/');
}

/** Longest invitation that is looked at, characters: the app's own limit. */
const LINK_MAX = 4096;

/** The invitation that an address carries (`#/welcome/team/LINK`, as the app opens it), or ''. A stranger's text. */
export function invitationOf(route: Route): string {
  const joins = route.part === 'team' && (route.view === 'welcome' || route.view === 'settings');
  return joins ? route.tab.slice(0, LINK_MAX) : '';
}

/** Where an address leads. Whoever is done with the welcome finds an invitation in the settings of the team. */
export function landing(route: Route, welcomed: boolean): Route {
  if (route.view === 'welcome' && invitationOf(route) !== '' && welcomed) return { ...route, view: 'settings' };
  return route;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return '';
  }
}
