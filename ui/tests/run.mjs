// npm run e2e: builds the page if need be, runs every criterion against a simulated node, prints one line of summary.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { program, UI } from './e2e/node.mjs';

let node;
try {
  node = program();
} catch (error) {
  console.error(`${error.message}\nhint: cargo build -p potluck-node, then POTLUCK_BIN=target/debug npm run e2e`);
  process.exit(2);
}
if (!existsSync(join(UI, 'dist/index.html')) || process.env.POTLUCK_UI_BUILD === '1') {
  const built = spawnSync('npm', ['run', 'build'], { cwd: UI, stdio: 'inherit' });
  if (built.status !== 0) process.exit(built.status ?? 1);
}
const results = join(UI, 'test-results');
rmSync(results, { recursive: true, force: true });
mkdirSync(results, { recursive: true });
const ran = spawnSync(process.execPath, [join(UI, 'node_modules/@playwright/test/cli.js'), 'test', ...process.argv.slice(2)], { cwd: UI, stdio: 'inherit' });
let line = 'no result';
try {
  const { stats } = JSON.parse(readFileSync(join(results, 'report.json'), 'utf8'));
  line = `${stats.expected} passed, ${stats.unexpected} failed, ${stats.skipped} skipped in ${Math.round(stats.duration / 1000)} s`;
} catch {
  // Playwright did not get as far as a report: its own words stand above.
}
console.log(`ui e2e against ${node}: ${line}`);
process.exit(ran.status ?? 1);
