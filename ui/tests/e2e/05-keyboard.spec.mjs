// Criterion 5: Tab reaches everything and is caught nowhere, focus can be seen, and the timeline is driven by keys.
import { ask, expect, go, INTERACTIVE, test, views } from './fixtures.mjs';

/** Numbers all interactive elements that Tab should stop at. */
function mark(selector) {
  const groups = new Set();
  let n = 0;
  for (const element of document.querySelectorAll(selector)) {
    element.removeAttribute('data-tab');
    const shown = element.checkVisibility({ visibilityProperty: true }) && element.getClientRects().length > 0;
    if (!shown || element.disabled || element.tabIndex < 0) continue;
    if (element.type === 'radio') {
      const group = document.querySelectorAll(`input[name="${element.name}"]:checked`);
      if (groups.has(element.name) || (group.length > 0 && !element.checked)) continue;
      groups.add(element.name);
    }
    element.dataset.tab = String(n++);
  }
  return n;
}

test('Tab reaches every control of every view, and leaves it again', async ({ page, enter }) => {
  test.setTimeout(240_000);
  await enter(page, { scene: ['developer', 'N2'] });
  for (const view of await views(page)) {
    await go(page, view);
    await page.evaluate(() => document.activeElement?.blur());
    const all = await page.evaluate(mark, INTERACTIVE);
    const seen = new Set();
    const rings = [];
    await page.evaluate(() => window.scrollTo(0, 0));
    for (let i = 0; i < all + 5; i++) {
      await page.keyboard.press('Tab');
      const at = await page.evaluate(() => {
        const e = document.activeElement;
        if (!e || e === document.body) return null;
        const style = getComputedStyle(e.tagName === 'CANVAS' ? e.parentElement : e);
        return { tab: e.dataset.tab, width: parseFloat(style.outlineWidth), style: style.outlineStyle, what: e.outerHTML.slice(0, 90) };
      });
      if (!at) continue;
      if (at.tab !== undefined) seen.add(at.tab);
      if (at.style === 'none' || at.width < 2) rings.push(at.what);
    }
    const missed = await page.evaluate((seen) => [...document.querySelectorAll('[data-tab]')].filter((e) => !seen.includes(e.dataset.tab)).map((e) => e.outerHTML.slice(0, 90)), [...seen]);
    expect(missed, `${view}: not reached`).toEqual([]);
    expect(rings, `${view}: focus cannot be seen`).toEqual([]);
  }
});

for (const colorScheme of ['light', 'dark']) {
  test(`the focus ring can be told from what is around it, ${colorScheme}`, async ({ page, enter }) => {
    await page.emulateMedia({ colorScheme });
    await enter(page, { scene: 'developer' });
    await page.keyboard.press('Tab');
    await page.keyboard.press('Tab');
    const ratio = await page.evaluate(() => {
      const luminance = (css) => {
        const [r, g, b] = css.match(/[\d.]+/g).map((v) => {
          const c = Number(v) / 255;
          return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
      };
      const ring = luminance(getComputedStyle(document.activeElement).outlineColor);
      const grounds = ['--bg', '--surface', '--sunken'].map((name) => {
        const probe = document.createElement('i');
        probe.style.color = getComputedStyle(document.documentElement).getPropertyValue(name);
        document.body.append(probe);
        const at = luminance(getComputedStyle(probe).color);
        probe.remove();
        return at;
      });
      return Math.min(...grounds.map((g) => (Math.max(ring, g) + 0.05) / (Math.min(ring, g) + 0.05)));
    });
    expect(ratio).toBeGreaterThanOrEqual(3);
  });
}

test('the timeline is walked, zoomed and opened by keys, and the table opens the same job', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  const [build] = (await ask(page, { call: 'builds', limit: 5 })).filter((b) => b.end !== 'running');
  await go(page, `builds/${build.id}/timeline`);
  const canvas = page.getByRole('img', { name: /Timeline/ });
  const at = async (name) => Number(await canvas.getAttribute(name));
  await canvas.focus();
  const whole = (await at('data-to')) - (await at('data-from'));
  for (let i = 0; i < 4; i++) await page.keyboard.press('+');
  const near = (await at('data-to')) - (await at('data-from'));
  expect(near).toBeLessThan(whole / 2);
  await page.keyboard.press('Home');
  expect(await at('data-from')).toBe(0);
  await page.keyboard.press('ArrowRight');
  expect(await at('data-from')).toBeGreaterThan(0);
  await page.keyboard.press('End');
  expect(await at('data-to')).toBeGreaterThan(near);
  await page.keyboard.press('Home');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');
  const card = page.locator('[data-job]');
  await expect(card).toBeFocused();
  const job = await card.getAttribute('data-job');
  expect(await canvas.getAttribute('data-cursor')).toBe(job);
  await page.keyboard.press('Escape');
  await expect(canvas).toBeFocused();
  await expect(card).toHaveCount(0);
  const row = page.locator(`[data-row-job="${job}"]`);
  const file = await row.locator('button').innerText();
  await row.locator('button').click();
  await expect(page.locator('[data-job]')).toHaveAttribute('data-job', job);
  await expect(page.locator('[data-job] h3')).toHaveText(file);
});

test('keys open views, the filter and the list of keys', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  await page.keyboard.press('Alt+2');
  await expect(page.getByRole('heading', { name: 'Builds', level: 1 })).toBeFocused();
  await page.keyboard.press('/');
  await expect(page.getByRole('searchbox', { name: 'Filter builds' })).toBeFocused();
  await page.keyboard.type('?');
  await expect(page.getByRole('dialog')).toHaveCount(0);
  await page.keyboard.press('Control+6');
  await expect(page.getByRole('heading', { name: 'Help & checks', level: 1 })).toBeVisible();
  await page.keyboard.press('?');
  await expect(page.getByRole('dialog')).toBeVisible();
  await page.keyboard.press('Escape');
  await expect(page.getByRole('dialog')).toHaveCount(0);
});

test('the skip link leads to the content', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  await page.evaluate(() => document.activeElement?.blur());
  await page.getByRole('link', { name: 'Skip to the content' }).focus();
  await page.keyboard.press('Enter');
  await expect(page.locator('main')).toBeFocused();
});

test('a pause leaves the focus where it was pressed, and takes it from nowhere else', async ({ page, enter }) => {
  await enter(page, { scene: ['donor', 'helping'] });
  const pause = page.getByRole('button', { name: 'Pause for 1 hour' });
  const resume = page.getByRole('button', { name: 'Resume now' });
  await pause.focus();
  await page.keyboard.press('Enter');
  await expect(resume).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(pause).toBeFocused();
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Tab');
  await page.keyboard.press('Tab');
  await expect(page.getByRole('button', { name: 'Until I turn it back on' })).toBeFocused();
  await page.keyboard.press('Enter');
  await expect(resume).toBeFocused();

  // By itself: neither from elsewhere, nor to another button that nobody chose.
  const box = page.getByRole('switch');
  await box.focus();
  await ask(page, { call: 'resume' });
  await expect(pause).toBeVisible();
  await expect(box).toBeFocused();
  await pause.focus();
  await ask(page, { call: 'pause', until: 'open' });
  await expect(resume).toBeVisible();
  await expect(resume).not.toBeFocused();
  await ask(page, { call: 'resume' });
});
