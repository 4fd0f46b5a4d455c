// Criterion 9 with real jobs: a build of every kind of job, one that fails and a short one, number by number.
import { compare } from '../e2e/numbers.mjs';
import { ended, expect, test, told } from './fixtures.mjs';
import { writeProject } from './work.mjs';

/** Enough for a build of which time saved is told: 20 jobs and 15 seconds. */
const FILES = 40;
const WEIGHT = 80;

test('every number of a long build, a failed one and a short one is the command line\'s', async ({ page, enter, pool }) => {
  test.setTimeout(900_000);
  const { submitter } = pool;
  await pool.serving(1);
  const run = (dir, name, make, allowed = [0]) => submitter.potluck(['run', '--name', name, '--', 'make', '-j4', ...make], { cwd: dir, allowed });

  const long = writeProject(submitter, 'long', FILES, WEIGHT);
  // One source whose option keeps it here, a question to the preprocessor, and the link.
  submitter.write('work/long/odd.c', '#include "common.h"\ndouble odd(double x) { return shape(x, 1); }\n');
  submitter.write('work/long/rest.mk', 'include Makefile\nall: $(OUT)/odd.o $(OUT)/asked.txt\n$(OUT)/odd.o: CFLAGS += -wrapper env\n');
  await run(long, 'long', ['-f', 'rest.mk']);

  const broken = writeProject(submitter, 'broken', 5, 4);
  submitter.write('work/broken/part_2.c', '#include "common.h"\nint wrong(void) { return nothing; }\n');
  await run(broken, 'broken', ['-k'], [2]);

  const short = writeProject(submitter, 'short', 6, 4);
  await run(short, 'short', []);

  await enter(page, submitter, 'builds');
  const lines = [];
  for (const name of ['long', 'broken', 'short']) {
    const { id } = await ended(submitter, name);
    const [report, jobs] = await told(submitter, id);
    const figures = await compare(page, report, jobs, { isUnique: true });
    const c = report.build.counts;
    lines.push(
      `${name}: ${report.jobs} jobs (${c.remote} elsewhere, ${c.here} here, ${c.only} only here, ${c.failed} failed) in ${report.build.took_ms} ms, ` +
        `${figures} figures, alone ${report.alone_ms} ms, time saved ${report.build.saved_ms ?? 'not told'}`,
    );
    if (name === 'long') {
      // How many of those that can travel are compiled here is the node's choice.
      expect([c.remote + c.here, c.only, c.failed]).toEqual([FILES + 2, 2, 0]);
      expect(c.remote).toBeGreaterThan(FILES / 4);
      const reasons = report.reasons.map((r) => [r.code, r.jobs, r.avoidable]);
      for (const one of [['link', 1, false], ['preprocess-only', 1, false], ['unsupported-flag:-wrapper', 1, true]]) expect(reasons).toContainEqual(one);
      expect(report.build.took_ms, 'long enough for time saved').toBeGreaterThan(15_000);
    }
    if (name === 'broken') {
      expect([report.build.end, report.build.exit, c.failed]).toEqual(['failed', 2, 1]);
      expect(report.errors.map((e) => e.file)).toEqual(['part_2.c']);
    }
  }
  console.log(lines.join('\n'));
});
