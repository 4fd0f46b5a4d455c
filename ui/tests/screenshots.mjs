// npm run screenshots [-- FOLDER]: every view in light and dark, for whoever wants to look at them.
// npm run screenshots -- --readme: the one picture that README.md shows.
import { mkdirSync, statSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { chromium } from '@playwright/test';
import { ask, go, raise, snapshot, views } from './e2e/fixtures.mjs';
import { startNode, UI } from './e2e/node.mjs';

const readme = process.argv[2] === '--readme';
const folder = resolve(readme ? UI : (process.argv[2] ?? join(UI, 'screenshots')));
mkdirSync(folder, { recursive: true });
const node = await startNode();
const browser = await chromium.launch({ executablePath: process.env.POTLUCK_CHROMIUM ?? '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
let shots = 0;

async function shoot(page, name) {
  await page.screenshot({ path: join(folder, name + '.png'), fullPage: true });
  shots += 1;
}

/** A page that is let in, in some scenes. */
async function open(theme, viewport, scenes) {
  const context = await browser.newContext({ colorScheme: theme, viewport, reducedMotion: 'reduce' });
  const page = await context.newPage();
  await page.goto(await node.url());
  await page.waitForFunction(() => document.querySelector('h1') && sessionStorage.getItem('potluck.session'));
  await raise(page, ...scenes);
  return page;
}

/** A build while it runs, some seconds after its start. */
async function shootReadme() {
  const page = await open('light', { width: 1100, height: 720 }, ['developer', 'clear', 'building']);
  await go(page, 'overview');
  await page.getByRole('heading', { name: 'Building now' }).waitFor();
  await page.screenshot({ path: join(folder, 'overview.png') });
  console.log(`overview.png: ${statSync(join(folder, 'overview.png')).size} bytes`);
}

async function shootAll() {
  for (const theme of ['light', 'dark']) {
    for (const [size, viewport] of [['', { width: 1100, height: 720 }], ['narrow-', { width: 360, height: 720 }]]) {
      const page = await open(theme, viewport, ['developer', 'building', 'asking', 'N2', 'V1']);
      const at = (name) => `${theme}-${size}${name}`;
      for (const view of await views(page)) {
        await go(page, view);
        await shoot(page, at(view.replace(/^(builds|machines)\/[^/]+/, (_, v) => (v === 'builds' ? 'report' : 'machine')).replaceAll('/', '-')));
      }
      await go(page, 'settings/team');
      await page.getByRole('button', { name: 'Make an invitation' }).click();
      await page.getByRole('img', { name: /QR/ }).waitFor();
      await shoot(page, at('settings-team-invitation'));
      const report = (await views(page)).find((view) => view.endsWith('/timeline'));
      await go(page, report);
      await page.getByRole('img', { name: /Timeline/ }).focus();
      for (const key of ['+', '+', '+', '+', 'ArrowDown', 'Enter']) await page.keyboard.press(key);
      await shoot(page, at('report-timeline-job'));
      await go(page, 'toolchains');
      await page.getByTestId('sync-all').click();
      await page.waitForTimeout(1500);
      await shoot(page, at('toolchains-sending'));
      await raise(page, 'hostile-names');
      for (const view of ['overview', 'machines', 'settings/team']) {
        await go(page, view);
        await shoot(page, at('hostile-' + view.replaceAll('/', '-')));
      }
      await raise(page, 'donor', 'helping');
      for (const view of ['overview', 'settings/sharing', 'help']) {
        await go(page, view);
        await shoot(page, at('donor-' + view.replaceAll('/', '-')));
      }
      await raise(page, 'empty');
      await go(page, 'welcome');
      await shoot(page, at('welcome-1-role'));
      await page.getByTestId('role-developer').click();
      await page.getByRole('button', { name: 'Join Kernel lab' }).waitFor();
      await shoot(page, at('welcome-2-team'));
      await page.getByRole('button', { name: 'Join Kernel lab' }).click();
      await page.getByTestId('match').waitFor();
      await shoot(page, at('welcome-3-pictures'));
      await page.getByTestId('match').click();
      await page.getByRole('switch').waitFor();
      await page.getByRole('switch').click();
      await page.getByTestId('share-sentence').filter({ hasText: /ready|using/i }).waitFor();
      await shoot(page, at('welcome-4-share'));
      for (const [i, step] of ['build', 'done'].entries()) {
        await go(page, `welcome/${step}`);
        await shoot(page, at(`welcome-${5 + i}-${step}`));
      }
      await page.context().close();
    }
  }
  console.log(`${shots} pictures in ${folder}`);
}

try {
  await (readme ? shootReadme() : shootAll());
} finally {
  await browser.close();
  await node.end();
}
