// Criterion 8: a node that goes is named within three seconds; one that comes back is used again without a reload.
import { expect, go, snapshot, test } from './fixtures.mjs';

test('killed for ten seconds and started again', async ({ page, enter, node, transport }) => {
  await enter(page, { scene: 'developer' });
  await page.setViewportSize({ width: 1000, height: 420 });
  await go(page, 'builds');
  await page.evaluate(() => (window.__same = true));
  const filter = page.getByRole('searchbox', { name: 'Filter builds' });
  await filter.focus();
  await page.evaluate(() => window.scrollTo(0, 120));
  const scroll = await page.evaluate(() => window.scrollY);
  try {
    const gone = Date.now();
    await node.kill();
    const banner = page.locator('[data-code="P1"]');
    await expect(banner).toBeVisible({ timeout: 3000 });
    expect(Date.now() - gone).toBeLessThan(3000);
    await expect(banner.getByRole('button', { name: 'Start' })).toHaveCount(transport === 'app' ? 1 : 0);
    // A page cannot start it, and would never find it at another port.
    await expect(banner.getByText('potluck ui', { exact: true })).toHaveCount(transport === 'app' ? 0 : 1);
    await expect(page.getByTestId('live')).toContainText("isn't running");
    await expect(page.getByRole('table')).toBeVisible();
    await page.waitForTimeout(10_000 - (Date.now() - gone));
  } finally {
    await node.start();
  }
  await expect(page.locator('[data-code="P1"]')).toHaveCount(0, { timeout: 12_000 });
  await expect(page.getByText('Connected', { exact: false }).first()).toBeVisible();
  expect(await page.evaluate(() => window.__same)).toBe(true);
  await expect(filter).toBeFocused();
  expect(Math.abs((await page.evaluate(() => window.scrollY)) - scroll)).toBeLessThanOrEqual(60);
  const snap = await snapshot(page);
  await go(page, 'overview');
  await expect(page.getByTestId('share-sentence')).toHaveText(snap.share.sentence);
  await expect(page.getByText(`of ${snap.pool.cores} cores free`)).toBeVisible();
});
