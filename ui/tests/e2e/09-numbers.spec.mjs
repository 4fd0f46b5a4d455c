// Criterion 9: what a report shows is what the command line says of the same build, and its exports have each job once.
import { join } from 'node:path';
import { readFileSync } from 'node:fs';
import { ask, expect, go, test } from './fixtures.mjs';
import { compare, parseCsv } from './numbers.mjs';

/** Builds that are compared, newest first, and the largest of them: the hundred thousand of criterion 6 are drawn there. */
const MOST = 8;
const JOBS_MOST = 5000;

test('every number of a report is the command line\'s', async ({ page, enter, node }) => {
  test.setTimeout(300_000);
  await enter(page, { scene: ['developer', 'clear'] });
  const all = (await ask(page, { call: 'builds', limit: 100 })).filter((b) => b.end !== 'running');
  const sum = (c) => c.remote + c.here + c.only + c.failed;
  const builds = all.filter((b) => sum(b.counts) <= JOBS_MOST).slice(0, MOST);
  for (const end of ['ok', 'failed']) {
    // Every way to end is among them, if there is one.
    const one = all.find((b) => b.end === end && sum(b.counts) <= JOBS_MOST);
    if (one && !builds.includes(one)) builds.push(one);
  }
  expect(builds.length).toBeGreaterThanOrEqual(3);
  const csv = join(node.home, 'jobs.csv');
  const told = [];
  for (const build of builds) {
    const report = JSON.parse(await node.potluck('report', build.id, '--json'));
    await node.potluck('report', build.id, '--csv', csv);
    const figures = await compare(page, report, parseCsv(readFileSync(csv, 'utf8')));
    told.push(`${build.name} ${report.jobs} jobs ${figures} figures${build.saved_ms === null ? '' : ', time saved'}`);
  }
  console.log(`compared: ${told.join('; ')}`);
  expect(builds.some((b) => b.saved_ms !== null), 'a build whose time saved is told').toBe(true);

  // The list says the same.
  await go(page, 'builds');
  for (const build of builds) {
    const row = page.locator('tbody tr').filter({ has: page.locator(`a[href="#/builds/${build.id}"]`) });
    await expect(row.locator('td').nth(4)).toHaveText(build.saved_ms === null ? '–' : /^≈ /);
    await expect(row.locator('td').nth(5)).toHaveText(String(build.machines));
  }
});
