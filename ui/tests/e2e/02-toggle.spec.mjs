// Criterion 2: the switch answers at once, the node confirms, and a person who comes back has the computer at once.
import { ask, expect, go, raise, snapshot, test } from './fixtures.mjs';

for (const colorScheme of ['light', 'dark']) {
  test.describe(colorScheme, () => {
    test.use({ colorScheme });

    test('the switch moves within 100 ms and the node confirms within 500 ms', async ({ page, enter }) => {
      await enter(page, { scene: 'developer' });
      const before = (await snapshot(page)).share.on;
      const ms = await page.evaluate(
        () =>
          new Promise((resolve) => {
            const box = document.querySelector('[role=switch]');
            const begun = performance.now();
            new MutationObserver(() => resolve(performance.now() - begun)).observe(box, { attributeFilter: ['aria-checked'] });
            box.click();
          }),
      );
      expect(ms).toBeLessThan(100);
      const begun = Date.now();
      while ((await snapshot(page)).share.on === before) expect(Date.now() - begun).toBeLessThan(500);
      await expect(page.getByRole('switch')).toHaveAttribute('aria-checked', String(!before));
    });

    test('a refusal moves the switch back and says why', async ({ page, enter, transport }) => {
      test.skip(transport === 'app', 'the refusal is put into the WebSocket');
      await page.routeWebSocket(/\/ws$/, (socket) => {
        const server = socket.connectToServer();
        socket.onMessage((message) => {
          const frame = JSON.parse(message);
          if (frame.call?.call === 'share') {
            setTimeout(() => socket.send(JSON.stringify({ id: frame.id, last: true, value: { error: 'Not today.\nhint: ask tomorrow' } })), 200);
          } else server.send(message);
        });
      });
      await enter(page, { scene: 'developer' });
      const box = page.getByRole('switch');
      const before = await box.getAttribute('aria-checked');
      await box.click();
      await expect(page.locator('.toast')).toContainText('Not today.');
      await expect(page.locator('.toast')).toContainText('ask tomorrow');
      await expect(page.getByTestId('live')).toHaveText('Not today. ask tomorrow.');
      await expect(box).toHaveAttribute('aria-checked', before);
    });

    test('input by the owner ends all lending', async ({ page, enter }) => {
      await enter(page, { scene: ['donor', 'helping'] });
      await expect(page.getByText(/Helping now/)).toBeVisible();
      expect((await snapshot(page)).share.state.is).toBe('helping');
      await ask(page, { call: 'scene', name: 'user-input' });
      await expect(page.getByTestId('share-sentence')).toContainText(/using/i, { timeout: 1000 });
      await expect(page.getByText(/Helping now/)).toHaveCount(0, { timeout: 3000 });
      const snap = await snapshot(page);
      expect(snap.share.helping).toEqual([]);
      expect(snap.share.state.is).toBe('held');
    });

    test('a pause shows its end and can be ended', async ({ page, enter }) => {
      await enter(page, { scene: ['donor', 'helping'] });
      await page.getByRole('button', { name: 'Pause for 1 hour' }).click();
      await expect(page.getByTestId('share-sentence')).toContainText(/paused until/i);
      await page.getByRole('button', { name: 'Resume now' }).click();
      await expect(page.getByTestId('share-sentence')).not.toContainText(/paused/i);
    });

    test('jobs that were taken back are marked in the timeline', async ({ page, enter }) => {
      await enter(page, { scene: 'developer' });
      const builds = await ask(page, { call: 'builds', limit: 50 });
      let found = null;
      for (const build of builds) {
        const jobs = await ask(page, { call: 'jobs', build: build.id });
        const at = jobs.repeats?.findIndex((n) => n > 0) ?? -1;
        if (at >= 0) {
          found = { id: build.id, file: jobs.file[at] };
          break;
        }
      }
      expect(found, 'some build of the simulation was hit by a person coming back').not.toBeNull();
      await go(page, `builds/${found.id}/timeline`);
      const canvas = page.getByRole('img', { name: /Timeline/ });
      await canvas.focus();
      await expect(page.getByText('torn edge: taken back before')).toBeVisible();
      for (let i = 0; i < 40 && (await page.getByText('✂').count()) === 0; i++) await page.keyboard.press('ArrowDown');
      await expect(page.getByText('✂').first()).toBeVisible();
    });

    test('a setting can be undone', async ({ page, enter }) => {
      await enter(page, { scene: 'developer', view: '#/settings/sharing' });
      const before = (await snapshot(page)).share.settings;
      await page.getByLabel('On battery').selectOption('always');
      await expect.poll(async () => (await snapshot(page)).share.settings.battery).toBe('always');
      await expect(page.getByTestId('live')).toHaveText('Saved. Undo is at the end of the page.');
      await page.getByRole('button', { name: 'Undo' }).click();
      await expect.poll(async () => (await snapshot(page)).share.settings).toEqual(before);
    });
  });
}
