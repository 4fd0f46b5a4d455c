// The page's state: the snapshot, the connection, where we are, and what was just said. Everything that views share.

import type { Call, FixAction, Snapshot, Update } from './api';
import { Refused, type Client, type Status } from './client';
import { problemChanges } from './keyed';
import { apply, type Known } from './reducer';
import { href, landing, parseRoute, VIEWS, type Route, type ViewName } from './route';
import { Announcer } from './announce';
import { w } from './words';

export interface Toast {
  text: string;
  hint: string;
  bad: boolean;
  undo: (() => void) | null;
}

/** How long a change can be taken back, milliseconds (UX 2.4). */
const UNDO_MS = 10_000;

/** As the api's FOCUS_EVERY_S. */
const FOCUS_EVERY_MS = 20_000;

export type Theme = 'system' | 'light' | 'dark';
const THEME = 'potluck.theme';

class App {
  client!: Client;
  snap = $state.raw<Snapshot | null>(null);
  status = $state<Status>('connecting');
  route = $state.raw<Route>({ view: 'overview', part: '', tab: '' });
  toast = $state.raw<Toast | null>(null);
  /** What the one live region says now. */
  said = $state('');
  /** The switch as the person set it, until the node agrees or refuses. */
  wanted = $state<boolean | null>(null);
  theme = $state<Theme>('system');
  /** Present moment for "3 min ago"; moves with updates and every half minute. */
  now = $state(Date.now());
  keysShown = $state(false);
  /** The desktop has no tray, and the person was not told yet. */
  noTray = $state(false);
  /** An invitation that the person said yes to: the join view begins with it. Never from an address. */
  accepted = '';

  private focused = false;
  private known: Known | null = null;
  private stop: (() => void) | null = null;
  private toastTimer: ReturnType<typeof setTimeout> | undefined;
  private announcer = new Announcer((text) => (this.said = text));

  donor = $derived(this.snap?.this.role !== 'developer');
  /** What the switch shows. */
  on = $derived(this.wanted ?? this.snap?.share.on ?? false);
  /** What stands beside the switch: never what held before it was pressed. */
  sentence = $derived(
    this.wanted !== null && this.wanted !== this.snap?.share.on
      ? this.wanted ? w.share.turningOn : w.share.turningOff
      : (this.snap?.share.sentence ?? ''),
  );

  start(client: Client): void {
    this.client = client;
    this.setTheme(readTheme());
    client.start((status) => this.statusChanged(status));
    client.onOpen((view) => this.open(view));
    window.addEventListener('hashchange', () => this.arrive(this.route.view === 'welcome'));
    if (location.hash.startsWith('#/')) this.arrive(false);
    setInterval(() => {
      if (document.visibilityState === 'visible') this.now = Date.now();
    }, 30_000);
    // Whoever looks here sees that a build is done: the node then shows no notification (UX 2.5).
    for (const event of ['focus', 'blur', 'visibilitychange']) window.addEventListener(event, () => this.tellFocus());
    window.addEventListener('pagehide', () => this.tellFocus(false));
    setInterval(() => this.tellFocus(), FOCUS_EVERY_MS);
  }

  /** Says whether somebody looks at this page: each change, and again while it holds. */
  private tellFocus(on = document.visibilityState === 'visible' && document.hasFocus()): void {
    if (this.status !== 'open' || (!on && !this.focused)) return;
    this.focused = on;
    this.client.call({ call: 'focus', on }).catch(() => {});
  }

  private statusChanged(status: Status): void {
    const before = this.status;
    this.status = status;
    if (status === 'open') {
      if (before === 'lost') this.announcer.say('connection', w.app.backAgain);
      this.watch();
      this.tellFocus();
    } else if (before === 'open') {
      this.wanted = null;
      this.announcer.say('connection', w.app.stopped);
    }
  }

  /** Everything, then what changes. */
  private watch(): void {
    this.stop?.();
    this.known = null;
    const stop = this.client.stream<Update>(
      { call: 'watch', every_ms: 100 },
      (update) => this.take(update),
      () => {
        // The transport says itself that it was lost, and opens again.
      },
    );
    this.stop = stop;
  }

  private take(update: Update): void {
    const applied = apply(this.known, update);
    if ('gap' in applied) return this.watch();
    const before = this.snap;
    this.known = applied.known;
    this.snap = applied.known.snap;
    this.now = Date.now();
    if (this.wanted === this.snap.share.on) this.wanted = null;
    this.announce(before, this.snap);
    if (before === null && location.hash.startsWith('#/')) this.arrive(false);
    if (before === null && this.snap.this.role === null && this.route.view !== 'welcome') this.go('welcome');
  }

  /** Only changes of state are said, never numbers. */
  private announce(before: Snapshot | null, now: Snapshot): void {
    if (!before) return;
    const state = (s: Snapshot) => JSON.stringify([s.share.state.is, 'reason' in s.share.state ? s.share.state.reason : '']);
    const { came, went } = problemChanges(before.problems, now.problems);
    for (const [key, problem] of came) this.announcer.say('problem ' + key, problem.headline);
    for (const key of went) this.announcer.forget('problem ' + key);
    if (state(before) !== state(now)) this.announcer.say('share', now.share.sentence);
    for (const build of now.builds.slice(0, 3)) {
      const line = before.building.find((b) => b.id === build.id);
      if (line && build.end !== 'running' && !now.building.some((b) => b.id === build.id)) {
        this.announcer.say('build', w.builds.ended(build.name, build.end));
      }
    }
    if ((now.team?.asking.length ?? 0) > (before.team?.asking.length ?? 0)) this.announcer.say('asking', w.team.somebodyAsks);
  }

  // Where we are.

  /** Takes over the address. `inWelcome`: the person is just being welcomed, and stays there until there is a team. */
  private arrive(inWelcome: boolean): void {
    const welcomed = this.snap !== null && this.snap.this.role !== null && !(inWelcome && this.snap.team === null);
    const asked = parseRoute(location.hash);
    let route = landing(asked, welcomed);
    if (route.view === 'overview' && route.part === 'no-tray') {
      this.noTray = true;
      route = { view: 'overview', part: '', tab: '' };
    }
    // Neither going back nor a reload leads there again.
    if (route.view !== asked.view || route.part !== asked.part) history.replaceState(null, '', href(route.view, route.part, route.tab));
    this.route = route;
  }

  go(view: ViewName, part = '', tab = ''): void {
    location.hash = href(view, part, tab);
  }

  /** A view's name as the node writes it. */
  open(name: string): void {
    const route = parseRoute(name);
    if (VIEWS.includes(route.view)) this.go(route.view, route.part, route.tab);
  }

  // Doing.

  /** Asks the node. A refusal is shown, and answered with null. */
  async ask<T = unknown>(call: Call): Promise<T | null> {
    try {
      return await this.client.call<T>(call);
    } catch (error) {
      this.failed(error);
      return null;
    }
  }

  failed(error: unknown): void {
    const refused = error instanceof Refused;
    this.show({ text: error instanceof Error ? error.message : w.app.failed, hint: refused ? error.hint : '', bad: true, undo: null });
  }

  /** Carries a change out and offers to take it back. */
  async change(call: Call, back: Call, said: string): Promise<boolean> {
    if ((await this.ask(call)) === null) return false;
    this.show({
      text: said,
      hint: '',
      bad: false,
      undo: () => {
        this.show(null);
        void this.ask(back);
      },
    });
    return true;
  }

  /** The one message, seen and heard: it stands outside of the live region, which would take its buttons for words. */
  show(toast: Toast | null): void {
    clearTimeout(this.toastTimer);
    this.announcer.forget('toast');
    this.toast = toast;
    if (!toast) return;
    this.announcer.say('toast', w.app.toast(toast.text, toast.hint, toast.undo !== null));
    this.toastTimer = setTimeout(() => this.show(null), UNDO_MS);
  }

  /** Tells screen readers of a change of state, through the one live region. */
  speak(matter: string, text: string): void {
    this.announcer.say(matter, text);
  }

  say(text: string): void {
    this.show({ text, hint: '', bad: false, undo: null });
  }

  /** The switch: it moves at once, the node confirms, a refusal moves it back. */
  async share(on: boolean): Promise<void> {
    this.wanted = on;
    const done = await this.ask({ call: 'share', on });
    if (done === null) this.wanted = null;
    else setTimeout(() => (this.wanted = this.wanted === on ? null : this.wanted), 3000);
  }

  async fix(action: FixAction): Promise<void> {
    if (action.is === 'view') this.open(action.name);
    else if (action.is === 'call') {
      let call: Call;
      try {
        call = JSON.parse(action.json);
      } catch {
        return;
      }
      if ((await this.ask(call)) !== null) this.say(w.app.done);
    } else await this.copy(action.text);
  }

  async copy(text: string): Promise<void> {
    try {
      await navigator.clipboard.writeText(text);
      this.say(w.app.copied);
    } catch {
      this.show({ text: w.app.notCopied, hint: '', bad: true, undo: null });
    }
  }

  setTheme(theme: Theme): void {
    this.theme = theme;
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    try {
      localStorage.setItem(THEME, theme);
    } catch {
      // A browser that keeps nothing: the choice holds until the page is closed.
    }
  }
}

function readTheme(): Theme {
  try {
    const kept = localStorage.getItem(THEME);
    return kept === 'light' || kept === 'dark' ? kept : 'system';
  } catch {
    return 'system';
  }
}

export const app = new App();
