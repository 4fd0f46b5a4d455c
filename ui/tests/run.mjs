// npm run e2e: builds the page if need be, runs every criterion against a simulated node and against real ones, and prints
// one line that sums up. Where something is missing that the real ones need, it says so, and fails at the end.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { program, UI } from './e2e/node.mjs';
import { missing } from './real/pool.mjs';

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

const asked = process.argv.slice(2);
const named = asked.flatMap((arg, i) => (arg === '--project' ? [asked[i + 1]] : arg.startsWith('--project=') ? [arg.slice(10)] : []));
const lacks = named.length === 0 || named.includes('real') ? missing() : [];
const skipped = lacks.length > 0;
if (skipped) console.error(`the real nodes are left out, because these are missing: ${lacks.join(', ')}\nhint: make ui-test builds and installs all of it`);
if (skipped && named.length === 1) process.exit(2);
const which = skipped && named.length === 0 ? ['--project=web', '--project=app'] : [];
const ran = spawnSync(process.execPath, [join(UI, 'node_modules/@playwright/test/cli.js'), 'test', ...which, ...asked], { cwd: UI, stdio: 'inherit' });

/** Tests of each project by how they ended, from Playwright's own report. */
function summary() {
  const { suites, stats } = JSON.parse(readFileSync(join(results, 'report.json'), 'utf8'));
  const counts = {};
  const walk = (suite) => {
    suite.suites?.forEach(walk);
    for (const test of (suite.specs ?? []).flatMap((spec) => spec.tests)) {
      const of = (counts[test.projectName] ??= { expected: 0, unexpected: 0, skipped: 0, flaky: 0 });
      of[test.status] += 1;
    }
  };
  suites.forEach(walk);
  const parts = Object.entries(counts).map(([name, c]) => {
    const rest = [c.unexpected + c.flaky > 0 && `${c.unexpected + c.flaky} failed`, c.skipped > 0 && `${c.skipped} skipped`].filter(Boolean);
    return [`${name} ${c.expected} passed`, ...rest].join(', ');
  });
  if (skipped) parts.push('real left out');
  return `${parts.join('; ')} in ${Math.round(stats.duration / 1000)} s`;
}

let line = 'no result';
try {
  line = summary();
} catch {
  // Playwright did not get as far as a report: its own words stand above.
}
const status = ran.status || (skipped ? 2 : 0);
console.log(`ui e2e: ${status === 0 ? 'ok' : 'FAILED'}: ${line} (${node})`);
process.exit(status);
