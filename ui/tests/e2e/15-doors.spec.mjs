// Criterion 15: both transports carry the same page, other sites and other hosts are shut out, nothing comes from elsewhere.
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { ask, expect, go, raise, snapshot, test, views } from './fixtures.mjs';
import { UI } from './node.mjs';

/** Status of an HTTP request with headers that no browser would send. */
const status = (node, path, { method = 'GET', headers = {}, body = '' } = {}) =>
  new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port: node.port, path, method, headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    sent.on('upgrade', (answer, socket) => {
      socket.destroy();
      resolve(answer.statusCode);
    });
    sent.on('error', reject);
    sent.end(body);
  });
const upgrade = { connection: 'Upgrade', upgrade: 'websocket', 'sec-websocket-version': '13', 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==' };

test('other sites, other names and wrong tokens stay outside', async ({ node }) => {
  expect(await status(node, '/')).toBe(200);
  expect(await status(node, '/', { headers: { host: 'evil.example' } })).toBe(403);
  expect(await status(node, '/ws', { headers: { ...upgrade, origin: 'http://evil.example' } })).toBe(403);
  expect(await status(node, '/ws', { headers: { ...upgrade, origin: node.origin, 'sec-websocket-protocol': 'potluck.1, token.wrong' } })).toBe(401);
  const post = { method: 'POST', headers: { 'content-type': 'application/json', origin: node.origin }, body: '{"token":"wrong"}' };
  expect(await status(node, '/session', post)).toBe(401);
  expect(await status(node, '/session', { ...post, headers: { ...post.headers, origin: 'http://evil.example' } })).toBe(403);
});

test('without a token the page says how to open it', async ({ page, node, transport }) => {
  test.skip(transport === 'app', 'the app needs no token');
  await page.goto(node.origin);
  await expect(page.getByText('potluck ui')).toBeVisible();
  await page.evaluate(() => sessionStorage.setItem('potluck.session', 'f'.repeat(64)));
  await page.reload();
  await expect(page.getByText('potluck ui')).toBeVisible();
});

test('the token leaves the address, works once, and a reload needs none', async ({ page, context, node, transport }) => {
  test.skip(transport === 'app', 'the app needs no token');
  const url = await node.url();
  await page.goto(url);
  const inside = page.getByRole('switch').or(page.getByTestId('role-donor'));
  await expect(inside).toBeVisible();
  expect(page.url()).not.toContain('token');
  await page.reload();
  await expect(inside).toBeVisible();
  const other = await context.newPage();
  await other.goto(url);
  await expect(other.getByText('potluck ui')).toBeVisible();
});

test('nothing comes from elsewhere and the content policy is never touched', async ({ page, enter, node }) => {
  test.setTimeout(180_000);
  const elsewhere = [];
  const complaints = [];
  page.on('request', (r) => {
    if (!r.url().startsWith(node.origin) && !/^(data|blob):/.test(r.url())) elsewhere.push(r.url());
  });
  page.on('console', (m) => {
    if (m.type() === 'error') complaints.push(m.text());
  });
  page.on('pageerror', (e) => complaints.push(String(e)));
  await enter(page, { scene: ['developer', 'building', 'asking', 'N2'] });
  for (const view of [...(await views(page)), 'welcome/role', 'welcome/team', 'welcome/share', 'welcome/build', 'welcome/done']) await go(page, view);
  await go(page, 'settings/team');
  await page.getByRole('button', { name: 'Make an invitation' }).click();
  const qr = page.getByRole('img', { name: /QR/ });
  await expect(qr).toBeVisible();
  expect(await qr.evaluate((image) => image.decode().then(() => image.naturalWidth > 0))).toBe(true);
  expect(elsewhere).toEqual([]);
  expect(await page.evaluate(() => window.__violations)).toEqual([]);
  expect(complaints).toEqual([]);
});

test('names of others are text, whatever they contain', async ({ page, enter }) => {
  await enter(page, { scene: ['developer', 'hostile-names'] });
  for (const view of ['overview', 'machines', 'settings/team', 'toolchains', 'welcome/team']) {
    await go(page, view);
    expect(await page.evaluate(() => document.querySelectorAll('main script, main iframe, main img:not(.qr), main b a, main object').length), view).toBe(0);
    expect(await page.evaluate(() => document.documentElement.scrollWidth <= document.documentElement.clientWidth), view).toBe(true);
  }
  expect(await page.evaluate(() => window.__violations)).toEqual([]);
});

test('the exports are made in the page and have each job once', async ({ page, enter }) => {
  await enter(page, { scene: 'developer' });
  const [build] = (await ask(page, { call: 'builds', limit: 5 })).filter((b) => b.end === 'ok');
  const jobs = await ask(page, { call: 'jobs', build: build.id });
  await go(page, `builds/${build.id}/details`);
  for (const [name, count] of [
    ['JSON', (text) => JSON.parse(text).jobs.length],
    ['CSV', (text) => text.trim().split('\r\n').length - 1],
    ['Chrome trace', (text) => JSON.parse(text).traceEvents.filter((e) => e.ph === 'X').length],
  ]) {
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name, exact: true }).click()]);
    expect(count(readFileSync(await download.path(), 'utf8')), name).toBe(jobs.start_ms.length);
  }
});

test('an event of the app opens a view', async ({ page, enter, transport }) => {
  test.skip(transport === 'web', 'only the app sends events');
  await enter(page, { scene: 'developer' });
  const [build] = await ask(page, { call: 'builds', limit: 1 });
  await page.evaluate((id) => window.__emit('open', `builds/${id}`), build.id);
  await expect(page.getByTestId('headline')).toBeVisible();
});

test('the script is small and the first view comes quickly', async ({ page, node, enter, transport }) => {
  const assets = join(UI, 'dist/assets');
  const scripts = readdirSync(assets).filter((f) => f.endsWith('.js'));
  const bytes = scripts.reduce((n, f) => n + gzipSync(readFileSync(join(assets, f))).length, 0);
  expect(bytes).toBeLessThanOrEqual(120 * 1024);
  expect(readFileSync(join(UI, 'dist/index.html'), 'utf8')).not.toMatch(/<style|<script>|style=|https?:/);
  await enter(page, { scene: 'developer' });
  if (transport === 'app') return;
  await page.reload();
  await page.getByRole('switch').waitFor();
  const paint = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? 0);
  expect(paint).toBeLessThan(1500);
  expect((await snapshot(page)).this.demo).toBe(true);
  await raise(page, 'clear');
  expect(node.port).toBeGreaterThan(0);
});
