// Criterion 4: axe finds nothing in any view, onboarding step or error state, in both themes and at two widths.
import AxeBuilder from '@axe-core/playwright';
import { ask, expect, go, raise, snapshot, test, views } from './fixtures.mjs';

const TAGS = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

/** What axe leaves to a person: rule, what it says of it, what it is about, and why it is right here. */
const EXPLAINED = [
  {
    rule: 'color-contrast',
    says: 'nonBmp',
    about: /^<span[^>]* aria-hidden="true"[^>]*>.<\/span>$/u,
    why: 'A single sign has no letters to measure. It repeats the word beside it, in the colours of words, which axe measures.',
  },
  {
    rule: 'color-contrast',
    says: 'nonBmp',
    about: /^<button[^>]* aria-label="(Closer|Further away)"[^>]*>.<\/button>$/u,
    why: 'A single sign in the colours of every other button, whose words axe measures.',
  },
  {
    rule: 'color-contrast',
    says: 'nonBmp',
    about: /^<dt>(← →|↑ ↓)<\/dt>$/u,
    why: 'Arrows have no letters to measure. The keys above and below them look the same, and axe measures those.',
  },
  {
    rule: 'label-content-name-mismatch',
    says: '',
    about: /^<button[^>]* aria-label="(Closer|Further away)"[^>]*>[+\u2212]<\/button>$/u,
    why: 'What is seen is a sign and no words that could be spoken; the name says what it does.',
  },
];

async function scan(page, what, found) {
  const { violations, incomplete } = await new AxeBuilder({ page }).withTags(TAGS).analyze();
  for (const v of incomplete) {
    for (const n of v.nodes) {
      const checks = [...n.any, ...n.all, ...n.none];
      const explains = (e) => v.id === e.rule && e.about.test(n.html) && checks.every((c) => (c.data?.messageKey ?? '') === e.says);
      if (!EXPLAINED.some(explains)) found.push(`${what}: not decided: ${v.id}: ${n.html.slice(0, 160)}: ${JSON.stringify(checks.map((c) => [c.message, c.data?.messageKey]))}`);
    }
  }
  for (const v of violations) for (const n of v.nodes) found.push(`${what}: ${v.id}: ${n.target.join(' ')} ${(n.failureSummary ?? '').replace(/\s+/g, ' ').slice(0, 200)}`);
}

for (const colorScheme of ['light', 'dark']) {
  for (const width of [1280, 640]) {
    test.describe(`${colorScheme} ${width}`, () => {
      test.use({ colorScheme, viewport: { width, height: 800 }, reducedMotion: 'reduce' });

      test('views', async ({ page, enter }) => {
        test.setTimeout(240_000);
        await enter(page, { scene: ['developer', 'building', 'asking', 'N2'] });
        const found = [];
        for (const view of [...(await views(page)), 'settings/team/pool%3Ajoin', 'overview/no-tray']) {
          await go(page, view);
          await scan(page, view, found);
        }
        await go(page, 'settings/team');
        await page.getByRole('button', { name: 'Make an invitation' }).click();
        await expect(page.getByRole('img', { name: /QR/ })).toBeVisible();
        await scan(page, 'invitation', found);
        await page.keyboard.press('Escape');
        await go(page, 'help');
        await page.getByRole('button', { name: 'Show all keys' }).click();
        await scan(page, 'keys', found);
        expect(found).toEqual([]);
      });

      test('onboarding', async ({ page, enter }) => {
        await enter(page, { scene: 'empty', view: '#/welcome' });
        const found = [];
        await scan(page, 'role', found);
        await page.getByTestId('role-developer').click();
        await expect(page.getByRole('button', { name: 'Join Kernel lab' })).toBeVisible();
        await scan(page, 'team', found);
        await page.getByRole('button', { name: 'Join Kernel lab' }).click();
        await expect(page.getByTestId('match')).toBeVisible();
        await scan(page, 'pictures', found);
        await page.getByTestId('match').click();
        await expect(page.getByRole('switch')).toBeVisible();
        await scan(page, 'share', found);
        for (const step of ['build', 'done']) {
          await go(page, `welcome/${step}`);
          await scan(page, step, found);
        }
        expect(found).toEqual([]);
      });

      test('error states', async ({ page, enter }) => {
        test.setTimeout(240_000);
        await enter(page, { scene: 'donor' });
        const codes = (await snapshot(page)).scenes.filter((s) => /^[A-Z]\d$/.test(s));
        expect(codes.length).toBeGreaterThanOrEqual(10);
        const found = [];
        for (const code of codes) {
          await raise(page, 'clear', code);
          await expect(page.locator(`[data-code="${code}"]`)).toBeVisible();
          await scan(page, code, found);
        }
        // All at once, where they are explained.
        for (const code of codes) await ask(page, { call: 'scene', name: code });
        await go(page, 'help');
        await scan(page, 'help with all', found);
        expect(found).toEqual([]);
      });
    });
  }
}
