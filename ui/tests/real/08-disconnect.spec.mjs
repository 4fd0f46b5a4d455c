// Criterion 8 with real jobs: the node is killed in the middle of a build, and no compile of it fails.
import { statSync } from 'node:fs';
import { ask, differing, ended, expect, go, test, told, until } from './fixtures.mjs';
import { writeProject } from './work.mjs';

/** Jobs between the kill and the comparison, as the criterion says, and what each of them costs. */
const FILES = 499;
const WEIGHT = 2;
const JOBS = 4;
const HISTORY = 14;
const objects = ['main.o', ...Array.from({ length: FILES }, (_, i) => `part_${i}.o`)];

test('killed for ten seconds and started again in a build of 500 jobs', async ({ page, enter, pool }) => {
  test.setTimeout(900_000);
  const { submitter } = pool;
  const dir = writeProject(submitter, 'outage', FILES, WEIGHT);
  // A list that is longer than the window.
  for (let i = 0; i < HISTORY; i++) {
    await submitter.potluck(['run', '-q', '--name', `before-${i}`, '--', 'gcc', '-c', `part_${i}.c`, '-o', 'out/before.o'], { cwd: dir });
  }
  // The history is written once a second: what a power cut loses is not the matter here.
  const last = Date.now();
  await until('the history on disk', 10_000, () => statSync(submitter.path('state/potluck/builds.redb')).mtimeMs > last);
  await enter(page, submitter, 'builds');
  await page.setViewportSize({ width: 1000, height: 420 });
  await expect(page.locator('tbody tr')).toHaveCount((await ask(page, { call: 'snapshot' })).builds.length);
  const filter = page.getByRole('searchbox', { name: 'Filter builds' });
  await filter.focus();
  await page.evaluate(() => window.scrollTo(0, 120));
  const scroll = await page.evaluate(() => window.scrollY);
  expect(scroll).toBeGreaterThan(50);
  await page.evaluate(() => {
    window.__same = true;
    window.__moves = [];
    const banner = () => Boolean(document.querySelector('[data-code="P1"]')?.checkVisibility());
    let was = banner();
    new MutationObserver(() => {
      if (banner() !== was) window.__moves.push({ banner: (was = !was), at: performance.timeOrigin + performance.now() });
    }).observe(document.body, { subtree: true, childList: true, attributes: true });
  });

  const path = (await submitter.potluck(['path'])).trim();
  const killed = Date.now();
  await submitter.stop('SIGKILL');
  const build = submitter.run(['env', `PATH=${path}:${submitter.env.PATH}`, 'POTLUCK_BUILD_NAME=outage', 'make', '-s', `-j${JOBS}`], { cwd: dir });
  build.catch(() => {});
  let started;
  try {
    await expect(page.locator('[data-code="P1"]')).toBeVisible();
    await expect(page.getByTestId('live')).toContainText("isn't running");
    await expect(page.getByRole('table')).toBeVisible();
    await page.waitForTimeout(Math.max(0, 10_000 - (Date.now() - killed)));
  } finally {
    started = Date.now();
    await submitter.start();
  }
  await expect(page.locator('[data-code="P1"]')).toHaveCount(0, { timeout: 20_000 });
  const [gone, back] = await page.evaluate(() => window.__moves);
  const ms = { banner: Math.round(gone.at - killed), back: Math.round(back.at - started) };
  expect([gone.banner, back.banner]).toEqual([true, false]);
  await expect(page.getByText('Connected', { exact: false }).first()).toBeVisible();
  expect(await page.evaluate(() => window.__same), 'no reload').toBe(true);
  await expect(filter).toBeFocused();
  const moved = Math.abs((await page.evaluate(() => window.scrollY)) - scroll);

  // No compile failed, whoever did it.
  await build;
  await pool.serving(1);
  const row = await ended(submitter, 'outage');
  const [report, jobs] = await told(submitter, row.id);
  const local = objects.length + 1 - report.jobs;
  console.log(
    `outage: banner ${ms.banner} ms after the kill, connected ${ms.back} ms after the start, scroll moved ${moved} px; ${objects.length + 1} jobs: ` +
      `${local} without the node, ${report.build.counts.remote} elsewhere, ${report.build.counts.here + report.build.counts.only} here`,
  );
  expect(ms.banner).toBeLessThanOrEqual(3000);
  expect(ms.back).toBeLessThanOrEqual(12_000);
  expect(moved).toBeLessThanOrEqual(60);
  expect(local, 'compiles while there was no node').toBeGreaterThan(0);
  expect(report.build.counts.remote).toBeGreaterThan(0);
  expect(report.build.counts.failed).toBe(0);
  expect(jobs.length).toBe(report.jobs);
  await submitter.run(['make', '-s', `-j${JOBS}`, 'OUT=plain'], { cwd: dir });
  expect(differing(dir, 'out', 'plain', objects)).toEqual([]);

  // The page that was never reloaded shows what the node has: the list, the report, the pool.
  const same = async () => {
    const snap = await ask(page, { call: 'snapshot' });
    const rows = await page.locator('tbody tr').evaluateAll((all) => all.map((r) => [...r.children].map((c) => c.innerText.trim())));
    const clock = (t) => `${Math.floor(Math.round(t / 1000) / 60)}:${String(Math.round(t / 1000) % 60).padStart(2, '0')}`;
    const wanted = snap.builds.map((b) => [b.name, clock(b.took_ms), String(b.machines)]);
    const percent = (b) => Math.round((b.counts.remote * 100) / (b.counts.remote + b.counts.here + b.counts.only + b.counts.failed));
    expect(rows.map((r) => [r[0], r[2], r[6]])).toEqual(wanted);
    expect(rows.map((r) => Number(/\d+/.exec(r[4])[0]))).toEqual(snap.builds.map(percent));
    return snap;
  };
  const snap = await same();
  expect(snap.builds.filter((b) => b.name.startsWith('before-')).length, 'builds of before').toBe(HISTORY);
  expect(snap.builds.find((b) => b.id === row.id).counts).toEqual(report.build.counts);
  await expect(filter).toBeFocused();
  await go(page, `builds/${row.id}/summary`);
  await expect(page.getByTestId('jobs-total')).toHaveText(String(report.jobs));
  await go(page, 'overview');
  await until('the pool as the node has it', 10_000, async () => {
    const { pool: now, share } = await ask(page, { call: 'snapshot' });
    const text = await page.locator('main').innerText();
    return text.includes(`of ${now.cores} cores free`) && text.includes(share.sentence);
  });
  expect(await page.evaluate(() => window.__same)).toBe(true);
});
