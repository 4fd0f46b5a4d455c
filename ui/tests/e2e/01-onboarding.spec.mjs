// Criterion 1: a donor is ready after at most four activations, by mouse alone and by keys alone, and meets no jargon.
import { ask, expect, go, JARGON, test, text } from './fixtures.mjs';

async function onboard(page, activate) {
  const begun = Date.now();
  let activations = 0;
  const press = async (locator) => {
    await expect(locator).toBeVisible();
    expect(await text(page)).not.toMatch(JARGON);
    await activate(locator);
    activations += 1;
  };
  await press(page.getByTestId('role-donor'));
  await press(page.getByRole('button', { name: 'Join Kernel lab' }));
  await expect(page.getByRole('listitem').filter({ hasText: /\w/ })).toHaveCount(4);
  await press(page.getByTestId('match'));
  await press(page.getByRole('switch', { name: 'Share my CPU' }));
  await expect(page.getByTestId('share-sentence')).toContainText(/ready|waiting|using|help/i);
  expect(await text(page)).not.toMatch(JARGON);
  expect(activations).toBeLessThanOrEqual(4);
  expect(Date.now() - begun).toBeLessThan(60_000);
  const snap = await ask(page, { call: 'snapshot' });
  expect(snap.share.on).toBe(true);
  expect(snap.team.name).toBe('Kernel lab');
}

test('a donor is ready after four clicks', async ({ page, enter }) => {
  await enter(page, { scene: 'empty', view: '#/welcome' });
  await onboard(page, (locator) => locator.click());
});

test('a donor is ready with the keyboard alone', async ({ page, enter }) => {
  await enter(page, { scene: 'empty', view: '#/welcome' });
  await onboard(page, async (locator) => {
    for (let i = 0; i < 60; i++) {
      if (await locator.evaluate((e) => e === document.activeElement)) return page.keyboard.press('Enter');
      await page.keyboard.press('Tab');
    }
    throw new Error('Tab does not reach it');
  });
});

test('no screen of a donor has jargon', async ({ page, enter }) => {
  await enter(page, { scene: ['donor', 'helping'] });
  for (const view of ['overview', 'machines', 'settings/sharing', 'settings/team', 'settings/network', 'settings/appearance', 'help', 'welcome/team', 'welcome/share', 'welcome/done']) {
    await go(page, view);
    await page.evaluate(() => document.querySelectorAll('details').forEach((d) => (d.open = true)));
    expect(await text(page), view).not.toMatch(JARGON);
  }
});

test('pictures that differ end the attempt', async ({ page, enter }) => {
  await enter(page, { scene: 'empty', view: '#/welcome/team' });
  await page.getByRole('button', { name: 'Join Kernel lab' }).click();
  await page.getByRole('button', { name: "They don't" }).click();
  await expect(page.getByRole('button', { name: 'Join Kernel lab' })).toBeVisible();
  expect((await ask(page, { call: 'snapshot' })).team).toBeNull();
});

test('a developer sees the first build come in', async ({ page, enter }) => {
  await enter(page, { scene: 'developer', view: '#/welcome/build' });
  await expect(page.getByText('Waiting for your first build')).toBeVisible();
  await ask(page, { call: 'scene', name: 'building' });
  await expect(page.getByText(/Got it: \d+/)).toBeVisible({ timeout: 15_000 });
});
