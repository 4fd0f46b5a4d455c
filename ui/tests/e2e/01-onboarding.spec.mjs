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
  for (const view of ['overview', 'machines', 'settings/sharing', 'settings/builds', 'settings/team', 'settings/network', 'settings/appearance', 'help', 'welcome/team', 'welcome/share', 'welcome/done']) {
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

/** As the app encodes it. */
const opened = (link) => '#/welcome/team/' + encodeURIComponent(link);

test('an invitation that was opened on the desktop is filled in, and joins when the person says so', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  const { link } = await ask(page, { call: 'team_invite', uses: 1, expires_s: 600, approve: null });
  await enter(page, { scene: 'empty', view: opened(link) });
  await expect(page.getByLabel('Invitation link')).toHaveValue(link);
  expect((await ask(page, { call: 'snapshot' })).team).toBeNull();
  await page.getByRole('button', { name: 'Join', exact: true }).click();
  await page.getByTestId('match').click();
  await page.getByTestId('role-donor').click();
  await expect(page.getByRole('switch', { name: 'Share my CPU' })).toBeVisible();
  expect((await ask(page, { call: 'snapshot' })).team.name).toBe('Kernel lab');
});

test('whoever is in a team is asked before an invitation takes them out of it', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  const { link } = await ask(page, { call: 'team_invite', uses: 1, expires_s: 600, approve: null });
  const team = async () => (await ask(page, { call: 'snapshot' })).team?.id;
  const before = await team();
  await page.evaluate((hash) => (location.hash = hash), opened(link));
  await expect(page.getByRole('heading', { name: 'You opened an invitation' })).toBeVisible();
  await expect(page.getByLabel('Invitation link')).toHaveValue(link);
  expect(await page.evaluate(() => location.hash)).toBe('#/settings/team/' + encodeURIComponent(link));
  await page.getByRole('button', { name: 'Join with it' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Cancel' }).click();
  expect(await team()).toBe(before);
  await page.getByRole('button', { name: 'Join with it' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Leave and join' }).click();
  await page.getByTestId('match').click();
  await expect(page.getByRole('heading', { name: 'Kernel lab' })).toBeVisible();
  expect(await page.evaluate(() => location.hash)).toBe('#/settings/team');
});

test('a desktop without a tray area is told of once', async ({ page, enter }) => {
  await enter(page, { scene: 'donor', view: '#/overview/no-tray' });
  const told = page.getByTestId('no-tray');
  await expect(told).toContainText('Your desktop has no tray area. Potluck keeps working; open it from the app menu.');
  await expect(told).toContainText('AppIndicator');
  expect(await page.evaluate(() => location.hash)).toBe('#/overview');
  await told.getByRole('button', { name: 'Close' }).click();
  await expect(told).toHaveCount(0);
  await page.reload();
  await expect(page.getByTestId('share-sentence')).toBeVisible();
  await expect(told).toHaveCount(0);
});
