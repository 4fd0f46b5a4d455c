// Criterion 10: no job stays here without a reason that says what to do.
import { ask, expect, go, test } from './fixtures.mjs';

test('every local job of every build has its reason, in words', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  const builds = (await ask(page, { call: 'builds', limit: 100 })).filter((b) => b.end !== 'running');
  expect(builds.length).toBeGreaterThan(2);
  const codes = new Set();
  for (const build of builds.slice(0, 12)) {
    const report = await ask(page, { call: 'report', build: build.id });
    const jobs = await ask(page, { call: 'jobs', build: build.id });
    expect(report.reasons.reduce((n, r) => n + r.jobs, 0)).toBe(report.build.counts.here + report.build.counts.only);
    for (let i = 0; i < jobs.kind.length; i++) {
      if (jobs.kind[i] === 1 || jobs.kind[i] === 2) expect(jobs.reasons[jobs.reason[i]], `${build.name} ${jobs.file[i]}`).not.toBe('');
    }
    for (const reason of report.reasons) codes.add(reason.code);
    await go(page, `builds/${build.id}/here`);
    const rows = page.locator('[data-reason]');
    await expect(rows).toHaveCount(report.reasons.length);
    for (const reason of report.reasons) {
      const row = page.locator(`[data-reason="${reason.code}"]`);
      await expect(row).toContainText(reason.title);
      await expect(row).toContainText(reason.avoidable ? 'yes' : 'no');
      expect(reason.text.length).toBeGreaterThan(10);
      await expect(row).toContainText(reason.text);
    }
  }
  expect([...codes].some((c) => c === '' || /unknown/i.test(c))).toBe(false);
});
