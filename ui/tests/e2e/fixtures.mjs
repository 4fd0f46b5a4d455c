// What every spec starts from: a node, a page that is let in, and a way to ask the node behind the page's back.
import { test as base, expect } from '@playwright/test';
import { bridge } from './bridge.mjs';
import { startNode } from './node.mjs';

export { expect };

/** Words that a donor must never meet (UX 6, criterion 1). */
export const JARGON = /scheduler|daemon|slot|mDNS|toolchain|jobserver|node\b/i;

export const test = base.extend({
  transport: ['web', { option: true }],
  node: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const node = await startNode();
      await use(node);
      await node.end();
    },
    { scope: 'worker' },
  ],
  /** Lets a page in, in a scene, at a view. */
  enter: async ({ node, transport }, use) => {
    await use(async (page, { scene = 'developer', view = '#/overview' } = {}) => {
      if (transport === 'app') await page.addInitScript(bridge);
      await page.addInitScript(() => {
        window.__violations = [];
        document.addEventListener('securitypolicyviolation', (event) => window.__violations.push(`${event.violatedDirective} ${event.blockedURI}`));
      });
      await page.goto(await node.url());
      await page.waitForFunction(() => document.querySelector('h1') && sessionStorage.getItem('potluck.session'));
      await raise(page, ...[scene].flat());
      await page.evaluate((hash) => (location.hash = hash), view);
    });
  },
});

/** Asks the node over a socket of its own: last value of the answer. */
export function ask(page, call) {
  return page.evaluate(
    (call) =>
      new Promise((resolve, reject) => {
        const socket = new WebSocket(`ws://${location.host}/ws`);
        socket.onopen = () => {
          socket.send(JSON.stringify({ token: sessionStorage.getItem('potluck.session') }));
          socket.send(JSON.stringify({ id: 1, call }));
        };
        socket.onmessage = (event) => {
          const frame = JSON.parse(event.data);
          if (!frame.last) return;
          socket.onclose = null;
          socket.close();
          resolve(frame.value);
        };
        socket.onclose = () => reject(new Error('the node closed the socket'));
      }),
    call,
  );
}

/** Raises scenes and waits until the page has drawn something after them. */
export async function raise(page, ...names) {
  for (const name of names) {
    const done = await ask(page, { call: 'scene', name });
    if (done?.error) throw new Error(`scene ${name}: ${done.error}`);
  }
  await page.waitForTimeout(250);
}

export const snapshot = (page) => ask(page, { call: 'snapshot' });

/** What a person reads. */
export const text = (page) => page.evaluate(() => document.body.innerText);

/** Interactive elements that are shown; of a group of radio buttons the one that Tab stops at. */
export const INTERACTIVE = 'a[href], button, input, select, textarea, summary, [tabindex="0"]';

/** All views of a developer, with a build that has a report. */
export async function views(page) {
  const builds = await ask(page, { call: 'builds', limit: 5 });
  const build = builds.find((b) => b.end === 'failed') ?? builds[0];
  const machine = (await snapshot(page)).machines[1];
  return [
    'overview',
    'builds',
    ...['summary', 'timeline', 'slowest', 'here', 'errors', 'details'].map((tab) => `builds/${build.id}/${tab}`),
    'machines',
    ...(machine ? [`machines/${machine.id}`] : []),
    'toolchains',
    ...['sharing', 'builds', 'team', 'network', 'appearance'].map((p) => `settings/${p}`),
    'help',
  ];
}

export async function go(page, view) {
  await page.evaluate((view) => (location.hash = '#/' + view), view);
  await page.waitForFunction(() => document.querySelector('main h1'));
  if (view.includes('/timeline')) await page.waitForSelector('canvas');
  if (/builds\/.+\/(slowest|here|summary)/.test(view)) await page.waitForSelector('main table');
  await page.waitForTimeout(150);
}
