// Every number that a report's tabs show, against what the command line says of the same build. The parsers are written
// anew here: the page's own formatting is what is tested.
import { readFileSync } from 'node:fs';
import { expect } from '@playwright/test';

/** Fewest jobs and shortest build of which time saved is told (UX 2.8). */
const SAVED_JOBS = 20;
const SAVED_MS = 15_000;
/** Rows that Slowest has at most. */
const SLOWEST = 50;
const KINDS = { elsewhere: 'remote', here: 'here', 'only here': 'only', failed: 'failed' };
const LETTERS = { R: 'remote', L: 'here', O: 'only', F: 'failed' };

const number = (text) => (/^\d{1,3}(,\d{3})*$/.test(text) ? Number(text.replaceAll(',', '')) : NaN);
const squeezed = (text) => text.replace(/\s+/g, ' ').trim();

/** "0.4 s", "58 s", "4 min 48 s", "1 h 12 min": milliseconds, and how far the truth may be from them. */
function spoken(text) {
  const parts = /^(?:([\d,]+) h)?\s*(?:(\d+) min)?\s*(?:(\d+(?:\.\d)?) s)?$/.exec(squeezed(text));
  expect(parts && squeezed(text), `a duration: ${JSON.stringify(text)}`).toBeTruthy();
  const [, h, min, s] = parts;
  const ms = (number(h ?? '0') * 60 + Number(min ?? 0)) * 60_000 + Number(s ?? 0) * 1000;
  // Whole minutes are rounded down.
  return { ms, off: s === undefined ? 60_000 : s.includes('.') ? 51 : 501 };
}

function isSpoken(text, ms, what) {
  const said = spoken(text);
  expect(Math.abs(said.ms - ms), `${what}: ${text} for ${ms} ms`).toBeLessThanOrEqual(said.off);
}

/** "1:52", "1:02:03". */
function isClock(text, ms, what) {
  expect(text, what).toMatch(/^(\d+:)?\d{1,2}:\d\d$/);
  const said = text.split(':').reduce((sum, part) => sum * 60 + Number(part), 0) * 1000;
  expect(Math.abs(said - ms), `${what}: ${text} for ${ms} ms`).toBeLessThanOrEqual(501);
}

/** "182 MB", "2.1 GB". */
function isSize(text, bytes, what) {
  const [, figure, unit] = /^([\d.]+) (B|kB|MB|GB|TB)$/.exec(text) ?? [];
  const one = 1000 ** ['B', 'kB', 'MB', 'GB', 'TB'].indexOf(unit);
  const off = (figure?.includes('.') ? 0.051 : 0.51) * one;
  expect(Math.abs(Number(figure) * one - bytes), `${what}: ${text} for ${bytes}`).toBeLessThanOrEqual(off);
}

/** RFC 4180, as both the page and the command line write it. */
export function parseCsv(text) {
  const rows = [[]];
  for (const [, quoted, plain, end] of text.matchAll(/(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|$)/g)) {
    rows.at(-1).push(quoted !== undefined ? quoted.replaceAll('""', '"') : plain);
    if (end === '\r\n') rows.push([]);
    if (end === '') break;
  }
  if (rows.at(-1).join('') === '') rows.pop();
  const [names, ...jobs] = rows;
  return jobs.map((cells) => Object.fromEntries(names.map((name, i) => [name, /_ms$|^(row|lane|repeats)$/.test(name) ? Number(cells[i]) : cells[i]])));
}

/** Texts of a table's rows, cell by cell. */
const cells = (table) => table.locator('tbody tr').evaluateAll((rows) => rows.map((row) => [...row.children].map((cell) => cell.innerText.trim())));

async function open(page, id, tab) {
  await page.evaluate((hash) => (location.hash = hash), `#/builds/${id}/${tab}`);
  await expect(page.locator(`nav a[href="#/builds/${id}/${tab}"]`)).toHaveAttribute('aria-current', 'page');
}

/**
 * Holds the page of a build that has ended against the command line. `told`: `potluck report ID --json`; `listed`: the
 * rows of `potluck report ID --csv`. `isUnique`: no source was compiled twice. The number of figures that were compared.
 */
export async function compare(page, told, listed, { isUnique = false } = {}) {
  const { build } = told;
  const all = build.counts;
  let figures = 0;
  const counted = (n) => (figures += n);

  // What must be true of any report.
  expect(all.remote + all.here + all.only + all.failed, 'elsewhere + here + only here + failed').toBe(told.jobs);
  expect(told.reasons.reduce((sum, r) => sum + r.jobs, 0), 'reasons').toBe(all.here + all.only);
  expect(told.machines.reduce((sum, m) => sum + m.jobs, 0), 'jobs of the machines').toBe(told.jobs);
  expect(listed.length, 'jobs in the list').toBe(told.jobs);
  for (const kind of Object.values(KINDS)) expect(listed.filter((job) => job.kind === kind).length, kind).toBe(all[kind]);
  expect(listed.reduce((sum, job) => sum + job.repeats, 0), 'runs done again').toBe(told.repeated);
  for (const reason of told.reasons) {
    const of = listed.filter((job) => job.reason === reason.code && (job.kind === 'here' || job.kind === 'only'));
    expect(of.length, reason.code).toBe(reason.jobs);
    expect(of.reduce((sum, job) => sum + job.took_ms, 0), reason.code).toBe(reason.time_ms);
  }
  const mayTell = told.jobs >= SAVED_JOBS && build.took_ms >= SAVED_MS;
  if (!mayTell) expect([told.alone_ms, build.saved_ms], 'time saved of a small build').toEqual([null, null]);
  expect(build.saved_ms).toBe(told.alone_ms > build.took_ms ? told.alone_ms - build.took_ms : null);

  await open(page, build.id, 'summary');
  const summary = page.getByRole('region', { name: 'Summary' });
  const headline = squeezed(await page.getByTestId('headline').innerText());
  const [, took, faster] = /^([\d:]+)(, about .*)?$/.exec(headline) ?? [];
  isClock(took, build.took_ms, 'headline');
  expect(Boolean(faster), `time saved in the headline: ${headline}`).toBe(build.saved_ms !== null);
  if (faster) {
    const [, times, alone] = /^, about ([\d.]+)× faster than alone \(≈ ([\d:]+)\)$/.exec(faster);
    expect(Math.abs(Number(times) - told.alone_ms / build.took_ms), headline).toBeLessThanOrEqual(0.051);
    isClock(alone, told.alone_ms, 'alone');
    counted(2);
  }
  const legend = await summary.locator('.legend li').evaluateAll((items) => items.map((item) => item.innerText));
  const shown = Object.fromEntries(legend.map((text) => /^([RLOF]) ?(.+) ([\d,]+)$/.exec(squeezed(text))).map(([, letter, words, n]) => {
    expect(KINDS[words], words).toBe(LETTERS[letter]);
    return [LETTERS[letter], number(n)];
  }));
  expect(shown).toEqual({ remote: all.remote, here: all.here, only: all.only, failed: all.failed });
  expect(number(await page.getByTestId('jobs-total').innerText())).toBe(told.jobs);
  const facts = Object.fromEntries(await summary.locator('dl').evaluate((dl) => [...dl.querySelectorAll('dt')].map((dt) => [dt.innerText, dt.nextElementSibling.innerText])));
  expect(facts.Result).toContain(build.end);
  if (build.exit !== null) expect(facts.Result).toMatch(new RegExp(`, exit code ${build.exit}$`));
  expect(number(facts['Runs done again'] ?? '0')).toBe(told.repeated);
  if (told.command) expect(facts.Command).toBe(told.command);
  if (told.cwd) expect(facts.Folder).toBe(told.cwd);
  const findings = await page.locator('ul.findings li').allInnerTexts();
  expect(findings).toEqual(told.findings);
  const machines = await cells(page.locator('section[aria-labelledby="took-part"] table'));
  expect(machines.length).toBe(told.machines.length);
  told.machines.forEach((machine, i) => {
    const [name, jobs, time, taken] = machines[i];
    expect(name).toBe(machine.id ? machine.name : 'this computer');
    expect(number(jobs)).toBe(machine.jobs);
    isSpoken(time, machine.time_ms, name);
    expect(taken === '–' ? 0 : number(taken), `${name} taken back`).toBe(machine.reclaimed);
  });
  const moved = await page.getByText(/^Sent and received: /).innerText();
  const [, up, down] = /: (.+) sent, (.+) received$/.exec(moved);
  isSize(up, told.bytes_up, 'sent');
  isSize(down, told.bytes_down, 'received');
  counted(1 + 4 + 2 + 2 + findings.length + machines.length * 3 + 1);

  await open(page, build.id, 'slowest');
  const table = page.getByRole('table');
  await expect(table).toBeVisible();
  const slow = listed.map((job, i) => [job, i]).sort(([a, i], [b, j]) => b.took_ms - a.took_ms || i - j).slice(0, SLOWEST);
  await expect(table.locator('tbody tr')).toHaveCount(Math.max(1, slow.length));
  const slowest = await cells(table);
  const own = told.machines.find((m) => m.id === '')?.name;
  slow.forEach(([job], i) => {
    const [file, machine, time, where, kind] = slowest[i];
    expect(file).toBe(job.file || '?');
    expect(machine === 'this computer' ? own : machine, file).toBe(job.machine);
    isSpoken(time, job.took_ms, file);
    const phases = [['waiting', job.wait_ms], ['preparing', job.understand_ms], ['on the way', job.travel_ms], ['compiling', job.compile_ms], ['finishing', job.finish_ms]].filter(([, ms]) => ms >= 50);
    const said = squeezed(where).split(' · ').filter(Boolean);
    expect(said.length, `${file}: ${where}`).toBe(phases.length);
    phases.forEach(([name, ms], p) => {
      expect(said[p].startsWith(name + ' '), said[p]).toBe(true);
      isSpoken(said[p].slice(name.length + 1), ms, `${file} ${name}`);
    });
    expect(KINDS[squeezed(kind).slice(2)], kind).toBe(job.kind);
    expect(LETTERS[kind[0]], kind).toBe(job.kind);
    counted(1 + phases.length);
  });

  await open(page, build.id, 'here');
  const title = await page.getByRole('heading', { name: /built here/ }).innerText();
  const [, jobs, time] = /^([\d,]+) jobs? built here, (.+)$/.exec(title);
  expect(number(jobs)).toBe(all.here + all.only);
  isSpoken(time, told.reasons.reduce((sum, r) => sum + r.time_ms, 0), title);
  await expect(page.locator('[data-reason]')).toHaveCount(told.reasons.length);
  for (const reason of told.reasons) {
    const [what, n, spent, avoidable, remedy] = await page.locator(`[data-reason="${reason.code}"]`).evaluate((row) => [...row.children].map((cell) => cell.innerText.trim()));
    expect(squeezed(what)).toBe(`${reason.title} ${reason.code}`);
    expect(number(n), reason.code).toBe(reason.jobs);
    isSpoken(spent, reason.time_ms, reason.code);
    expect(avoidable).toBe(reason.avoidable ? 'yes' : 'no');
    expect(remedy).toContain(reason.text);
    counted(2);
  }
  counted(2);
  await exports(page, told, listed, isUnique);
  return figures;
}

/** Each job once, in the order of start, and the same in all of them. */
async function exports(page, told, listed, isUnique) {
  await open(page, told.build.id, 'details');
  const save = async (name) => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name, exact: true }).click()]);
    return readFileSync(await download.path(), 'utf8');
  };
  const of = (job, row) => ({ file: job.file, kind: job.kind, machine: job.machine, reason: job.reason, row, start_ms: job.start_ms, took_ms: job.took_ms, wait_ms: job.wait_ms, compile_ms: job.compile_ms, repeats: job.repeats });
  const wanted = listed.map((job) => of(job, job.lane));

  const csv = parseCsv(await save('CSV'));
  // A spreadsheet takes such names for formulas: the page puts an apostrophe before them.
  for (const job of csv) job.file = job.file.replace(/^'(?=[=+\-@\t])/, '');
  expect(csv.map((job) => of(job, job.row))).toEqual(wanted);
  expect(csv.filter((job, i) => i > 0 && job.start_ms < csv[i - 1].start_ms), 'jobs before the one that stands before them').toEqual([]);
  const keys = new Set(csv.map((job) => (isUnique ? job.file : `${job.machine}/${job.row}/${job.start_ms}/${job.file}/${job.took_ms}`)));
  expect(keys.size, 'each job once').toBe(told.jobs);

  const json = JSON.parse(await save('JSON'));
  expect(json.jobs.map((job) => of(job, job.row))).toEqual(wanted);
  const { schema, ...rest } = told;
  expect([schema, json.schema]).toEqual([1, 1]);
  expect(json.report).toEqual(rest);

  const { traceEvents } = JSON.parse(await save('Chrome trace'));
  const names = new Map(traceEvents.filter((e) => e.ph === 'M' && e.name === 'process_name').map((e) => [e.pid, e.args.name]));
  const bars = traceEvents.filter((e) => e.ph === 'X');
  expect(bars.map((e) => [e.name, e.cat, names.get(e.pid), e.tid, e.ts / 1000, e.dur / 1000])).toEqual(wanted.map((job) => [job.file, job.kind, job.machine, job.row, job.start_ms, job.took_ms]));
  // Bars of one row do not cover each other, or a viewer would draw one inside the other.
  const free = new Map();
  const covered = bars.filter((bar) => {
    const row = `${bar.pid}/${bar.tid}`;
    const before = free.get(row) ?? 0;
    free.set(row, bar.ts + bar.dur);
    return bar.ts < before;
  });
  expect(covered).toEqual([]);
}
