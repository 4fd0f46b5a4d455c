// Criterion 13: nothing moves for whoever wants no motion, an idle page draws nothing, large text and narrow windows fit.
import { expect, go, raise, test, views } from './fixtures.mjs';

test('an idle page draws nothing and nothing is animated', async ({ page, enter }) => {
  await page.emulateMedia({ reducedMotion: 'reduce' });
  await page.addInitScript(() => {
    window.__frames = 0;
    const real = window.requestAnimationFrame.bind(window);
    window.requestAnimationFrame = (run) => {
      window.__frames += 1;
      return real(run);
    };
  });
  await enter(page, { scene: ['developer', 'clear'] });
  for (const view of (await views(page)).filter((v) => v === 'overview' || v.endsWith('timeline'))) {
    await go(page, view);
    await page.waitForTimeout(1000);
    await page.evaluate(() => (window.__frames = 0));
    await page.waitForTimeout(10_000);
    expect(await page.evaluate(() => window.__frames), view).toBeLessThanOrEqual(2);
    expect(await page.evaluate(() => document.getAnimations().length), view).toBe(0);
  }
});

const overflowing = () => document.documentElement.scrollWidth - document.documentElement.clientWidth;
/** Elements with text of their own that is cut off. */
const clipped = () =>
  [...document.querySelectorAll('main *, header *')]
    .filter((e) => e.checkVisibility() && [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()))
    .filter((e) => {
      const style = getComputedStyle(e);
      return style.overflowX === 'hidden' && e.scrollWidth > e.clientWidth + 1 && !e.classList.contains('sr');
    })
    .map((e) => e.outerHTML.slice(0, 80));
const small = () =>
  [...document.querySelectorAll('main a[href], main button, main input, main select, main summary, header a[href]')]
    .filter((e) => e.checkVisibility() && !e.closest('p a') && !e.disabled)
    .map((e) => {
      const box = (e.closest('label') ?? e).getBoundingClientRect();
      return { h: box.height, w: box.width, what: e.outerHTML.slice(0, 80) };
    })
    .filter((b) => b.h > 0 && (b.h < 23.5 || b.w < 23.5));

for (const [name, size] of [['320 px', { width: 320, height: 640 }], ['200 % text', { width: 640, height: 800 }]]) {
  test(`${name}: no view scrolls sideways, cuts text off or has small targets`, async ({ page, enter }) => {
    test.setTimeout(180_000);
    await page.setViewportSize(size);
    await enter(page, { scene: ['developer', 'building', 'asking', 'N2'] });
    if (name.startsWith('200')) await page.evaluate(() => (document.documentElement.style.fontSize = '200%'));
    for (const view of [...(await views(page)), 'welcome/role', 'welcome/team', 'welcome/share', 'welcome/build', 'welcome/done']) {
      await go(page, view);
      expect(await page.evaluate(overflowing), view).toBeLessThanOrEqual(0);
      expect(await page.evaluate(clipped), view).toEqual([]);
      expect(await page.evaluate(small), view).toEqual([]);
    }
    await raise(page, 'many-machines');
    await go(page, 'machines');
    expect(await page.evaluate(overflowing)).toBeLessThanOrEqual(0);
  });
}
