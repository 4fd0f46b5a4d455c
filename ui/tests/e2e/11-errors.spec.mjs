// Criterion 11: each trouble has a headline, a code and exactly one primary action, is said once, and goes with its cause.
import { ask, expect, go, JARGON, raise, snapshot, test, text } from './fixtures.mjs';

for (const colorScheme of ['light', 'dark']) {
  test.describe(colorScheme, () => {
    test.use({ colorScheme });

    test('every state of trouble, as a donor meets it', async ({ page, enter, transport }) => {
      test.skip(transport === 'app' && colorScheme === 'dark', 'colours do not depend on the transport, and this takes a minute');
      test.setTimeout(240_000);
      await enter(page, { scene: 'donor' });
      await page.evaluate(() => {
        window.__said = [];
        const live = document.querySelector('[data-testid=live]');
        new MutationObserver(() => live.textContent && window.__said.push(live.textContent)).observe(live, { childList: true, characterData: true, subtree: true });
      });
      const codes = (await snapshot(page)).scenes.filter((s) => /^[A-Z]\d$/.test(s));
      expect(codes.length).toBeGreaterThanOrEqual(10);
      for (const code of codes) {
        await page.evaluate(() => (window.__said.length = 0));
        await raise(page, code);
        const problem = (await snapshot(page)).problems.find((p) => p.code === code);
        expect(problem, code).toBeDefined();
        const card = page.locator(`[data-code="${code}"]`);
        await expect(card).toContainText(problem.headline);
        await expect(card).toContainText(code);
        await expect(card.locator('.button.primary')).toHaveCount(1);
        await expect(card.locator('.button.primary')).toHaveText(problem.fix.label);
        const text = await card.innerText();
        expect(text, 'no bare address').not.toMatch(/\d+\.\d+\.\d+\.\d+/);
        expect(text, 'no stack trace').not.toMatch(/panicked|at .*:\d+:\d+|0x[0-9a-f]{6}/);
        await expect.poll(() => page.evaluate((h) => window.__said.filter((s) => s === h).length, problem.headline), { timeout: 12_000 }).toBe(1);
        await raise(page, 'clear');
        await expect(card).toHaveCount(0, { timeout: 5000 });
        // What was said about it was said once, also after it went.
        expect(await page.evaluate((h) => window.__said.filter((s) => s === h).length, problem.headline)).toBe(1);
      }
    });

    test('the one action leads somewhere', async ({ page, enter }) => {
      await enter(page, { scene: 'developer' });
      for (const code of (await snapshot(page)).scenes.filter((s) => /^[A-Z]\d$/.test(s))) {
        await raise(page, 'clear', code);
        await page.evaluate(() => (location.hash = '#/overview'));
        const { fix } = (await snapshot(page)).problems.find((p) => p.code === code);
        const card = page.locator(`[data-code="${code}"]`);
        await card.locator('.button.primary').click();
        if (fix.action.is === 'view') await expect.poll(() => page.evaluate(() => location.hash)).toBe('#/' + fix.action.name);
        else if (fix.action.is === 'command') await expect(card.getByRole('button', { name: /^Copy: / })).toBeVisible();
        else await expect(page.locator('.toast')).toBeVisible();
        if (fix.action.is === 'call') await page.locator('.toast').getByRole('button', { name: 'Close' }).click();
      }
    });
  });
}

test('where only Help leads on, it says what is wrong and what can be done, to whoever lends too', async ({ page, enter }) => {
  await enter(page, { scene: 'donor' });
  for (const [code, title] of [['S1', 'Safe box does not work'], ['N4', 'Nobody is listed']]) {
    await raise(page, 'clear', code);
    await go(page, 'help');
    const { detail, headline } = (await snapshot(page)).problems.find((p) => p.code === code);
    const card = page.locator(`[data-code="${code}"]`);
    await expect(card).toContainText(detail);
    await expect(page.locator('.checks li', { hasText: headline })).toHaveCount(1);
    await card.locator('.button.primary').click();
    const summary = page.locator('summary', { hasText: title });
    await expect(summary).toBeFocused();
    await expect(page.locator('details[open]', { has: summary }).getByRole('button')).toBeVisible();
    expect(await text(page)).not.toMatch(JARGON);
  }
});

// Browsers only: what the node says is changed on its way through the WebSocket.
test('several troubles of one code, and compilers of one path, are all shown', async ({ page, enter, transport }) => {
  test.skip(transport === 'app', 'the doubles are put into the WebSocket');
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => server.send(message));
    server.onMessage((message) => {
      const frame = JSON.parse(message);
      const sections = frame.value?.sections;
      if (sections?.problems?.length) sections.problems = [...sections.problems, ...sections.problems, { ...sections.problems[0], headline: 'clang 19 is one more.' }];
      if (sections?.toolchains?.length) sections.toolchains = [...sections.toolchains, ...sections.toolchains];
      socket.send(JSON.stringify(frame));
    });
  });
  const broken = [];
  page.on('pageerror', (error) => broken.push(error.message));
  await enter(page, { scene: 'developer' });
  await raise(page, 'clear', 'T1');
  for (const view of ['overview', 'help']) {
    await go(page, view);
    await expect(page.locator('[data-code="T1"]')).toHaveCount(3);
  }
  const snap = await snapshot(page);
  await go(page, 'toolchains');
  await expect(page.locator('article')).toHaveCount(2 * snap.toolchains.length);
  await go(page, `machines/${snap.machines[1].id}`);
  await expect(page.getByRole('heading', { name: 'Your compilers there' })).toBeVisible();
  await raise(page, 'clear');
  await go(page, 'overview');
  await expect(page.locator('[data-code]')).toHaveCount(0);
  expect(broken).toEqual([]);
});

test('a report that the node refuses says why, and so do the parts that need its jobs', async ({ page, enter, transport }) => {
  test.skip(transport === 'app', 'the refusals are put into the WebSocket');
  const refused = new Set();
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => {
      const { id, call } = JSON.parse(message);
      if (refused.has(call?.call)) socket.send(JSON.stringify({ id, last: true, value: { error: `${call.call}: not now\nhint: look later` } }));
      else server.send(message);
    });
  });
  await enter(page, { scene: ['developer', 'clear'] });
  const build = (await ask(page, { call: 'builds', limit: 20 })).find((b) => b.end !== 'running');
  const main = page.locator('main');
  refused.add('jobs');
  for (const tab of ['timeline', 'slowest', 'here', 'details']) {
    await page.evaluate((hash) => (location.hash = hash), `#/builds/${build.id}/${tab}`);
    await expect(main).toContainText('jobs: not now', { timeout: 8000 });
    await expect(main).toContainText('look later');
    await expect(main.locator('canvas')).toHaveCount(0);
  }
  await go(page, `builds/${build.id}/summary`);
  await expect(page.getByTestId('headline')).toBeVisible();
  await expect(main).not.toContainText('not now');
  // The report is known from before, and nothing is any more.
  refused.add('report');
  await page.evaluate((id) => (location.hash = `#/builds/${id}/timeline`), build.id);
  await expect(main).toContainText('jobs: not now');
  refused.clear();
  await go(page, `builds/${build.id}/summary`);
  await go(page, `builds/${build.id}/timeline`);

  refused.add('report');
  await go(page, 'builds');
  await page.evaluate((id) => (location.hash = `#/builds/${id}`), build.id);
  await expect(main).toContainText('report: not now');
  await expect(main).toContainText('look later');
  refused.clear();
  await page.evaluate(() => (location.hash = '#/builds/nosuch'));
  await expect(main).toContainText('nosuch');
  await expect(main).not.toContainText('Loading');
});

test('what is wrong with one machine stands on its page', async ({ page, enter, transport }) => {
  test.skip(transport === 'app', 'the trouble is put into the WebSocket');
  let name = '';
  await page.routeWebSocket(/\/ws$/, (socket) => {
    const server = socket.connectToServer();
    socket.onMessage((message) => server.send(message));
    server.onMessage((message) => {
      const frame = JSON.parse(message);
      for (const problem of frame.value?.sections?.problems ?? []) if (name) problem.fix.action = { is: 'view', name };
      socket.send(JSON.stringify(frame));
    });
  });
  await enter(page, { scene: ['developer', 'clear'] });
  const [, one, other] = (await snapshot(page)).machines;
  name = `machines/${one.id}`;
  await raise(page, 'T1');
  const { detail } = (await snapshot(page)).problems.find((p) => p.code === 'T1');
  const card = page.locator('[data-code="T1"]');
  await go(page, 'overview');
  await card.locator('.button.primary').click();
  await expect(page.getByRole('heading', { level: 1 })).toHaveText(one.name);
  await expect(card).toContainText(detail);
  await expect(card.getByRole('button')).toHaveCount(0);
  await go(page, `machines/${other.id}`);
  await expect(card).toHaveCount(0);
});
