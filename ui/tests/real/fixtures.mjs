// What every proof against real nodes starts from: the pool, and pages of its nodes.
import { test as base } from '@playwright/test';
import { ask, go } from '../e2e/fixtures.mjs';
import { parseCsv } from '../e2e/numbers.mjs';
import { startPool, until } from './pool.mjs';
import { readFileSync } from 'node:fs';

export const test = base.extend({
  pool: [
    // eslint-disable-next-line no-empty-pattern
    async ({}, use) => {
      const pool = await startPool();
      await use(pool);
      await pool.end();
    },
    { scope: 'worker', timeout: 600_000 },
  ],
  /** Lets a page in at a node, at a view. */
  enter: async ({}, use) => {
    await use(async (page, node, view = 'overview') => {
      await page.goto(await node.url());
      await page.waitForFunction(() => document.querySelector('h1') && sessionStorage.getItem('potluck.session'));
      await go(page, view);
    });
  },
});

/** Milliseconds since 1970, as a page sees them. */
export const pageTime = (page) => page.evaluate(() => performance.timeOrigin + performance.now());

/** The last build of a name, when it is over. */
export function ended(node, name) {
  return until(`the end of ${name}`, 90_000, async () => {
    const { builds } = await node.json(['builds']);
    return builds.find((b) => b.name === name && b.end !== 'running');
  });
}

/** What the command line says of a build: its report, and its jobs. */
export async function told(node, build) {
  const csv = node.path('work/jobs.csv');
  await node.potluck(['report', build, '--csv', csv]);
  return [await node.json(['report', build]), parseCsv(readFileSync(csv, 'utf8'))];
}

/** Objects of two folders of a project that are not the same, and how many there are. */
export function differing(dir, one, other, names) {
  const same = (name) => readFileSync(`${dir}/${one}/${name}`).equals(readFileSync(`${dir}/${other}/${name}`));
  return names.filter((name) => !same(name));
}

export { ask, go, until };
export { expect } from '@playwright/test';
