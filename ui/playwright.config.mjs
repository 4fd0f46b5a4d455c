// The page in a real browser: against a simulated node over both transports, and against real nodes that compile real C.
import { defineConfig } from '@playwright/test';

const browser = process.env.POTLUCK_CHROMIUM ?? '/usr/bin/chromium';

export default defineConfig({
  testDir: 'tests/e2e',
  testMatch: '*.spec.mjs',
  outputDir: 'test-results',
  workers: 1,
  fullyParallel: false,
  retries: 0,
  timeout: 120_000,
  expect: { timeout: 8000 },
  reporter: [['list'], ['json', { outputFile: 'test-results/report.json' }]],
  use: {
    browserName: 'chromium',
    headless: true,
    viewport: { width: 1280, height: 800 },
    launchOptions: { executablePath: browser, args: ['--no-sandbox', '--disable-dev-shm-usage'] },
  },
  projects: [
    { name: 'web', use: { transport: 'web' } },
    // What axe, the words and the closed doors see does not depend on the transport.
    { name: 'app', use: { transport: 'app' }, testIgnore: ['04-*', '10-*', '13-*'] },
    { name: 'real', testDir: 'tests/real' },
  ],
});
